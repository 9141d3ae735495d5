"""Everybody who can map a function over a list in worker processes, behind one signature.

Each context manager gives ``mapper(fn, items)``, on a warm pool; it returns the results in order, or something to
await for them. ``parts`` says into how many chunks a rival is told to cut; ``None`` leaves it to the rival.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.callers import FORK, WORKERS, Fn

__all__ = [
    "OURS",
    "Mapper",
    "joblib_parallel",
    "loky_executor",
    "mp_own_pool",
    "mp_pool",
    "mpire_pool",
    "ours_awaited",
    "ours_iterated",
    "ours_own_pool",
    "pathos_pool",
    "pebble_pool",
    "process_pool_executor",
]

OURS = ("aioparallel.ProcessExecutor", "aioparallel.parmap")
"""What our own mappers need."""

Mapper = Callable[[Fn, Sequence[Any]], Any]


def chunk(items: Sequence[Any], parts: int | None) -> int | None:
    """The chunk size that cuts ``items`` into so many parts."""
    return None if parts is None else math.ceil(len(items) / parts)


@asynccontextmanager
async def ours_awaited() -> AsyncIterator[Mapper]:
    """``await parmap(...)`` on a warm pool, nothing tuned."""
    from aioparallel import ProcessExecutor, parmap

    async with ProcessExecutor(WORKERS) as pool:
        yield lambda fn, items: parmap(fn, items, on=pool)


@asynccontextmanager
async def ours_iterated() -> AsyncIterator[Mapper]:
    """``async for`` over it."""
    from aioparallel import ProcessExecutor, parmap

    async with ProcessExecutor(WORKERS) as pool:

        async def mapper(fn: Fn, items: Sequence[Any]) -> list[Any]:
            return [value async for value in parmap(fn, items, on=pool)]

        yield mapper


@asynccontextmanager
async def ours_own_pool() -> AsyncIterator[Mapper]:
    """``await parmap(..., workers=2)``: a pool that starts and ends within the map."""
    from aioparallel import parmap

    yield lambda fn, items: parmap(fn, items, workers=WORKERS)


@asynccontextmanager
async def mp_pool(parts: int | None = None) -> AsyncIterator[Mapper]:
    """``multiprocessing.Pool.map``."""
    with FORK.Pool(WORKERS) as pool:
        yield lambda fn, items: pool.map(fn, items, chunk(items, parts))


@asynccontextmanager
async def mp_own_pool() -> AsyncIterator[Mapper]:
    """The same, with a pool that starts and ends within the map."""

    def mapper(fn: Fn, items: Sequence[Any]) -> list[Any]:
        with FORK.Pool(WORKERS) as pool:
            return pool.map(fn, items)

    yield mapper


@asynccontextmanager
async def pathos_pool(parts: int | None = None) -> AsyncIterator[Mapper]:
    """The same pool from pathos, which pickles with dill."""
    from pathos.helpers import mp

    with mp.Pool(WORKERS) as pool:
        yield lambda fn, items: pool.map(fn, items, chunk(items, parts))


@asynccontextmanager
async def process_pool_executor(parts: int | None = None) -> AsyncIterator[Mapper]:
    """``ProcessPoolExecutor.map``; one item for each chunk if nothing is said."""
    with ProcessPoolExecutor(WORKERS, mp_context=FORK) as pool:
        yield _executor_map(pool, parts)


@asynccontextmanager
async def loky_executor(parts: int | None = None) -> AsyncIterator[Mapper]:
    """loky's ``map``; one item for each chunk if nothing is said."""
    import loky

    with loky.get_reusable_executor(max_workers=WORKERS) as pool:
        yield _executor_map(pool, parts)


def _executor_map(pool: Executor, parts: int | None) -> Mapper:
    return lambda fn, items: list(pool.map(fn, items, chunksize=chunk(items, parts) or 1))


@asynccontextmanager
async def pebble_pool(parts: int | None = None) -> AsyncIterator[Mapper]:
    """pebble's ``map``; one item for each chunk if nothing is said."""
    from pebble import ProcessPool

    with ProcessPool(WORKERS, context=FORK) as pool:
        yield lambda fn, items: list(pool.map(fn, items, chunksize=chunk(items, parts) or 1).result())


@asynccontextmanager
async def joblib_parallel(parts: int | None = None) -> AsyncIterator[Mapper]:
    """joblib, which sizes its batches by itself if nothing is said."""
    from joblib import Parallel, delayed

    def mapper(fn: Fn, items: Sequence[Any]) -> Any:
        parallel.batch_size = chunk(items, parts) or "auto"
        return parallel(delayed(fn)(item) for item in items)

    with Parallel(n_jobs=WORKERS) as parallel:
        yield mapper


@asynccontextmanager
async def mpire_pool(parts: int | None = None, *, use_dill: bool = False) -> AsyncIterator[Mapper]:
    """mpire's ``map``, whose own choice of chunks is its best."""
    from mpire.pool import WorkerPool

    with WorkerPool(WORKERS, use_dill=use_dill) as pool:
        yield lambda fn, items: pool.map(fn, items, chunk_size=chunk(items, parts))
