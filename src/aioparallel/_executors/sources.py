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
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any

import anyio

__all__ = ["Source", "open_source"]

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
        if close is None:
            return
        try:
            await close()
        except BaseExceptionGroup as group:
            # A task group in an async generator wraps the GeneratorExit that closes the generator.
            _, others = group.split(GeneratorExit)
            if others is not None:
                raise others from None


class _Threaded(Source):
    """A plain iterable, read by a thread of its own.

    The thread may pull so many items as it was granted, and waits then. It puts them where the loop finds them, each as
    soon as it has it: the next may be long in coming.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grants: SimpleQueue[int] = SimpleQueue()
        self._granted = 0
        """So many items the thread may still pull, or has pulled and nobody has taken."""
        self._pulled: deque[Any] = deque()
        self._told = False
        """The loop was told that there is something, and has not looked yet."""
        self._news = asyncio.Event()
        self._end: _End | None = None
        self._leaving = False

    async def take(self, most: int) -> Sequence[Any]:
        if self._loop is None:
            self._start()
        if most > self._granted:
            self._grants.put(most - self._granted)
            self._granted = most
        while not self._pulled and self._end is None:
            self._news.clear()
            await self._news.wait()
        taken = [self._pulled.popleft() for _ in range(min(most, len(self._pulled)))]
        self._granted -= len(taken)
        if not taken and self._end is not None and self._end.error is not None:
            raise self._end.error
        return taken

    async def aclose(self) -> None:
        self._leaving = True
        self._grants.put(0)
        with anyio.move_on_after(CLOSE_SECONDS):
            while self._loop is not None and self._end is None:
                self._news.clear()
                await self._news.wait()
        if self._end is not None and self._end.closing_error is not None:
            raise self._end.closing_error

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        context = copy_context()
        threading.Thread(target=context.run, args=(self._serve,), name="aioparallel source", daemon=True).start()

    def _on_news(self) -> None:
        self._told = False
        self._news.set()

    def _on_end(self, end: _End) -> None:
        self._end = end
        self._news.set()

    # On the thread

    def _serve(self) -> None:
        end = _End()
        try:
            self._pull(end)
        except BaseException as error:
            end = _End(error)
        finally:
            self._items = ()
            self._tell(self._on_end, end)

    def _pull(self, end: _End) -> None:
        iterator = iter(self._items)
        for item in self._as_granted(iterator):
            self._pulled.append(item)
            if not self._told:
                self._told = True
                self._tell(self._on_news)
        if self._leaving:
            try:
                _close(iterator)
            except BaseException as error:
                end.closing_error = error

    def _as_granted(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """The items, as long as they are wanted."""
        while not self._leaving:
            for _ in range(self._grants.get()):
                if self._leaving:
                    return
                try:
                    yield next(iterator)
                except StopIteration:
                    return

    def _tell(self, fn: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None, "it started this thread"
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            pass  # the loop was closed, and nobody is left who could mind


@dataclass(slots=True)
class _End:
    """How the reading of an input ended: what it raised, and what closing it raised."""

    error: BaseException | None = None
    closing_error: BaseException | None = None


def _close(iterator: Any) -> None:
    """Close an input that is left in the middle, generators above all; a file belongs to whoever opened it."""
    close = getattr(iterator, "close", None)
    if close is not None and not isinstance(iterator, io.IOBase):
        close()
