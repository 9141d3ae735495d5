"""Chunks of a map on processes: items that travel together, each of them still on its own."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aioparallel import CallExitedError, PicklingError, ProcessExecutor, WorkerLostError
from aioparallel._executors import workers
from tests.contract import mapjobs
from tests.tools import Gate, Log, until

pytestmark = pytest.mark.timeout(60)

ITEMS = range(40)
BAD = 13


@pytest.fixture
async def pool() -> AsyncIterator[ProcessExecutor]:
    async with ProcessExecutor(2, engine="resident") as pool:
        yield pool


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))


async def test_chunks_are_calls(pool: ProcessExecutor) -> None:
    """With ``chunksize`` so many items travel as one call; results are in order, and ``status`` counts items."""
    assert await pool.map(mapjobs.double, ITEMS, chunksize=10) == [2 * x for x in ITEMS]
    assert pool.status().done == 40


class Item(float):
    """Something that can be missed."""


async def test_items_are_let_go(pool: ProcessExecutor) -> None:
    """When a chunk has ended, nothing keeps its items: they do not wait for the garbage collector."""
    items: weakref.WeakSet[Item] = weakref.WeakSet()

    def source() -> Iterator[Item]:
        for number in ITEMS:
            items.add(item := Item(number))
            yield item

    gc.disable()
    try:
        assert await pool.map(mapjobs.double, source(), chunksize=10) == [2 * x for x in ITEMS]
        assert len(items) == 0
    finally:
        gc.enable()


async def test_failure_is_one_item_s(pool: ProcessExecutor) -> None:
    """An item that fails in a chunk fails alone, with its index; those beside it have their values."""
    outcomes = await pool.map(partial(mapjobs.fail_at, BAD), ITEMS, chunksize=10, errors="return")
    assert [outcome.value for outcome in outcomes] == [x if x != BAD else None for x in ITEMS]
    assert isinstance(outcomes[BAD].error, mapjobs.ItemError)
    assert outcomes[BAD].error.seq_index == BAD  # type: ignore[attr-defined]
    assert all(outcome.worker for outcome in outcomes)


async def test_items_share_the_time_of_their_chunk() -> None:
    """What items of one worker took, taken together, is no more than what there was."""
    async with ProcessExecutor(1, engine="resident") as pool:
        began = time.monotonic()
        outcomes = await pool.map(abs, range(1000), chunksize=100, errors="return")
        elapsed = time.monotonic() - began
    durations = [outcome.duration for outcome in outcomes if outcome.duration is not None]
    assert len(durations) == 1000
    assert 0 < sum(durations) <= elapsed


@pytest.mark.parametrize("errors", ["raise", "finish"])
async def test_nothing_begins_behind_a_failure(log: Log, monkeypatch: pytest.MonkeyPatch, errors: Any) -> None:
    """Unless all outcomes are wanted, what stands behind an item that failed in its chunk does not begin."""
    monkeypatch.setattr(workers, "LOOK_SECONDS", 60)  # or the chunk may be divided before

    def work(x: int) -> int:
        log.write(x)
        return mapjobs.fail_at(3, x)

    async with ProcessExecutor(1, engine="resident") as pool:
        with pytest.raises(mapjobs.ItemError):
            await pool.map(work, range(10), chunksize=10, errors=errors)
        assert log.lines == ["0", "1", "2", "3"]


@pytest.mark.parametrize("errors", ["raise", "return"])
async def test_dead_worker_fails_the_item_that_it_was_in(pool: ProcessExecutor, log: Log, errors: Any) -> None:
    """A worker that dies in a chunk fails one item; those before it keep their results, those behind it run elsewhere."""
    work = partial(mapjobs.die_or_write, log, BAD)
    mapping = pool.map(work, ITEMS, chunksize=10, errors=errors)
    if errors == "raise":
        with pytest.raises(WorkerLostError) as caught:
            await mapping
        error: Any = caught.value
    else:
        outcomes = await mapping
        assert [outcome.value for outcome in outcomes] == [x if x != BAD else None for x in ITEMS]
        assert sorted(map(int, log.lines)) == list(ITEMS), "each item was begun once"
        error = outcomes[BAD].error
        assert isinstance(error, WorkerLostError)
    assert error.exitcode == 3
    assert error.seq_index == BAD
    assert log.lines.count(str(BAD)) == 1


async def test_idempotent_item_is_repeated(pool: ProcessExecutor, log: Log) -> None:
    """Where items may be run twice, the one that was lost is, and only that."""

    def die_once(x: int) -> int:
        log.write(x)
        if x == BAD and log.lines.count(str(x)) == 1:
            os._exit(3)
        return x

    assert await pool.map(die_once, ITEMS, chunksize=10, idempotent=True) == list(ITEMS)
    assert sorted(map(int, log.lines)) == sorted([*ITEMS, BAD])


async def test_item_that_cannot_travel(pool: ProcessExecutor) -> None:
    """An item that cannot be pickled fails alone: the others of its chunk travel without it."""
    items = [x if x != BAD else (x, (y for y in ())) for x in ITEMS]
    outcomes = await pool.map(mapjobs.double, items, chunksize=10, errors="return")
    assert [outcome.value for outcome in outcomes] == [2 * x if x != BAD else None for x in ITEMS]
    assert isinstance(outcomes[BAD].error, PicklingError)


async def test_result_that_cannot_travel(pool: ProcessExecutor) -> None:
    """A result that cannot be pickled fails its item alone."""
    outcomes = await pool.map(partial(mapjobs.unpicklable_at, BAD), ITEMS, chunksize=10, errors="return")
    assert [outcome.ok for outcome in outcomes] == [x != BAD for x in ITEMS]
    assert isinstance(outcomes[BAD].error, PicklingError)


async def test_exit_in_a_chunk(pool: ProcessExecutor) -> None:
    """``sys.exit`` in an item of a chunk fails that item; the worker lives."""

    def leave(x: int) -> int:
        if x == BAD:
            raise SystemExit(x)
        return x

    outcomes = await pool.map(leave, ITEMS, chunksize=10, errors="return")
    assert [outcome.value for outcome in outcomes] == [x if x != BAD else None for x in ITEMS]
    assert isinstance(outcomes[BAD].error, CallExitedError)
    assert pool.status().deaths == 0


async def test_long_item_gives_the_others_away(pool: ProcessExecutor, tmp_path: Path) -> None:
    """What stands behind an item that turns out to be long goes to workers that have nothing to do."""
    gate = Gate(str(tmp_path / "gate"))
    ended: list[int] = []
    async for x in pool.map(partial(mapjobs.hold_at, gate, 1), range(10), chunksize=10, ordered=False):
        ended.append(x)
        if len(ended) == 9:
            gate.open()
    assert sorted(ended) == list(range(10))
    assert ended[-1] == 1


async def test_dead_worker_whose_chunk_was_divided(pool: ProcessExecutor, tmp_path: Path) -> None:
    """A worker that dies in an item, when what was behind that has gone to others, fails that item only."""
    gate = Gate(str(tmp_path / "gate"))

    def hold_and_die(x: int) -> int:
        if x == 1:
            gate.enter()
            while not gate.is_open:
                pass
            os._exit(3)
        return x

    outcomes: list[Any] = []
    async for outcome in pool.map(hold_and_die, range(10), chunksize=10, ordered=False, errors="return"):
        outcomes.append(outcome)
        if len(outcomes) == 9:
            gate.open()
    outcomes.sort(key=lambda outcome: outcome.index)
    assert [outcome.value for outcome in outcomes] == [x if x != 1 else None for x in range(10)]
    assert isinstance(outcomes[1].error, WorkerLostError)


async def test_cancelled_map(pool: ProcessExecutor, tmp_path: Path) -> None:
    """Cancelling a map kills what runs and begins nothing of its chunks any more."""
    gate, log = Gate(str(tmp_path / "gate")), Log(str(tmp_path / "log"))

    def work(x: int) -> int:
        log.write(x)
        return mapjobs.hold_at(gate, x, x)

    async def mapping() -> None:
        await pool.map(work, range(40), chunksize=20)

    task = asyncio.ensure_future(mapping())
    await until(lambda: len(gate.entered) == 2)
    task.cancel()
    await asyncio.wait([task])
    gate.open()
    begun = log.lines
    assert await pool.submit(abs, -1) == 1
    assert log.lines == begun
    assert not gate.left


async def test_promises_to_single_items(pool: ProcessExecutor, log: Log) -> None:
    """Items with a timeout, retries or a limit travel alone: these are promises to each of them."""

    def flaky(x: int) -> int:
        log.write(x)
        if log.lines.count(str(x)) < 2:
            raise mapjobs.ItemError(x)
        return x

    assert await pool.map(flaky, range(6), chunksize=3, retry=2, timeout=30) == list(range(6))
    assert sorted(log.lines) == sorted(map(str, [*range(6), *range(6)]))


async def test_large_chunks(pool: ProcessExecutor) -> None:
    """A chunk may be larger than what a worker keeps book of, and its results than any buffer."""
    assert await pool.map(mapjobs.double, range(5000), chunksize=5000) == [2 * x for x in range(5000)]
    results = await pool.map(partial(bytes.ljust, b"x"), [300_000] * 20, chunksize=20)
    assert [len(result) for result in results] == [300_000] * 20
