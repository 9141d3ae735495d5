"""The rules that the campaign holds, and who notices when one is broken."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import time
from array import array
from collections import Counter
from contextlib import suppress
from pathlib import Path

from aioparallel import CallCancelledError, Executor, SmartFuture, WorkerLostError

__all__ = ["Checker", "descriptors", "marked", "memory"]

SETTLE = 8.0
"""Seconds that something may take to be gone after its pool: as long as a host's lease and its grace."""
MANY = 20


class Checker:
    """Counts what became of each call, and remembers what should not have happened.

    Args:
        folder: Where calls count how often they were begun.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.allowed = array("B")
        """How often each call may be begun."""
        self.ends = array("B")
        """How often each call was settled."""
        self.begun = array("b")
        """How often each call had begun when it was settled, where it cannot begin later; else -1."""
        self.lost: Counter[str] = Counter()
        """How many calls were lost with their worker, for each pool."""
        self.kept: set[int] = set()
        """Calls that have succeeded, and so must have been begun."""
        self.outcomes: Counter[str] = Counter()
        self.violations: list[str] = []
        self.open: dict[int, SmartFuture[object]] = {}

    def new(self, allowed: int) -> int:
        """A call that may be begun so often; returns its number."""
        self.allowed.append(allowed)
        self.ends.append(0)
        self.begun.append(-1)
        return len(self.allowed) - 1

    def submitted(self, number: int, future: SmartFuture[object], *, is_near: bool = False) -> None:
        """A call was handed over: from now on it must end, once; and if it is near, nothing of it begins thereafter."""
        self.open[number] = future
        future.add_done_callback(lambda _: self._ended(number, is_near))

    def _ended(self, number: int, is_near: bool = False) -> None:
        self.ends[number] += 1
        if is_near:
            self.begun[number] = self._count(number)
        self.open.pop(number, None)
        if self.ends[number] > 1:
            self.broken(f"call {number} was delivered twice")

    def returned(self, number: int, kind: str, value: object, expected: object) -> None:
        """A call has given this."""
        self.outcomes["done"] += 1
        self.kept.add(number)
        if value != expected:
            self.broken(f"{kind} {number} gave {value!r} instead of {expected!r}")

    def raised(self, number: int, kind: str, error: BaseException, expected: tuple[type[BaseException], ...]) -> None:
        """A call has failed with this."""
        if isinstance(error, WorkerLostError):
            self.lost[kind.rpartition(" on ")[2]] += 1
        name = "cancelled" if isinstance(error, CallCancelledError) else type(error).__name__
        self.outcomes[name] += 1
        if not isinstance(error, expected):
            self.broken(f"{kind} {number} failed with {error!r}")

    def broken(self, what: str) -> None:
        """A rule was broken."""
        if len(self.violations) < MANY:
            self.violations.append(what)

    def check_begun(self) -> int:
        """Each call was begun as often as it may be, and if it succeeded, at least once; returns how often in all."""
        total = 0
        for number, allowed in enumerate(self.allowed):
            begun = self._count(number)
            total += begun
            if -1 < self.begun[number] < begun:
                self.broken(f"call {number} was begun {begun} times, but only {self.begun[number]} before its end")
            if begun > allowed:
                self.broken(f"call {number} was begun {begun} times, of {allowed} that are allowed")
            if number in self.kept and not begun:
                self.broken(f"call {number} has succeeded, but was never begun")
        return total

    def _count(self, number: int) -> int:
        """How often a call was begun, so far."""
        try:
            return os.stat(f"{self.folder}/{number}").st_size
        except FileNotFoundError:
            return 0

    def check_blame(self, pool: str, deaths: int) -> None:
        """The death of a worker is the end of one call at most."""
        if self.lost[pool] > deaths:
            self.broken(f"{pool} lost {self.lost[pool]} calls with {deaths} workers")

    def check_books(self, pool: Executor) -> None:
        """The ledger's books balance at any time, and to look at a pool changes nothing."""
        run = pool._run
        if run is None:
            return
        try:
            run.ledger.check()
        except AssertionError as error:
            self.broken(f"{pool.name}: {error}")
        before = repr(run.ledger.counts)
        status = pool.status()
        if str(status.name) not in repr(pool) or repr(run.ledger.counts) != before:
            self.broken(f"{pool!r} was changed by being looked at")

    async def check_settled(self) -> None:
        """Every future is settled, soon after its pool was closed."""
        deadline = time.monotonic() + SETTLE
        while self.open and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for number, future in self.open.items():
            self.broken(f"call {number} never ended: {future!r}")
        self.open.clear()

    async def check_nothing_left(self, mark: str, before: set[str]) -> None:
        """No process, thread, task or descriptor is left."""
        deadline = time.monotonic() + SETTLE
        while (left := await self._left(mark, before)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for each in left:
            self.broken(f"left behind: {each}")

    async def _left(self, mark: str, before: set[str]) -> list[str]:
        gc.collect()
        tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("aioparallel")]
        return [*tasks, *threads, *await asyncio.to_thread(marked, mark), *sorted(descriptors() - before)]


def marked(mark: str) -> list[str]:
    """The processes with this in their environment, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(path.name) != os.getpid() and mark.encode() in (path / "environ").read_bytes():
                found.append(f"process {path.name}: {(path / 'cmdline').read_bytes()!r}")
    return found


def descriptors() -> set[str]:
    """What is open here."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(path.readlink())
            if not target.startswith("/proc"):
                found.add(f"descriptor {path.name}: {target}")
    return found


def memory() -> float:
    """What this process holds, in MB, without what the C library keeps for later."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
