"""Chunks: many short items as one call, each with an end of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from aioparallel._child import chunks
from aioparallel._child.page import FLAGS, NOTES, PICKLES, TAKEN_BACK, Page
from aioparallel._workers.returning import unpack_failure

NUMBER = FLAGS + 5
"""Of the call; its flag is the sixth."""


def run(
    page: Page, fn: Any, items: Any, *, stop_at_failure: bool = False
) -> tuple[list[Any], dict[int, BaseException]]:
    values, failed = chunks.run(fn, items, page, NUMBER, stop_at_failure)
    return values, {index: unpack_failure(packed, "f", "w") for index, packed in failed.items()}


VALUES = [1, -(2**61), 2**62, 2**100, 2.5, None, True, "text", [1, {"a": 2}], b"x", float("inf")]


def test_values(shared: Page, page_path: str) -> None:
    """Items' results come back in order, and are on the page as well for whoever comes after a death."""
    values, failed = run(shared, lambda item: item, VALUES)
    assert (values, failed) == (VALUES, {})
    other = Page(page_path)
    again, _ = chunks.recover(other.notes)
    other.close()
    assert again == VALUES
    assert [type(value) for value in again] == [type(value) for value in VALUES]


def test_what_is_recovered_after_a_death(shared: Page) -> None:
    """Before each item begins, the results of those before it are on the page."""
    seen: list[Any] = []

    def look(item: int) -> int:
        seen.append(chunks.recover(shared.notes)[0])
        return item * 10

    run(shared, look, range(5))
    assert seen == [[0, 10, 20, 30][:count] for count in range(5)]


@pytest.mark.parametrize("stop", [False, True])
def test_failures(shared: Page, stop: bool) -> None:
    """An item that fails has its own end, after which the others go on, unless nobody wants them."""
    values, failed = run(shared, lambda item: 10 // item, [5, 0, 2], stop_at_failure=stop)
    assert values == ([2, None] if stop else [2, None, 5])
    assert [type(error) for error in failed.values()] == [ZeroDivisionError]
    assert list(failed) == [1]
    again, packed = chunks.recover(shared.notes)
    assert again == values
    assert isinstance(unpack_failure(packed[1], "f", "w"), ZeroDivisionError)


def test_exits(shared: Page) -> None:
    """``sys.exit`` in an item ends that item."""

    def leave(item: int) -> int:
        if item == 1:
            raise SystemExit(3)
        return item

    values, failed = run(shared, leave, range(3))
    assert values == [0, None, 2]
    assert failed[1].code == 3  # type: ignore[attr-defined]


def test_unpicklable_results(shared: Page) -> None:
    """An item whose result cannot travel fails, and names the path to the culprit."""
    values, failed = run(shared, lambda item: {"x": threading.Lock()} if item else item, range(3))
    assert values == [0, None, None]
    assert [error.path for error in failed.values()] == ["the result['x']"] * 2  # type: ignore[attr-defined]


def test_giving_back(shared: Page) -> None:
    """A chunk that is asked back ends after the item that runs; at least one is run."""

    def ask_back(item: int) -> int:
        if item == 2:
            shared.flag(NUMBER, TAKEN_BACK)
        return item

    assert run(shared, ask_back, range(10))[0] == [0, 1, 2]
    assert run(shared, ask_back, range(10))[0] == [0]


def test_full_pages(shared: Page) -> None:
    """A chunk ends early when the page has no room for further results."""
    size = PICKLES // 4
    values, _ = run(shared, lambda item: "x" * size, range(10))
    assert 1 < len(values) < 6
    assert len(chunks.recover(shared.notes)[0]) >= len(values) - 1
    assert run(shared, lambda item: "x" * 2 * PICKLES, range(3))[0] == ["x" * 2 * PICKLES]


def test_old_notes_are_cleared(shared: Page) -> None:
    """What an earlier chunk has noted is not mistaken for results of this one."""
    run(shared, lambda item: item, range(NOTES))

    def look(item: int) -> int:
        assert chunks.recover(shared.notes)[0] == [0][:item]
        return item

    assert run(shared, look, range(2))[0] == [0, 1]


@pytest.mark.parametrize(
    ("star", "kwstar", "item", "expected"),
    [
        (False, False, 1, ((1, "a"), {"k": 0})),
        (True, False, (1, 2), ((1, 2, "a"), {"k": 0})),
        (None, False, 1, (("a",), {"k": 0})),
        (None, True, {"k": 5, "m": 6}, (("a",), {"k": 5, "m": 6})),
        (False, True, (1, {"m": 6}), ((1, "a"), {"k": 0, "m": 6})),
        (True, True, ((1, 2), {"k": 5}), ((1, 2, "a"), {"k": 5})),
    ],
)
def test_how_items_are_passed(star: bool | None, kwstar: bool, item: Any, expected: Any) -> None:
    """An item becomes arguments in each of the ways that a map knows, before its constants."""
    fn = chunks.bind(lambda *args, **kwargs: (args, kwargs), star, kwstar, ("a",), {"k": 0})
    assert fn(item) == expected


def test_functions_without_constants_are_called_directly() -> None:
    """Where an item is all there is, nothing stands between the map and the function."""
    assert chunks.bind(len, False, False, (), {}) is len
