"""Generator functions: their items arrive one after the other, made only as they are wanted."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tests.contract import jobs
from tests.contract.jobs import JobError
from tests.contract.kinds import Kind, every
from tests.contract.streaming import fit_stream, stream
from tests.tools import Gate, Log, hold, until

FEW = 40
"""Items of 6 ms each that may have been made although nobody wanted them; a stream that does not wait makes far more."""


def streaming(kind: Kind) -> bool:
    return kind.streams


@every(streaming)
@pytest.mark.parametrize("n", [0, 1, 1000])
async def test_items(kind: Kind, pool: Any, n: int) -> None:
    """``async for`` gives all items in their order, and then ends, once and for all."""
    items = stream(pool, fit_stream(kind, jobs.count_to), n)
    assert [item async for item in items] == list(range(n))
    assert [item async for item in items] == []


@every(lambda kind: kind.streams and kind.loops)
async def test_items_of_an_async_generator(kind: Kind, pool: Any) -> None:
    """Async generators stream as plain ones do."""
    assert [item async for item in stream(pool, jobs.count_to_async, 100)] == list(range(100))


@every(lambda kind: kind.streams and not kind.coroutines)
async def test_failure(kind: Kind, pool: Any) -> None:
    """What a generator raises arrives after the items before it."""
    items = stream(pool, jobs.count_and_fail, 5)
    seen = []
    with pytest.raises(JobError) as caught:
        async for item in items:
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]
    assert caught.value.code == 5
    assert [item async for item in items] == []


@every(streaming)
async def test_futures_as_arguments(kind: Kind, pool: Any) -> None:
    """A stream awaits the futures among its arguments, as any call does."""
    count = pool.submit(kind.fit(jobs.same), 3)
    assert [item async for item in stream(pool, fit_stream(kind, jobs.count_to), count)] == [0, 1, 2]


@every(lambda kind: kind.streams and kind.later)
async def test_backpressure(kind: Kind, opened: Any, log: Log) -> None:
    """A stream whose consumer waits makes no items and holds no worker; when it is left, the generator is closed."""
    pool = await opened(1)
    async with stream(pool, fit_stream(kind, jobs.endless), log) as items:
        assert await anext(items) == 0
        for n in range(20):
            assert await pool.submit(kind.fit(jobs.add), n, 1) == n + 1, "the only worker is free"
        made = len(log.lines)
        assert made < FEW
        assert [await anext(items) for _ in range(3)] == [1, 2, 3]
    assert log.lines[-1] == "closed"
    assert len(log.lines) < FEW


@every(lambda kind: kind.streams and kind.later)
async def test_two_streams_in_turn(kind: Kind, opened: Any, tmp_path: Any) -> None:
    """Two streams on one worker take turns, and each has its own items."""
    pool = await opened(1)
    logs = [Log(str(tmp_path / name)) for name in "ab"]
    async with (
        stream(pool, fit_stream(kind, jobs.endless), logs[0]) as a,
        stream(pool, fit_stream(kind, jobs.endless), logs[1]) as b,
    ):
        for n in range(10):
            assert (await anext(a), await anext(b)) == (n, n)
    assert [log.lines[-1] for log in logs] == ["closed", "closed"]


@every(streaming)
@pytest.mark.parametrize("how", ["aclose", "drop"])
async def test_leaving_early(kind: Kind, pool: Any, log: Log, how: str) -> None:
    """A stream that is closed, or dropped after ``break``, closes its generator where it lives."""
    items = stream(pool, fit_stream(kind, jobs.endless), log)
    async for item in items:
        if item == 2:
            break
    if how == "aclose":
        await items.aclose()
        assert log.lines[-1] == "closed"
        await items.aclose()
    del items
    gc.collect()
    await until(lambda: log.lines[-1] == "closed")
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every(streaming)
async def test_never_begun(kind: Kind, pool: Any, log: Log) -> None:
    """A stream that nobody asks for an item never begins, and can be closed."""
    items = stream(pool, fit_stream(kind, jobs.endless), log)
    assert "open" in repr(items)
    await items.aclose()
    assert [item async for item in items] == []
    assert not log.lines
    assert pool.task_count == 0


@every(lambda kind: kind.streams and kind.later and not kind.coroutines)
async def test_cancelled_consumer(kind: Kind, opened: Any, log: Log, tmp_path: Any) -> None:
    """Cancelling who waits for an item stops the generator, and the pool goes on."""
    pool = await opened(1)
    gates = [Gate(str(tmp_path / f"gate{n}")) for n in range(2)]
    gates[0].open()
    items = stream(pool, jobs.count_at_gates, log, gates)
    consumer = asyncio.ensure_future(anext(items))
    await until(lambda: gates[1].entered)
    consumer.cancel()
    await asyncio.wait([consumer])
    gates[1].open()
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
    assert [item async for item in items] == []
    await items.aclose()


@every(lambda kind: kind.streams and kind.later)
async def test_consumer_that_is_cancelled_while_its_step_is_queued(
    kind: Kind, opened: Any, gate: Gate, log: Log
) -> None:
    """Cancelling who waits for an item closes the generator also when the item is not being made yet."""
    pool = await opened(1)
    items = stream(pool, fit_stream(kind, jobs.endless), log)
    assert await anext(items) == 0
    blocker = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)

    async def use_up() -> None:
        async for _ in items:
            pass

    consumer = asyncio.ensure_future(use_up())
    await until(lambda: pool.status().queued == 1)
    consumer.cancel()
    await asyncio.wait([consumer])
    gate.open()
    await blocker
    await until(lambda: log.lines[-1] == "closed")


@every(streaming)
async def test_closed_with_its_executor(kind: Kind, log: Log) -> None:
    """A stream that outlives its executor can still be closed; one that lives in a worker has ended with that."""
    async with kind.make() as pool:
        items = stream(pool, fit_stream(kind, jobs.endless), log)
        assert await anext(items) == 0
    assert not kind.separate or log.lines[-1] == "closed"
    await items.aclose()
    await until(lambda: log.lines[-1] == "closed")


@every(streaming)
async def test_one_consumer(kind: Kind, pool: Any, log: Log) -> None:
    """A second consumer that asks a stream for an item while the first waits for one is told so."""
    items = stream(pool, fit_stream(kind, jobs.endless), log)
    first = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    if kind.later:
        with pytest.raises(RuntimeError, match="two consumers"):
            await anext(items)
    assert await first == 0
    await items.aclose()
