"""The remote executor as the contract sees it: one host, a real OpenSSH server on this machine."""

from __future__ import annotations

import sys
from typing import Any

from aioparallel import Host, RemoteExecutor
from tests.remote.openssh import Sshd, World, why_not

__all__ = ["RemotePool", "start", "stop"]

_server: list[Sshd] = []

if why_not() is None:

    class RemotePool(RemoteExecutor):
        """A pool with so many slots on the one host, which has the same Python and files as we."""

        def __init__(self, max_workers: int = 2, **options: Any) -> None:
            threads = options.get("threads_per_worker", 1)
            super().__init__([_host(max_workers * threads)], **options)


def _host(slots: int) -> Host:
    (server,) = _server
    return server.host("root" if server.user == "root" else server.user, python=sys.executable, slots=slots)


def start() -> None:
    """Start the server."""
    if why_not() is None:
        _server.append(Sshd(World()))


def stop() -> None:
    """Stop it."""
    while _server:
        server = _server.pop()
        server.stop()
        server.world.close()
