"""parmap: where a map runs, and its other doors. What holds for all maps is in the contract."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import aioparallel
from aioparallel import (
    CoroutineExecutor,
    Limit,
    Method,
    ParallelMap,
    ProcessExecutor,
    ThreadExecutor,
    configure,
    parallelize,
    parmap,
)
from tests.tools import is_alive, until
from tests.unit.verbs import mapjobs

pytestmark = pytest.mark.timeout(60)


async def fetch(x: int) -> int:
    await asyncio.sleep(0.001)
    return 2 * x


# Where


@pytest.mark.parametrize("method", ["serial", "thread", "process", Method.THREAD])
async def test_method(method: Any) -> None:
    """A map runs on the ambient executor of its method."""
    assert await parmap(abs, range(-5, 5), method=method) == list(map(abs, range(-5, 5)))


async def test_processes_by_default() -> None:
    """Without a method items run in processes, coroutine functions too."""
    assert os.getpid() not in await parmap(lambda _: os.getpid(), range(5))
    assert await parmap(fetch, range(5)) == [0, 2, 4, 6, 8]


async def test_coroutines() -> None:
    """With ``method="coroutine"`` items are coroutines on this loop; a plain function is refused at once."""
    assert await parmap(fetch, range(300), method="coroutine") == [2 * x for x in range(300)]
    with pytest.raises(TypeError, match="plain function"):
        parmap(abs, [1], method="coroutine")


async def test_map_of_many_coroutines_runs_many_at_a_time() -> None:
    """So many coroutines run at a time as the executor allows."""
    running, most = 0, 0

    async def visit(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1

    await parmap(visit, range(200), method="coroutine", workers=7)
    assert most == 7


@pytest.mark.parametrize("method", ["process", "thread"])
async def test_workers_mean_a_pool_of_its_own(method: str) -> None:
    """With ``workers`` the map has that many, and they end with it."""
    places = await parmap(mapjobs.who, range(40), method=method, workers=3)
    workers = {place[0] if method == "process" else place[1] for place in places}
    assert 1 <= len(workers) <= 3
    assert {place[2] for place in places} <= {0, 1, 2}


async def test_own_pool_ends_with_the_map() -> None:
    """However the map ends, its own pool has ended when it has."""
    async with parmap(mapjobs.who, iter(int, 1), workers=2) as results:
        pid, _, _ = await anext(results)
        assert is_alive(pid)
    assert not is_alive(pid)


async def test_threads_inside_processes() -> None:
    """``threads_per_worker`` threads run items in each process."""
    places = await parmap(mapjobs.who, range(60), workers=2, threads_per_worker=3)
    processes = {pid for pid, _, _ in places}
    threads = {(pid, thread) for pid, thread, _ in places}
    assert 1 <= len(processes) <= 2
    assert len(threads) > len(processes)
    assert all(sum(each == pid for each, _ in threads) <= 3 for pid in processes)


async def test_particular_executor() -> None:
    """With ``on`` the map runs on that executor, which stays open; a closed one is refused when the map begins."""
    async with ThreadExecutor(2) as pool:
        assert await parmap(abs, range(5), on=pool) == [0, 1, 2, 3, 4]
        assert await pool.submit(abs, -1) == 1
    with pytest.raises(aioparallel.ExecutorClosedError):
        await parmap(abs, [1], on=pool)


async def test_configured_executor() -> None:
    """The executor that ``configure`` chose for a method is used."""
    async with configure(process=ThreadExecutor(2, name="stand-in")) as configuration:
        assert await parmap(lambda _: os.getpid(), range(3)) == [os.getpid()] * 3
        assert configuration.opened[0].status().done == 3


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": "magic"}, ValueError, "magic"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"workers": 2.5}, ValueError, "workers=2.5"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker=0"),
        ({"threads_per_worker": 2, "method": "thread"}, ValueError, "process"),
        ({"workers": 2, "method": "ray"}, ValueError, "cluster"),
        ({"on": 5}, TypeError, "on=5"),
        ({"on": ThreadExecutor(1), "workers": 2}, TypeError, "workers="),
        ({"chunk": 5}, TypeError, "chunk"),
        ({"errors": "ignore"}, ValueError, "ignore"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """A wrong option is refused where the map is written, with or without an event loop."""
    with pytest.raises(error, match=said):
        parmap(abs, [1], **options)


def test_without_an_event_loop() -> None:
    """A map can be made anywhere; it needs an event loop to begin."""
    results = parmap(abs, [-1])
    assert isinstance(results, ParallelMap)
    assert asyncio.run(_all(results)) == [1]


async def _all(results: ParallelMap[Any]) -> list[Any]:
    return await results


def test_map_stays_on_its_event_loop() -> None:
    """A map that began on one event loop cannot be continued on another: it says so, and does not hang."""
    results = parmap(abs, iter(int, 1), method="thread")

    async def begin() -> None:
        await anext(results)

    asyncio.run(begin())
    with pytest.raises((RuntimeError, aioparallel.CallCancelledError)):
        asyncio.run(_all(results))


async def test_map_in_a_worker_runs_in_place() -> None:
    """In a worker process a map runs there, in place: processes never multiply."""
    async with ProcessExecutor(2) as pool:
        places = await pool.submit(mapjobs.nested, 5)
    assert len(places) == 5
    assert all(mine == pid for mine, pid in places)


async def test_map_on_threads_in_a_thread() -> None:
    """A coroutine that holds a slot may map on its own kind of executor without waiting for a slot that it holds."""

    async def outer(n: int) -> list[int]:
        return await parmap(fetch, range(n), method="coroutine")

    async with configure(coroutine=CoroutineExecutor(1)):
        assert await parmap(outer, [1, 2], method="coroutine") == [[0], [0, 2]]


async def test_unsized_input_needs_no_total_for_chunks() -> None:
    """Chunks are sized without knowing how many items there are, and without a warning."""
    assert await parmap(abs, (x for x in range(5000)), workers=2) == list(range(5000))
    assert await parmap(abs, range(10), workers=4, chunksize=6) == list(range(10))


# Decorated functions


async def test_decorated_function_as_function() -> None:
    """A decorated function may be mapped like the plain one, by any executor."""

    @parallelize
    def triple(x: int) -> int:
        return 3 * x

    for method in ("thread", "process"):
        assert await parmap(triple, range(3), method=method) == [0, 3, 6]


async def test_map_of_a_decorated_function() -> None:
    """``f.map`` takes the keywords of parmap; the function's own options hold unless others are given."""

    @parallelize(method="thread", name="mine")
    def add(x: int, y: int) -> int:
        return x + y

    assert [x async for x in add.map([(1, 2), (3, 4)], star=True)] == [3, 7]
    outcomes = await add.map([(1, 2), (3, "4")], star=True, errors="return")
    assert [outcome.ok for outcome in outcomes] == [True, False]
    assert "mine" in repr(add.map([]))


