"""``parmap``, ``distribute`` and ``parallelize`` for code without an event loop: the same verbs, on the portal's loop.

Whoever calls one is at home on the portal's loop, wherever that is done: also in a thread beside another loop. What
runs in the caller's place (in a worker process, or in a slot of the same kind of executor) gets a portal of its own,
for the shared one may be what waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, Self, TypedDict, TypeVar, overload

import aioparallel

from .._executors.mapoptions import with_map_options
from .._futures.loops import at_home
from .._model.info import Method
from .._model.slots import Slot, occupied, take
from .._verbs.current import in_worker
from .executors import Executor
from .futures import Future
from .portal import Portal, enter, shared
from .results import Reader, Results, Source

if TYPE_CHECKING:
    from typing import Unpack

    from .._executors.mapoptions import Errors, MapKeywords
    from .._executors.mapping import ParallelMap
    from .._model.options import Retry
    from .._model.outcome import Outcome

__all__ = ["Distributed", "Parallel", "close", "distribute", "parallelize", "parmap"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
F_co = TypeVar("F_co", covariant=True)
L_co = TypeVar("L_co", covariant=True)
Items = Iterable[Any] | AsyncIterable[Any]

_ambient = "the ambient executors"
"""Enters the portal for them: they stay until :func:`close`, or the end of the program."""


def close(drain: bool = True) -> None:
    """Close the executors that blocking verbs have opened by themselves. What is used afterwards is opened anew.

    Needed only to be rid of their workers before the program ends.

    Args:
        drain: Wait for what was submitted; otherwise cancel it.

    Cancellation:
        An interruption, as by Ctrl-C, cancels what is left, and waits until it has stopped. A second Ctrl-C ends
        that at once.
    """
    portal = shared()
    if portal is not None and _ambient in portal.inside:
        try:
            portal.run(partial(aioparallel.aclose, drain))
        finally:
            portal.leave(_ambient)


def _enter_for_ambient() -> Portal:
    return enter(_ambient, aioparallel.aclose)


def _at_home(portal: Portal) -> Context:
    """The caller's context, with the portal's loop for its home."""
    context = copy_context()
    slot = occupied()
    context.run(take, Slot(portal.loop, frozenset() if slot is None else slot.held))
    return context


def _in_place(kind: str | None) -> bool:
    """Whether a call to this kind of executor runs in the place of whoever makes it here."""
    slot = occupied()
    return in_worker() or (slot is not None and kind in slot.held)


def _pool_of(on: Any) -> aioparallel.Executor:
    if isinstance(on, Executor):
        return on._door.pool
    hint = ": wrap it, `on=blocking.Executor(...)`" if isinstance(on, aioparallel.Executor) else ""
    raise TypeError(f"on={on!r}: expected an executor of aioparallel.blocking{hint}")


# Maps


@overload
def parmap(
    fn: Callable[..., Awaitable[R]],
    items: Items,
    *,
    method: Method | str = "process",
    workers: int | None = None,
    threads_per_worker: int = 1,
    on: Executor | None = None,
    errors: Literal["return"],
    **options: Unpack[MapKeywords],
) -> Results[Outcome[R]]: ...
@overload
def parmap(
    fn: Callable[..., R],
    items: Items,
    *,
    method: Method | str = "process",
    workers: int | None = None,
    threads_per_worker: int = 1,
    on: Executor | None = None,
    errors: Literal["return"],
    **options: Unpack[MapKeywords],
) -> Results[Outcome[R]]: ...
@overload
def parmap(
    fn: Callable[..., Awaitable[R]],
    items: Items,
    *,
    method: Method | str = "process",
    workers: int | None = None,
    threads_per_worker: int = 1,
    on: Executor | None = None,
    errors: Literal["raise", "finish"] = "raise",
    **options: Unpack[MapKeywords],
) -> Results[R]: ...
@overload
def parmap(
    fn: Callable[..., R],
    items: Items,
    *,
    method: Method | str = "process",
    workers: int | None = None,
    threads_per_worker: int = 1,
    on: Executor | None = None,
    errors: Literal["raise", "finish"] = "raise",
    **options: Unpack[MapKeywords],
) -> Results[R]: ...
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
) -> Results[Any]:
    """:func:`aioparallel.parmap` for code without an event loop: an iterator over the results.

    Items are pulled from the input as results are taken, by a thread of its own where that may block.

    Args:
        fn: What is called for each item; plain or ``async``.
        items: The input, which may be infinite, or an async iterable.
        method: The kind of executor, ``"process"`` by default. The first map opens it; :func:`close` closes it.
        workers: Run on a pool of so many workers that lives as long as the map, instead.
        threads_per_worker: How many items each process of such a pool runs at a time, in threads.
        on: Run on this executor, instead.
        errors: As for :func:`aioparallel.parmap`.
        **options: The other keywords of :func:`aioparallel.parmap`.

    Returns:
        The results. Nothing begins before the first is asked for.

    Raises:
        TypeError, ValueError: An argument makes no sense; raised at once.

    Cancellation:
        See :class:`Results`.

    Example:
        ::

            for size in parmap(len, ["a", "bc"]): ...
            outcomes = list(parmap(fetch, urls, method="coroutine", errors="return"))
    """
    pool = None if on is None else _pool_of(on)
    how: dict[str, Any] = {**options, "errors": errors, "method": method, "on": pool}
    made = aioparallel.parmap(fn, items, workers=workers, threads_per_worker=threads_per_worker, **how)
    return _results_of(made, Method(method) if pool is None else pool.kind, on, own=workers is not None)


def _results_of(made: ParallelMap[Any], kind: str | None, on: Executor | None, *, own: bool) -> Results[Any]:
    alone = _in_place(kind)

    def make() -> Source:
        if on is not None and not alone:
            on._door.open()
        elif not own and not alone:
            _enter_for_ambient()
        return made

    return Results(Reader(make, _at_home, alone=alone), made)


# distribute


class Distributed(aioparallel.Distributed[R]):
    """A function that takes whole sequences, and returns a list: :func:`distribute` makes it."""

    def __call__(self, /, *sequences: Any, **constants: Any) -> list[R]:  # type: ignore[override]
        """Distribute the sequences; see :func:`aioparallel.distribute`."""
        alone = _in_place(self._method)
        call = super().__call__

        def make() -> Source:
            if not alone:
                _enter_for_ambient()
            return _Once(lambda: call(*sequences, **constants))

        with Results[list[R]](Reader(make, _at_home, eager=True, alone=alone)) as results:
            return next(results)


class _Once:
    """What a coroutine gives, as something to be read."""

    def __init__(self, fn: Callable[[], Awaitable[Any]]) -> None:
        self._fn: Callable[[], Awaitable[Any]] | None = fn

    async def _some(self) -> list[Any]:
        fn, self._fn = self._fn, None
        return [] if fn is None else [await fn()]

    async def aclose(self) -> None:
        """There is nothing to end: the coroutine has ended when its value is read."""


@overload
def distribute(job: Callable[..., R], /) -> Distributed[R]: ...
@overload
def distribute(
    job: str = "compute", workers: int | None = None, autobatch: bool = True
) -> Callable[[Callable[..., R]], Distributed[R]]: ...
def distribute(job: Any = "compute", workers: int | None = None, autobatch: bool = True) -> Any:
    """:func:`aioparallel.distribute` for code without an event loop: a call blocks, and returns a list.

    Args:
        job: As there.
        workers: As there.
        autobatch: As there.

    Returns:
        A function to be called with sequences (by position) and constants (by keyword).

    Raises:
        ValueError: There is no such job; or, from a call, the lengths of its sequences do not fit.
        TypeError: A call has nothing to distribute, or a positional argument is no sequence.

    Cancellation:
        An interruption, as by Ctrl-C, cancels what runs.

    Example:
        ::

            @distribute(job="compute", workers=8)
            def score(x: int, y: int, verbose: bool = False) -> int: ...

            results = score(range(1000), range(4000, 2000, -2), verbose=True)
    """
    if callable(job):
        return _as(Distributed, aioparallel.distribute(job))
    decorate = aioparallel.distribute(job, workers, autobatch)
    return lambda fn: _as(Distributed, decorate(fn))


# parallelize


class Options(TypedDict, total=False):
    """What :func:`parallelize` and :meth:`Parallel.options` take."""

    method: Method | str | None
    on: Executor | None
    timeout: float | None
    retry: Retry | int | None
    idempotent: bool
    priority: int
    limit: Any
    name: str | None


class Parallel(aioparallel.Parallel[P, F_co, L_co]):
    """A function whose calls run elsewhere: :func:`parallelize` makes it.

    Calling it returns at once: a :class:`Future`, or for a generator function :class:`Results`.
    """

    _on: Executor | None = None
    """Kept, for an executor that is dropped closes."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> F_co:
        """Start a call.

        Returns:
            Its future, at once.

        Raises:
            PicklingError: Something cannot travel to the worker; names what and where.
            PoolFullError: ``max_pending`` calls wait already.
            ExecutorClosedError: The executor that was chosen with ``on`` has been shut down.
        """
        start = partial(super().__call__, *args, **kwargs)
        if self._shape.is_stream:
            return self._stream(start)  # type: ignore[return-value]
        portal = None if in_worker() else self._portal()
        smart: Any = start() if portal is None else _at_home(portal).run(start)
        future: Future[Any] = Future(portal)
        future._smart = smart
        at_home(smart._loop, smart._watch, future._follow)
        return future  # type: ignore[return-value]

    def options(self, **options: Unpack[Options]) -> Self:  # type: ignore[override]
        """The same function with other options; those that are not given stay.

        Args:
            **options: What :func:`parallelize` takes.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.
        """
        on = options.get("on")
        changed = super().options(**_translated(options))
        return changed._with(_on=on) if on is not None or options.get("method") is not None else changed

    def map(self, items: Items, /, **options: Any) -> Results[Any]:  # type: ignore[override]
        """The function's results for many items; see :func:`parmap` for the keywords.

        Returns:
            The results. Nothing begins before the first is asked for.
        """
        where = self.options(**{name: options[name] for name in ("method", "on") if name in options})
        parallel: Any = super()
        made = parallel.map(items, **_translated(options))
        return _results_of(made, where._settings.kind, where._on, own=options.get("workers") is not None)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """As there; an executor does not travel along."""
        return super().__reduce__() if self._on is None else self._with(_on=None).__reduce__()

    def _portal(self) -> Portal:
        return _enter_for_ambient() if self._on is None else self._on._door.open()

    def _stream(self, start: Callable[[], Any]) -> Results[Any]:
        alone = _in_place(self._settings.kind)

        def make() -> Source:
            if not alone:
                self._portal()
            stream: Source = start()
            return stream

        return Results(Reader(make, _at_home, alone=alone))


