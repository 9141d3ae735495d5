"""Functions that plain pickle refuses: one lambda for many items, and many different lambdas."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import callers, mappers, work
from benchmarks.callers import FORK, WORKERS, Caller, Fn
from benchmarks.mappers import Mapper
from benchmarks.measuring import finished, timed, typical
from benchmarks.suite import Metric, Sample, case

PARTS = 20
OFFSET = 3


@case(
    "lambdas",
    title="a map of one lambda over {size} items, 2 process workers",
    metrics=[Metric("rate", "items/s", "higher")],
    size=5000,
    quick=500,
)
async def lambdas(mapper: Mapper, size: int) -> Sample:
    """Items per second; the lambda is a new object in each map."""

    def job() -> Any:
        offset = OFFSET
        return mapper(lambda number: number + offset, range(size))

    await finished(job())
    seconds, results = await typical(job)
    if list(results) != list(range(OFFSET, size + OFFSET)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@lambdas.contestant("one call per chunk, cloudpickle by hand", role="floor", needs="cloudpickle")
@asynccontextmanager
async def by_hand() -> AsyncIterator[Mapper]:
    """A ProcessPoolExecutor whose user pickles the lambda and cuts the list."""
    import cloudpickle

    with ProcessPoolExecutor(WORKERS, mp_context=FORK) as pool:
        loop = asyncio.get_running_loop()

        async def mapper(fn: Fn, items: Sequence[Any]) -> list[Any]:
            data = cloudpickle.dumps(fn)
            step = math.ceil(len(items) / WORKERS)
            chunks = [items[start : start + step] for start in range(0, len(items), step)]
            calls = [loop.run_in_executor(pool, work.call_chunk, data, chunk) for chunk in chunks]
            return [value for part in await asyncio.gather(*calls) for value in part]

        yield mapper


lambdas.contestant("loky, tuned", needs="loky")(partial(mappers.loky_executor, parts=PARTS))
lambdas.contestant("joblib, tuned", needs="joblib")(partial(mappers.joblib_parallel, parts=PARTS))
lambdas.contestant("pathos", needs="pathos")(mappers.pathos_pool)
lambdas.contestant("mpire, dill", needs="mpire")(partial(mappers.mpire_pool, use_dill=True))
lambdas.contestant("ours", role="ours", needs=mappers.OURS)(mappers.ours_awaited)


@case(
    "closures",
    title="{size} calls of as many different lambdas, 2 process workers",
    metrics=[Metric("rate", "calls/s", "higher")],
    size=5000,
    quick=300,
)
async def closures(caller: Caller, size: int) -> Sample:
    """Calls per second; every lambda has a value of its own."""

    def different(count: int) -> list[Any]:
        return [lambda number=number: number + OFFSET for number in range(count)]

    await finished(caller.many(work.call, different(max(size // 20, 20))))
    seconds, results = await timed(caller.many, work.call, different(size))
    if list(results) != list(range(OFFSET, size + OFFSET)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


closures.contestant("loky", needs="loky")(callers.loky_executor)
closures.contestant("pathos", needs="pathos")(callers.pathos_pool)
closures.contestant("mpire, dill", needs="mpire")(partial(callers.mpire_pool, use_dill=True))
closures.contestant("trio-parallel", needs=("trio", "trio_parallel"), loop="trio")(callers.trio_parallel_context)
closures.contestant("joblib (one list, no futures)", role="reference", needs="joblib")(callers.joblib_parallel)
closures.contestant("ours", role="ours", needs=callers.OURS)(callers.ours_resident)
