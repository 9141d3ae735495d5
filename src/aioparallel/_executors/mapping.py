"""ParallelMap: what every map returns, and what makes one."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio

from .._futures.loops import running_loop
from .._model.call import function_name, plain_function
from .._model.checks import checked_items
from .._model.options import CallOptions
from .._model.shapes import shape_of
from .flow import Flow, Plan, Runner
from .mapoptions import MapOptions

if TYPE_CHECKING:
    from .pool import Executor

__all__ = ["ParallelMap", "make_map", "map_on"]

T = TypeVar("T")


class ParallelMap(AsyncIterator[T], Generic[T]):
    """The results of a function applied to many items, as they come or all at once; one pass.

    ``async for`` gives one result after the other and pulls items as results are taken; ``await`` gives a list of all
    (or of those that are left); ``async with`` makes sure that leaving stops everything. Nothing begins before the
    first of these.

    Cancellation:
        An exception or a cancellation while waiting for a result ends the map: intake stops, what runs is cancelled,
        the input is closed, and all that is waited for.

    What may still be running:
        Nothing after the last result, an error, or the end of ``async with``. After a bare ``break`` nothing more is
        pulled than fits the window, and what runs is cancelled as soon as the map is dropped. A thread that does not
        return cannot be stopped.

    Example::

        async for page in parmap(fetch, urls, method="thread", ordered=False):
            print(page)
    """

    def __init__(self, plan: Plan) -> None:
        self._flow = Flow(plan)
        self._results = self._flow.results
        self._is_used_up = False
        self._owed = 0
        """Results of the last :meth:`_some` that count as waiting until it is asked again."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        results = self._results
        while not results.ready:
            if results.closed:
                self._is_used_up = True
                self._raise_error()
                raise StopAsyncIteration
            await self._watch()
        value: T = results.ready.popleft()
        results.passed += 1
        if self._flow.hungry:
            self._flow.nudge()
        return value

    def __await__(self) -> Generator[Any, Any, list[T]]:
        return self._all().__await__()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the map, and wait until nothing of it runs. Ending one that has ended does nothing.

        Cancellation:
            It ends the map in any case, and waits for that before it is cancelled.

        What may still be running:
            A thread that does not return, and an input that hangs.
        """
        self._is_used_up = True
        self._flow.cancel()
        try:
            await self._ended()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._ended()
            raise

    async def _ended(self) -> None:
        while not self._results.closed:
            await self._results.change()

    def __len__(self) -> int:
        total = self._flow.plan.total
        if total is None:
            raise TypeError("this map has no length, because its input has none; pass total= if you know it")
        return total

    def __length_hint__(self) -> int:
        total = self._flow.plan.total
        return NotImplemented if total is None else max(0, total - self._results.passed)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        flow = self._flow
        state = "ended" if self._results.closed else "running" if flow.begun else "not begun"
        return f"<ParallelMap {flow.plan.name} {state}, {flow.pulled} items taken in>"

    async def _some(self) -> list[T]:
        """All results that are ready, at least one: for a consumer to whom the way here is long; none at the end.

        But for the first they count as waiting until it comes back, so what is ahead of it stays as bounded as ever.
        """
        results = self._results
        self._pass(self._owed)
        while not results.ready:
            if results.closed:
                self._is_used_up = True
                self._raise_error()
                return []
            await self._watch()
        taken = list(results.ready)
        results.ready.clear()
        self._owed = len(taken) - 1
        self._pass(1)
        return taken

    def _pass(self, count: int) -> None:
        """The consumer has had so many results."""
        self._results.passed += count
        if self._flow.hungry:
            self._flow.nudge()

    def _begin(self) -> None:
        flow = self._flow
        if not flow.begun:
            flow.begin()
            finalizer = weakref.finalize(self, _abandon, flow, asyncio.get_running_loop())
            finalizer.atexit = False
        elif flow.loop is not None and flow.loop is not running_loop():
            raise RuntimeError(f"{self!r} began on another event loop; take its results there")

    async def _watch(self) -> None:
        """Wait for a change; whatever interrupts that ends the map."""
        self._begin()
        try:
            await self._results.change()
        except GeneratorExit:  # the consumer was thrown away: nothing may be awaited any more
            self._flow.cancel()
            raise
        except BaseException:
            await self.aclose()
            raise

    async def _all(self) -> list[T]:
        results = self._results
        if self._is_used_up:
            raise RuntimeError(f"{self!r}: its results have been taken, and a map gives them once; keep the list")
        results.keep()
        self._begin()
        while not results.closed:
            await self._watch()
        self._is_used_up = True
        self._raise_error()
        values = list(results.ready)
        results.ready.clear()
        return values

    def _raise_error(self) -> None:
        """Raise what ended the map, once."""
        error, self._flow.error = self._flow.error, None
        if isinstance(error, StopAsyncIteration):  # it would look like the end
            raise RuntimeError("the map's function or its input raised StopAsyncIteration") from error
        if error is not None:
            try:
                raise error
            finally:
                del error, self  # the traceback refers to this frame


def _abandon(flow: Flow, loop: asyncio.AbstractEventLoop) -> None:
    """The consumer dropped the map; this may be any thread."""
    if not flow.results.closed and not loop.is_closed():
        try:
            loop.call_soon_threadsafe(flow.cancel)
        except RuntimeError:
            pass  # the loop was closed meanwhile, which ended the map


def make_map(
    fn: Callable[..., Any],
    items: Iterable[Any] | AsyncIterable[Any],
    options: MapOptions,
    executor: Callable[[], AbstractAsyncContextManager[Runner]],
) -> ParallelMap[Any]:
    """A map that has not begun.

    Args:
        fn: What is called for each item.
        items: The input; not touched before the map begins.
        options: How.
        executor: Makes the context in which there is an executor to run on.

    Raises:
        TypeError: ``fn`` cannot be called or makes generators; ``items`` cannot be iterated over.
    """
    fn = plain_function(fn)
    if not callable(fn):
        raise TypeError(f"expected a function to call for each item, got {fn!r}")
    if shape_of(fn).is_stream:
        raise TypeError(
            f"{function_name(fn)} is a generator function, and a map has one result for each item: return a list, or "
            "iterate over its stream"
        )
    return ParallelMap(Plan(fn, checked_items(items), options, executor, _total(items, options)))


def map_on(
    pool: Executor, fn: Callable[..., Any], items: Any, keywords: Mapping[str, Any], defaults: CallOptions
) -> ParallelMap[Any]:
    """A map on an executor that somebody else opens and closes."""
    return make_map(fn, items, MapOptions.of("map", keywords, defaults), lambda: nullcontext(pool))


def _total(items: Any, options: MapOptions) -> int | None:
    if options.total is not None or not hasattr(type(items), "__len__"):
        return options.total
    try:
        return len(items)
    except TypeError:  # a map without a length
        return None
