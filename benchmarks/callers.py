"""Everybody who can run a function in a worker process, behind one pair of methods.

Each context manager gives a warm-able pool as a :class:`Caller`, with the best settings that its
documentation names. Cases pick from here what they compare.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FORK",
    "OURS",
    "WORKERS",
    "Caller",
    "Fn",
    "aiomultiprocess_pool",
    "anyio_process",
    "execnet_gateways",
    "gathered",
    "in_nursery",
    "joblib_parallel",
    "loky_executor",
    "mp_pool",
    "mpire_pool",
    "ours_anyio",
    "ours_resident",
    "pathos_pool",
    "pebble_pool",
    "process_pool_executor",
    "trio_parallel_context",
]

WORKERS = 2
FORK = multiprocessing.get_context("fork")
"""The fastest way for the standard library's pools to start, and what lets initializers inherit for nothing."""

OURS = ("aioparallel.ProcessExecutor", "aioparallel.wait_all")
"""What our own callers need."""

Fn = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """A pool, ready to be used.

    Attributes:
        one: ``one(fn, *args)``: one call, to be awaited where the library can do that, else blocking.
        many: ``many(fn, items)``: a call for each item, all submitted before the first is waited for; the results
            in order.
    """

    one: Fn
    many: Callable[[Fn, Sequence[Any]], Any]


def gathered(one: Fn) -> Callable[[Fn, Sequence[Any]], Any]:
    """``many``, made of ``one`` and ``asyncio.gather``."""

    async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
        return await asyncio.gather(*[one(fn, item) for item in items])

    return many


