"""``aioparallel hosts``: which hosts there are, by the file that lists them. Nothing is connected to."""

from __future__ import annotations

import argparse
import json
from typing import Any

from aioparallel import Host, load_hosts
from aioparallel._workers.hostfile import hosts_file

from . import CommandError, show
from .table import as_table

__all__ = ["add_arguments", "read_hosts", "run"]

FILE_HELP = "a list of hosts, as for load_hosts() (default: the one that it finds)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("file", nargs="?", help=FILE_HELP)
    parser.add_argument("--json", action="store_true", help="print them for programs")


def run(options: argparse.Namespace) -> int:
    """List the hosts."""
    path, hosts = read_hosts(options.file)
    if options.json:
        show(json.dumps({"file": path, "hosts": list(map(_record, hosts))}, indent=2))
        return 0
    rows = [
        [host.name, str(host.slots or "CPUs"), f"{host.weight:g}", " | ".join(host.python or ()), host.setup or ""]
        for host in hosts
    ]
    show(f"{path}\n\n{as_table(['host', 'slots', 'weight', 'python', 'setup'], rows)}")
    return 0


def read_hosts(path: str | None) -> tuple[str, list[Host]]:
    """The file, and the hosts in it.

    Raises:
        CommandError: There is none, or it cannot be understood.
    """
    try:
        found = str(hosts_file()) if path is None else path
        return found, load_hosts(found)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


def _record(host: Host) -> dict[str, Any]:
    """What is not secret; options may hold a passphrase, and variables anything."""
    return {
        "name": host.name,
        "machine": host.machine,
        "username": host.username,
        "port": host.port,
        "slots": host.slots,
        "weight": host.weight,
        "python": None if host.python is None else list(host.python),
        "setup": host.setup,
        "env": sorted(host.env or ()),
        "options": sorted(host.options or ()),
    }
