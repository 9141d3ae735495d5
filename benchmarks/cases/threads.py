"""What a call costs that does nothing, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

from benchmarks import work
from benchmarks.callers import WORKERS, Caller, Fn, gathered
from benchmarks.measuring import finished, latencies, timed
from benchmarks.stats import quantile
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case


@case(
    "threads",
    title="{size} awaited no-op calls through 2 threads: all in flight at once (rate), and one at a time (p50, p99)",
    metrics=[Metric("rate", "calls/s", "higher"), Metric("p50", "us"), Metric("p99", "us")],
    goals=[Goal("rate", BEST_RIVAL), Goal("p50", BEST_RIVAL)],
    size=20_000,
    quick=1000,
)
async def threads(caller: Caller, size: int) -> Sample:
    """Both shapes, on the same warm pool."""
    samples = await latencies(partial(caller.one, work.noop), size // 5)
    await finished(caller.many(work.increment, range(size // 20)))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds, "p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


@threads.contestant("mp.ThreadPool (blocking)", role="reference")
@asynccontextmanager
async def thread_pool() -> AsyncIterator[Caller]:
    """No event loop."""
    with ThreadPool(WORKERS) as pool:

        def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            return [result.get() for result in [pool.apply_async(fn, (item,)) for item in items]]

        yield Caller(pool.apply, many)


@threads.contestant("ThreadPoolExecutor + run_in_executor")
@asynccontextmanager
async def run_in_executor() -> AsyncIterator[Caller]:
    """The standard library's pool."""
    with ThreadPoolExecutor(WORKERS) as pool:
        one = partial(asyncio.get_running_loop().run_in_executor, pool)
        yield Caller(one, gathered(one))


@threads.contestant("asyncio.to_thread")
@asynccontextmanager
async def to_thread() -> AsyncIterator[Caller]:
    """The loop's default executor, made as small as the others."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS))
    yield Caller(asyncio.to_thread, gathered(asyncio.to_thread))


@threads.contestant("anyio.to_thread", needs="anyio")
@asynccontextmanager
async def anyio_thread() -> AsyncIterator[Caller]:
    """anyio's threads, with a limiter as small as the others."""
    from anyio import CapacityLimiter, to_thread

    one = partial(to_thread.run_sync, limiter=CapacityLimiter(WORKERS))
    yield Caller(one, gathered(one))


@threads.contestant("ours", role="ours", needs=("aioparallel.ThreadExecutor", "aioparallel.wait_all"))
@asynccontextmanager
async def ours() -> AsyncIterator[Caller]:
    """The thread executor, its futures consumed by ``wait_all``."""
    from aioparallel import ThreadExecutor, wait_all

    async with ThreadExecutor(WORKERS) as pool:

        async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            results: list[Any] = await wait_all([pool.submit(fn, item) for item in items])
            return results

        yield Caller(pool.submit, many)
