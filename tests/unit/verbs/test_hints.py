"""What type hints say: a container of elements, or an element."""

from __future__ import annotations

import collections
import typing
from array import array
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union

import numpy as np
import pytest

from aioparallel._verbs.hints import depth_of_value, hint_of, resolved_hints
from tests.tools import name_of

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")
Many = TypeVar("Many", bound="list[int]")
Row = NewType("Row", list[int])


class Point(NamedTuple):
    x: int
    y: int


class Bag(Generic[T]):
    """Has what it takes to be a collection."""

    def __iter__(self) -> Iterator[T]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, item: object) -> bool:
        return False


class Record:
    """Can be iterated over, as some data classes can, and is no collection."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


CONTAINERS = [
    list,
    tuple,
    set,
    frozenset,
    range,
    collections.deque,
    array,
    list[int],
    tuple[int, ...],
    set[str],
    typing.List[int],  # noqa: UP006
    typing.Sequence[int],
    Iterable,
    Iterable[int],
    abc.Iterator[int],
    abc.Generator[int, None, None],
    abc.Collection,
    Sequence[str],
    np.ndarray,
    Bag[int],
    Optional[list[int]],  # noqa: UP045
    list[int] | None,
    Union[list[int], tuple[int, ...]],  # noqa: UP007
    Annotated[list[int], "sorted"],
    Row,
    Many,
    list["Decimal"],
    "list[int]",
    "Sequence[Decimal]",
    "typing.List[Decimal] | None",
    "np.ndarray",
    "npt.NDArray[np.float64]",
]

ELEMENTS = [
    int,
    float,
    bool,
    object,
    Any,
    None,
    str,
    bytes,
    bytearray,
    dict,
    dict[str, int],
    Mapping[str, int],
    collections.Counter,
    typing.Dict[str, int],  # noqa: UP006
    Optional[int],  # noqa: UP045
    int | None,
    int | list[int],
    str | list[str],
    Literal["a", "b"],
    Callable[[int], int],
    tuple[int, str],
    Point,
    Record,
    T,
    "int",
    "Decimal",
    "dict[str, Decimal]",
    "not a type",
    "Decimal | None",
    "Unknown[int]",
    "pd.Timestamp",
    5,
]


@pytest.mark.parametrize("annotation", CONTAINERS, ids=str)
def test_containers(annotation: Any) -> None:
    """Whatever legal form a container's hint has, it is understood."""
    assert hint_of(annotation).is_container


@pytest.mark.parametrize("annotation", ELEMENTS, ids=str)
def test_elements(annotation: Any) -> None:
    """Strings, bytes, mappings, records, unions with elements and whatever is not known count as one element."""
    assert not hint_of(annotation).is_container


@pytest.mark.parametrize(
    ("annotation", "depth"),
    [(int, 0), (list[int], 1), (list[list[int]], 2), (Sequence[tuple[int, ...]], 2), (list, 1), ("list[list[int]]", 2)],
    ids=str,
)
def test_depth(annotation: Any, depth: int) -> None:
    """Nested containers are counted."""
    assert hint_of(annotation).depth == depth


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (5, 0),
        ("text", 0),
        ({"a": 1}, 0),
        ([], 1),
        ([1, 2], 1),
        (["a"], 1),
        ([[1], [2]], 2),
        (range(3), 1),
        ([range(3)], 2),
        ({"a": 1}.keys(), 1),
        ([{"a": 1}], 1),
        (np.zeros((3, 3)), 1),
        ([np.zeros(3)], 2),
        ([Point(1, 2)], 1),
        (iter([1]), 0),
    ],
    ids=name_of,
)
def test_depth_of_values(value: Any, depth: int) -> None:
    """Values are as deep as their first elements say; an array is one container, whatever its dimensions."""
    assert depth_of_value(value) == depth


def test_hints_that_cannot_be_evaluated() -> None:
    """A hint that only type checkers can evaluate does not spoil the others."""

    def f(a: int, b: list[Decimal], c: Sequence[int]) -> Decimal: ...

    hints = resolved_hints(f)
    assert hints["a"] is int
    assert hint_of(hints["b"]).is_container
    assert hint_of(hints["c"]).is_container


def test_functions_without_hints() -> None:
    """Builtins and callable objects have no hints, or those of what is called."""

    class Call:
        def __call__(self, x: list[int]) -> int:
            return len(x)

    assert resolved_hints(len) == {}
    assert resolved_hints(Call())["x"] == list[int]
