"""Results of a map on their way to the consumer."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from aioparallel._executors.results import Results


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_ordered_results_wait_for_those_before_them(order: tuple[int, ...]) -> None:
    """However results come, they are ready in the order of the items, as soon as all before them are."""
    results = Results(ordered=True)
    given: list[int] = []
    for done, index in enumerate(order, start=1):
        results.add(index, 1, (index,))
        given += results.ready
        results.ready.clear()
        assert given == list(range(len(given)))
        assert results.held == done - len(given)
    assert given == [0, 1, 2, 3]


def test_unordered_results_are_ready_at_once() -> None:
    """Without an order nothing waits."""
    results = Results(ordered=False)
    results.add(7, 1, ("h",))
    results.add(0, 2, ("a", "b"))
    assert list(results.ready) == ["h", "a", "b"]
    assert results.held == 0


def test_several_items_at_once() -> None:
    """The results of items that travelled together take the places of all of them."""
    results = Results(ordered=True)
    results.add(3, 2, ("d", "e"))
    assert results.held == 2
    results.add(0, 3, ("a", "b", "c"))
    assert list(results.ready) == ["a", "b", "c", "d", "e"]


def test_items_without_a_result_hold_back_nobody() -> None:
    """An item that failed gives nothing, counts as passed, and lets those behind it through."""
    results = Results(ordered=True)
    results.add(1, 1, ("b",))
    results.add(0, 1, ())
    assert list(results.ready) == ["b"]
    assert results.passed == 1


def test_keeping_counts_what_is_ready_as_passed() -> None:
    """For who takes everything at the end, results need no room in the window once they are ready."""
    results = Results(ordered=True)
    results.add(0, 1, ("a",))
    assert results.passed == 0
    results.keep()
    results.add(2, 1, ("c",))
    assert (results.passed, results.held) == (1, 1)
    results.add(1, 1, ("b",))
    assert (results.passed, results.held) == (3, 0)


def test_sealed_results_keep_what_is_ready() -> None:
    """After sealing only what was ready is given; after dropping, nothing is."""
    results = Results(ordered=True)
    results.add(0, 1, ("a",))
    results.seal()
    results.add(1, 1, ("b",))
    assert list(results.ready) == ["a"]
    results.drop()
    assert not results.ready


@pytest.mark.timeout(10)
async def test_consumers_are_told() -> None:
    """Whoever waits for a change is woken, all of them."""
    results = Results(ordered=True)
    waiting = [asyncio.ensure_future(results.change()) for _ in range(3)]
    await asyncio.sleep(0)
    results.notify()
    await asyncio.gather(*waiting)
    results.close()
    assert results.closed
