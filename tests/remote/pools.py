"""Pools on real hosts, as the tests of executors want them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aioparallel import Host, RemoteExecutor
from aioparallel._executors.fleet import HostStatus
from aioparallel._workers.ssh import SshSettings
from tests.remote.openssh import World
from tests.tools import Gate, Log

__all__ = ["LEASE", "QUICK", "Open", "far_folder", "gate", "is_up", "log", "open_pool", "parent_of", "status_of"]

LEASE = 1.5
"""Seconds; a busy machine has to give every process its turn in a fifth of that."""
QUICK = SshSettings(connect_timeout=3, login_timeout=10, channel_timeout=10, start_timeout=20)
"""Connections that are not very patient."""

Open = Callable[..., Any]
"""Opens a pool on hosts, with its options; it is closed after the test."""


@pytest.fixture
async def open_pool() -> AsyncIterator[Open]:
    """Opens pools, and closes them after the test, without waiting for their calls."""
    async with AsyncExitStack() as stack:

        async def start(*hosts: Host | str, **options: Any) -> RemoteExecutor:
            pool = RemoteExecutor(hosts, **{"lease": LEASE, "ssh": QUICK, "name": "far", **options})
            stack.push_async_callback(pool.aclose, drain=False)
            return await pool.start()

        yield start


@pytest.fixture
def far_folder(world: World, request: pytest.FixtureRequest) -> Path:
    """A folder where the users of hosts may write."""
    folder = world.folder / f"gates-{abs(hash(request.node.nodeid)):x}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    return folder


@pytest.fixture
def gate(far_folder: Path, open_pool: Open) -> Iterator[Gate]:
    """A gate on the hosts, opened before pools are closed."""
    gate = Gate(str(far_folder / "gate"))
    yield gate
    gate.open()


@pytest.fixture
def log(far_folder: Path) -> Log:
    """Lines that calls write on the hosts."""
    return Log(str(far_folder / "log"))


def parent_of(pid: int) -> int:
    """Of a worker: its agent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def status_of(pool: RemoteExecutor, host: Host) -> HostStatus:
    """How a host of a pool stands."""
    return next(status for status in pool.hosts if status.name == host.name)


def is_up(pool: RemoteExecutor, host: Host) -> bool:
    """Whether a host takes calls."""
    return status_of(pool, host).state == "up"
