"""The remote executor as the contract sees it: one host, a real OpenSSH server on this machine."""

from __future__ import annotations

import sys
from typing import Any

from aioparallel import Host, RemoteExecutor, StatefulPool
from tests.remote.openssh import IS_ROOT, Sshd, World, why_not

__all__ = ["AnyStatefulPool", "RemotePool", "start", "stop"]

_servers: list[Sshd] = []

if why_not() is None:

    class RemotePool(RemoteExecutor):
        """A pool with so many slots on the one host, which has the same Python and files as we."""

        def __init__(self, max_workers: int = 2, **options: Any) -> None:
            threads = options.get("threads_per_worker", 1)
            super().__init__([_host(max_workers * threads)], **options)


class AnyStatefulPool(StatefulPool):
    """A stateful pool of any kind: a remote one gets the one host."""

    def __init__(self, factory: Any, workers: int | None = None, *, method: Any = "process", **options: Any) -> None:
        if method == "remote" and options.get("on") is None:
            options["hosts"] = [_host(workers or len(options.get("worker_kwargs") or ()) or 2)]
        super().__init__(factory, workers, method=method, **options)


def _host(slots: int) -> Host:
    return _servers[0].host("root" if IS_ROOT else "", python=sys.executable, slots=slots)


def start() -> None:
    """Start the server."""
    _servers.append(Sshd(World()))


def stop() -> None:
    """Stop it."""
    while _servers:
        server = _servers.pop()
        server.stop()
        server.world.close()
