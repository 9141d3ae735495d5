"""What users of parmapper and py_stateful_map were told they had, in their own words, where the other tests do not say it.

``tests/unit/test_promises.py`` has the whole list, with the test that shows each promise.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import ProcessExecutor, StatefulPool, parmap
from tests.contract import jobs, mapjobs, statejobs
from tests.tools import Gate, hold, until


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(str(tmp_path / "gate"))
    yield gate
    gate.open()


# parmapper


@pytest.mark.parametrize("chunksize", ["auto", 2, 100])
async def test_few_items_are_shared_out(gate: Gate, chunksize: Any) -> None:
    """Two items keep two workers busy, whatever ``chunksize`` is; parmapper computed them one after the other."""

    async def open_when_both_are_there() -> None:
        await until(lambda: len(set(gate.entered)) == 2, "each item is in a worker of its own")
        gate.open()

    opening = asyncio.ensure_future(open_when_both_are_there())
    assert await parmap(hold, [gate] * 2, workers=2, chunksize=chunksize) == [None, None]
    await opening


async def test_no_barrier_between_threads_of_a_process(gate: Gate) -> None:
    """With ``threads_per_worker`` the other threads of a process go on while one is in a slow item."""
    ended: list[int] = []
    mapping = parmap(
        lambda x: mapjobs.hold_at(gate, 0, x), range(40), workers=1, threads_per_worker=2, ordered=False, chunksize=8
    )
    async for x in mapping:
        ended.append(x)
        if len(ended) == 39:
            gate.open()
    assert ended == [*range(1, 40), 0]


async def test_return_process(gate: Gate) -> None:
    """``ReturnProcess`` is ``submit``: large results, joining again, and a timeout that is one; nothing hangs."""
    async with ProcessExecutor(2) as pool:
        slow, large = pool.submit(hold, gate), pool.submit(bytes, 3_000_000)
        assert len(await large) == 3_000_000
        assert await large is await large
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, 0.1)
        assert slow.cancelled()
        with pytest.raises(jobs.JobError):
            await pool.submit(jobs.fail)


START_METHOD = """
import asyncio, multiprocessing
from aioparallel import parmap

multiprocessing.set_start_method("{method}")

async def main():
    print(await parmap(lambda x: 2 * x, range(3), workers=1))

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_any_start_method(method: str) -> None:
    """Lambdas are mapped whatever the start method of ``multiprocessing`` is; parmapper needed ``fork``."""
    assert _run(START_METHOD.format(method=method)) == "[0, 2, 4]\n"


# py_stateful_map


@pytest.mark.parametrize("method", ["thread", "process"])
async def test_map_that_is_never_iterated(method: str) -> None:
    """A map that nobody iterates over keeps no worker, and closing waits for nothing."""
    async with StatefulPool(statejobs.double, workers=2, method=method) as pool:
        assert len(pool.map(range(10))) == 10


@pytest.mark.parametrize("method", ["thread", "process"])
async def test_large_results_of_those_that_are_waited_for(method: str, gate: Gate) -> None:
    """``errors="finish"`` waits for what runs although its results are too large for any pipe."""

    def work(x: int) -> Any:
        gate.enter()
        while len(gate.entered) < 2:
            pass
        if x:
            return bytes(3_000_000)
        raise LookupError(x)

    async with StatefulPool(work, workers=2, method=method) as pool:
        with pytest.raises(LookupError):
            await pool.map(range(2), errors="finish")


@pytest.mark.parametrize("method", ["thread", "process"])
async def test_stop_iteration(method: str) -> None:
    """A worker that raises StopIteration fails its item; it does not end the results."""

    def stop(x: int) -> int:
        return next(iter([x] * (x % 2)))

    async with StatefulPool(stop, workers=2, method=method) as pool:
        outcomes = await pool.map(range(4), errors="return")
        assert [outcome.value for outcome in outcomes] == [None, 1, None, 3]
        assert isinstance(outcomes[0].error, RuntimeError)


LEAVE_EARLY = """
import asyncio
from aioparallel import StatefulPool

async def main():
    async with StatefulPool(abs, workers=2, method="{method}") as pool:
        async for result in pool.map(iter(int, 1)):
            break
        {then}

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["thread", "process"])
@pytest.mark.parametrize("then", ["print('left')", "raise SystemExit('left')"])
def test_program_ends_after_leaving_early(method: str, then: str) -> None:
    """A program that leaves an endless map early, by ``break`` or by an error, ends."""
    assert _run(LEAVE_EARLY.format(method=method, then=then)) == "left\n"


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout
