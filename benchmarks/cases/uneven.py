"""A map of items that take very different times, nothing tuned."""

from __future__ import annotations

import heapq
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

from benchmarks import callers, mappers, work
from benchmarks.callers import FORK, WORKERS, Fn
from benchmarks.child import child, pack, unpack
from benchmarks.mappers import Mapper
from benchmarks.measuring import finished, timed
from benchmarks.suite import Metric, Sample, case

SHORT = 0.0005
LONG = 50 * SHORT
ONE_IN = 20


@case(
    "uneven",
    title=f"a map of {{size}} items, one in {ONE_IN} takes 50 times as long ({SHORT * 1e3:g} ms and {LONG * 1e3:g} ms)",
    metrics=[Metric("time", "ms")],
    size=1000,
    quick=100,
)
async def uneven(mapper: Mapper, size: int) -> Sample:
    """Milliseconds for all; the long ones lie where chance puts them, the same for everybody."""
    items = durations(size)
    await finished(mapper(work.nap, [SHORT] * 20))
    seconds, results = await timed(mapper, work.nap, items)
    if sorted(results) != sorted(items):
        raise ValueError("wrong results")
    return {"time": seconds * 1e3}


def durations(size: int) -> list[float]:
    """What each item takes."""
    late = set(random.Random(ONE_IN).sample(range(size), size // ONE_IN))
    return [LONG if place in late else SHORT for place in range(size)]


def best_schedule(items: Sequence[float], workers: int) -> list[list[float]]:
    """The items of each worker: the longest first, each to the worker that has least to do."""
    loads = [(0.0, place) for place in range(workers)]
    parts: list[list[float]] = [[] for _ in range(workers)]
    for item in sorted(items, reverse=True):
        load, place = heapq.heappop(loads)
        parts[place].append(item)
        heapq.heappush(loads, (load + item, place))
    return parts


@uneven.contestant("best possible schedule", role="floor")
@asynccontextmanager
async def known_in_advance() -> AsyncIterator[Mapper]:
    """Each of two children gets its share at once, by somebody who knows what every item takes."""
    with ExitStack() as stack:
        children = [stack.enter_context(child("frames")) for _ in range(WORKERS)]

        def mapper(fn: Fn, items: Sequence[float]) -> list[float]:
            for connection, part in zip(children, best_schedule(items, WORKERS), strict=True):
                connection.sendall(pack((fn, part)))
            return [value for connection in children for value in unpack(connection)]

        yield mapper


@uneven.contestant("mp.Pool.imap_unordered")
@asynccontextmanager
async def imap_unordered() -> AsyncIterator[Mapper]:
    """One item at a time."""
    with FORK.Pool(WORKERS) as pool:
        yield lambda fn, items: list(pool.imap_unordered(fn, items))


@uneven.contestant("anyio.to_process", needs="anyio")
@asynccontextmanager
async def anyio_process() -> AsyncIterator[Mapper]:
    """One item at a time, behind a limiter."""
    async with callers.anyio_process() as caller:
        yield caller.many


uneven.contestant("mp.Pool.map")(mappers.mp_pool)
uneven.contestant("ProcessPoolExecutor.map")(mappers.process_pool_executor)
uneven.contestant("loky", needs="loky")(mappers.loky_executor)
uneven.contestant("joblib", needs="joblib")(mappers.joblib_parallel)
uneven.contestant("mpire", needs="mpire")(mappers.mpire_pool)
uneven.contestant("pebble", needs="pebble")(mappers.pebble_pool)
uneven.contestant("ours", role="ours", needs=mappers.OURS)(mappers.ours_awaited)
