"""split_eval: a function of a whole array, evaluated on parts of it in parallel."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from .._executors.mapoptions import MapOptions
from .._model.call import function_name
from .._model.checks import checked_count
from .._model.info import Method
from .._model.options import Retry
from .maps import map_with
from .parallel import Settings

if TYPE_CHECKING:
    from .._executors.pool import Executor

__all__ = ["part_sizes", "split_eval"]


class SplitKeywords(TypedDict, total=False):
    """What holds for the evaluation of each part."""

    progress: Any
    timeout: float | None
    retry: Retry | int | None
    idempotent: bool
    priority: int
    limit: Any
    name: str | None


def split_eval(
    fn: Callable[[Any], Any],
    *,
    chunks: int | None = None,
    chunk_size: int | None = None,
    min_size: int = 1,
    axis: int = 0,
    method: Method | str = "process",
    workers: int | None = None,
    on: Executor | None = None,
    **options: Unpack[SplitKeywords],
) -> Callable[[Any], Awaitable[Any]]:
    """A parallel version of a function that is applied to a whole array.

    The array is cut into parts of equal size (give or take one) along an axis, the function is evaluated on each
    part, and what it returns is joined along the same axis (or along the last one, where that has fewer dimensions).
    Where numpy is not installed, sequences are cut and joined as lists.

    Args:
        fn: Takes a part, and returns something with a row for each row of it.
        chunks: How many parts; without it and ``chunk_size``, as many as the executor runs at a time.
        chunk_size: How large a part may be, instead of how many there are.
        min_size: No part is smaller, but for an input that is; there may be fewer parts then.
        axis: Along which axis to cut and to join.
        method: The kind of executor, as for :func:`parmap`.
        workers: Run on a pool of so many workers that lives as long as an evaluation.
        on: Run on this executor.
        **options: Any of ``timeout``, ``retry``, ``idempotent``, ``priority``, ``limit``, ``name`` and ``progress``,
            as for :func:`parmap`; they hold for each part.

    Returns:
        A function of an array to be awaited, which may be called again and again.

    Raises:
        TypeError, ValueError: An argument makes no sense; raised at once.

    Cancellation:
        Cancels the evaluation of all parts.

    What may still be running:
        Nothing; with ``method="thread"`` the parts in threads that have not returned.

    Example:
        ::

            parfun = split_eval(fun)
            results = await parfun(X)
    """
    if chunks is not None and chunk_size is not None:
        raise ValueError(f"chunks={chunks} and chunk_size={chunk_size}: say one of them")
    for name, value in (("chunks", chunks), ("chunk_size", chunk_size), ("min_size", min_size)):
        if value is not None:
            checked_count(name, value)
    if not callable(fn):
        raise TypeError(f"expected a function of an array, got {fn!r}")
    settings = Settings().changed(**({"method": method} if on is None else {"on": on}))
    if unknown := sorted(set(options) - set(SplitKeywords.__annotations__)):
        raise TypeError(f"split_eval() has no option {', '.join(unknown)}")
    MapOptions.of("split_eval", options)

    async def evaluate(array: Any) -> Any:
        cutter = _cutter(array, axis)
        sizes = part_sizes(cutter.length, chunks or workers or _workers_of(on), chunk_size, min_size)
        parts = list(cutter.parts(sizes))
        values = await map_with(settings, fn, parts, {**options, "chunksize": 1}, workers)
        return cutter.join(values, function_name(fn))

    evaluate.__name__ = evaluate.__qualname__ = f"split_eval({function_name(fn)})"
    return evaluate


def part_sizes(length: int, chunks: int, chunk_size: int | None = None, min_size: int = 1) -> list[int]:
    """The sizes of the parts: balanced, none empty, none below ``min_size`` if that can be.

    An empty input is one empty part, so that the function says what comes out of nothing.
    """
    if chunk_size is not None:
        chunks = -(-length // max(min_size, chunk_size))
    chunks = max(1, min(chunks, length // min_size))
    size, larger = divmod(length, chunks)
    return [size + 1] * larger + [size] * (chunks - larger)


def _workers_of(on: Executor | None) -> int:
    from .._child.cpus import available_cpus

    return available_cpus() if on is None else on._capacity()


def _cutter(array: Any, axis: int) -> _Arrays | _Lists:
    if hasattr(array, "__array__") or importlib.util.find_spec("numpy") is not None:
        return _Arrays(array, axis)
    if axis != 0:
        raise ValueError(f"axis={axis}: a list has one axis; install numpy to cut along others")
    return _Lists(array)


class _Arrays:
    """Cuts and joins with numpy."""

    def __init__(self, array: Any, axis: int) -> None:
        import numpy as np

        self._array = np.atleast_1d(array)
        if not -self._array.ndim <= axis < self._array.ndim:
            raise ValueError(f"axis={axis}: the input has {self._array.ndim} dimensions")
        self._axis = axis % self._array.ndim
        self.length: int = self._array.shape[self._axis]

    def parts(self, sizes: Sequence[int]) -> Iterator[Any]:
        for start, end in pairwise(accumulate(sizes, initial=0)):
            yield self._array[(slice(None),) * self._axis + (slice(start, end),)]

    def join(self, values: Sequence[Any], name: str) -> Any:
        import numpy as np

        if any(np.ndim(value) == 0 for value in values):
            raise TypeError(
                f"{name} returned a single value for a part of the input: it must return a row for each row"
            )
        return np.concatenate(values, axis=min(self._axis, min(map(np.ndim, values)) - 1))


class _Lists:
    """Cuts any sequence, and joins lists."""

    def __init__(self, items: Any) -> None:
        self._items = list(items)
        self.length = len(self._items)

    def parts(self, sizes: Sequence[int]) -> Iterator[list[Any]]:
        for start, end in pairwise(accumulate(sizes, initial=0)):
            yield self._items[start:end]

    def join(self, values: Sequence[Any], name: str) -> list[Any]:
        if not all(hasattr(value, "__iter__") for value in values):
            raise TypeError(
                f"{name} returned a single value for a part of the input: it must return a row for each row"
            )
        return list(chain.from_iterable(values))
