"""A map of very many very short coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import work
from benchmarks.measuring import peak_memory, timed
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case

CONCURRENCY = 100

Run = Callable[[int], Any]
"""Runs that many coroutines and returns the sum of what they gave."""


@case(
    "coroutines",
    title="a map of {size} coroutines that each take one turn of the loop, 100 at a time",
    metrics=[Metric("rate", "items/s", "higher"), Metric("memory", "MB")],
    goals=[Goal("rate", BEST_RIVAL), Goal("memory", None, plus=10)],
    size=100_000,
    quick=5000,
)
async def coroutines(run: Run, size: int) -> Sample:
    """Items per second, and by how much the peak of the process grew."""
    await timed(run, size // 20)
    before = peak_memory()
    seconds, total = await timed(run, size)
    if total != size * (size - 1) // 2:
        raise ValueError("wrong results")
    return {"rate": size / seconds, "memory": peak_memory() - before}


@coroutines.contestant("bare loop, one after another", role="floor")
@asynccontextmanager
async def bare() -> AsyncIterator[Run]:
    """No concurrency and no bookkeeping."""

    async def run(count: int) -> int:
        total = 0
        for number in range(count):
            total += await work.tick(number)
        return total

    yield run


@coroutines.contestant("TaskGroup + semaphore, lazily fed")
@asynccontextmanager
async def lazily_fed() -> AsyncIterator[Run]:
    """A task for each item, made when there is room for it."""

    async def run(count: int) -> int:
        total = 0
        room = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int) -> None:
            nonlocal total
            try:
                value = await work.tick(number)
            finally:
                room.release()
            total += value

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await room.acquire()
                group.create_task(one(number))
        return total

    yield run


@coroutines.contestant("semaphore + gather")
@asynccontextmanager
async def gathered() -> AsyncIterator[Run]:
    """What most people write: all tasks at once."""

    async def run(count: int) -> int:
        room = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int) -> int:
            async with room:
                return await work.tick(number)

        return sum(await asyncio.gather(*[one(number) for number in range(count)]))

    yield run


@coroutines.contestant("anyio task group + CapacityLimiter", needs="anyio")
@asynccontextmanager
async def anyio_limiter() -> AsyncIterator[Run]:
    """The same with anyio."""
    from anyio import CapacityLimiter, create_task_group

    async def run(count: int) -> int:
        total = 0
        room = CapacityLimiter(CONCURRENCY)

        async def one(number: int) -> None:
            nonlocal total
            async with room:
                value = await work.tick(number)
            total += value

        async with create_task_group() as group:
            for number in range(count):
                group.start_soon(one, number)
        return total

    yield run


@coroutines.contestant("aiometer", needs="aiometer")
@asynccontextmanager
async def aiometer_amap() -> AsyncIterator[Run]:
    """``aiometer.amap``."""
    import aiometer

    async def run(count: int) -> int:
        total = 0
        async with aiometer.amap(work.tick, range(count), max_at_once=CONCURRENCY) as results:
            async for value in results:
                total += value
        return total

    yield run


@coroutines.contestant("streamable", needs="streamable")
@asynccontextmanager
async def streamable_map() -> AsyncIterator[Run]:
    """``stream(...).map(concurrency=...)``."""
    from streamable import stream

    async def run(count: int) -> int:
        total = 0
        async for value in stream(range(count)).map(work.tick, concurrency=CONCURRENCY):
            total += value
        return total

    yield run


@coroutines.contestant("ours", role="ours", needs="aioparallel.CoroutineExecutor.map")
@asynccontextmanager
async def ours() -> AsyncIterator[Run]:
    """``CoroutineExecutor.map``."""
    from aioparallel import CoroutineExecutor

    async with CoroutineExecutor(max_concurrency=CONCURRENCY) as pool:

        async def run(count: int) -> int:
            total = 0
            async for value in pool.map(work.tick, range(count)):
                total += value
            return total

        yield run
