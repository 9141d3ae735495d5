"""split_eval: functions of whole arrays, evaluated in parts."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from aioparallel import ThreadExecutor, split_eval
from aioparallel._verbs.split import part_sizes

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("length", "options", "sizes"),
    [
        (10, {"chunks": 3}, [4, 3, 3]),
        (10, {"chunks": 1, "chunk_size": 4}, [4, 3, 3]),
        (10, {"chunks": 1, "chunk_size": 4, "min_size": 6}, [10]),
        (10, {"chunks": 8, "min_size": 4}, [5, 5]),
        (10, {"chunks": 16}, [1] * 10),
        (10, {"chunks": 1}, [10]),
        (3, {"chunks": 4, "min_size": 5}, [3]),
        (0, {"chunks": 4}, [0]),
        (0, {"chunks": 1, "chunk_size": 3}, [0]),
        (7, {"chunks": 1, "chunk_size": 100}, [7]),
    ],
    ids=str,
)
def test_sizes(length: int, options: dict[str, Any], sizes: list[int]) -> None:
    """Parts are balanced, never empty unless the input is, and not below ``min_size`` if that can be."""
    assert part_sizes(length, **options) == sizes


async def test_replaces_a_call_of_the_function() -> None:
    """``await parfun(X)`` gives what ``fun(X)`` does, and may be used again."""
    array = np.arange(40.0).reshape(20, 2)

    def norm(x: Any) -> Any:
        return np.sqrt((x**2).sum(axis=1))

    parfun = split_eval(norm, chunks=3, method="thread")
    for factor in (1, 2):
        np.testing.assert_array_equal(await parfun(factor * array), norm(factor * array))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
async def test_any_axis(axis: int) -> None:
    """Parts are cut and joined along any axis."""
    array = np.arange(24).reshape(2, 3, 4)
    seen: list[tuple[int, ...]] = []

    def double(x: Any) -> Any:
        seen.append(x.shape)
        return 2 * x

    np.testing.assert_array_equal(await split_eval(double, chunks=2, axis=axis, method="thread")(array), 2 * array)
    assert len(seen) == 2
    assert {shape[:axis] for shape in seen} == {array.shape[:axis]}


async def test_result_with_fewer_dimensions() -> None:
    """What reduces the other axes is joined along the one that is left."""
    array = np.arange(20).reshape(2, 10)
    parfun = split_eval(lambda x: x.sum(axis=0), chunks=3, axis=1, method="thread")
    np.testing.assert_array_equal(await parfun(array), array.sum(axis=0))


async def test_lists() -> None:
    """A list is taken for an array where numpy is installed."""
    np.testing.assert_array_equal(await split_eval(lambda x: x * 2, method="thread")([1, 2, 3]), [2, 4, 6])


async def test_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numpy is not installed, sequences are cut and joined as lists."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    parts: list[Any] = []

    def double(items: list[int]) -> list[int]:
        parts.append(items)
        return [2 * item for item in items]

    parfun = split_eval(double, chunks=3, method="thread")
    assert await parfun(range(10)) == [2 * x for x in range(10)]
    assert sorted(map(len, parts)) == [3, 3, 4]
    assert await parfun([]) == []
    with pytest.raises(ValueError, match="axis=1"):
        await split_eval(double, axis=1)([1])
    with pytest.raises(TypeError, match="single value"):
        await split_eval(len, method="thread")([1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"chunks": 4}, {"chunk_size": 3}, {}], ids=str)
async def test_empty_input(options: dict[str, Any]) -> None:
    """The function says what comes out of nothing: it is evaluated once, on an empty array."""
    result = await split_eval(lambda x: x.sum(axis=1), method="thread", **options)(np.zeros((0, 3)))
    assert result.shape == (0,)


async def test_function_that_returns_a_single_value() -> None:
    """A function that gives a number for a part is told to give a row for each row."""
    with pytest.raises(TypeError, match="a row for each row"):
        await split_eval(np.sum, chunks=2, method="thread")(np.arange(4))


async def test_axis_that_is_not_there() -> None:
    """An axis beyond the input's dimensions is refused."""
    with pytest.raises(ValueError, match="2 dimensions"):
        await split_eval(np.sqrt, axis=2, method="thread")(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"chunks": 2, "chunk_size": 3}, ValueError, "one of them"),
        ({"chunks": 0}, ValueError, "chunks=0"),
        ({"chunk_size": 0}, ValueError, "chunk_size=0"),
        ({"min_size": 0}, ValueError, "min_size=0"),
        ({"method": "magic"}, ValueError, "magic"),
        ({"ordered": False}, TypeError, "ordered"),
        ({"timeout": -1}, ValueError, "timeout"),
    ],
    ids=str,
)
def test_nonsense_is_refused_at_once(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """A wrong argument is refused when the function is made."""
    with pytest.raises(error, match=said):
        split_eval(np.sqrt, **options)
    with pytest.raises(TypeError, match="function"):
        split_eval(5)  # type: ignore[arg-type]


async def test_in_processes() -> None:
    """By default parts are evaluated in processes; a pool of its own, or a particular executor, may be chosen."""
    array = np.arange(1000.0)
    np.testing.assert_array_equal(await split_eval(np.sqrt)(array), np.sqrt(array))
    np.testing.assert_array_equal(await split_eval(np.sqrt, workers=2)(array), np.sqrt(array))
    async with ThreadExecutor(3) as pool:
        np.testing.assert_array_equal(await split_eval(np.sqrt, on=pool)(array), np.sqrt(array))
        assert pool.status().done == 3
