"""One large constant that many calls use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from benchmarks import work
from benchmarks.callers import FORK, WORKERS, in_nursery
from benchmarks.measuring import timed
from benchmarks.stats import median
from benchmarks.suite import Goal, Metric, Sample, case

CONSTANT = 50_000_000
TIMES = 3

Run = Callable[[Any, range], Any]
"""``run(constant, indices)``: the results in order, or something to await for them."""


@case(
    "constant",
    title=f"a numpy constant of {CONSTANT // 10**6} MB used by {{size}} calls, 2 process workers",
    metrics=[Metric("time", "ms")],
    goals=[Goal("time", "joblib, warm pool")],
    size=200,
    quick=20,
)
async def constant(run: Run, size: int) -> Sample:
    """Milliseconds for all calls; the constant is a new one each time."""
    import numpy as np

    runs = []
    for number in range(TIMES + 1):
        array = np.arange(number, CONSTANT // 8 + number, dtype=np.float64)
        seconds, results = await timed(run, array, range(size))
        if list(results) != list(range(number, size + number)):
            raise ValueError("wrong results")
        runs.append(seconds)
    return {"time": median(runs[1:]) * 1e3}


@constant.contestant("shared memory by hand, warm pool", role="reference", needs="numpy")
@asynccontextmanager
async def shared_memory() -> AsyncIterator[Run]:
    """One copy into a block that the workers open by its name."""
    import numpy as np

    with FORK.Pool(WORKERS) as pool:

        def run(array: Any, indices: range) -> Any:
            block = SharedMemory(create=True, size=array.nbytes)
            try:
                np.ndarray(array.shape, array.dtype, block.buf)[:] = array
                return pool.map(partial(work.use_block, name=block.name), indices)
            finally:
                block.close()
                block.unlink()

        yield run


@constant.contestant("mp.Pool, inherited by fork", needs="numpy")
@asynccontextmanager
async def mp_initializer() -> AsyncIterator[Run]:
    """A pool that is made for the constant: the fork shares the memory."""
    yield partial(_in_pool, FORK)


@constant.contestant("pathos, inherited by fork", needs=("numpy", "pathos"))
@asynccontextmanager
async def pathos_initializer() -> AsyncIterator[Run]:
    """The same pool from pathos."""
    from pathos.helpers import mp

    yield partial(_in_pool, mp)


def _in_pool(context: Any, array: Any, indices: range) -> Any:
    with context.Pool(WORKERS, initializer=work.adopt, initargs=(array,)) as pool:
        return pool.map(work.use_adopted, indices)


@constant.contestant("ProcessPoolExecutor, inherited by fork", needs="numpy")
@asynccontextmanager
async def executor_initializer() -> AsyncIterator[Run]:
    """The same with an executor."""

    def run(array: Any, indices: range) -> list[Any]:
        with ProcessPoolExecutor(WORKERS, mp_context=FORK, initializer=work.adopt, initargs=(array,)) as pool:
            return list(pool.map(work.use_adopted, indices))

    yield run


@constant.contestant("pebble, inherited by fork", needs=("numpy", "pebble"))
@asynccontextmanager
async def pebble_initializer() -> AsyncIterator[Run]:
    """The same with pebble."""
    from pebble import ProcessPool

    def run(array: Any, indices: range) -> list[Any]:
        with ProcessPool(WORKERS, context=FORK, initializer=work.adopt, initargs=(array,)) as pool:
            return list(pool.map(work.use_adopted, indices).result())

    yield run


@constant.contestant("mpire, shared objects", needs=("numpy", "mpire"))
@asynccontextmanager
async def mpire_shared() -> AsyncIterator[Run]:
    """mpire's own word for it, inherited as well."""
    from mpire.pool import WorkerPool

    def run(array: Any, indices: range) -> Any:
        with WorkerPool(WORKERS, shared_objects=array) as pool:
            return pool.map(work.use_shared, indices, concatenate_numpy_output=False)

    yield run


@constant.contestant("joblib, warm pool", needs=("numpy", "joblib"))
@asynccontextmanager
async def joblib_memmap() -> AsyncIterator[Run]:
    """joblib puts large arrays into a memory-mapped file by itself."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS) as parallel:
        yield lambda array, indices: parallel(delayed(work.use_constant)(index, array) for index in indices)


@constant.contestant("loky, initializer", needs=("numpy", "loky"))
@asynccontextmanager
async def loky_initializer() -> AsyncIterator[Run]:
    """loky's workers do not inherit: the constant is pickled for each."""
    import loky

    def run(array: Any, indices: range) -> list[Any]:
        with loky.ProcessPoolExecutor(WORKERS, initializer=work.adopt, initargs=(array,)) as pool:
            return list(pool.map(work.use_adopted, indices))

    yield run


@constant.contestant("trio-parallel, init", needs=("numpy", "trio", "trio_parallel"), loop="trio")
@asynccontextmanager
async def trio_parallel_init() -> AsyncIterator[Run]:
    """A worker context that is made for the constant."""
    import trio
    import trio_parallel

    async def run(array: Any, indices: range) -> list[Any]:
        limiter = trio.CapacityLimiter(WORKERS)
        async with trio_parallel.open_worker_context(init=partial(work.adopt, array)) as context:
            many = in_nursery(partial(context.run_sync, limiter=limiter))
            results: list[Any] = await many(work.use_adopted, indices)
            return results

    yield run


@constant.contestant("ours, warm pool", role="ours", needs=("numpy", "aioparallel.ProcessExecutor.map"))
@asynccontextmanager
async def ours() -> AsyncIterator[Run]:
    """The constant is simply an argument of the map."""
    from aioparallel import ProcessExecutor

    async with ProcessExecutor(WORKERS) as pool:
        yield lambda array, indices: pool.map(work.use_constant, indices, args=(array,))


@constant.contestant("ours, its start included", role="ours", needs=("numpy", "aioparallel.parmap"))
@asynccontextmanager
async def ours_own_pool() -> AsyncIterator[Run]:
    """The same with a pool that is made for the map, as the rivals with initializers do."""
    from aioparallel import parmap

    yield lambda array, indices: parmap(work.use_constant, indices, args=(array,), workers=WORKERS)
