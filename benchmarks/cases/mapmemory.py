"""Whether a map's memory grows with its input."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import mappers, work
from benchmarks.callers import FORK, WORKERS
from benchmarks.measuring import peak_memory, timed
from benchmarks.suite import Goal, Metric, Sample, case

CHUNK = 5000
RATIO = 100

Run = Callable[[Iterable[int]], Any]
"""Maps lazily over the items, keeps nothing and returns the sum of the results."""


@case(
    "mapmemory",
    title=f"by how much the peak memory of a map of {{size}} tiny items exceeds that of 1/{RATIO} as many",
    metrics=[Metric("growth", "MB"), Metric("rate", "items/s", "higher")],
    goals=[Goal("growth", None, plus=10)],
    size=10_000_000,
    quick=500_000,
    rounds=1,
    timeout=180,
)
async def mapmemory(run: Run, size: int) -> Sample:
    """The growth of the parent's peak, the consumer being as fast as it can."""
    await _checked(run, size // RATIO)
    before = peak_memory()
    seconds = await _checked(run, size)
    return {"growth": peak_memory() - before, "rate": size / seconds}


async def _checked(run: Run, size: int) -> float:
    seconds, total = await timed(run, (number for number in range(size)))
    if total != size * (size + 1) // 2:
        raise ValueError("wrong results")
    return seconds


@mapmemory.contestant("serial loop", role="reference")
@asynccontextmanager
async def serial() -> AsyncIterator[Run]:
    """No workers."""
    yield lambda items: sum(map(work.increment, items))


@mapmemory.contestant("mp.Pool.imap, tuned")
@asynccontextmanager
async def imap() -> AsyncIterator[Run]:
    """It yields lazily, but takes in without bound."""
    with FORK.Pool(WORKERS) as pool:
        yield lambda items: sum(pool.imap(work.increment, items, CHUNK))


@mapmemory.contestant("ProcessPoolExecutor.map, tuned")
@asynccontextmanager
async def executor() -> AsyncIterator[Run]:
    """It takes in everything before it yields."""
    with ProcessPoolExecutor(WORKERS, mp_context=FORK) as pool:
        yield lambda items: sum(pool.map(work.increment, items, chunksize=CHUNK))


@mapmemory.contestant("joblib generator, tuned", needs="joblib")
@asynccontextmanager
async def joblib_generator() -> AsyncIterator[Run]:
    """``return_as="generator"``."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS, return_as="generator", batch_size=CHUNK) as parallel:
        yield lambda items: sum(parallel(delayed(work.increment)(item) for item in items))


@mapmemory.contestant("ours, async for", role="ours", needs=mappers.OURS)
@asynccontextmanager
async def ours() -> AsyncIterator[Run]:
    """Nothing tuned."""
    from aioparallel import ProcessExecutor, parmap

    async with ProcessExecutor(WORKERS) as pool:

        async def run(items: Iterable[int]) -> int:
            total = 0
            async for value in parmap(work.increment, items, on=pool):
                total += value
            return total

        yield run
