"""distribute: a function of single values (or of short lists), called with whole sequences."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, overload

from .._child.cpus import available_cpus
from .._executors.sources import open_source
from .._model.call import function_name, plain_function
from .._model.checks import checked_count, checked_items
from .._model.info import Method
from .._model.shapes import shape_of
from .hints import NO_HINT, Hint, depth_of_value, hint_of, resolved_hints
from .maps import map_with
from .parallel import Settings

__all__ = ["Distributed", "distribute"]

JOBS = {
    "compute": Method.PROCESS,
    "processes": Method.PROCESS,
    "io": Method.THREAD,
    "threads": Method.THREAD,
    "web": Method.COROUTINE,
    "coroutines": Method.COROUTINE,
    "ray": Method.RAY,
    "cluster": Method.RAY,
    "remote": Method.REMOTE,
    "ssh": Method.REMOTE,
}
PARTS_PER_WORKER = 4
"""So many batches for each worker: few enough to be worth their way, enough that all workers end together."""

MOST = 10_000
"""So many elements are read at once from an input without a length."""

R = TypeVar("R")
_KINDS = inspect.Parameter
_POSITIONAL = {_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD, _KINDS.VAR_POSITIONAL}


@overload
def distribute(job: Callable[..., R], /) -> Distributed[R]: ...
@overload
def distribute(
    job: str = "compute", workers: int | None = None, autobatch: bool = True
) -> Callable[[Callable[..., R]], Distributed[R]]: ...
def distribute(job: Any = "compute", workers: int | None = None, autobatch: bool = True) -> Any:
    """Have a function take whole sequences: it is called for each element, in parallel, and gives a list.

    Positional arguments are distributed, keyword arguments are constants. Type hints are optional. Where one says that
    a parameter takes a container (``list[int]``, not ``str``, ``bytes`` or a mapping), and ``autobatch`` is on:

    * if all distributed parameters take containers, sequences of equal length are cut into aligned batches;
    * otherwise the longer sequences are cut into as many equal runs as the shortest has elements, and each element goes
      with its run.

    There is one result for each call. What is nested already is not cut: its elements are the batches.

    Args:
        job: ``"compute"`` or ``"processes"``, ``"io"`` or ``"threads"``, ``"web"`` or ``"coroutines"`` (a plain
            function runs in threads), ``"ray"`` or ``"cluster"``, ``"remote"`` or ``"ssh"``.
        workers: How many at a time, on a pool that lives as long as a call; without it the ambient executor is used.
        autobatch: Whether to cut sequences for parameters that take containers.

    Returns:
        An ``async`` function, to be awaited for a list of results in input order.

    Raises:
        ValueError: There is no such job; or, from a call, the lengths of its sequences do not fit.
        TypeError: A call has nothing to distribute, or a positional argument is no sequence.
        ModuleNotFoundError: From a call: the job needs an extra that is not installed; the message names it.

    Cancellation:
        Cancels what runs, and waits until it has stopped.

    What may still be running:
        Nothing; with ``job="io"`` the calls in threads that have not returned.

    Example:
        ::

            @distribute(job="compute", workers=8)
            def score(x: int, y: int, verbose: bool = False) -> int: ...

            results = await score(range(1000), range(4000, 2000, -2), verbose=True)
    """
    if callable(job) or isinstance(job, classmethod):
        return distribute()(job)  # pyright: ignore[reportArgumentType]
    method = JOBS.get(job)
    if method is None:
        raise ValueError(f"job={job!r}: expected one of {', '.join(map(repr, JOBS))}")
    if workers is not None:
        checked_count("workers", workers)

    def decorate(fn: Callable[..., R]) -> Distributed[R]:
        _check(fn, job, method)
        return Distributed(fn, method, workers, autobatch)

    return decorate


def _check(fn: Any, job: str, method: Method) -> None:
    if not callable(fn) and not isinstance(fn, classmethod):
        raise TypeError(f"distribute decorates functions, got {fn!r}")
    shape = shape_of(fn)
    if shape.is_stream:
        raise TypeError(f"{function_name(fn)} is a generator function, and each call has one result: return a list")
    if shape.is_async and method is Method.THREAD:
        raise TypeError(
            f"{function_name(fn)} is an `async def`, and job={job!r} runs plain functions in threads. "
            "Write `@distribute(job='web')`"
        )


class Distributed(Generic[R]):
    """A function that takes whole sequences: :func:`distribute` makes it.

    Cancellation:
        Of a call: cancels what runs, and waits until it has stopped.

    What may still be running:
        Calls in threads that have not returned.

    Example:
        ::

            results = await score(range(1000), range(4000, 2000, -2), verbose=True)
    """

    def __init__(self, fn: Callable[..., R], method: Method, workers: int | None, autobatch: bool) -> None:
        functools.update_wrapper(self, fn)
        is_async = shape_of(fn).is_async
        self._fn = plain_function(fn)
        self._method = Method.THREAD if method is Method.COROUTINE and not is_async else method
        self._workers = workers
        self._autobatch = autobatch
        self._hints = resolved_hints(self._fn)

    async def __call__(self, /, *sequences: Any, **constants: Any) -> list[R]:
        """Distribute the sequences; see :func:`distribute`."""
        if not sequences:
            raise TypeError(
                f"{function_name(self._fn)}: there is nothing to distribute; pass sequences by position, and constants "
                "by keyword"
            )
        arguments = await self._arguments(sequences)
        tasks = self._tasks(arguments)
        settings = Settings().changed(method=self._method)
        workers = None if self._method in {Method.RAY, Method.REMOTE} else self._workers
        options = {"star": True, "kwargs": constants, "name": function_name(self._fn)}
        return await map_with(settings, self._fn, tasks, options, workers)

    def __get__(self, instance: Any, owner: type | None = None) -> Distributed[R]:
        """Bind as the function does; the object that a method belongs to is not distributed."""
        bind = getattr(type(self._fn), "__get__", None)
        method = self._fn if bind is None else bind(self._fn, instance, owner)
        return self if method is self._fn else type(self)(method, self._method, self._workers, self._autobatch)

    @property
    def __signature__(self) -> inspect.Signature:
        """Each distributed parameter takes a sequence, and the result is a list."""
        signature = inspect.signature(self._fn)
        parameters = [self._shown(parameter) for parameter in signature.parameters.values()]
        result = self._hints.get("return", Any)
        return signature.replace(parameters=parameters, return_annotation=_generic(list, result))

    def __repr__(self) -> str:
        return f"<distributed {function_name(self._fn)} method={str(self._method)!r}>"

    def _shown(self, parameter: inspect.Parameter) -> inspect.Parameter:
        if parameter.kind not in _POSITIONAL or parameter.default is not parameter.empty:
            return parameter
        return parameter.replace(annotation=_generic(Sequence, self._hints.get(parameter.name, Any)))

    async def _arguments(self, sequences: Sequence[Any]) -> list[_Argument]:
        """The sequences with what their parameters say; inputs without a length are read to the end."""
        parameters = self._parameters(len(sequences))
        return [
            _Argument(await self._sized(sequence, place), self._hint(parameter))
            for place, (sequence, parameter) in enumerate(zip(sequences, parameters, strict=True))
        ]

    async def _sized(self, sequence: Any, place: int) -> Any:
        try:
            source = open_source(checked_items(sequence))
        except TypeError:
            raise TypeError(
                f"{function_name(self._fn)}: argument {place} cannot be distributed: {sequence!r}; pass a sequence, or "
                "a constant by keyword"
            ) from None
        if hasattr(type(sequence), "__len__") and hasattr(type(sequence), "__iter__"):
            return sequence
        items: list[Any] = []
        try:
            while taken := await source.take(MOST):
                items += taken
        finally:
            await source.aclose()
        return items

    def _parameters(self, count: int) -> list[str | None]:
        """The names of the first so many positional parameters."""
        try:
            known = inspect.signature(self._fn).parameters.values()
        except (TypeError, ValueError):  # a builtin may have no signature
            return [None] * count
        names: list[str | None] = [each.name for each in known if each.kind in _POSITIONAL]
        rest = next((each.name for each in known if each.kind is _KINDS.VAR_POSITIONAL), None)
        return [*names, *[rest] * count][:count]

    def _hint(self, parameter: str | None) -> Hint:
        return hint_of(self._hints[parameter]) if parameter in self._hints else NO_HINT

    def _tasks(self, arguments: list[_Argument]) -> list[tuple[Any, ...]]:
        """The arguments of each call."""
        lengths = [len(argument.items) for argument in arguments]
        equal = len(set(lengths)) == 1
        if self._autobatch and equal and all(argument.is_cut for argument in arguments):
            columns = [argument.parts(self._count(lengths[0])) for argument in arguments]
        elif self._autobatch:
            self._check_runs(arguments, lengths)
            columns = [argument.runs(min(lengths)) for argument in arguments]
        elif equal:
            columns = [iter(argument.items) for argument in arguments]
        else:
            raise ValueError(self._misfit(lengths, "without autobatch they must be equal"))
        return list(zip(*columns, strict=True))

    def _count(self, length: int) -> int:
        """How many batches to cut."""
        return min(length, PARTS_PER_WORKER * (self._workers or available_cpus()))

    def _check_runs(self, arguments: list[_Argument], lengths: list[int]) -> None:
        shortest = min(lengths)
        for argument, length in zip(arguments, lengths, strict=True):
            if length == shortest:
                continue
            if not shortest or length % shortest:
                raise ValueError(self._misfit(lengths, "each must be a multiple of the shortest"))
            if not argument.hint.is_container:
                raise ValueError(self._misfit(lengths, "only a parameter that is hinted as a container takes a run"))

    def _misfit(self, lengths: list[int], rule: str) -> str:
        return (
            f"{function_name(self._fn)}: sequences of the lengths {lengths} cannot be distributed together: {rule} "
            "(constants go by keyword)"
        )


class _Argument(NamedTuple):
    """A sequence, and what the hint of its parameter says."""

    items: Any
    hint: Hint

    @property
    def is_cut(self) -> bool:
        """Whether its parameter takes containers, and its elements are none yet."""
        return self.hint.is_container and depth_of_value(self.items) <= self.hint.depth

    def parts(self, count: int) -> Iterator[Any]:
        """Balanced batches."""
        size, larger = divmod(len(self.items), max(1, count))
        return self._cut([size + 1] * larger + [size] * (count - larger))

    def runs(self, count: int) -> Iterator[Any]:
        """So many elements, or runs of elements where the parameter takes those."""
        if not self.is_cut:
            return iter(self.items)
        return self._cut([len(self.items) // count] * count if count else [])

    def _cut(self, sizes: list[int]) -> Iterator[Any]:
        items = iter(self.items)
        start = 0
        for size in sizes:
            if hasattr(self.items, "ndim"):
                yield self.items[start : start + size]
            else:
                yield (self.hint.build or list)(islice(items, size))
            start += size


def _generic(container: Any, element: Any) -> Any:
    """``Sequence[int]`` and the like, whatever stands in a hint."""
    try:
        return container[element]
    except TypeError:
        return container
