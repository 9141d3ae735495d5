"""Maps on threads and coroutines: items that share a call are each still on their own."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aioparallel import CallCancelledError, CallExitedError, CoroutineExecutor, ThreadExecutor, current_call
from tests.tools import until

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

Pool = ThreadExecutor | CoroutineExecutor


@pytest.fixture(params=["thread", "coroutine"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    """An executor that runs two items at a time."""
    kinds: dict[str, Callable[[], Pool]] = {
        "thread": lambda: ThreadExecutor(2, grace=20),
        "coroutine": lambda: CoroutineExecutor(2, grace=20),
    }
    async with kinds[request.param]() as pool:
        yield pool


def fit(pool: Pool, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function in the form that the executor takes."""
    if isinstance(pool, ThreadExecutor):
        return fn

    async def run(*args: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*args)

    return run


async def test_items_share_calls(pool: Pool) -> None:
    """With ``chunksize`` so many items share a call, results are in order, and ``status`` counts items."""
    calls: list[int] = []

    def note(x: int) -> int:
        calls.append(current_call().id)
        return -x

    assert await pool.map(fit(pool, note), range(100), chunksize=10) == [-x for x in range(100)]
    assert len(set(calls)) == 10
    assert pool.status().done == 100
    assert pool.task_count == 0


@pytest.mark.parametrize("items", [[], [1], range(3), range(1000)])
async def test_any_number_of_items(pool: Pool, items: Any) -> None:
    """However many items there are, each is done once."""
    assert await pool.map(fit(pool, abs), items) == list(items)


async def test_shared_arguments(pool: Pool) -> None:
    """Items that are unpacked, and constants beside them, arrive in a shared call as in any."""
    pairs = [(n, 2) for n in range(50)]
    assert await pool.map(fit(pool, pow), pairs, star=True, chunksize=7) == [n**2 for n in range(50)]
    assert await pool.map(fit(pool, pow), range(50), args=(3,), chunksize=7) == [n**3 for n in range(50)]


async def test_each_item_has_a_context_of_its_own(pool: Pool) -> None:
    """What an item does to contextvars, the next in the same call does not see."""

    def swap(x: int) -> str:
        seen = request.get()
        request.set(f"spoilt by {x}")
        return seen

    request.set("the map's")
    assert set(await pool.map(fit(pool, swap), range(20), chunksize=10)) == {"the map's"}


async def test_failures_are_single(pool: Pool) -> None:
    """An item that fails in a shared call fails alone, as its own exception, and is counted as one."""

    def work(x: int) -> int:
        if x == 3:
            raise LookupError(x)
        if x == 4:
            sys.exit(5)
        if x == 5:
            raise asyncio.CancelledError
        return x

    outcomes = [o async for o in pool.map(fit(pool, work), range(10), chunksize=10, errors="return")]
    assert [type(o.error) for o in outcomes[3:6]] == [LookupError, CallExitedError, CallCancelledError]
    assert [o.value for o in outcomes if o.ok] == [0, 1, 2, 6, 7, 8, 9]
    assert (pool.status().done, pool.status().failed) == (7, 3)


@pytest.mark.parametrize("errors", ["raise", "finish"])
async def test_nothing_begins_behind_a_failure(pool: Pool, errors: Any) -> None:
    """Unless all outcomes are wanted, items behind one that failed in the same call do not begin."""
    begun: list[int] = []

    def work(x: int) -> None:
        begun.append(x)
        if x == 3:
            raise LookupError

    with pytest.raises(LookupError):
        await pool.map(fit(pool, work), range(10), chunksize=10, errors=errors)
    assert begun == [0, 1, 2, 3]


async def test_long_item_gives_the_others_away() -> None:
    """When an item turns out to be long, those behind it in the same call go to another thread."""
    begun = threading.Event()
    release = threading.Event()
    done: list[int] = []

    def work(x: int) -> None:
        if x == 0:
            begun.set()
            assert release.wait(20)
        done.append(x)

    async with ThreadExecutor(2) as pool:
        mapping = asyncio.ensure_future(_collect(pool.map(work, range(10), chunksize=10)))
        await until(begun.is_set)
        await until(lambda: sorted(done) == list(range(1, 10)))
        release.set()
        await mapping
    assert sorted(done) == list(range(10))


async def test_coroutine_that_waits_gives_the_others_away() -> None:
    """The same among coroutines, while there is room for another."""
    release = asyncio.Event()
    done: list[int] = []

    async def work(x: int) -> None:
        if x == 0:
            await release.wait()
        done.append(x)

    async with CoroutineExecutor(2) as pool:
        mapping = asyncio.ensure_future(_collect(pool.map(work, range(10), chunksize=10)))
        await until(lambda: sorted(done) == list(range(1, 10)))
        release.set()
        await mapping


async def _collect(results: Any) -> list[Any]:
    return [result async for result in results]


async def test_cancelled_map_begins_no_further_items() -> None:
    """When a map is cancelled, the item that a thread is in runs on, and those behind it never begin."""
    begun = threading.Event()
    release = threading.Event()
    done: list[int] = []

    def work(x: int) -> None:
        begun.set()
        assert release.wait(20)
        done.append(x)

    async with ThreadExecutor(1) as pool:
        mapping = asyncio.ensure_future(_collect(pool.map(work, range(10), chunksize=10)))
        await until(begun.is_set)
        mapping.cancel()
        await asyncio.wait([mapping])
        release.set()
        assert await pool.submit(len, done) <= 1
    assert done == [0]


async def test_cancelled_map_of_coroutines() -> None:
    """When a map of coroutines is cancelled, the item that runs is cleaned up, and those behind it never begin."""
    trace: list[str] = []

    async def work(x: int) -> None:
        trace.append(f"in {x}")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            trace.append(f"out {x}")

    async with CoroutineExecutor(1) as pool:
        mapping = asyncio.ensure_future(_collect(pool.map(work, range(10), chunksize=10)))
        await until(lambda: trace)
        mapping.cancel()
        await asyncio.wait([mapping])
        assert trace == ["in 0", "out 0"]


async def test_coroutines_returned_by_plain_functions() -> None:
    """An item whose function returns a coroutine fails, rather than let it be forgotten."""
    async with ThreadExecutor(1) as pool:
        with pytest.raises(TypeError, match="returned a coroutine"):
            await pool.map(lambda x: asyncio.sleep(x), range(3), chunksize=3)


async def test_timeouts_inside_items() -> None:
    """``asyncio.timeout`` works in items that share a task and a call."""

    async def work(x: int) -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60 if x % 2 else 0)
        except TimeoutError:
            return "late"
        return "in time"

    async with CoroutineExecutor(1) as pool:
        assert await pool.map(work, range(6), chunksize=6) == ["in time", "late"] * 3


async def test_executor_that_is_opened_again() -> None:
    """Maps go on to divide long calls when their executor was closed and opened again."""
    async with CoroutineExecutor(2) as pool:
        await pool.map(asyncio.sleep, [0] * 20, chunksize=5)
    await test_coroutine_that_waits_gives_the_others_away()
    async with pool:
        assert await pool.map(asyncio.sleep, [0.03, *[0] * 20], chunksize=21) == [None] * 21
