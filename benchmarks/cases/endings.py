"""How long it takes until the end of a call is known: it was killed, cancelled, overdue, or its host froze.

Figures of the first case are medians of many, each of a call that has just begun. What is cancelled is confirmed: when
its awaiter goes on, its process is no more, which is looked at. One call is Python code; the other is C code that never
lets go of the interpreter lock, so nothing inside its process could stop it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aioparallel import (
    Backups,
    CallCancelledError,
    Host,
    ProcessExecutor,
    RemoteExecutor,
    SmartFuture,
    TaskTimeoutError,
    WorkerLostError,
    wait_all,
)
from aioparallel.testing import SshHost, ssh_hosts
from benchmarks import sshd, work
from benchmarks.measuring import clock
from benchmarks.stats import median
from benchmarks.suite import Goal, Metric, Sample, case

WORKERS = 2
SETTLED = 0.02
"""Seconds after which a call that is said to run certainly does."""
TIMEOUT = 0.05
SECONDS = 0.3
SLOTS = 4
OFF = "ours, without backups"


def _kill(call: SmartFuture[Any]) -> None:
    os.kill(_pid_of(call), signal.SIGKILL)


def _pid_of(call: SmartFuture[Any]) -> int:
    carrier: Any = call._source.worker.carrier  # type: ignore[union-attr]
    return int(carrier.pid)


async def _so(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - calls tell nobody that they have begun
        await asyncio.sleep(0.001)
    await asyncio.sleep(SETTLED)


async def _until_known(
    pool: Any, fn: Callable[[str], Any], end: Callable[[SmartFuture[Any]], object], expected: type[BaseException]
) -> float:
    """Seconds from the end of a running call until whoever awaits it knows, and its process is gone."""
    with TemporaryDirectory() as folder:
        sign = Path(folder, "begun")
        call = pool.submit(fn, str(sign))
        await _so(sign.exists)
    pid = _pid_of(call)
    begun = clock()
    end(call)
    try:
        await call
    except expected:
        took = clock() - begun
        if not _lives(pid):
            return took
    raise RuntimeError(f"process {pid} still runs")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _until_overdue(pool: Any) -> float:
    """Seconds from the end of a call's time until whoever awaits it knows."""
    await wait_all([pool.submit(work.nap, 0.01) for _ in range(WORKERS)])
    begun = clock()
    try:
        await pool.options(timeout=TIMEOUT).submit(work.nap, 60.0)
    except TaskTimeoutError:
        pass
    return clock() - begun - TIMEOUT


@case(
    "endings",
    title="From a worker's death, from cancel to its confirmed death, and from the end of its time until that is known "
    "(medians of {size})",
    metrics=[Metric("death", "ms"), Metric("cancel", "ms"), Metric("cancel C code", "ms"), Metric("timeout", "ms")],
    size=40,
    quick=5,
    timeout=180.0,
)
async def endings(pool: Any, size: int) -> Sample:
    """All of them, one after another."""
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "death": lambda: _until_known(pool, work.spin, _kill, WorkerLostError),
        "cancel": lambda: _until_known(pool, work.spin, SmartFuture.cancel, CallCancelledError),
        "cancel C code": lambda: _until_known(pool, work.hold, SmartFuture.cancel, CallCancelledError),
        "timeout": lambda: _until_overdue(pool),
    }
    return {name: median([await measure() for _ in range(size)]) * 1e3 for name, measure in kinds.items()}


@endings.contestant("processes", role="ours")
def processes() -> AbstractAsyncContextManager[Any]:
    """Local ones."""
    return ProcessExecutor(WORKERS)


@endings.contestant("an ssh host (OpenSSH)", role="ours")
@asynccontextmanager
async def ssh() -> AsyncGenerator[Any]:
    """A host that is this machine: no network is in the figures."""
    with sshd.server() as server:
        name = f"{sshd.username()}@127.0.0.1:{server.port}"
        async with RemoteExecutor([Host(name, slots=WORKERS, python=sys.executable, options=server.options)]) as pool:
            yield pool


# A host freezes


@case(
    "freeze",
    title=f"One of two hosts with {{size}} calls of {SECONDS:g} s freezes: until they are done elsewhere, and until "
    "one that may not run twice has failed",
    metrics=[Metric("elsewhere", "s"), Metric("failed", "s")],
    goals=[Goal("elsewhere", OFF, factor=1 / 6)],
    size=SLOTS,
    quick=SLOTS // 2,
    timeout=120.0,
)
async def freeze(opened: tuple[RemoteExecutor, list[SshHost]], size: int) -> Sample:
    """Its connection stays, but nothing comes through any more: from here a frozen host looks no different."""
    pool, hosts = opened
    careful = pool.submit(work.nap, SECONDS)
    await _so(lambda: careful.info.state == "running")
    calls = [pool.options(idempotent=True).submit(work.nap, SECONDS) for _ in range(2 * size - 1)]
    await _so(lambda: all(call.info.state == "running" for call in calls))
    (frozen,) = (host for host in hosts if host.name == careful.info.host)
    begun = clock()
    frozen.stall()

    async def until_failed() -> float:
        try:
            await careful
        except WorkerLostError:
            pass
        return clock() - begun

    async def until_done() -> float:
        await wait_all(calls)
        return clock() - begun

    elsewhere, failed = await asyncio.gather(until_done(), until_failed())
    return {"elsewhere": elsewhere, "failed": failed}


@asynccontextmanager
async def two_hosts(backups: Backups | None) -> AsyncGenerator[tuple[RemoteExecutor, list[SshHost]]]:
    """Hosts that keep what a host keeps by default, and calls enough to know how long they take."""
    async with ssh_hosts(2, slots=SLOTS) as hosts, RemoteExecutor(hosts, backups=backups) as pool:
        await wait_all([pool.options(idempotent=True).submit(work.nap, SECONDS) for _ in range(10 * SLOTS)])
        yield pool, hosts
        for host in hosts:
            host.heal()


freeze.contestant("ours, with backups", role="ours")(partial(two_hosts, Backups()))
freeze.contestant(OFF, role="reference")(partial(two_hosts, None))
