"""Many independent calls, a future for each."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import callers, work
from benchmarks.callers import Caller
from benchmarks.child import LENGTH, child, pack
from benchmarks.measuring import finished, timed
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case

FRAME = 100


@case(
    "submits",
    title="{size} independent submits to 2 process workers, a future each, all consumed",
    metrics=[Metric("rate", "calls/s", "higher")],
    goals=[Goal("rate", BEST_RIVAL, factor=4), Goal("rate", "ProcessPoolExecutor", factor=25)],
    size=10_000,
    quick=1000,
)
async def submits(caller: Caller, size: int) -> Sample:
    """Calls per second, from the first submit to the last result."""
    await finished(caller.many(work.increment, range(max(size // 20, 50))))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@submits.contestant(f"frames of {FRAME} calls to one child", role="floor")
@asynccontextmanager
async def framed() -> AsyncIterator[Caller]:
    """A future for each call, but a pickle and a write for each hundred."""
    with child("frames") as connection:
        reader, writer = await asyncio.open_connection(sock=connection)

        async def many(fn: Any, items: Sequence[Any]) -> list[Any]:
            futures = [asyncio.get_running_loop().create_future() for _ in items]
            starts = range(0, len(items), FRAME)
            for start in starts:
                writer.write(pack((fn, list(items[start : start + FRAME]))))
            for start in starts:
                await settle(futures[start : start + FRAME])
            return [await future for future in futures]

        async def settle(futures: list[asyncio.Future[Any]]) -> None:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            for future, value in zip(futures, pickle.loads(await reader.readexactly(length)), strict=True):
                future.set_result(value)

        yield Caller(lambda *_: None, many)
        writer.close()


submits.contestant("execnet", needs="execnet")(callers.execnet_gateways)
submits.contestant("aiomultiprocess.map", needs="aiomultiprocess")(callers.aiomultiprocess_pool)
submits.contestant("mp.Pool")(callers.mp_pool)
submits.contestant("pathos", needs="pathos")(callers.pathos_pool)
submits.contestant("mpire", needs="mpire")(callers.mpire_pool)
submits.contestant("anyio.to_process", needs="anyio")(callers.anyio_process)
submits.contestant("pebble", needs="pebble")(callers.pebble_pool)
submits.contestant("trio-parallel", needs=("trio", "trio_parallel"), loop="trio")(callers.trio_parallel_context)
submits.contestant("loky", needs="loky")(callers.loky_executor)
submits.contestant("ProcessPoolExecutor")(callers.process_pool_executor)
submits.contestant("joblib (one list, no futures)", role="reference", needs="joblib")(callers.joblib_parallel)
submits.contestant("ours", role="ours", needs=callers.OURS)(callers.ours_resident)
submits.contestant("ours, anyio engine", role="ours", needs=callers.OURS)(callers.ours_anyio)
