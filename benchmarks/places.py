"""What it costs to run a call in each of the places where calls can run.

    python -m benchmarks.places [--calls 500] [--only ray]

One after the other, each with two workers: to open it until the first answer is there, one awaited no-op call, many
calls at once, a map of tiny items, a megabyte there and back, and to close it. The ssh host is a real OpenSSH server on
this machine, and Ray is a local one, so no network is in the figures. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from statistics import median
from time import perf_counter
from typing import Any

import aioparallel
from benchmarks import machine, sshd, work

__all__ = ["main"]

WORKERS = 2
COLUMNS = ("open", "one call", "calls/s", "items/s", "1 MB", "close")


def places() -> dict[str, Callable[[], Any]]:
    """Each kind of executor, by what it is called in the table."""
    found: dict[str, Callable[[], Any]] = {
        "threads": lambda: nullcontext(aioparallel.ThreadExecutor(WORKERS)),
        "processes": lambda: nullcontext(aioparallel.ProcessExecutor(WORKERS)),
    }
    if os.access(sshd.PROGRAM, os.X_OK):
        found["ssh host"] = on_ssh
    if importlib.util.find_spec("ray") is not None:
        found["ray"] = lambda: nullcontext(aioparallel.RayExecutor(init={"num_cpus": WORKERS}))
    return found


@asynccontextmanager
async def on_ssh() -> AsyncIterator[Any]:
    """A host that is this machine."""
    with sshd.server() as server:
        host = aioparallel.Host(
            f"{sshd.username()}@127.0.0.1:{server.port}", slots=WORKERS, python=sys.executable, options=server.options
        )
        yield aioparallel.RemoteExecutor([host])


async def measure(pool: Any, calls: int) -> dict[str, float]:
    """Each column, in seconds or in one per second."""
    began = perf_counter()
    await pool.start()
    await pool.submit(work.noop)
    took = {"open": perf_counter() - began}
    for _ in range(20):
        await pool.submit(work.noop)
    took["one call"] = median([await timed(pool.submit, work.noop) for _ in range(calls)])
    many = await timed(lambda: aioparallel.wait_all([pool.submit(work.increment, n) for n in range(calls * 2)]))
    took["calls/s"] = calls * 2 / many
    await pool.map(work.increment, range(1000))
    took["items/s"] = calls * 20 / await timed(pool.map, work.increment, range(calls * 20))
    took["1 MB"] = median([await timed(pool.submit, bytes, bytes(10**6)) for _ in range(10)])
    took["close"] = await timed(pool.aclose)
    return took


async def timed(start: Callable[..., Any], *args: Any) -> float:
    """How long something takes to await."""
    began = perf_counter()
    await start(*args)
    return perf_counter() - began


def shown(name: str, took: dict[str, float]) -> str:
    """One row."""
    cells = [f"{took[each] / 1000:8.1f} k" if each.endswith("/s") else time_of(took[each]) for each in COLUMNS]
    return f"{name:<10}" + "".join(f"{cell:>12}" for cell in cells)


def time_of(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1e6:.0f} us"


async def run(calls: int, only: list[str]) -> None:
    """Print the table."""
    print(machine.headline(machine.describe()))
    print(f"{'':<10}" + "".join(f"{each:>12}" for each in COLUMNS))
    for name, make in places().items():
        if only and name not in only:
            continue
        async with make() as pool:
            print(shown(name, await measure(pool, calls)), flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--only", action="append", default=[], choices=list(places()))
    arguments = parser.parse_args()
    asyncio.run(run(arguments.calls, arguments.only))


if __name__ == "__main__":
    main()
