"""A FastAPI service that computes in processes: its event loop stays free, and what nobody waits for is stopped.

The pool opens and closes with the service. A request that takes too long, or whose client has gone, ends its process.
Run it, and ask it (``pip install fastapi uvicorn``)::

    python examples/fastapi_service.py 8080
    curl 'localhost:8080/primes?below=20000&seconds=5'
    curl localhost:8080/status
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request

from aioparallel import CallCancelledError, PoolFullError, PoolStatus, ProcessExecutor, SmartFuture, TaskTimeoutError

T = TypeVar("T")


def count_primes(below: int) -> int:
    """Runs in a process, and takes its time."""
    return sum(all(n % divisor for divisor in range(2, math.isqrt(n) + 1)) for n in range(2, below))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """What the service has for as long as it runs."""
    async with ProcessExecutor(max_pending=100, name="primes") as pool:
        app.state.pool = pool
        yield


app = FastAPI(title="Primes", lifespan=lifespan)


@app.get("/primes")
async def primes(
    request: Request, below: Annotated[int, Query(ge=0)], seconds: Annotated[float, Query(gt=0, le=60)] = 30
) -> int:
    """How many prime numbers there are below a number, if that can be said in so many seconds."""
    pool: ProcessExecutor = request.app.state.pool
    try:
        return await unless_gone(request, pool.options(timeout=seconds).submit(count_primes, below))
    except PoolFullError:
        raise HTTPException(503, "come back later") from None
    except TaskTimeoutError:
        raise HTTPException(504, "that would take too long") from None
    except CallCancelledError:
        raise HTTPException(499, "you have gone") from None  # for the log: nobody else reads it


@app.get("/status")
async def status(request: Request) -> PoolStatus:
    """What the pool is doing."""
    pool: ProcessExecutor = request.app.state.pool
    return pool.status()


async def unless_gone(request: Request, call: SmartFuture[T]) -> T:
    """The result of a call, which is cancelled when the client goes: FastAPI goes on without one."""
    leaving = asyncio.ensure_future(client_has_gone(request))
    leaving.add_done_callback(lambda _: call.cancel())
    try:
        return await call
    finally:
        leaving.cancel()


async def client_has_gone(request: Request) -> None:
    """Return when it has."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), timeout_graceful_shutdown=3)
