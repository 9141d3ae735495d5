"""What the way to a remote host costs, before any call: a message there and back, and a lot of data one way.

The floor is a session of asyncssh with callbacks, as its documentation shows it. Ours is on top of the same,
with all that it adds, and has to stay close.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import sshd
from benchmarks.measuring import clock, latencies, peak_memory
from benchmarks.stats import quantile
from benchmarks.suite import Goal, Metric, Sample, case

PING = b"x" * 64
RAW = "asyncssh session"
PROGRAM = "ssh program"
MIB = 1.048576
OURS = ("aioparallel.Host",)


class Counter:
    """Waits until so much has arrived."""

    def __init__(self) -> None:
        self._left = 0
        self._arrived: asyncio.Future[None] | None = None

    def expect(self, size: int) -> asyncio.Future[None]:
        """A future that is done when so much more has arrived; what came before it was asked for counts."""
        self._left += size
        arrived = self._arrived = asyncio.get_running_loop().create_future()
        self.received(b"")
        return arrived

    def received(self, data: bytes, *_: object) -> None:
        """Count."""
        self._left -= len(data)
        if self._left <= 0 and self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            arrived.set_result(None)

    data_received = received

    def writable(self) -> None:
        """There is room again."""

    def lost(self, error: Exception) -> None:
        """The other side is gone."""


@dataclass(frozen=True)
class Pipe:
    """A program at the other end: what it is sent, and what comes back."""

    write: Callable[[bytes], Any]
    counter: Counter


Connect = Callable[[str], Awaitable[Pipe]]
"""Runs a command over there."""


@asynccontextmanager
async def raw() -> AsyncIterator[Connect]:
    """A connection of asyncssh with the same cipher, and sessions with callbacks."""
    import asyncssh

    class Session(Counter, asyncssh.SSHClientSession[bytes]):
        pass

    with sshd.server() as server:
        ciphers = ["aes128-gcm@openssh.com"]
        async with asyncssh.connect(
            "127.0.0.1",
            server.port,
            username=sshd.username(),
            encryption_algs=ciphers,
            compression_algs=None,
            **server.options,
        ) as connection:

            async def run(command: str) -> Pipe:
                channel, session = await connection.create_session(Session, command, encoding=None, window=16 << 20)
                return Pipe(channel.write, session)

            yield run


@asynccontextmanager
async def ours() -> AsyncIterator[Connect]:
    """Our connection and channel, and a listener in the place of the pool."""
    from aioparallel import Host
    from aioparallel._futures.supervisor import Supervisor
    from aioparallel._workers.channel import SshChannel
    from aioparallel._workers.ssh import Connections

    done = asyncio.Event()

    async def body(supervisor: Supervisor) -> None:
        supervisor.set_ready()
        await done.wait()

    supervisor = Supervisor(body, "benchmark")
    await supervisor.wait_ready()
    assert supervisor.group is not None
    connections = Connections(supervisor.group)
    with sshd.server() as server:
        host = Host(f"{sshd.username()}@127.0.0.1:{server.port}", options=server.options)
        connection = await connections.connect(host)

        async def run(command: str) -> Pipe:
            channel = SshChannel(host.name, connection.line, Counter())
            await connection.open_session(command, lambda: channel)
            counter = channel.listener
            assert isinstance(counter, Counter)
            return Pipe(lambda data: channel.write([data]), counter)

        yield run
        await connections.aclose()
    done.set()
    await supervisor.wait_done()


@asynccontextmanager
async def program() -> AsyncIterator[Connect]:
    """The ssh program, as a child of this process."""
    loop = asyncio.get_running_loop()

    class Child(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.counter = Counter()

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            self.counter.received(data)

    with sshd.server() as server:
        children: list[asyncio.SubprocessTransport] = []

        async def run(command: str) -> Pipe:
            transport, child = await loop.subprocess_exec(Child, *server.ssh, command, stderr=subprocess.DEVNULL)
            children.append(transport)
            stdin: Any = transport.get_pipe_transport(0)
            return Pipe(stdin.write, child.counter)

        yield run
        for child in children:
            child.close()
        await asyncio.sleep(0.1)


@case(
    "sshping",
    title="64 bytes to a Python over ssh and back (up to {size} times a round)",
    metrics=[Metric("p50", "us"), Metric("p99", "us")],
    goals=[Goal("p50", RAW, factor=1.3)],
    size=3000,
    quick=200,
    rounds=5,
)
async def sshping(connect: Connect, size: int) -> Sample:
    """The latency of one message at a time."""
    pipe = await connect(sshd.run(sshd.ECHO))

    async def ping() -> None:
        arrived = pipe.counter.expect(len(PING))
        pipe.write(PING)
        await arrived

    await ping()
    samples = await latencies(ping, size, budget=2.0)
    return {"p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


@case(
    "sshdata",
    title="{size} bytes over ssh: there and back, how long the event loop stands still, and the memory it takes",
    metrics=[
        Metric("there", "MB/s", "higher"),
        Metric("back", "MB/s", "higher"),
        Metric("stall", "ms"),
        Metric("memory", "MB"),
    ],
    goals=[
        Goal("there", PROGRAM),
        Goal("back", PROGRAM),
        Goal("stall", None, plus=20.0),
        Goal("memory", None, plus=16 * MIB),
    ],
    size=100_000_000,
    quick=10_000_000,
    rounds=3,
)
async def sshdata(connect: Connect, size: int) -> Sample:
    """Megabytes per second; the memory is what sending takes beside the data itself."""
    payload = bytes(size)
    before = peak_memory()
    there = await _send(await _ready(connect, sshd.SINK, size), payload)
    memory = peak_memory() - before
    pipe = await _ready(connect, sshd.SOURCE, size)
    begun = clock()
    arrived = pipe.counter.expect(size)
    pipe.write(b"!")
    await arrived
    back = clock() - begun
    pipe = await _ready(connect, sshd.SINK, size)
    watch = asyncio.ensure_future(_longest_stall(sending := asyncio.ensure_future(_send(pipe, payload))))
    await sending
    return {"there": size / there / 1e6, "back": size / back / 1e6, "stall": await watch * 1e3, "memory": memory}


async def _ready(connect: Connect, source: str, size: int) -> Pipe:
    pipe = await connect(sshd.run(source, size=size))
    await pipe.counter.expect(1)
    return pipe


async def _send(pipe: Pipe, payload: bytes) -> float:
    begun = clock()
    arrived = pipe.counter.expect(1)
    pipe.write(payload)
    await arrived
    return clock() - begun


async def _longest_stall(job: asyncio.Future[Any]) -> float:
    """The longest time for which the event loop did not get round, in seconds."""
    longest, last = 0.0, clock()
    while not job.done():
        await asyncio.sleep(0)
        now = clock()
        longest, last = max(longest, now - last), now
    return longest


for name, open_, options in ((RAW, raw, {"role": "floor"}), ("ours", ours, {"role": "ours", "needs": OURS})):
    sshping.contestant(name, **options)(open_)
    sshdata.contestant(name, **options)(open_)
sshping.contestant(PROGRAM)(program)
sshdata.contestant(PROGRAM)(program)
