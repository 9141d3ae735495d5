"""The verbs of maps, cancelled where they wait for the first time, the second time, and so on: nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aioparallel
from aioparallel import Limit, ProcessExecutor, StatefulPool, distribute, parallelize, parmap, split_eval
from tests.cancellation.stepping import Case, each_await, the_first
from tests.contract import jobs
from tests.tools import Gate, hold, until

METHODS = pytest.mark.parametrize("method", ["process", "thread"])
HOW = "task.cancel"


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """New gates, all of which are opened after the test."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(str(tmp_path / f"gate{len(made)}")))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


class State:
    """A state that is nothing but a function."""

    def __call__(self, gate: Gate | int) -> Any:
        return hold(gate) if isinstance(gate, Gate) else gate


async def assert_works(pool: StatefulPool) -> None:
    assert await asyncio.wait_for(pool.submit(7), 20) == 7


@METHODS
async def test_start_of_a_stateful_pool(method: str) -> None:
    """A start that is cancelled leaves the pool closed, and it can be started again."""
    pool = StatefulPool(State, workers=2, method=method)

    async def case() -> Case:
        yield pool.start()
        async with pool:
            await assert_works(pool)

    assert await each_await(case, HOW)


@METHODS
async def test_end_of_a_stateful_pool(method: str, gates: Callable[[], Gate]) -> None:
    """Cancelling the end of a pool cancels what runs in it; then it is closed, and can be started again."""
    pool = StatefulPool(State, workers=2, method=method, grace=0.05)

    async def case() -> Case:
        await pool.start()
        gate = gates()
        call = pool.submit(gate)
        await until(lambda: gate.entered)
        yield pool.aclose()
        assert call.cancelled()
        gate.open()
        async with pool:
            await assert_works(pool)

    await the_first(case, HOW)


@METHODS
async def test_map_of_a_stateful_pool(method: str, gates: Callable[[], Gate]) -> None:
    """A map that is cancelled has stopped its items; the pool goes on with its states."""
    async with StatefulPool(State, workers=2, method=method, grace=0.05) as pool:

        async def case() -> Case:
            gate = gates()
            yield _started_and_left(pool.map([gate] * 4), gate if method == "thread" else None)
            gate.open()
            await assert_works(pool)

        assert await each_await(case, HOW)


async def _started_and_left(results: Any, gate: Gate | None) -> None:
    """Await a map for a while; its items wait at the gate, which is opened where they cannot be stopped."""
    if gate is not None:
        asyncio.get_running_loop().call_later(0.01, gate.open)
    async with results:
        await asyncio.sleep(0)
        await asyncio.sleep(0.02)


@METHODS
async def test_map_with_a_pool_of_its_own(method: str, gates: Callable[[], Gate]) -> None:
    """However a map with ``workers`` is cancelled, its pool has ended when it has."""

    async def case() -> Case:
        gate = gates()
        yield _started_and_left(
            parmap(hold, [gate] * 4, method=method, workers=2), gate if method == "thread" else None
        )

    assert await each_await(case, HOW)


@pytest.mark.parametrize("job", ["compute", "io"])
async def test_distribute(job: str) -> None:
    """A distributed call that is cancelled leaves no pool and no call behind; the next one works."""
    same = distribute(job=job, workers=1)(jobs.same)

    async def case() -> Case:
        yield same(range(8))
        assert await same([1, 2]) == [1, 2]

    assert await each_await(case, HOW)


async def test_split_eval() -> None:
    """An evaluation that is cancelled leaves nothing behind, and the function can be used again."""
    double = split_eval(lambda rows: 2 * rows, chunks=3, workers=1)

    async def case() -> Case:
        yield double(np.arange(9))
        assert (await double(np.arange(4))).tolist() == [0, 2, 4, 6]

    assert await each_await(case, HOW)


async def test_limit() -> None:
    """Who is cancelled while waiting for a limit, or behind it, gives up the place."""
    limit = Limit(concurrency=1, rate=200)

    async def pass_through() -> None:
        async with limit.admit():
            await asyncio.sleep(0)

    async def case() -> Case:
        first = asyncio.ensure_future(pass_through())
        yield pass_through()
        await first
        await asyncio.wait_for(pass_through(), 20)

    assert await each_await(case, HOW)


async def test_end_of_the_ambient_executors() -> None:
    """Cancelling ``aclose`` of the ambient executors closes them; calls after it open new ones."""
    call = parallelize(method="process")(jobs.add)

    async def case() -> Case:
        waiting = call(1, 2)
        yield aioparallel.aclose()
        await asyncio.wait([waiting])
        assert await call(3, 4) == 7

    assert await each_await(case, HOW)
    await aioparallel.aclose()


async def test_shutdown_if_idle() -> None:
    """A shutdown that is cancelled has closed the executor all the same."""

    async def case() -> Case:
        pool = await ProcessExecutor(1).start()
        yield pool.shutdown_if_idle()
        await pool.aclose()
        assert pool.status().workers == 0

    assert await each_await(case, HOW)
