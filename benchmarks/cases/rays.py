"""On Ray: our executor beside Ray's own best idiom, on the same Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import work
from benchmarks.callers import WORKERS, Caller, Fn
from benchmarks.measuring import finished, latencies, timed, typical
from benchmarks.stats import quantile
from benchmarks.suite import Goal, Metric, Sample, case

IDIOM = "Ray's own idiom"
NEEDS = ("ray", "aioparallel.RayExecutor")


@asynccontextmanager
async def ours() -> AsyncIterator[Any]:
    """Our executor, and a local Ray with it."""
    from aioparallel import RayExecutor

    async with RayExecutor(init={"num_cpus": WORKERS}) as pool:
        yield pool


@asynccontextmanager
async def our_caller() -> AsyncIterator[Caller]:
    """Submitted to our executor, and consumed by ``wait_all``."""
    from aioparallel import wait_all

    async with ours() as pool:

        async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            results: list[Any] = await wait_all([pool.submit(fn, item) for item in items])
            return results

        yield Caller(pool.submit, many)


@asynccontextmanager
async def idiom() -> AsyncIterator[Caller]:
    """A remote function, made once; its references awaited."""
    async with ours():
        import ray

        remote = {fn: ray.remote(max_retries=0)(fn) for fn in (work.noop, work.increment)}

        async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            return await asyncio.gather(*[remote[fn].remote(item) for item in items])

        yield Caller(lambda fn, *args: remote[fn].remote(*args), many)


@case(
    "ray_noop",
    title="one awaited no-op call on a local Ray (up to {size} calls a round)",
    metrics=[Metric("p50", "us"), Metric("p99", "us")],
    goals=[Goal("p50", IDIOM, factor=1.2)],
    size=500,
    quick=50,
)
async def noop(caller: Caller, size: int) -> Sample:
    """The latency of one call at a time."""
    samples = await latencies(partial(caller.one, work.noop), size, budget=2.0)
    return {"p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


@case(
    "ray_submits",
    title="{size} independent calls on a local Ray with 2 CPUs, all consumed",
    metrics=[Metric("rate", "calls/s", "higher")],
    goals=[Goal("rate", IDIOM, factor=1 / 1.2)],
    size=1000,
    quick=100,
)
async def submits(caller: Caller, size: int) -> Sample:
    """Calls per second, from the first submit to the last result."""
    await finished(caller.many(work.increment, range(200)))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@case(
    "ray_map",
    title="map of {size} tiny items on a local Ray with 2 CPUs",
    metrics=[Metric("rate", "items/s", "higher")],
    goals=[Goal("rate", IDIOM)],
    size=10_000,
    quick=500,
)
async def mapping(caller: Caller, size: int) -> Sample:
    """Items per second."""
    await finished(caller.many(work.increment, range(200)))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@case(
    "ray_constant",
    title="200 calls that use one constant of {size} floats, on a local Ray with 2 CPUs",
    metrics=[Metric("time", "ms")],
    goals=[Goal("time", IDIOM, factor=1.2)],
    size=6_250_000,
    quick=100_000,
)
async def constant(run: Any, size: int) -> Sample:
    """The whole job; the constant is new each time."""
    import numpy as np

    array = np.arange(size, dtype=np.float64)
    await finished(run(array[:1000].copy(), range(200)))
    seconds, results = await typical(lambda: run(array.copy(), range(200)))
    if list(results) != [float(n) for n in range(200)]:
        raise ValueError("wrong results")
    return {"time": seconds * 1e3}


for each in (noop, submits, mapping):
    each.contestant(IDIOM, needs=NEEDS)(idiom)
for each in (noop, submits):
    each.contestant("ours", role="ours", needs=NEEDS)(our_caller)


@mapping.contestant("ours", role="ours", needs=NEEDS)
@asynccontextmanager
async def our_map() -> AsyncIterator[Caller]:
    """``await pool.map(...)``, nothing tuned."""
    async with ours() as pool:
        yield Caller(pool.submit, pool.map)


@constant.contestant(IDIOM, needs=(*NEEDS, "numpy"))
@asynccontextmanager
async def stored() -> AsyncIterator[Any]:
    """The constant is put into the object store once, and passed by reference."""
    async with ours():
        import ray

        remote = ray.remote(max_retries=0)(work.use_constant)

        async def run(array: Any, indices: range) -> list[Any]:
            reference = ray.put(array)
            return await asyncio.gather(*[remote.remote(index, reference) for index in indices])

        yield run


@constant.contestant("ours", role="ours", needs=(*NEEDS, "numpy"))
@asynccontextmanager
async def our_constant() -> AsyncIterator[Any]:
    """The constant is simply an argument of the map."""
    async with ours() as pool:
        yield lambda array, indices: pool.map(work.use_constant, indices, args=(array,))
