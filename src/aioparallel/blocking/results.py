"""What blocking maps and streams return: an iterator whose results come over from the portal's loop, many at a time.

A reader stands between the iterator, which its user may drop at any moment, and what it reads, which lives on the
loop. Its life::

    NEW --start: by the first result asked for, or an eager map--> READING --> ENDED

* READING: it is inside the portal, and a job on the loop takes what is ready, puts it where the iterator finds it, and
  waits until that comes back for more; an eager reader does not wait.
* ENDED: the job has put the end there, with what it failed with. It has left the portal, also if results are still to
  be taken: they are here, and the loop is not needed for them.

However a job ends (all was read, an error, closed, dropped, the end of the program), the iterator is told.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import CancelledError
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from .._executors.results import Raised
from .._futures.smart import SmartFuture, wrapped
from .interrupts import is_second
from .portal import Portal, enter

__all__ = ["Reader", "Results", "Source"]

T = TypeVar("T")


class Source(Protocol):
    """What is read on the loop: a map or a stream."""

    async def _some(self) -> list[Any]:
        """What is ready, at least one; none at the end. Cancelling this ends the source."""
        ...

    async def aclose(self) -> None:
        """End it early."""
        ...


class _End(NamedTuple):
    error: BaseException | None


class Reader:
    """Reads a source on the portal's loop, for an iterator elsewhere.

    Args:
        make: Makes the source, on the loop.
        context: The contextvars in which it is made and read; those of the caller of ``start`` by default.
        eager: Read it to the end, whether or not anybody asks.
        alone: On a portal of its own.
    """

    def __init__(
        self,
        make: Callable[[], Source],
        context: Callable[[Portal], Context] = lambda _: copy_context(),
        *,
        eager: bool = False,
        alone: bool = False,
    ) -> None:
        self._make = make
        self._context = context
        self.eager = eager
        self._alone = alone
        self._portal: Portal | None = None
        self._batches: SimpleQueue[list[Any] | _End] = SimpleQueue()
        self._wanted = asyncio.Event()
        self._job: SmartFuture[None] | None = None
        self.asked = False
        """Whether the iterator has asked for anything."""
        self.end: _End | None = None
        """How it ended, when the iterator knows."""

    def start(self) -> None:
        """Begin to read."""
        portal = self._portal = enter(self, self._finish, alone=self._alone)
        try:
            self._context(portal).run(portal.do, self._begin)
        except BaseException:
            portal.leave(self)
            raise

    def read(self, timeout: float | None = None) -> list[Any]:
        """What is there, at least one; none at the end. Blocks.

        Raises:
            TimeoutError: There is nothing in time.
            Exception: What the source failed with, once.
        """
        if self.end is not None:
            return []
        if self._portal is None:
            self.start()
        portal = self._portal
        assert portal is not None, "it was started"
        portal.check_wait()
        if self.asked or not self.eager:
            portal.post(self._wanted.set)
        self.asked = True
        try:
            batch = self._batches.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"no result within {timeout:.3g} s") from None
        if isinstance(batch, list):
            return batch
        self._batches.put(batch)  # another thread may wait for it, or for results
        return self._ended(portal, batch)

    def close(self) -> None:
        """End it, and wait until nothing of it runs, unless this is the portal's own thread.

        A second Ctrl-C ends the waiting for good.
        """
        portal = self._portal
        if portal is None:
            self.end = _End(None)
        if portal is None or self.end is not None or portal.is_foreign:
            return
        portal.post(self._cancel)
        if not portal.is_here:
            self.end = self._until_told()
            portal.leave(self)

    def abandon(self) -> None:
        """Nobody will ask any more; this may be any thread, at any moment."""
        portal = self._portal
        if portal is not None and self.end is None and not portal.is_foreign and (self.asked or not self.eager):
            portal.post(self._cancel)

    def _until_told(self) -> _End:
        try:
            while isinstance(batch := self._batches.get(), list):
                pass
        except KeyboardInterrupt as error:
            if is_second(error) and self._portal is not None:
                self.end = _End(None)
                self._portal.leave(self)
            raise
        self._batches.put(batch)
        return batch

    def _ended(self, portal: Portal, end: _End) -> list[Any]:
        told, self.end = self.end, end
        portal.leave(self)
        if end.error is not None and told is None:
            raise end.error
        return []

    # On the loop

    async def until_ended(self) -> None:
        """Wait until everything has been read."""
        if self._job is not None:
            await self._job._until_settled()

    def _begin(self) -> None:
        self._job = wrapped(self._read_all())
        self._job._watch(self._on_end)  # that comes also if the job is cancelled before its first step

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()

    async def _finish(self, to_the_end: bool) -> None:
        """The program ends."""
        if not (self.eager and to_the_end):
            self._cancel()
        await self.until_ended()

    async def _read_all(self) -> None:
        source = self._make()
        while batch := await source._some():
            self._batches.put(batch)
            if not self.eager:
                await self._until_wanted(source)

    def _on_end(self, job: SmartFuture[None]) -> None:
        error = job.exception()
        if job.cancelled():
            error = CancelledError("the map was cancelled: it, its executor or the program was closed")
        self._batches.put(_End(error))
        if self._portal is not None:
            self._portal.leave(self, wait=False)

    async def _until_wanted(self, source: Source) -> None:
        try:
            self._wanted.clear()
            await self._wanted.wait()
        except BaseException:
            await source.aclose()
            raise


class Results(Iterator[T], Generic[T]):
    """The results of a blocking map or stream, one after the other; one pass.

    Nothing begins before the first is asked for, but for ``map`` of an executor, which begins at once. A consumer that
    is slow stops the input, as far as the map is bounded.

    Cancellation:
        An exception while waiting for a result, such as Ctrl-C, ends the map: intake stops, what runs is cancelled, and
        all that is waited for. A second Ctrl-C ends that waiting.

    What may still be running:
        Nothing after the last result, an error, ``close()``, or the end of ``with``. After a ``break`` what runs is
        cancelled as soon as the iterator is dropped. A thread that does not return cannot be stopped.

    Example:
        ::

            with parmap(fetch, urls, method="thread") as pages:
                for page in pages: ...
    """

    def __init__(self, reader: Reader, sized: Sized | None = None, timeout: float | None = None) -> None:
        self._reader = reader
        self._sized = sized
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._batch: deque[Any] = deque()
        self._given = 0
        finalizer = weakref.finalize(self, reader.abandon)
        finalizer.atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        batch = self._batch
        if not batch:
            batch = self._batch = deque(self._read())
            if not batch:
                raise StopIteration
        value = batch.popleft()
        if type(value) is Raised:
            self.close()
            raise value.error
        self._given += 1
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the map, and wait until nothing of it runs. Closing one that has ended does nothing."""
        self._batch.clear()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        if self._sized is None:
            raise TypeError("these results have no length")
        return len(self._sized)

    def __length_hint__(self) -> int:
        try:
            return max(0, len(self) - self._given)
        except TypeError:
            return NotImplemented  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return True

    def _read(self) -> list[Any]:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return self._reader.read(left)
        except BaseException:
            self._reader.close()
            raise
