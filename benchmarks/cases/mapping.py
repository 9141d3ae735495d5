"""A map of very many tiny items."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import mappers, work
from benchmarks.callers import WORKERS, Fn
from benchmarks.child import child, pack, unpack
from benchmarks.mappers import Mapper
from benchmarks.measuring import typical
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case

ITERATED = "ours, async for"


@case(
    "map",
    title="a map of {size} tiny items over 2 process workers",
    metrics=[Metric("rate", "items/s", "higher")],
    goals=[
        Goal("rate", BEST_RIVAL, factor=0.5),
        Goal("rate", "loky, tuned"),
        # 1 M/s where the best rival, tuned by hand, does 9.8 M/s.
        Goal("rate", BEST_RIVAL, factor=0.1, ours=ITERATED),
    ],
    size=200_000,
    quick=10_000,
)
async def mapping(mapper: Mapper, size: int) -> Sample:
    """Items per second, all results in a list."""
    await typical(mapper, work.increment, range(size), times=1)
    seconds, results = await typical(mapper, work.increment, range(size))
    if (len(results), results[0], results[-1]) != (size, 1, size):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@mapping.contestant("half the list to each of two children", role="floor")
@asynccontextmanager
async def halves() -> AsyncIterator[Mapper]:
    """One frame there and one back for each child."""
    with ExitStack() as stack:
        children = [stack.enter_context(child("frames")) for _ in range(WORKERS)]

        def mapper(fn: Fn, items: Any) -> list[Any]:
            step = -(-len(items) // WORKERS)
            for place, connection in enumerate(children):
                connection.sendall(pack((fn, list(items[place * step : (place + 1) * step]))))
            return [value for connection in children for value in unpack(connection)]

        yield mapper


@mapping.contestant("serial loop", role="reference")
@asynccontextmanager
async def serial() -> AsyncIterator[Mapper]:
    """No workers."""
    yield lambda fn, items: list(map(fn, items))


# Tuned: the best of several sizes that were tried.
mapping.contestant("mp.Pool, tuned")(partial(mappers.mp_pool, parts=2))
mapping.contestant("mp.Pool")(mappers.mp_pool)
mapping.contestant("ProcessPoolExecutor, tuned")(partial(mappers.process_pool_executor, parts=50))
mapping.contestant("loky, tuned", needs="loky")(partial(mappers.loky_executor, parts=50))
mapping.contestant("pathos", needs="pathos")(mappers.pathos_pool)
mapping.contestant("joblib, tuned", needs="joblib")(partial(mappers.joblib_parallel, parts=100))
mapping.contestant("pebble, tuned", needs="pebble")(partial(mappers.pebble_pool, parts=50))
mapping.contestant("mpire", needs="mpire")(mappers.mpire_pool)
mapping.contestant("mp.Pool, its start included", role="reference")(mappers.mp_own_pool)
mapping.contestant("ours, await", role="ours", needs=mappers.OURS)(mappers.ours_awaited)
mapping.contestant(ITERATED, role="ours", needs=mappers.OURS)(mappers.ours_iterated)
mapping.contestant("ours, its start included", role="ours", needs="aioparallel.parmap")(mappers.ours_own_pool)
