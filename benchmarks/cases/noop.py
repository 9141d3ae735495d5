"""What one call costs that does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks import callers, work
from benchmarks.callers import Caller
from benchmarks.child import child
from benchmarks.measuring import latencies
from benchmarks.stats import quantile
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Sample, case

PROTOCOL = "asyncio Protocol ping-pong"
PING = b"x" * 64


@case(
    "noop",
    title="one awaited no-op call on a warm process worker (up to {size} calls a round)",
    metrics=[Metric("p50", "us"), Metric("p99", "us")],
    goals=[Goal("p50", PROTOCOL, factor=1.3), Goal("p50", BEST_RIVAL, factor=0.6)],
    size=2000,
    quick=200,
    rounds=5,
)
async def noop(caller: Caller, size: int) -> Sample:
    """The latency of one call at a time."""
    samples = await latencies(partial(caller.one, work.noop), size)
    return {"p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


@noop.contestant(PROTOCOL, role="floor")
@asynccontextmanager
async def protocol() -> AsyncIterator[Caller]:
    """An asyncio Protocol on a Unix socket pair; the child's loop blocks."""
    with child("echo") as connection:
        transport, ping_pong = await asyncio.get_running_loop().create_connection(PingPong, sock=connection)
        yield Caller(ping_pong.call, lambda *_: None)
        transport.close()


class PingPong(asyncio.Protocol):
    """Sends a message and waits for it to come back."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = self.loop.create_future()
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.answer.set_result(data)

    def call(self, *_: object) -> asyncio.Future[bytes]:
        """One trip there and back."""
        assert self.transport is not None
        self.answer = self.loop.create_future()
        self.transport.write(PING)
        return self.answer


@noop.contestant("raw blocking socket pair", role="floor")
@asynccontextmanager
async def raw() -> AsyncIterator[Caller]:
    """No event loop: what the kernel takes."""
    with child("echo") as connection:

        def call(*_: object) -> bytes:
            connection.sendall(PING)
            return connection.recv(len(PING))

        yield Caller(call, lambda *_: None)


noop.contestant("anyio.to_process", needs="anyio")(callers.anyio_process)
noop.contestant("execnet", needs="execnet")(callers.execnet_gateways)
noop.contestant("trio-parallel", needs=("trio", "trio_parallel"), loop="trio")(callers.trio_parallel_context)
noop.contestant("mp.Pool")(callers.mp_pool)
noop.contestant("ProcessPoolExecutor")(callers.process_pool_executor)
noop.contestant("pebble", needs="pebble")(callers.pebble_pool)
noop.contestant("mpire", needs="mpire")(callers.mpire_pool)
noop.contestant("loky", needs="loky")(callers.loky_executor)
noop.contestant("pathos", needs="pathos")(callers.pathos_pool)
noop.contestant("joblib", needs="joblib")(callers.joblib_parallel)
noop.contestant("aiomultiprocess", needs="aiomultiprocess")(callers.aiomultiprocess_pool)
noop.contestant("ours", role="ours", needs=callers.OURS)(callers.ours_resident)
noop.contestant("ours, anyio engine", role="ours", needs=callers.OURS)(callers.ours_anyio)