@asynccontextmanager
async def ours_resident(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """Ours, on the engine that is the default here."""
    async with _ours("resident", workers) as caller:
        yield caller


@asynccontextmanager
async def ours_anyio(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """Ours, on the portable engine."""
    async with _ours("anyio", workers) as caller:
        yield caller


@asynccontextmanager
async def _ours(engine: str, workers: int) -> AsyncIterator[Caller]:
    from aioparallel import ProcessExecutor, wait_all

    async with ProcessExecutor(workers, engine=engine) as pool:

        async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            results: list[Any] = await wait_all([pool.submit(fn, item) for item in items])
            return results

        yield Caller(pool.submit, many)


@asynccontextmanager
async def anyio_process(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """``anyio.to_process.run_sync``."""
    from anyio import CapacityLimiter, to_process

    limiter = CapacityLimiter(workers)

    def one(fn: Fn, *args: Any) -> Any:
        return to_process.run_sync(fn, *args, limiter=limiter)

    yield Caller(one, gathered(one))


@asynccontextmanager
async def process_pool_executor(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """``loop.run_in_executor`` on the standard library's pool."""
    with ProcessPoolExecutor(workers, mp_context=FORK) as pool:
        yield _in_executor(pool)


@asynccontextmanager
async def loky_executor(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """``loop.run_in_executor`` on loky's reusable pool."""
    import loky

    with loky.get_reusable_executor(max_workers=workers) as pool:
        yield _in_executor(pool)


def _in_executor(pool: Executor) -> Caller:
    loop = asyncio.get_running_loop()

    def one(fn: Fn, *args: Any) -> Any:
        return loop.run_in_executor(pool, fn, *args)

    return Caller(one, gathered(one))


@asynccontextmanager
async def mp_pool(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """``multiprocessing.Pool``: callbacks bring one result to the loop, many are waited for blocking."""
    with FORK.Pool(workers) as pool:
        yield _with_callbacks(pool)


@asynccontextmanager
async def pathos_pool(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """The same pool from pathos, which pickles with dill."""
    from pathos.helpers import mp

    with mp.Pool(workers) as pool:
        yield _with_callbacks(pool)


@asynccontextmanager
async def mpire_pool(workers: int = WORKERS, *, use_dill: bool = False) -> AsyncIterator[Caller]:
    """mpire's pool, which has the standard one's ``apply_async``."""
    from mpire.pool import WorkerPool

    with WorkerPool(workers, use_dill=use_dill) as pool:
        yield _with_callbacks(pool)


def _with_callbacks(pool: Any) -> Caller:
    loop = asyncio.get_running_loop()

    def one(fn: Fn, *args: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        pool.apply_async(
            fn,
            args,
            callback=lambda value: loop.call_soon_threadsafe(future.set_result, value),
            error_callback=lambda error: loop.call_soon_threadsafe(future.set_exception, error),
        )
        return future

    def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
        return [result.get() for result in [pool.apply_async(fn, (item,)) for item in items]]

    return Caller(one, many)


@asynccontextmanager
async def pebble_pool(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """pebble, whose futures asyncio can wrap."""
    from pebble import ProcessPool

    with ProcessPool(workers, context=FORK) as pool:

        def one(fn: Fn, *args: Any) -> asyncio.Future[Any]:
            return asyncio.wrap_future(pool.schedule(fn, args=args))

        yield Caller(one, gathered(one))


@asynccontextmanager
async def joblib_parallel(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """joblib: blocking, and a list of calls at a time."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=workers) as parallel:

        def one(fn: Fn, *args: Any) -> Any:
            return parallel([delayed(fn)(*args)])[0]

        def many(fn: Fn, items: Sequence[Any]) -> Any:
            return parallel(delayed(fn)(item) for item in items)

        yield Caller(one, many)


@asynccontextmanager
async def aiomultiprocess_pool(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """aiomultiprocess, whose workers run coroutine functions; many go by its ``map``."""
    from functools import partial

    import aiomultiprocess

    from benchmarks.work import run_async

    async with aiomultiprocess.Pool(workers) as pool:

        def one(fn: Fn, *args: Any) -> Any:
            return pool.apply(run_async, (fn, *args))

        async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
            return list(await pool.map(partial(run_async, fn), items))

        yield Caller(one, many)


@asynccontextmanager
async def execnet_gateways(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """execnet: it sends no functions, so source that does as :mod:`benchmarks.work` would; many have no futures."""
    import execnet

    source = "for item in channel: channel.send(None if item is None else item + 1)"
    with ExitStack() as stack:
        group = execnet.Group()
        stack.callback(group.terminate, timeout=1.0)
        gateways = [group.makegateway(f"popen//python={sys.executable}") for _ in range(workers)]
        channels = [gateway.remote_exec(source) for gateway in gateways]
        one = _execnet_call(gateways[0].remote_exec(source))

        def many(_: Fn, items: Sequence[Any]) -> list[Any]:
            for place, item in enumerate(items):
                channels[place % workers].send(item)
            return [channels[place % workers].receive() for place in range(len(items))]

        yield Caller(one, many)


def _execnet_call(channel: Any) -> Fn:
    loop = asyncio.get_running_loop()
    waiting: deque[asyncio.Future[Any]] = deque()
    channel.setcallback(lambda value: loop.call_soon_threadsafe(waiting.popleft().set_result, value))

    def one(_: Fn, item: Any = None) -> asyncio.Future[Any]:
        future = loop.create_future()
        waiting.append(future)
        channel.send(item)
        return future

    return one


@asynccontextmanager
async def trio_parallel_context(workers: int = WORKERS) -> AsyncIterator[Caller]:
    """trio-parallel, on a trio loop."""
    import trio
    import trio_parallel

    limiter = trio.CapacityLimiter(workers)
    async with trio_parallel.open_worker_context() as context:

        def one(fn: Fn, *args: Any) -> Any:
            return context.run_sync(fn, *args, limiter=limiter)

        yield Caller(one, in_nursery(one))


def in_nursery(one: Fn) -> Callable[[Fn, Sequence[Any]], Any]:
    """``many``, made of ``one`` and a trio nursery."""
    import trio

    async def many(fn: Fn, items: Sequence[Any]) -> list[Any]:
        results: list[Any] = [None] * len(items)

        async def put(place: int) -> None:
            results[place] = await one(fn, items[place])

        async with trio.open_nursery() as nursery:
            for place in range(len(items)):
                nursery.start_soon(put, place)
        return results

    return many
