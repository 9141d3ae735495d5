"""parmap: a function over many items, on any executor."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from .._executors.mapoptions import Errors, MapKeywords, MapOptions, with_map_options
from .._executors.mapping import ParallelMap, make_map
from .._futures.limits import admitted
from .._futures.smart import SmartFuture
from .._model.call import plain_function
from .._model.checks import checked_count
from .._model.info import Method
from .._model.options import CallOptions
from .._model.outcome import Outcome
from .ambient import executor_for
from .current import in_worker
from .inline import run_inline
from .parallel import Settings

if TYPE_CHECKING:
    from .._executors.flow import Runner
    from .._executors.pool import Executor

__all__ = ["map_with", "own_executor", "parmap"]

T = TypeVar("T")
R = TypeVar("R")
Items = Iterable[Any] | AsyncIterable[Any]


class ParmapKeywords(MapKeywords, total=False):
    """Where a map runs, beside the keywords of every map."""

    method: Method | str
    workers: int | None
    threads_per_worker: int
    on: Executor | None


@overload
def parmap(
    fn: Callable[..., Awaitable[R]], items: Items, *, errors: Literal["return"], **options: Unpack[ParmapKeywords]
) -> ParallelMap[Outcome[R]]: ...
@overload
def parmap(
    fn: Callable[..., R], items: Items, *, errors: Literal["return"], **options: Unpack[ParmapKeywords]
) -> ParallelMap[Outcome[R]]: ...
@overload
def parmap(
    fn: Callable[..., Awaitable[R]],
    items: Items,
    *,
    errors: Literal["raise", "finish"] = "raise",
    **options: Unpack[ParmapKeywords],
) -> ParallelMap[R]: ...
@overload
def parmap(
    fn: Callable[..., R],
    items: Items,
    *,
    errors: Literal["raise", "finish"] = "raise",
    **options: Unpack[ParmapKeywords],
) -> ParallelMap[R]: ...
@with_map_options
def parmap(
    fn: Callable[..., Any],
    items: Items,
    *,
    method: Method | str = "process",
    workers: int | None = None,
    threads_per_worker: int = 1,
    on: Executor | None = None,
    errors: Errors = "raise",
    **options: Unpack[MapKeywords],
) -> ParallelMap[Any]:
    """Call a function for each of many items, in parallel, and give the results as they come or as a list.

    Items are pulled from the input as results are taken: it may be sync or async, and infinite. A plain
    input that may block, such as a generator, is read by a thread of its own.

    Args:
        fn: What is called for each item; plain or ``async``.
        items: The input. It is not touched before the map begins, and closed if the map ends before it.
        method: The kind of executor, ``"process"`` by default; the ambient one is used (see :func:`configure`).
        workers: Run on a pool of so many workers that lives as long as the map, instead.
        threads_per_worker: How many items each process of such a pool runs at a time, in threads.
        on: Run on this executor, instead.
        errors: ``"raise"``: cancel the rest now, and raise the first failure. ``"finish"``: take no more input, let
            running items end, then raise. ``"return"``: give an :class:`Outcome` for every item.
        **options: Any of

            * ``ordered``: Results in input order (the default), or as they come.
            * ``prefetch``: How many items may be in flight or buffered; by default twice as many as run at a time, more
              when they are short, and while a slow item holds back the ordered results of others.
            * ``chunksize``: How many items travel together; ``"auto"`` decides by what the last ones took.
            * ``star``, ``kwstar``: An item is several arguments, or brings keyword arguments along.
            * ``args``, ``kwargs``: Arguments of every call, after the item's.
            * ``progress``: ``True`` or a label for a bar; a callable that gets a record of each item that ended; a tqdm
              or rich object.
            * ``total``: How many items there are, if the input does not say.
            * ``timeout``, ``retry``, ``idempotent``, ``priority``, ``limit``, ``name``: As for single calls, for each
              item.

    Returns:
        A :class:`ParallelMap`: ``async for`` over it, ``await`` it for a list, or use ``async with``. Nothing begins
        before that.

    Raises:
        TypeError, ValueError: An argument makes no sense; raised at once.
        Exception: From the iteration: what ``fn`` raised, with ``seq_index`` and a note that names the item; or what
            the input raised, after the results of the items before it.

    Cancellation:
        See :class:`ParallelMap`.

    What may still be running:
        See :class:`ParallelMap`.

    Example:
        ::

            sizes = await parmap(len, ["a", "bc"])
            async for page in parmap(fetch, urls, method="coroutine", ordered=False, errors="return"):
                ...
    """
    settings = Settings().changed(**({"method": method} if on is None else {"on": on}))
    return map_with(settings, fn, items, {"errors": errors, **options}, workers, threads_per_worker)


def map_with(
    settings: Settings,
    fn: Callable[..., Any],
    items: Items,
    keywords: Mapping[str, Any],
    workers: int | None = None,
    threads_per_worker: int = 1,
) -> ParallelMap[Any]:
    """A map where, and with what call options, ``settings`` say.

    Raises:
        TypeError, ValueError: An argument makes no sense.
    """
    fn = plain_function(fn)
    settings = settings.fitted(fn)
    options = MapOptions.of("parmap", keywords, settings.options)
    if workers is None and threads_per_worker == 1:
        return make_map(fn, items, options, partial(_ambient, settings))
    if settings.on is not None or settings.method is None:
        raise TypeError("on= and workers=: a map runs either on an executor that is there, or on one of its own")
    make = own_executor(settings.method, workers, threads_per_worker, options.name)
    return make_map(fn, items, options, lambda: nullcontext(InPlace()) if in_worker() else make())


def own_executor(
    method: Method, workers: int | None, threads_per_worker: int = 1, name: str | None = None
) -> Callable[[], Executor]:
    """What makes an executor that lives as long as one map; imports it when it is made.

    Raises:
        TypeError, ValueError: There is no such executor.
    """
    if workers is not None:
        checked_count("workers", workers)
    checked_count("threads_per_worker", threads_per_worker)
    if threads_per_worker > 1 and method is not Method.PROCESS:
        raise ValueError(f"threads_per_worker={threads_per_worker}: only the workers of method='process' have threads")
    if method not in {Method.PROCESS, Method.THREAD, Method.COROUTINE, Method.SERIAL}:
        raise ValueError(f"workers={workers}: with method='{method}' the hosts, or the cluster, say how many there are")

    def make() -> Executor:
        if method is Method.PROCESS:
            from .._executors.process import ProcessExecutor

            return ProcessExecutor(workers, threads_per_worker=threads_per_worker, name=name)
        if method is Method.THREAD:
            from .._executors.thread import ThreadExecutor

            return ThreadExecutor(workers, name=name)
        if method is Method.COROUTINE:
            from .._executors.coroutine import CoroutineExecutor

            return CoroutineExecutor(workers or 100, name=name)
        from .._executors.serial import SerialExecutor

        return SerialExecutor(name=name)

    return make


def _ambient(settings: Settings) -> AbstractAsyncContextManager[Runner]:
    return nullcontext(executor_for(settings.method, settings.on) or InPlace())


class InPlace:
    """Stands in for an executor where calls run in place: in workers, and where a caller holds a slot of that kind."""

    def _capacity(self) -> int:
        return 1

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        function: Any = None,
    ) -> SmartFuture[Any]:
        return run_inline(fn, args, kwargs)

    async def _submit_wait(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        function: Any = None,
    ) -> SmartFuture[Any]:
        if options.limit is None:
            return run_inline(fn, args, kwargs)
        ticket = await admitted(options.limit, args, kwargs)
        future = run_inline(fn, args, kwargs)
        future._watch(lambda ended: ticket.end(ended.exception()))
        return future
