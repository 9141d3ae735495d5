"""Waiting for several futures: as they finish, in order, or for all values.

The iterators are classes and own no task: each future calls them back, so leaving one early leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

import anyio

from .loops import running_loop
from .smart import SmartFuture, stopped, wrapped

__all__ = ["WaitAll", "WaitAny", "later", "wait_all", "wait_any"]

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger("aioparallel")


def later(awaitable: Awaitable[T]) -> T:
    """Pass a future, or anything else that can be awaited, where typed code expects its value.

    To a type checker this is the value; what is returned is a :class:`SmartFuture`, which a
    parallelized call awaits before it begins.

    Args:
        awaitable: A coroutine is started at once, as a task.

    Returns:
        Its future; a :class:`SmartFuture` as it is.

    Raises:
        RuntimeError: No event loop runs here.
        TypeError: It cannot be awaited.

    Cancellation:
        Cancelling the future, or its last awaiter, cancels the awaitable.

    What may still be running:
        A coroutine that nobody awaits: it runs to its end, or to that of its loop.

    Example::

        total = await add(later(crunch(1, 2)), 4)
    """
    return cast(T, wrapped(awaitable))


class _Waiting(AsyncIterator[SmartFuture[T]], ABC):
    """What waiting for any and waiting for all have in common: the options, and how it ends."""

    def __init__(
        self,
        futures: Iterable[Awaitable[T]],
        *,
        timeout: float | None = None,
        heartbeat: float | None = None,
        callback: Callable[[], object] | None = None,
        log_exceptions: bool = False,
        cancel_pending: bool = False,
    ) -> None:
        if heartbeat is not None and not heartbeat > 0:
            raise ValueError(f"heartbeat={heartbeat!r}: expected seconds, more than 0")
        self._inputs: list[Awaitable[T]] | None = _checked(futures)
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._callback = callback
        self._log_exceptions = log_exceptions
        self._cancel_pending = cancel_pending
        self._deadline = self._next_beat = math.inf
        self._entered = self._ended = False

    async def __aenter__(self) -> Self:
        self._entered = True
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def __anext__(self) -> SmartFuture[T]:
        self._start()
        future = self._take()
        if future is None:
            future = await self._guarded(self._take_later())
        if self._callback is not None or self._log_exceptions:
            await self._guarded(self._announce(future))
        return future

    @abstractmethod
    def _begin(self, futures: list[SmartFuture[T]]) -> None:
        """Begin to watch the futures."""

    @abstractmethod
    def _take(self) -> SmartFuture[T] | None:
        """The next future, if it can be had without waiting."""

    @abstractmethod
    async def _take_later(self) -> SmartFuture[T]:
        """Wait for the next future; at the end, raise what :meth:`_end` does."""

    @abstractmethod
    def _forget(self) -> list[SmartFuture[T]]:
        """Yield nothing more; returns the futures that have not been yielded."""

    def _start(self) -> None:
        if self._inputs is None:
            return
        inputs, self._inputs = self._inputs, None
        now = asyncio.get_running_loop().time()
        if self._timeout is not None:
            self._deadline = now + self._timeout
        if self._heartbeat is not None and self._callback is not None:
            self._next_beat = now + self._heartbeat
        self._begin(_all_wrapped(inputs))

    async def _until(self, ended: Callable[[], Awaitable[object]]) -> None:
        """Wait for what ``ended`` waits for, call back at each heartbeat, and raise at the deadline."""
        if self._deadline == self._next_beat == math.inf:
            await ended()
            return
        clock = asyncio.get_running_loop().time
        while True:
            with anyio.move_on_after(min(self._deadline, self._next_beat) - clock()):
                await ended()
                return
            if clock() >= self._deadline:
                raise TimeoutError(f"not all futures have ended within {self._timeout} s")
            await self._beat()

    async def _beat(self) -> None:
        if self._callback is None:
            return
        answer = self._callback()
        if inspect.isawaitable(answer):
            await answer
        if self._heartbeat is not None:
            self._next_beat = asyncio.get_running_loop().time() + self._heartbeat

    async def _announce(self, future: SmartFuture[T]) -> None:
        if self._log_exceptions:
            _log_failure(future)
        await self._beat()

    async def _end(self) -> NoReturn:
        if not self._ended:
            self._ended = True
            await self._beat()
        raise StopAsyncIteration

    async def _guarded(self, step: Awaitable[R]) -> R:
        """The step; if it fails, and no ``async with`` will cancel what is pending, that is done here."""
        try:
            return await step
        except (StopAsyncIteration, GeneratorExit):
            raise
        except BaseException:
            if self._cancel_pending and not self._entered:
                await self._leave()
            raise

    async def _leave(self) -> None:
        await self._cancel_if_asked(self._forget())

    async def _cancel_if_asked(self, futures: Iterable[SmartFuture[T]]) -> None:
        if self._cancel_pending:
            pending = [future for future in futures if not future.done()]
            for future in pending:
                future.cancel()
            await stopped(pending)


class WaitAny(_Waiting[T]):
    """Iterate over futures as they end: each once, the same objects.

    Failed and cancelled futures are yielded too; ``await future`` raises. Iterating watches: it keeps nothing from
    being cancelled, and a future that fails unseen is still reported.

    Args:
        futures: Any iterable of futures, coroutines and other awaitables; what is no SmartFuture is wrapped in one, and
            yielded so. One that occurs twice is yielded once.
        timeout: Seconds from the beginning of the iteration until :exc:`TimeoutError`. What has ended is yielded first.
        heartbeat: Seconds between the calls of ``callback`` while there is nothing to yield.
        callback: A plain or ``async`` function without parameters. It runs at each heartbeat, before each yield, and
            once at the end; what it raises ends the iteration.
        log_exceptions: Log each failure when it is yielded.
        cancel_pending: Leaving the ``async with`` block (or, without one, an exception out of the
            iteration) cancels what has not ended, and waits until it has stopped.

    Raises:
        TypeError: An input cannot be awaited.
        TimeoutError: The deadline has passed.

    Cancellation:
        Safe: the next step goes on where the cancelled one was, unless ``cancel_pending`` says otherwise.

    What may still be running:
        After an early end, all that has not ended; nothing with ``cancel_pending`` and ``async with``.

    Example::

        async with wait_any(futures, cancel_pending=True) as finished:
            async for future in finished:
                print(await future)
                break
    """

    def _begin(self, futures: list[SmartFuture[T]]) -> None:
        loop = running_loop()
        self._finished: deque[SmartFuture[T]] = deque()
        self._pending: dict[SmartFuture[T], SmartFuture[T]] = {}  # by what stands for them on this loop
        self._some: SmartFuture[None] = SmartFuture(None, loop)  # settled when there is one to yield
        for future in dict.fromkeys(futures):
            if future.done():
                self._finished.append(future)
            else:
                here = future._here(loop, joins=False)
                self._pending[here] = future
                here._watch(self._on_ended)

    def _on_ended(self, here: SmartFuture[T]) -> None:
        future = self._pending.pop(here, None)
        if future is not None:
            self._finished.append(future)
            self._some._set_result(None)

    def _take(self) -> SmartFuture[T] | None:
        return self._finished.popleft() if self._finished else None

    async def _take_later(self) -> SmartFuture[T]:
        while not self._finished:
            if not self._pending:
                await self._end()
            if self._some.done():
                self._some = SmartFuture(None, running_loop())
            await self._until(self._some._until_settled)
        return self._finished.popleft()

    def _forget(self) -> list[SmartFuture[T]]:
        pending, self._pending = self._pending, {}
        for here in pending:
            here._unwatch(self._on_ended)
        self._finished.clear()  # these have ended
        return list(pending.values())


class WaitAll(_Waiting[T]):
    """Wait for futures in the order in which they were given.

    ``await wait_all(futures)`` gives the list of all values, one for each input. When all have ended, the first
    failure in input order raises. It counts as an awaiter of each future.

    ``async for future in wait_all(futures)`` yields each future once, in input order, each as soon as it has ended.
    Iterating only watches.

    Args:
        futures: As for :class:`wait_any`.
        timeout: As for :class:`wait_any`. The futures that have not ended by then go on, unless ``cancel_pending``.
        heartbeat: As for :class:`wait_any`.
        callback: As for :class:`wait_any`.
        log_exceptions: As for :class:`wait_any`; ``await wait_all(...)`` logs each failure before it raises the first.
        cancel_pending: As for :class:`wait_any`; also applies when ``await wait_all(...)`` is broken off.

    Raises:
        TypeError: An input cannot be awaited.
        TimeoutError: The deadline has passed.

    Cancellation:
        Cancelling ``await wait_all(...)`` takes one awaiter from each future: those that nobody else awaits are
        cancelled, and their end is waited for.

    What may still be running:
        After a timeout or an early end of the iteration, all that has not ended.

    Example::

        values = await wait_all([crunch(n) for n in range(10)])
    """

    def __await__(self) -> Generator[Any, Any, list[T]]:
        return self._values().__await__()

    async def _values(self) -> list[T]:
        self._start()
        once = dict.fromkeys(self._futures)
        loop = running_loop()
        pending = [future._here(loop) for future in once if not future.done()]
        for future in pending:
            future._awaiters += 1
        try:
            for future in reversed(pending):  # usually the last one ends last, and this task wakes up once
                if not future.done():
                    await self._until(future._until_settled)
        except (Exception, GeneratorExit) as error:  # the deadline, the callback, or our coroutine was thrown away
            for future in pending:
                future._awaiters -= 1
            if not isinstance(error, GeneratorExit):
                await self._cancel_if_asked(once)
            raise
        except BaseException:
            stopping = [future for future in pending if future._release()]
            await self._cancel_if_asked(once)
            await stopped(stopping)
            raise
        self._look_at_failures(once)
        await self._beat()
        return [future._outcome() for future in self._futures]

    def _look_at_failures(self, futures: Iterable[SmartFuture[T]]) -> None:
        # Only the first is raised, but whoever awaited all has seen all.
        for future in futures:
            if not future._succeeded() and future.done():
                future.exception()
                if self._log_exceptions:
                    _log_failure(future)

    def _begin(self, futures: list[SmartFuture[T]]) -> None:
        self._futures = futures
        self._queue = deque(dict.fromkeys(futures))

    def _take(self) -> SmartFuture[T] | None:
        return self._queue.popleft() if self._queue and self._queue[0].done() else None

    async def _take_later(self) -> SmartFuture[T]:
        if not self._queue:
            await self._end()
        future = self._queue.popleft()
        try:
            await self._until(future._here(running_loop(), joins=False)._until_settled)
        except BaseException:
            self._queue.appendleft(future)
            raise
        return future

    def _forget(self) -> list[SmartFuture[T]]:
        queue, self._queue = self._queue, deque()
        return list(queue)


wait_any = WaitAny
wait_all = WaitAll


def _checked(futures: Iterable[Awaitable[T]]) -> list[Awaitable[T]]:
    if isinstance(futures, SmartFuture):
        raise TypeError(f"expected several futures, got one: {futures!r}. Await it, or put it into a list.")
    inputs = list(futures)
    for index, item in enumerate(inputs):
        if not isinstance(item, SmartFuture) and not inspect.isawaitable(item):
            raise TypeError(f"futures[{index}] cannot be awaited: {item!r}")
    return inputs


def _all_wrapped(inputs: list[Awaitable[T]]) -> list[SmartFuture[T]]:
    by_id: dict[int, SmartFuture[T]] = {}  # a coroutine that occurs twice can be awaited only once
    for item in inputs:
        if id(item) not in by_id:
            by_id[id(item)] = wrapped(item)
    return [by_id[id(item)] for item in inputs]


def _log_failure(future: SmartFuture[Any]) -> None:
    error = future.exception()
    if error is not None and not future.cancelled():
        _log.error("%r", future, exc_info=error)
