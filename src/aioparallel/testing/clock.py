"""A clock that tests can put forward."""

from __future__ import annotations

import asyncio
import sys
import time
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self

import aioparallel

__all__ = ["ManualClock"]

TURNS = 20
"""So many turns the loop is given after each step, so that what has become due happens."""


class ManualClock:
    """Puts the clock of the running event loop, and of this library, forward: a retry in a minute takes no minute.

    Between two calls of :meth:`advance` time goes on as usual, so that what really runs still can. The clock of the
    rest of the program (``time.time()`` in the code under test) is not touched, and neither are worker processes.

    Cancellation:
        The clock is put back when the block is left, in any case.

    Example:
        ::

            with ManualClock() as clock:
                future = pool.options(retry=Retry(2, backoff=60)).submit(fetch, url)
                await clock.advance(120)
    """

    def __init__(self) -> None:
        self._ahead = 0.0
        self._patched: list[tuple[Any, str, Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_time = time.monotonic

    def time(self) -> float:
        """What ``time.time()`` would be."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """What ``time.monotonic()`` would be."""
        return time.monotonic() + self._ahead

    async def advance(self, seconds: float) -> None:
        """Put the clock forward, from one timer of the loop to the next, and let happen what has become due.

        Args:
            seconds: How far.

        Raises:
            ValueError: That would be backwards.
            RuntimeError: The block of this clock was not entered, or on another loop.

        Cancellation:
            Leaves the clock where it is.

        What may still be running:
            What has become due, if it takes longer than a few turns of the loop.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds!r}: a clock goes forward only")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("use `with ManualClock() as clock:` on the event loop whose clock it is")
        await self._take_turns()  # who was started a moment ago sets his timers by the clock as it is
        until = self._ahead + seconds
        while self._ahead < until:
            self._ahead = min(until, self._ahead + self._until_next_timer())
            await self._take_turns()

    def _until_next_timer(self) -> float:
        """Seconds until something is due; a little more than nothing, so that the clock goes on in any case."""
        assert self._loop is not None, "the block was entered"
        timers = [timer.when() for timer in getattr(self._loop, "_scheduled", ()) if not timer.cancelled()]
        return max(1e-3, min(timers) - self._loop.time()) if timers else float("inf")

    async def _take_turns(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the block of this clock was entered already")
        loop = asyncio.get_running_loop()
        before = loop.time
        self._loop_time = before
        try:
            loop.time = lambda: before() + self._ahead  # type: ignore[method-assign]
        except AttributeError:
            raise RuntimeError(f"{type(loop).__name__} keeps its own time: use asyncio's loop in this test") from None
        self._loop = loop
        for name in aioparallel.__all__:
            getattr(aioparallel, name)  # its module must be there for its clock to be changed
        for name, module in list(sys.modules.items()):
            if name.startswith("aioparallel.") and not name.startswith("aioparallel.testing"):
                self._patch(module)
        return self

    def _patch(self, module: ModuleType) -> None:
        clock = SimpleNamespace(**{**vars(time), "time": self.time, "monotonic": self.monotonic})
        replacements = [(time, clock), (time.time, self.time), (time.monotonic, self.monotonic)]
        for attribute in ("time", "monotonic"):
            found = vars(module).get(attribute)
            for old, new in replacements:
                if found is old:
                    self._patched.append((module, attribute, found))
                    setattr(module, attribute, new)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._loop is not None, "it is set when the block is entered"
        del self._loop.time  # the method of its class is there again
        self._loop = None
        for module, attribute, found in self._patched:
            setattr(module, attribute, found)
        self._patched.clear()
