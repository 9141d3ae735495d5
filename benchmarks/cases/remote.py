"""Calls on a remote host, over a real OpenSSH server on the loopback interface."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import callers, sshd, work
from benchmarks.callers import Caller
from benchmarks.cases import sshchannel
from benchmarks.measuring import clock, finished, latencies, peak_memory, timed
from benchmarks.stats import quantile
from benchmarks.suite import Goal, Metric, Sample, case

RAW, PROGRAM, LOCAL = "asyncssh ping-pong", "an ssh for each call", "ours, local"
PROGRAMS = "an scp and an ssh for each call"
OURS = ("aioparallel.RemoteExecutor",)
HOSTS = 8


def hosts_of(server: sshd.Server, count: int = 1, slots: int = 1) -> list[Any]:
    """So many hosts: each with a login, an agent and workers of its own, although all are this machine."""
    from aioparallel import Host

    names = server.folder / "names"
    names.write_text("Host node*\n  HostName 127.0.0.1\n")
    options = {"slots": slots, "python": sys.executable, "options": {**server.options, "config": [names]}}
    return [Host(f"{sshd.username()}@node{number}:{server.port}", **options) for number in range(count)]


# Warm calls


@case(
    "remotenoop",
    title="a no-op call on a warm remote host, one at a time (up to {size} a round)",
    metrics=[Metric("p50", "us"), Metric("p99", "us")],
    goals=[Goal("p50", RAW, factor=1.3), Goal("p50", PROGRAMS, factor=0.001)],
    size=3000,
    quick=100,
    rounds=5,
)
async def remotenoop(caller: Caller, size: int) -> Sample:
    """The latency of awaited calls."""
    samples = await latencies(lambda: caller.one(work.noop), size, budget=1.0)
    return {"p50": quantile(samples, 0.5) * 1e6, "p99": quantile(samples, 0.99) * 1e6}


@case(
    "remotesubmits",
    title="{size} independent submits to one worker on a remote host, a future each, all consumed",
    metrics=[Metric("rate", "calls/s", "higher")],
    goals=[Goal("rate", LOCAL, factor=0.5)],
    size=10_000,
    quick=500,
)
async def remotesubmits(caller: Caller, size: int) -> Sample:
    """Calls per second, from the first submit to the last result."""
    await finished(caller.many(work.increment, range(max(size // 20, 50))))
    seconds, results = await timed(caller.many, work.increment, range(size))
    if list(results) != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@remotenoop.contestant("ours", role="ours", needs=OURS)
@remotesubmits.contestant("ours", role="ours", needs=OURS)
@asynccontextmanager
async def remote() -> AsyncIterator[Caller]:
    """One host with one slot."""
    from aioparallel import RemoteExecutor, wait_all

    with sshd.server() as server:
        async with RemoteExecutor(hosts_of(server)) as pool:

            async def many(fn: Any, items: Sequence[Any]) -> list[Any]:
                return await wait_all([pool.submit(fn, item) for item in items])

            yield Caller(pool.submit, many)


@remotesubmits.contestant(LOCAL, role="reference", needs=callers.OURS)
@asynccontextmanager
async def local() -> AsyncIterator[Caller]:
    """The same pool without ssh."""
    async with callers.ours_resident(workers=1) as caller:
        yield caller


@remotenoop.contestant(RAW, role="floor")
@remotesubmits.contestant(RAW, role="floor")
@asynccontextmanager
async def ping_pong() -> AsyncIterator[Caller]:
    """A message there and back over a session of asyncssh; for many, all at once."""
    async with sshchannel.raw() as connect:
        pipe = await connect(sshd.run(sshd.ECHO))

        async def one(fn: Any) -> None:
            arrived = pipe.counter.expect(len(sshchannel.PING))
            pipe.write(sshchannel.PING)
            await arrived

        async def many(fn: Any, items: Sequence[int]) -> list[int]:
            arrived = pipe.counter.expect(len(sshchannel.PING) * len(items))
            for _ in items:
                pipe.write(sshchannel.PING)
            await arrived
            return [item + 1 for item in items]

        yield Caller(one, many)


@remotenoop.contestant(PROGRAM)
@asynccontextmanager
async def an_ssh_each() -> AsyncIterator[Caller]:
    """A login and an interpreter for each call, which says nothing of what to do."""
    with sshd.server() as server:

        async def one(fn: Any, *args: Any) -> None:
            await _succeed([*server.ssh, f"{sys.executable} -S -c pass"])

        yield Caller(one, lambda *_: None)


@remotenoop.contestant(PROGRAMS)
@asynccontextmanager
async def an_scp_and_an_ssh_each() -> AsyncIterator[Caller]:
    """What a shell script does: it copies there what to do, and has an interpreter do it."""
    with sshd.server() as server:
        source, target = server.folder / "task.py", str(server.folder / "copied.py")
        source.write_text("pass\n")

        async def one(fn: Any, *args: Any) -> None:
            await _succeed(server.scp(source, target))
            await _succeed([*server.ssh, f"{sys.executable} -S {target}"])

        yield Caller(one, lambda *_: None)


async def _succeed(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{command[0]} failed")


# Large arguments and results


@case(
    "remotedata",
    title="{size} bytes as the argument (in) and as the result (out) of a call on a remote host",
    metrics=[Metric("in", "MB/s", "higher"), Metric("out", "MB/s", "higher"), Metric("stall", "ms")],
    goals=[Goal("in", sshchannel.PROGRAM), Goal("out", sshchannel.PROGRAM), Goal("stall", None, plus=20.0)],
    size=100_000_000,
    quick=10_000_000,
    rounds=3,
)
async def remotedata(move: Callable[[bool, bytes], Awaitable[None]], size: int) -> Sample:
    """Megabytes per second, and how long the event loop stood still at most."""
    payload = bytes(size)
    await move(True, payload[:1000])
    there, back = await _seconds(move, True, payload), await _seconds(move, False, payload)
    moving = asyncio.ensure_future(move(True, payload))
    stall = await sshchannel._longest_stall(moving)
    await moving
    return {"in": size / there / 1e6, "out": size / back / 1e6, "stall": stall * 1e3}


async def _seconds(move: Callable[[bool, bytes], Awaitable[None]], there: bool, payload: bytes) -> float:
    begun = clock()
    await move(there, payload)
    return clock() - begun


@remotedata.contestant("ours", role="ours", needs=OURS)
@asynccontextmanager
async def by_calls() -> AsyncIterator[Callable[[bool, bytes], Awaitable[None]]]:
    """As arguments and results of calls."""
    async with remote() as caller:

        async def move(there: bool, payload: bytes) -> None:
            got = await (caller.one(len, payload) if there else caller.one(bytes, len(payload)))
            if (got if there else len(got)) != len(payload):
                raise ValueError("wrong result")

        yield move


@remotedata.contestant(sshchannel.PROGRAM)
@asynccontextmanager
async def by_pipes() -> AsyncIterator[Callable[[bool, bytes], Awaitable[None]]]:
    """Through the ssh program, a login each time."""
    async with sshchannel.program() as connect:

        async def move(there: bool, payload: bytes) -> None:
            pipe = await sshchannel._ready(connect, sshd.SINK if there else sshd.SOURCE, len(payload))
            if there:
                await sshchannel._send(pipe, payload)
                return
            arrived = pipe.counter.expect(len(payload))
            pipe.write(b"!")
            await arrived

        yield move


@case(
    "remotememory",
    title="by how much the peak memory grows while an array of {size} bytes travels, beyond the array itself",
    metrics=[Metric("in", "MB"), Metric("out", "MB")],
    goals=[Goal("in", None, plus=16.8), Goal("out", None, plus=16.8)],  # 16 MiB
    size=100_000_000,
    quick=10_000_000,
    rounds=1,
)
async def remotememory(caller: Caller, size: int) -> Sample:
    """As the argument of a call on a remote host (in), and then as its result (out)."""
    import numpy as np

    count = size // 8
    await finished(caller.one(work.swallow, np.arange(1000, dtype=np.float64)))
    array = np.arange(count, dtype=np.float64)
    before = peak_memory()
    await finished(caller.one(work.swallow, array))
    there = peak_memory() - before
    del array  # the result has its place now, and the peak does not see it
    before = peak_memory()
    await finished(caller.one(work.produce, count))
    return {"in": there, "out": peak_memory() - before}


remotememory.contestant("ours", role="ours", needs=("numpy", *OURS))(remote)


# From nothing to the first result


@case(
    "remotestart",
    title=f"from nothing to the first result of one host, and until all of {HOSTS} have given one (median of {{size}})",
    metrics=[Metric("one", "ms"), Metric("eight", "ms")],
    goals=[],
    size=3,
    quick=1,
    rounds=3,
)
async def remotestart(first_results: Callable[[int], Awaitable[None]], size: int) -> Sample:
    """Milliseconds; imports are paid already."""
    await first_results(1)

    async def median_of(count: int) -> float:
        return sorted([(await timed(first_results, count))[0] for _ in range(size)])[size // 2] * 1e3

    return {"one": await median_of(1), "eight": await median_of(HOSTS)}


@remotestart.contestant("ours", role="ours", needs=OURS)
@asynccontextmanager
async def a_pool() -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A pool with a slot on each host, and a call for each slot."""
    from aioparallel import RemoteExecutor, RoundRobin

    with sshd.server() as server:

        async def first_results(count: int) -> None:
            async with RemoteExecutor(hosts_of(server, count), policy=RoundRobin()) as pool:
                await pool._hands._news.until(lambda: sum(host.workers for host in pool.hosts) == count)
                pids = await asyncio.gather(*(pool.submit(os.getpid) for _ in range(count)))
                if len(set(pids)) != count:
                    raise RuntimeError("one of the hosts had no share")

        yield first_results


@remotestart.contestant("ssh program")
@asynccontextmanager
async def programs() -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """An ssh for each host that runs Python there."""
    async with an_ssh_each() as caller:

        async def first_results(count: int) -> None:
            await asyncio.gather(*(caller.one(work.noop) for _ in range(count)))

        yield first_results
