"""Where a map's items come from: one task opens, pulls and closes the input, whatever kind it is.

* What is in memory already (a list, a range, ...) is read on the loop.
* An async iterable is pulled by the task that owns the source.
* Any other iterable may block, so a thread of its own opens, pulls and closes it: the loop goes on, and what must stay
  on one thread (a database cursor that a generator opens) does.

Nothing is pulled ahead: a source gives as many items as it is asked for, at most.
"""

from __future__ import annotations

import asyncio
import io
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

import anyio

__all__ = ["Source", "open_source"]

TAKE_SECONDS = 0.002
"""A thread that pulls hands over what it has after so long."""
CLOSE_SECONDS = 1.0
"""How long closing waits for a thread that is stuck in the input's ``__next__``."""

_SLICED = (list, tuple, range)
_IN_MEMORY = frozenset(
    {*_SLICED, dict, set, frozenset, str, bytes, bytearray, deque, type({}.keys()), type({}.values()), type({}.items())}
)


class Source(ABC):
    """An input that is being read. Used by one task."""

    @abstractmethod
    async def take(self, most: int) -> Sequence[Any]:
        """The next items: at least one, at most so many; none at the end."""

    async def aclose(self) -> None:
        """Close the input, which may be in the middle."""


def open_source(items: Iterable[Any] | AsyncIterable[Any]) -> Source:
    """The source for an input; the input is opened when the first item is taken."""
    if isinstance(items, AsyncIterable):
        return _Async(items)
    if type(items) in _SLICED:
        return _Sliced(items)
    return _Iterated(items) if type(items) in _IN_MEMORY else _Threaded(items)


class _Sliced(Source):
    def __init__(self, items: Any) -> None:
        self._items = items
        self._position = 0

    async def take(self, most: int) -> Sequence[Any]:
        taken: Sequence[Any] = self._items[self._position : self._position + most]
        self._position += len(taken)
        return taken


class _Iterated(Source):
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._iterator: Iterator[Any] | None = None

    async def take(self, most: int) -> Sequence[Any]:
        if self._iterator is None:
            self._iterator = iter(self._items)
        return list(islice(self._iterator, most))


class _Async(Source):
    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = items
        self._iterator: AsyncIterator[Any] | None = None

    async def take(self, most: int) -> Sequence[Any]:
        if self._iterator is None:
            self._iterator = aiter(self._items)
        try:
            return [await anext(self._iterator)]
        except StopAsyncIteration:
            return []

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class _Threaded(Source):
    """A plain iterable, read by a thread of its own, which waits while nobody asks."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._loop: asyncio.AbstractEventLoop | None = None
        self._orders: SimpleQueue[int] = SimpleQueue()
        self._answer: asyncio.Future[_Haul] | None = None
        self._last: _Haul | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._problem: BaseException | None = None

    async def take(self, most: int) -> Sequence[Any]:
        if self._last is None:
            haul = await self._order(most)
            if haul.ended:
                self._last = haul
            if haul.items:
                return haul.items
        if self._last is not None and self._last.error is not None:
            raise self._last.error
        return []

    def _order(self, most: int) -> asyncio.Future[_Haul]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            context = copy_context()
            threading.Thread(target=context.run, args=(self._serve,), name="aioparallel source", daemon=True).start()
        self._answer = self._loop.create_future()
        self._orders.put(most)
        return self._answer

    async def aclose(self) -> None:
        self._closing = True
        if self._loop is None:
            return
        self._orders.put(0)
        with anyio.move_on_after(CLOSE_SECONDS):
            await self._closed.wait()
        if self._problem is not None:
            raise self._problem

    # On the thread

    def _serve(self) -> None:
        problem: BaseException | None = None
        try:
            self._pull_all()
        except BaseException as error:  # iter() or close() failed, whichever came to pass
            problem = error
            self._tell(self._on_items, _Haul([], True, error))
        finally:
            self._items = ()
            self._tell(self._on_closed, problem)

    def _pull_all(self) -> None:
        most = self._orders.get()
        iterator = iter(self._items) if most else iter(())
        while most:
            haul = self._pull(iterator, most)
            self._tell(self._on_items, haul)
            if haul.ended:
                return
            most = self._orders.get()
        _close(iterator)

    def _pull(self, iterator: Iterator[Any], most: int) -> _Haul:
        items: list[Any] = []
        until = monotonic() + TAKE_SECONDS
        try:
            while len(items) < most and not self._closing and (not items or monotonic() < until):
                items.append(next(iterator))
        except StopIteration:
            return _Haul(items, True, None)
        except BaseException as error:
            return _Haul(items, True, error)
        return _Haul(items, False, None)

    def _tell(self, fn: Callable[[Any], None], news: Any) -> None:
        assert self._loop is not None, "it started this thread"
        try:
            self._loop.call_soon_threadsafe(fn, news)
        except RuntimeError:
            pass  # the loop was closed, and nobody is left who could mind

    # On the loop

    def _on_items(self, haul: _Haul) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(haul)

    def _on_closed(self, problem: BaseException | None) -> None:
        self._problem = problem
        self._closed.set()


class _Haul(NamedTuple):
    """What the thread got for one order: items, whether these are the last, and what the input raised after them."""

    items: list[Any]
    ended: bool
    error: BaseException | None


def _close(iterator: Any) -> None:
    """Close an input that is left in the middle, generators above all; a file belongs to whoever opened it."""
    close = getattr(iterator, "close", None)
    if close is not None and not isinstance(iterator, io.IOBase):
        close()
