"""The decorator: a function whose calls run elsewhere."""

from __future__ import annotations

import copyreg
import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    overload,
)

from .._child import packing
from .._model.call import function_name
from .._model.info import Method
from .._model.options import DEFAULT_OPTIONS, CallOptions, Retry
from .._model.shapes import Shape, shape_of

if TYPE_CHECKING:
    from typing import Unpack

    from .._executors.mapping import ParallelMap
    from .._executors.pool import Executor
    from .._executors.stream import Stream
    from .._futures.smart import SmartFuture
    from .._model.outcome import Outcome
    from .maps import ParmapKeywords

__all__ = ["Parallel", "parallelize"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
F_co = TypeVar("F_co", covariant=True)
L_co = TypeVar("L_co", covariant=True)


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


@dataclass(frozen=True)
class Settings:
    """Where the calls of a decorated function run, and with what options."""

    method: Method | None = None
    on: Executor | None = None
    options: CallOptions = DEFAULT_OPTIONS

    @property
    def kind(self) -> str | None:
        """The kind of executor that is asked for."""
        return self.method if self.on is None else self.on.kind

    def changed(self, **changes: Any) -> Settings:
        """The same settings with some of them changed; refuses nonsense."""
        if unknown := sorted(set(changes) - set(Options.__annotations__)):
            raise TypeError(f"no such option: {', '.join(unknown)} (there are {', '.join(Options.__annotations__)})")
        method, on = changes.pop("method", None), changes.pop("on", None)
        if method is not None and on is not None:
            raise TypeError(
                f"method={method!r} and on={on!r}: say one of them, for an executor is of one kind. "
                "Write `@parallelize(on=pool)`"
            )
        options = self.options.changed(**changes)
        if on is not None:
            return Settings(None, _checked_executor(on), options)
        if method is not None:
            return Settings(_checked_method(method), None, options)
        return Settings(self.method, self.on, options)

    def fitted(self, fn: Any) -> Settings:
        """The same settings for a function: it chooses the method unless that is chosen, and may not fit."""
        shape = shape_of(fn)
        if self.kind is None:
            return self.changed(method=Method.COROUTINE if shape.is_async else Method.THREAD)
        name = getattr(fn, "__name__", "f")
        if self.kind == Method.COROUTINE and not shape.is_async:
            raise TypeError(
                f"{name} is a plain function, and as a coroutine would keep the event loop from all other work. "
                f"Write `@parallelize` (it runs in a thread), or `async def {name}(...)`"
            )
        if self.kind == Method.THREAD and shape.is_async:
            raise TypeError(
                f"{name} is an `async def`, and threads have no event loop to run it on. "
                f"Write `@parallelize` (it runs as a coroutine), or `def {name}(...)`"
            )
        return self

    def portable(self) -> dict[str, Any]:
        """These settings for another process, in the words of :meth:`changed`; executors and limits stay here."""
        chosen = {each.name: getattr(self.options, each.name) for each in fields(self.options) if each.name != "limit"}
        told = {name: value for name, value in chosen.items() if value != getattr(DEFAULT_OPTIONS, name)}
        return told if self.kind is None else {"method": str(self.kind), **told}


class _Signature:
    """What ``inspect.signature`` looks for first: without the parameters that a method's binding has filled in."""

    def __get__(self, parallel: Parallel[..., Any, Any] | None, owner: type) -> inspect.Signature:
        if parallel is None:
            raise AttributeError("__signature__")
        try:
            return inspect.signature(parallel._aioparallel_plain)
        except (TypeError, ValueError):  # a builtin may have none
            raise AttributeError("__signature__") from None


class Parallel(Generic[P, F_co, L_co]):
    """A function whose calls run elsewhere: :func:`parallelize` makes it.

    Calling it returns at once: a :class:`SmartFuture`, or for a generator function a :class:`Stream`. In every other
    way it is like the function: it has its name, documentation and signature, binds as a method, and can be pickled.

    In a worker, and where one of its callers holds a slot of the same kind of executor, a call runs in place: it
    takes no slot, and the options do not apply to it.

    Its type parameters are what it takes, what calling it returns, and what the plain function returns.

    Cancellation:
        Of a call's future, or of its last awaiter: a queued call never begins, a running one is stopped.

    What may still be running:
        A call that nobody awaits: it runs to its end.

    Example:
        ::

            total = await crunch(3, 4)
            async for total in crunch.map(pairs, star=True): ...
            crunch.local(3, 4)
    """

    __signature__ = _Signature()

    _bound: tuple[Any, ...] = ()
    """What the call begins with: the object that a method was looked up on."""

    def __init__(self, fn: Callable[P, L_co], settings: Settings) -> None:
        functools.update_wrapper(self, fn, updated=())
        if inspect.isfunction(fn):  # marks of other decorators; objects keep what they have to themselves
            self.__dict__.update({name: mark for name, mark in vars(fn).items() if not hasattr(type(self), name)})
        self._fn = fn
        self._settings = settings.fitted(fn)
        self._shape = shape_of(fn)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> F_co:
        """Start a call.

        Futures among the arguments, at any depth of list, tuple, dict and set, are awaited first.

        Args:
            *args: The function's positional arguments.
            **kwargs: Its keyword arguments: all of them, for options of the call go to :meth:`options`.

        Returns:
            Its future, at once.

        Raises:
            PicklingError: Something cannot travel to the worker; names what and where.
            PoolFullError: ``max_pending`` calls wait already.
            ExecutorClosedError: The executor that was chosen with ``on`` is not open.
            RuntimeError: No event loop runs here.
        """
        from . import dispatch  # not before there is a call: it imports all of asyncio

        start: Any = dispatch.stream if self._shape.is_stream else dispatch.call
        return start(self._fn, (*self._bound, *args), kwargs, self._settings)  # type: ignore[no-any-return]

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> L_co:
        """Call the plain function, here and now.

        Args:
            *args: Its positional arguments; futures are not awaited.
            **kwargs: Its keyword arguments.

        Returns:
            What it returns.
        """
        fn: Callable[..., L_co] = self._fn
        return fn(*self._bound, *args, **kwargs)

    def options(self, **options: Unpack[Options]) -> Self:
        """The same function with other options; those that are not given stay.

        Args:
            **options: What :func:`parallelize` takes.

        Returns:
            Another object of this kind; the function itself is not changed.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.

        Example:
            ::

                await crunch.options(timeout=5)(3, 4)
        """
        settings = self._settings.changed(**options).fitted(self._fn)
        return self._with(_settings=settings)

    @overload
    def map(
        self: Parallel[..., SmartFuture[T], Any],
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        errors: Literal["return"],
        **options: Unpack[ParmapKeywords],
    ) -> ParallelMap[Outcome[T]]: ...
    @overload
    def map(
        self: Parallel[..., SmartFuture[T], Any],
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        errors: Literal["raise", "finish"] = "raise",
        **options: Unpack[ParmapKeywords],
    ) -> ParallelMap[T]: ...
    def map(self, items: Iterable[Any] | AsyncIterable[Any], /, **options: Any) -> ParallelMap[Any]:
        """The function's results for many items.

        Args:
            items: The input, plain or async; pulled as results are taken.
            **options: The keywords of :func:`aioparallel.parmap`. Where calls run, and with what options, is as for
                single calls unless it is said here.

        Returns:
            A map that has not begun: iterate over it with ``async for``, await it for a list, or enter it.

        Raises:
            TypeError, ValueError: An argument makes no sense.

        Cancellation:
            See :class:`ParallelMap`.

        What may still be running:
            See :class:`ParallelMap`.

        Example:
            ::

                async for total in crunch.map([(1, 2), (3, 4)], star=True): ...
        """
        from .maps import map_with  # not before there is a map

        where = {name: options.pop(name) for name in ("method", "on") if name in options}
        pool = {name: options.pop(name) for name in ("workers", "threads_per_worker") if name in options}
        return map_with(self._settings.changed(**where), self._aioparallel_plain, items, options, **pool)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: Parallel[Concatenate[Any, Q], F_co, L_co], instance: object, owner: type | None = None, /
    ) -> Parallel[Q, F_co, L_co]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind as the function does: a method to its object, a class method to its class, a static one to nothing."""
        bind = getattr(type(self._fn), "__get__", None)
        if bind is None or self._bound:
            return self
        method = bind(self._fn, instance, owner)
        if method is self._fn:
            return self
        # The function itself goes to the worker, which would find us if it looked for the method.
        fn = getattr(method, "__func__", method)
        bound = () if fn is method else (method.__self__,)
        return self._with(_fn=fn, _bound=bound, __wrapped__=fn)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name where that gives this very object to whoever imports it, else by value."""
        from .._workers.shipping import importable

        found = packing.reference(self)
        if found is not None and importable(found[0]):
            return packing.reduced(*found) if found[2] else found[1]
        # A host that lacks this package knows this class, but not those of its settings.
        state = {**vars(self), "_settings": self._settings.portable(), "_shape": self._shape.value}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings, shape = Settings().changed(**state["_settings"]), Shape(state["_shape"])
        self.__dict__.update(state, _settings=settings, _shape=shape)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        where = self._settings.on or f"method={str(self._settings.method)!r}"
        return f"<parallelized {function_name(self._fn)} {where}>"

    @property
    def _aioparallel_plain(self) -> Callable[..., Any]:
        """What executors run when they are given this object instead of the plain function."""
        return functools.partial(self._fn, *self._bound) if self._bound else self._fn

    def _with(self, **changes: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(vars(self), **changes)
        return other


class _Decorator(Protocol):
    """What ``parallelize(method=...)`` returns."""

    @overload
    def __call__(self, fn: Parallel[P, F_co, L_co], /) -> Parallel[P, F_co, L_co]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Parallel[P, SmartFuture[R], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[T]], /) -> Parallel[P, Stream[T], AsyncIterator[T]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, Iterator[T]], /) -> Parallel[P, Stream[T], Iterator[T]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Parallel[P, SmartFuture[R], R]: ...


@overload
def parallelize(fn: None = None, /, **options: Unpack[Options]) -> _Decorator: ...
@overload
def parallelize(fn: Parallel[P, F_co, L_co], /, **options: Unpack[Options]) -> Parallel[P, F_co, L_co]: ...  # type: ignore[overload-overlap]
@overload
def parallelize(
    fn: Callable[P, Coroutine[Any, Any, R]], /, **options: Unpack[Options]
) -> Parallel[P, SmartFuture[R], Coroutine[Any, Any, R]]: ...
@overload
def parallelize(  # type: ignore[overload-overlap]
    fn: Callable[P, AsyncIterator[T]], /, **options: Unpack[Options]
) -> Parallel[P, Stream[T], AsyncIterator[T]]: ...
@overload
def parallelize(fn: Callable[P, Iterator[T]], /, **options: Unpack[Options]) -> Parallel[P, Stream[T], Iterator[T]]: ...  # type: ignore[overload-overlap]
@overload
def parallelize(fn: Callable[P, R], /, **options: Unpack[Options]) -> Parallel[P, SmartFuture[R], R]: ...
def parallelize(fn: Any = None, /, **options: Any) -> Any:
    """Have the calls of a function run elsewhere: a call returns a future at once.

    Works on functions, methods, ``functools.partial``, callable objects, ``async def``, and generator functions, whose
    calls return a stream for ``async for``. Its place is above ``@classmethod`` and ``@staticmethod``. To decorate
    what is decorated already changes the options that are given.

    Args:
        fn: The function; without one, a decorator is returned.
        **options: Any of

            * ``method``: The kind of executor, a :class:`Method` or its name; by default a thread, for ``async def``
              a coroutine. The ambient executor of this kind is used (see :func:`configure`).
            * ``on``: A particular executor, instead.
            * ``timeout``: Seconds from the start of execution after which a call is stopped.
            * ``retry``: A :class:`Retry`, or a number of attempts.
            * ``idempotent``: Your word that a call may safely happen twice.
            * ``priority``: Higher goes first.
            * ``limit``: A ``Limit`` that must admit each call; its ``key`` gets the call's arguments.
            * ``name``: Seen in errors, logs and status instead of the function's own.

    Returns:
        A :class:`Parallel`, which is called like the function; or what makes one of a function.

    Raises:
        TypeError, ValueError: An option does not exist, makes no sense, or does not fit the function.

    Cancellation:
        See :class:`Parallel`.

    What may still be running:
        See :class:`Parallel`.

    Example:
        ::

            @parallelize(method="process", timeout=60)
            def crunch(a: int, b: int) -> int:
                return a**b

            total = await crunch(crunch(1, 2), 4)
    """
    settings = Settings().changed(**options)

    def decorate(fn: Any) -> Parallel[..., Any, Any]:
        if isinstance(fn, Parallel):
            return fn.options(**options)
        return Parallel(_checked_function(fn), settings)

    return decorate if fn is None else decorate(fn)


def _checked_function(fn: Any) -> Any:
    if callable(fn) or isinstance(fn, classmethod):
        return fn
    keyword = "method" if isinstance(fn, str) else "on" if hasattr(fn, "submit") else "timeout"
    raise TypeError(f"parallelize got {fn!r} for its function. Write `@parallelize({keyword}=...)`: options go by name")


def _checked_method(method: Any) -> Method:
    try:
        return Method(method)
    except ValueError:
        known = ", ".join(repr(each.value) for each in Method)
        raise ValueError(f"method={method!r}: expected one of {known}") from None


def _checked_executor(on: Any) -> Executor:
    from .._executors.pool import Executor

    if isinstance(on, Executor):
        return on
    kind = ", the class itself; make one: `on=" + on.__name__ + "()`" if isinstance(on, type) else ""
    raise TypeError(f"on={on!r}: expected an executor{kind}, such as ProcessExecutor()")
