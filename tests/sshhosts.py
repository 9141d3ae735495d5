"""Ssh hosts for tests without an event loop: they run in a thread of this process, and other programs may use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.from_thread

from aioparallel.testing import SshHost, ssh_hosts

__all__ = ["serve", "write_hosts"]


@contextmanager
def serve(count: int, slots: int) -> Iterator[list[SshHost]]:
    """So many hosts, with so many slots each."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ssh_hosts(count, slots=slots)) as hosts,
    ):
        yield hosts


def write_hosts(hosts: list[SshHost], folder: Path) -> str:
    """Write a file that ``load_hosts`` reads; returns its path."""
    entries = []
    for number, host in enumerate(hosts):
        key, known = folder / f"key{number}", folder / f"known{number}"
        key.touch(0o600)
        key.write_bytes(host.options["client_keys"])
        known.write_bytes(host.options["known_hosts"])
        entry = {
            "machine": f"{host.username}@{host.machine}:{host.port}",
            "slots": host.slots,
            "python": list(host.python),
            "options": {"client_keys": str(key), "known_hosts": str(known)},
        }
        entries.append("[[hosts]]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in entry.items()))
    file = folder / "hosts.toml"
    file.write_text("\n".join(entries))
    return str(file)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)
