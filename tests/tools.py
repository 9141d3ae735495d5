"""Making the order of things across tasks, threads and processes, without sleeping: gates, and waiting with a deadline.

Workers import this, also on hosts that lack our package: what takes long to import, or is ours, is imported where it is
used.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aioparallel._futures.supervisor import Group, Supervisor


PATIENCE = 20.0
"""Seconds after which a test that waits for something has failed."""


def name_of(value: object) -> str:
    """A name for a test's parameter that is the same in every run: without addresses."""
    text = repr(value)
    return text if not re.search(r"0x[0-9a-f]+|id='\d+'", text) else getattr(value, "__name__", type(value).__name__)


async def until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> Any:
    """Wait until the condition holds, while the loop goes on; returns what made it true."""
    import asyncio

    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"did not come true within {seconds} s: {what or condition}"
        await asyncio.sleep(0.002)
    return found


async def turns(count: int = 20) -> None:
    """Let the loop go round a few times, so that whatever is about to happen on it has happened."""
    import asyncio

    for _ in range(count):
        await asyncio.sleep(0)


def wait_for(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> Any:
    """The same where no loop runs."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"did not come true within {seconds} s: {what or condition}"
        time.sleep(0.002)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return _text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open no file for a while."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


@dataclass(frozen=True)
class Log:
    """Lines that calls write wherever they run, in a file."""

    path: str

    def write(self, line: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())  # short lines are appended as a whole
        finally:
            os.close(descriptor)

    @property
    def lines(self) -> list[str]:
        try:
            return _text_of(self.path).splitlines()
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class Gate:
    """Where calls wait, wherever they run, until the test opens it; whoever is stopped at the gate never leaves it."""

    path: str

    @property
    def entered(self) -> list[int]:
        """The processes of the calls that have come to the gate."""
        return [int(line) for line in Log(f"{self.path}-entered").lines]

    @property
    def left(self) -> list[int]:
        """The processes of the calls that have gone through."""
        return [int(line) for line in Log(f"{self.path}-left").lines]

    @property
    def is_open(self) -> bool:
        return os.path.exists(self.path)

    def open(self) -> None:
        with open(self.path, "w", encoding="utf-8"):
            pass

    def enter(self) -> None:
        Log(f"{self.path}-entered").write(os.getpid())

    def leave(self) -> None:
        Log(f"{self.path}-left").write(os.getpid())


def hold(gate: Gate, value: Any = None) -> Any:
    """Wait at the gate, then return the value."""
    gate.enter()
    while not gate.is_open:
        time.sleep(0.002)
    gate.leave()
    return value


async def hold_async(gate: Gate, value: Any = None) -> Any:
    """The same as a coroutine."""
    import asyncio

    gate.enter()
    while not gate.is_open:
        await asyncio.sleep(0.002)
    gate.leave()
    return value


@asynccontextmanager
async def open_group() -> AsyncGenerator[Group]:
    """A supervisor's task group, as pools have one; no task in it may fail."""
    from aioparallel._futures.supervisor import Supervisor

    done = asyncio.Event()

    async def body(supervisor: Supervisor) -> None:
        supervisor.set_ready()
        await done.wait()

    supervisor = Supervisor(body, "test")
    await supervisor.wait_ready()
    assert supervisor.group is not None
    try:
        yield supervisor.group
    finally:
        done.set()
        await supervisor.wait_done()
    assert supervisor.error is None
