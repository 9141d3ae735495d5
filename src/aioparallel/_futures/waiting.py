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
from typing import Any, Self, TypeVar, cast

import anyio

from .loops import running_loop
from .smart import SmartFuture, stopped, wrapped

__all__ = ["WaitAll", "WaitAny", "later", "wait_all", "wait_any"]

T = TypeVar("T")

_log = logging.getLogger("aioparallel")


def later(awaitable: Awaitable[T]) -> T:
    """Pass a future, or anything else that can be awaited, where typed code expects its value.

    To a type checker this is the value; what is returned is a :class:`SmartFuture`, which a
    parallelized call awaits before it begins.

    Args:
        awaitable: A coroutine is started at once, as a task.

    Raises:
        RuntimeError: No event loop runs here.
        TypeError: It cannot be awaited.

    Cancellation:
        Cancelling the future, or its last awaiter, cancels the awaitable.

    Example::

        total = await add(later(crunch(1, 2)), 4)
    """
    return cast(T, wrapped(awaitable))


class _Waiting(AsyncIterator[SmartFuture[T]], ABC):
    """What waiting for any and waiting for all have in common: the options, and being left."""

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
        if isinstance(futures, SmartFuture):
            raise TypeError(f"expected futures, got one: {futures!r}; `await` it, or put it into a list")
        if heartbeat is not None and not heartbeat > 0:
            raise ValueError(f"heartbeat={heartbeat!r}: expected seconds, more than 0")
        self._inputs: list[Awaitable[T]] | None = list(futures)
        self._timeout = math.inf if timeout is None else timeout
        self._heartbeat = math.inf if heartbeat is None or callback is None else heartbeat
        self._callback = callback
        self._log_exceptions = log_exceptions
        self._cancel_pending = cancel_pending
        self._deadline = self._next_beat = math.inf
        self._entered = False
        self._exhausted = False

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
        try:
            future = self._ready() or await self._until_ready()
            if future is None:
                await self._finish()
                raise StopAsyncIteration
            if self._callback is not None or self._log_exceptions:
                await self._announce(future)
            return future
        except BaseException: ...

    @abstractmethod
    def _begin(self, futures: list[SmartFuture[T]]) -> None:
        """Begin to watch the futures."""

    @abstractmethod
    def _forget_rest(self) -> list[SmartFuture[T]]:
        """Stop watching; returns what has not ended."""
