"""Without an event loop: our blocking executors beside those of the standard library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import work
from benchmarks.callers import FORK, WORKERS, Caller, Fn
from benchmarks.mappers import Mapper, chunk
from benchmarks.measuring import latencies, timed
from benchmarks.stats import quantile
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case

OURS = "aioparallel"
METRICS = [Metric("rate", "calls/s", "higher"), Metric("p50", "us"), Metric("p99", "us")]


def caller(pool: Executor) -> Caller:
    """What everybody does with an executor: submit, and take results."""

    def one(fn: Fn, *args: Any) -> Any:
        return pool.submit(fn, *args).result()

    def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [future.result() for future in [pool.submit(fn, item) for item in items]]

    return Caller(one, many)


async def calls(caller: Caller, size: int) -> Sample:
    """All in flight at once (rate), and one at a time (p50, p99)."""
    samples = await latencies(partial(caller.one, work.noop), size // 5)
    caller.many(work.increment, range(size // 20))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds, "p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


def opened(make: Callable[[], Executor]) -> Callable[[], Any]:
    """A contestant: an executor, open as long as it is measured."""

    @asynccontextmanager
    async def contestant() -> AsyncIterator[Caller]:
        with make() as pool:
            yield caller(pool)

    return contestant


def ours(kind: str, **options: Any) -> Executor:
    """One of our blocking executors."""
    from aioparallel import blocking

    executor: Executor = getattr(blocking, kind)(WORKERS, **options)
    return executor


def loky() -> Executor:
    """loky's executor."""
    from loky import ProcessPoolExecutor as Loky

    executor: Executor = Loky(WORKERS)
    return executor


threads = case(
    "blocking_threads",
    title="{size} no-op calls through 2 threads, without an event loop: all at once (rate), one at a time (p50, p99)",
    metrics=METRICS,
    goals=[Goal("rate", "ThreadPoolExecutor", factor=1 / 3), Goal("p50", "ThreadPoolExecutor", factor=3)],
    size=20_000,
    quick=1000,
)(calls)
threads.contestant("ThreadPoolExecutor")(opened(partial(ThreadPoolExecutor, WORKERS)))
threads.contestant("ours", role="ours", needs=OURS)(opened(partial(ours, "ThreadExecutor")))

processes = case(
    "blocking_processes",
    title="{size} no-op calls through 2 processes, without an event loop: all at once (rate), one at a time (p50, p99)",
    metrics=METRICS,
    goals=[Goal("rate", BEST_RIVAL), Goal("p50", BEST_RIVAL)],
    size=10_000,
    quick=1000,
)(calls)
processes.contestant("ProcessPoolExecutor")(opened(partial(ProcessPoolExecutor, WORKERS, mp_context=FORK)))
processes.contestant("loky", needs="loky")(opened(loky))
processes.contestant("ours", role="ours", needs=OURS)(opened(partial(ours, "ProcessExecutor")))


@case(
    "blocking_map",
    title="map of {size} tiny items over 2 processes, without an event loop",
    metrics=[Metric("rate", "items/s", "higher")],
    goals=[Goal("rate", "ProcessPoolExecutor, untuned", factor=10)],
    size=200_000,
    quick=5000,
)
async def mapping(mapper: Mapper, size: int) -> Sample:
    """Items per second on a warm pool."""
    list(mapper(work.increment, range(size // 20)))
    seconds, results = await timed(lambda: list(mapper(work.increment, range(size))))
    if results != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


def mapped(make: Callable[[], Executor], parts: int | None = None) -> Callable[[], Any]:
    """A contestant: ``map`` of an executor."""

    @asynccontextmanager
    async def contestant() -> AsyncIterator[Mapper]:
        with make() as pool:
            yield lambda fn, items: pool.map(fn, items, chunksize=chunk(items, parts) or 1)

    return contestant


mapping.contestant("ProcessPoolExecutor, untuned")(mapped(partial(ProcessPoolExecutor, WORKERS, mp_context=FORK)))
mapping.contestant("ProcessPoolExecutor, tuned", role="reference")(
    mapped(partial(ProcessPoolExecutor, WORKERS, mp_context=FORK), parts=20)
)
mapping.contestant("loky, tuned", role="reference", needs="loky")(mapped(loky, parts=20))
mapping.contestant("ours, map", role="ours", needs=OURS)(mapped(partial(ours, "ProcessExecutor")))


@mapping.contestant("ours, parmap", role="ours", needs=OURS)
@asynccontextmanager
async def ours_parmap() -> AsyncIterator[Mapper]:
    """``blocking.parmap``, which is lazy and bounded."""
    from aioparallel import blocking

    with blocking.ProcessExecutor(WORKERS) as pool:
        yield lambda fn, items: blocking.parmap(fn, items, on=pool)
