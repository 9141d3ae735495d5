"""Fixtures for pytest-asyncio: ``pytest_plugins = ["aioparallel.testing.fixtures"]`` in ``conftest.py`` gets them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from aioparallel import Executor, SerialExecutor, configure

from .clock import ManualClock
from .fakes import FakeExecutor
from .faults import drop_host, kill_worker
from .hosts import SshHost, ssh_hosts

__all__ = ["Faults", "fake_executor", "faults", "manual_clock", "serial_executors", "two_ssh_hosts"]


@pytest_asyncio.fixture
async def serial_executors() -> AsyncGenerator[None]:
    """Decorated functions and ``parmap`` run here, at once; what goes to processes or hosts is pickled all the same."""
    async with configure(
        thread=SerialExecutor(), process=SerialExecutor(pickle=True), remote=SerialExecutor(pickle=True)
    ):
        yield


@pytest_asyncio.fixture
async def fake_executor() -> AsyncGenerator[FakeExecutor]:
    """An executor with one worker, whose calls the test ends."""
    async with FakeExecutor() as pool:
        yield pool
        await pool.aclose(drain=False)


@pytest_asyncio.fixture
async def manual_clock() -> AsyncGenerator[ManualClock]:
    """A clock of the event loop and of this library that can be put forward."""
    with ManualClock() as clock:
        yield clock


@pytest_asyncio.fixture
async def two_ssh_hosts() -> AsyncGenerator[list[SshHost]]:
    """Two hosts with two slots each, which run in the test itself."""
    async with ssh_hosts(2, slots=2) as hosts:
        yield hosts


class Faults:
    """What may go wrong outside of calls; hosts are healed when the test is over."""

    def __init__(self) -> None:
        self._dropped: list[SshHost] = []

    def kill_worker(self, pool: Executor, index: int = 0) -> int:
        """Kill a worker process of an executor, and return its number (see :func:`aioparallel.testing.kill_worker`)."""
        return kill_worker(pool, index)

    def drop_host(self, host: SshHost) -> None:
        """Let a host vanish (see :func:`aioparallel.testing.drop_host`)."""
        self._dropped.append(host)
        drop_host(host)

    def heal(self) -> None:
        """Let all hosts be there again."""
        while self._dropped:
            self._dropped.pop().heal()


@pytest_asyncio.fixture
async def faults() -> AsyncGenerator[Faults]:
    """Kills workers and drops hosts."""
    found = Faults()
    yield found
    found.heal()