# Pipelines


async def test_pipeline_of_kinds_with_backpressure() -> None:
    """Coroutines feed processes, which feed threads; a slow end holds back the source, and leaving closes it."""
    pulled: list[int] = []
    closed: list[bool] = []

    def urls() -> Iterator[int]:
        try:
            for x in range(10_000):
                pulled.append(x)
                yield x
        finally:
            closed.append(True)

    downloaded = parmap(fetch, urls(), method="coroutine", prefetch=4)
    parsed = parmap(lambda x: x + 1, downloaded, method="process", prefetch=4)
    async with parmap(str, parsed, method="thread", prefetch=4) as written:
        assert [await anext(written) for _ in range(20)] == [str(2 * x + 1) for x in range(20)]
        assert len(pulled) <= 20 + 12
    assert closed == [True]


async def test_error_at_the_beginning_of_a_pipeline() -> None:
    """A failure in the first stage arrives at the end as itself, with the item that caused it."""

    async def download(x: int) -> int:
        if x == 3:
            raise LookupError("no such page")
        return x

    parsed = parmap(abs, parmap(download, range(100), method="coroutine"), method="thread")
    with pytest.raises(LookupError, match="no such page") as caught:
        await parsed
    assert caught.value.seq_index == 3  # type: ignore[attr-defined]


