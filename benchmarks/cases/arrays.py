"""Large arrays as arguments and as results."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import callers, work
from benchmarks.callers import Caller, Fn
from benchmarks.measuring import finished, timed
from benchmarks.suite import Goal, Metric, Sample, case

TIMES = 2
MEMCPY = "memcpy"


@case(
    "arrays",
    title="a numpy array of {size} bytes as the argument (in) and as the result (out) of a call, one warm worker",
    metrics=[Metric("in", "MB/s", "higher"), Metric("out", "MB/s", "higher")],
    goals=[Goal("in", MEMCPY, factor=0.5), Goal("out", MEMCPY, factor=0.5)],
    size=100_000_000,
    quick=10_000_000,
)
async def arrays(caller: Caller, size: int) -> Sample:
    """Megabytes per second, the better of two; a new array each time, since some rivals send the same one only once."""
    import numpy as np

    count = size // 8
    await finished(caller.one(work.swallow, np.arange(count, dtype=np.float64)))
    await finished(caller.one(work.produce, count))
    there = [await _there(caller, np.arange(number, count + number, dtype=np.float64)) for number in range(TIMES)]
    back = [await _back(caller, count) for _ in range(TIMES)]
    return {"in": size / min(there) / 1e6, "out": size / min(back) / 1e6}


async def _there(caller: Caller, array: Any) -> float:
    seconds, last = await timed(caller.one, work.swallow, array)
    if last != array[-1]:
        raise ValueError("wrong result")
    return seconds


async def _back(caller: Caller, count: int) -> float:
    seconds, array = await timed(caller.one, work.produce, count)
    if (len(array), array[-1]) != (count, count - 1):
        raise ValueError("wrong result")
    return seconds


@arrays.contestant(MEMCPY, role="floor", needs="numpy")
@asynccontextmanager
async def memcpy() -> AsyncIterator[Caller]:
    """One copy into memory that is in use already."""
    import numpy as np

    places: dict[int, Any] = {}

    def one(fn: Fn, payload: Any) -> Any:
        source = work.produce(payload) if fn is work.produce else payload
        target = places.setdefault(len(source), np.zeros_like(source))
        np.copyto(target, source)
        return target if fn is work.produce else target[-1]

    yield Caller(one, lambda *_: None)


Open = Callable[..., AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def in_a_worker(open_: Open, workers: int) -> AsyncIterator[Caller]:
    """A caller whose arrays really travel."""
    async with open_(workers=workers) as caller:
        if await finished(caller.one(os.getpid)) == os.getpid():
            raise RuntimeError("it runs calls in this very process")
        yield caller


def add(name: str, open_: Open, needs: tuple[str, ...], workers: int = 1, **options: Any) -> None:
    """A contestant with one worker: it is the travel that is measured."""
    arrays.contestant(name, needs=("numpy", *needs), **options)(partial(in_a_worker, open_, workers))


add("anyio.to_process", callers.anyio_process, ("anyio",))
add("ProcessPoolExecutor", callers.process_pool_executor, ())
add("mp.Pool", callers.mp_pool, ())
add("loky", callers.loky_executor, ("loky",))
# With one job joblib has no worker at all.
add("joblib", callers.joblib_parallel, ("joblib",), workers=2)
add("pebble", callers.pebble_pool, ("pebble",))
add("mpire", callers.mpire_pool, ("mpire",))
add("trio-parallel", callers.trio_parallel_context, ("trio", "trio_parallel"), loop="trio")
add("ours", callers.ours_resident, callers.OURS, role="ours")
add("ours, anyio engine", callers.ours_anyio, callers.OURS, role="ours")
