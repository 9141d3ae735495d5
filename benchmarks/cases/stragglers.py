"""What backup copies are worth: calls on remote hosts of which a few straggle, and a host that falls silent.

Twenty-four slots at six hosts serve eight callers, each of which awaits one call after another. A straggler takes
twenty times as long as it should, wherever it runs: a copy straggles as often as a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aioparallel import Backups, RemoteExecutor
from aioparallel.testing import SshHost, ssh_hosts
from benchmarks import work
from benchmarks.measuring import clock
from benchmarks.stats import quantile
from benchmarks.suite import Goal, Metric, Sample, case

HOSTS = 6
SLOTS = 4
CALLERS = 8
SECONDS = 0.04
OFF = "ours, without backups"
METRICS = [Metric("p99", "ms"), Metric("longest", "ms"), Metric("time", "s"), Metric("extra", "%")]
GOALS = [Goal("p99", OFF, factor=1 / 6), Goal("extra", None, plus=10.0)]
COMMON: Any = {"metrics": METRICS, "goals": GOALS, "size": 2000, "quick": 200, "rounds": 1, "timeout": 180.0}


@dataclass(frozen=True)
class Pool:
    """An open pool, and its hosts."""

    executor: RemoteExecutor
    hosts: list[SshHost]


@asynccontextmanager
async def pool(backups: Backups | None) -> AsyncIterator[Pool]:
    """Six hosts, and calls enough that all of them are up when the first is measured."""
    async with ssh_hosts(HOSTS, slots=SLOTS) as hosts, RemoteExecutor(hosts, backups=backups) as executor:
        await asyncio.gather(*(executor.submit(work.straggle, SECONDS, 0.0) for _ in range(20 * HOSTS * SLOTS)))
        yield Pool(executor, hosts)
        for host in hosts:
            host.heal()


async def _calls(opened: Pool, size: int, share: float, silent_after: int | None = None) -> Sample:
    """Have callers make so many calls."""
    submit = opened.executor.options(idempotent=True).submit
    took: list[float] = []
    left = iter(range(size))

    async def caller() -> None:
        for number in left:
            if number == silent_after:
                opened.hosts[0].stall()
            begun = clock()
            await submit(work.straggle, SECONDS, share)
            took.append(clock() - begun)

    begun = clock()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    seconds = clock() - begun
    return {
        "p99": quantile(took, 0.99) * 1e3,
        "longest": max(took) * 1e3,
        "time": seconds,
        "extra": 100 * opened.executor.status().backups / size,
    }


@case("stragglers2", title=f"{{size}} remote calls of {SECONDS * 1e3:g} ms, 2 of 100 take 20 times as long", **COMMON)
async def two(opened: Pool, size: int) -> Sample:
    """Two of a hundred straggle."""
    return await _calls(opened, size, 0.02)


@case("stragglers5", title=f"{{size}} remote calls of {SECONDS * 1e3:g} ms, 5 of 100 take 20 times as long", **COMMON)
async def five(opened: Pool, size: int) -> Sample:
    """Five of a hundred straggle, which is where the quantile of the finished ones is."""
    return await _calls(opened, size, 0.05)


@case(
    "silence",
    title=f"{{size}} remote calls of {SECONDS * 1e3:g} ms, after a tenth of which one of six hosts falls silent",
    **{**COMMON, "goals": [Goal("longest", OFF, factor=1 / 6), *GOALS[1:]]},
)
async def silence(opened: Pool, size: int) -> Sample:
    """Nothing is heard of a host any more; without copies its calls wait until it is given up."""
    return await _calls(opened, size, 0.0, silent_after=size // 10)


for each in (two, five, silence):
    each.contestant("ours, with backups", role="ours")(partial(pool, Backups(interval=0.01)))
    each.contestant(OFF, role="reference")(partial(pool, None))