async def test_pipeline_with_plain_generators() -> None:
    """Generators before and async comprehensions after a map make a pipeline, as ``map`` and generators would."""

    def load() -> Iterator[int]:
        yield from range(10)

    prepared = (x + 1 for x in load())
    assert [x - 1 async for x in parmap(lambda x: 2 * x, prepared)] == [2 * x + 1 for x in range(10)]


# Limits and time


async def test_limit_is_shared_by_maps_and_calls() -> None:
    """Maps and calls of decorated functions that use one limit share it."""
    limit = Limit(concurrency=2)
    running, most = 0, 0

    async def visit(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.003)
        running -= 1

    visited = parallelize(visit, limit=limit)
    maps = [parmap(visit, range(10), method="coroutine", limit=limit) for _ in range(2)]
    await asyncio.gather(*(_all(each) for each in maps), *(visited(x) for x in range(5)))
    assert most == 2


async def test_limit_holds_where_a_map_runs_in_place() -> None:
    """A limit holds also for a map that runs in place, because its caller holds a slot of the same kind."""
    limit = Limit(concurrency=1)
    running, most = 0, 0

    async def visit(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async def outer(_: int) -> None:
        await parmap(visit, range(5), method="coroutine", limit=limit)

    await parmap(outer, range(3), method="coroutine")
    assert most == 1


async def test_one_busy_key_does_not_hold_up_the_others() -> None:
    """With a limit per key, items of other keys overtake those that wait for theirs."""
    order: list[str] = []
    gate = asyncio.Event()

    async def visit(url: str) -> None:
        if url.startswith("slow"):
            await gate.wait()
        order.append(url)

    urls = [f"slow/{n}" for n in range(50)] + [f"quick/{n}" for n in range(50)]
    limit = Limit(concurrency=1, key=lambda url: url.partition("/")[0])
    results = parmap(visit, urls, method="coroutine", limit=limit, ordered=False)
    waiting = asyncio.ensure_future(_all(results))
    await until(lambda: len(order) == 50)
    assert all(url.startswith("quick") for url in order)
    gate.set()
    assert len(await waiting) == 100


async def test_retry_after_slows_its_key() -> None:
    """A call that fails with ``retry_after`` is begun again after that, and so are the others of its key."""

    class BusyError(Exception):
        retry_after = 0.1

    times: dict[str, list[float]] = {}

    async def visit(url: str) -> str:
        times.setdefault(url, []).append(time.monotonic())
        if url == "a/0" and len(times[url]) == 1:
            raise BusyError
        return url

    limit = Limit(concurrency=1, key=lambda url: url[0])
    urls = ["a/0", "a/1", "b/0"]
    assert await parmap(visit, urls, method="coroutine", limit=limit, retry=3) == urls
    assert times["a/1"][0] - times["a/0"][0] >= 0.09
    assert times["b/0"][0] - times["a/0"][0] < 0.09


async def test_constants_travel_once() -> None:
    """A constant of a map is not sent with every item."""

    class Costly:
        pickled = 0

        def __reduce__(self) -> Any:
            Costly.pickled += 1
            return (int, (5,))

    assert await parmap(lambda x, y: x + y, range(100), args=(Costly(),), workers=2) == list(range(5, 105))
    assert Costly.pickled <= 2


async def test_cancelled_while_it_stops() -> None:
    """A consumer that is cancelled while a failed map stops its other items is cancelled when they have stopped."""
    begun, may_end = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def work(x: int) -> None:
        if x == 0:
            await begun.wait()
            raise LookupError(x)
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await may_end.wait()
            ended.append(x)

    async def consume() -> None:
        await parmap(work, range(2), method="coroutine")

    consumer = asyncio.ensure_future(consume())
    await begun.wait()
    await _turns()
    consumer.cancel()
    await _turns()
    assert not consumer.done()
    may_end.set()
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert ended == [1]


async def _turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_async_generators_of_the_user_are_not_left_running() -> None:
    """An async input is closed although its consumer was dropped, in the task that read it."""
    closed = threading.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    async for _ in parmap(abs, endless(), method="thread"):
        break
    await until(closed.is_set)