class _Decorator(Protocol):
    """What ``parallelize(method=...)`` returns."""

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Parallel[P, Future[R], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[T]], /) -> Parallel[P, Results[T], AsyncIterator[T]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, Iterator[T]], /) -> Parallel[P, Results[T], Iterator[T]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Parallel[P, Future[R], R]: ...


@overload
def parallelize(fn: None = None, /, **options: Unpack[Options]) -> _Decorator: ...
@overload
def parallelize(
    fn: Callable[P, Coroutine[Any, Any, R]], /, **options: Unpack[Options]
) -> Parallel[P, Future[R], Coroutine[Any, Any, R]]: ...
@overload
def parallelize(  # type: ignore[overload-overlap]
    fn: Callable[P, AsyncIterator[T]], /, **options: Unpack[Options]
) -> Parallel[P, Results[T], AsyncIterator[T]]: ...
@overload
def parallelize(  # type: ignore[overload-overlap]
    fn: Callable[P, Iterator[T]], /, **options: Unpack[Options]
) -> Parallel[P, Results[T], Iterator[T]]: ...
@overload
def parallelize(fn: Callable[P, R], /, **options: Unpack[Options]) -> Parallel[P, Future[R], R]: ...
def parallelize(fn: Any = None, /, **options: Any) -> Any:
    """:func:`aioparallel.parallelize` for code without an event loop: a call returns a :class:`Future` at once.

    Args:
        fn: The function; without one, a decorator is returned.
        **options: As there; ``on`` is an executor of this module.

    Raises:
        TypeError, ValueError: An option does not exist, makes no sense, or does not fit the function.

    Example:
        ::

            @parallelize(method="process", timeout=60)
            def crunch(a: int, b: int) -> int:
                return a**b

            print(crunch(3, 4).result())
    """
    decorate = aioparallel.parallelize(**_translated(options))  # refuses nonsense at once

    def parallel(fn: Any) -> Parallel[..., Any, Any]:
        if isinstance(fn, Parallel):
            return fn.options(**options)
        return _as(Parallel, decorate(fn))._with(_on=options.get("on"))

    return parallel if fn is None else parallel(fn)


def _translated(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with what an executor stands for in its place."""
    on = options.get("on")
    return dict(options) if on is None else {**options, "on": _pool_of(on)}


def _as(kind: type[T], made: Any) -> T:
    """The same, as another class."""
    other = object.__new__(kind)
    other.__dict__.update(vars(made))
    return other
