"""``aioparallel doctor``: whether remote hosts can be used, and if not, what to do."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from aioparallel import Host

from . import CommandError, show
from .checkup import PHASES, Checkup, check_all
from .hosts import FILE_HELP, read_hosts
from .table import as_table

__all__ = ["add_arguments", "run"]

HEADS = {"host key": "key", "auth": "login"}
"""What columns are called that are not called like their phase."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("hosts", nargs="*", help=f"{FILE_HELP}; or names of hosts such as me@node2:2222")
    parser.add_argument("--json", action="store_true", help="print what was found for programs")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="how long a host may take (default: 60)"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Check the hosts, and tell how they are; 1 if one of them cannot be used."""
    hosts = _hosts(options.hosts)
    logging.getLogger("aioparallel").addHandler(logging.NullHandler())  # everything is in the report
    checkups = asyncio.run(check_all(hosts, options.timeout))
    show(json.dumps(as_json(checkups), indent=2) if options.json else as_text(checkups))
    return int(any(each.failed for each in checkups))


def _hosts(words: Sequence[str]) -> list[Host]:
    """The hosts that a command line names: in files, or one by one."""
    if not words:
        return read_hosts(None)[1]
    try:
        named = [host for word in words for host in _named(word)]
    except ValueError as error:
        raise CommandError(str(error)) from error
    return list({host.name: host for host in named}.values())


def _named(word: str) -> list[Host]:
    is_file = os.path.isfile(word) or word.endswith((".toml", ".json"))
    return read_hosts(word)[1] if is_file else [Host(word)]


def as_json(checkups: Sequence[Checkup]) -> dict[str, Any]:
    """What was found, for programs."""
    return {
        "ok": not any(each.failed for each in checkups),
        "hosts": [{**asdict(each), "phases": each.phases} for each in checkups],
    }


def as_text(checkups: Sequence[Checkup]) -> str:
    """What was found, for readers: a table, and the next step for each host that cannot be used."""
    head = ["host", *(HEADS.get(phase, phase) for phase in PHASES), "Python", "CPUs", "slots"]
    head += ["shell", "ready in", "call", "there", "back"]
    table = as_table(head, [_row(each) for each in checkups])
    failed = [each for each in checkups if each.failed]
    parts = [table]
    parts += [f"{each.host} cannot be used ({each.failed}):\n{_indented(each.error or '')}" for each in failed]
    parts += [note for each in checkups for note in each.notes]
    usable = len(checkups) - len(failed)
    parts.append(f"{usable} of {len(checkups)} {'host' if len(checkups) == 1 else 'hosts'} can be used.")
    return "\n\n".join(parts)


def _row(checkup: Checkup) -> list[str]:
    marks = {True: "ok", False: "FAILED", None: "-"}
    return [
        checkup.host,
        *(marks[works] for works in checkup.phases.values()),
        checkup.python,
        str(checkup.cpus or ""),
        str(checkup.slots or ("CPUs" if checkup.cpus else "")),
        _time(checkup.shell),
        _time(checkup.ready),
        _time(checkup.trip),
        _speed(checkup.sent),
        _speed(checkup.received),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _speed(rate: float | None) -> str:
    return "" if rate is None else f"{rate / 1e6:.3g} MB/s"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
