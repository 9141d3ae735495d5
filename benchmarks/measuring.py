"""How the cases measure: calls one by one, whole jobs, whole processes, memory."""

from __future__ import annotations

import gc
import inspect
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stats import median

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["finished", "latencies", "peak_memory", "run_script", "timed", "typical"]

clock = time.perf_counter


async def finished(value: Any) -> Any:
    """``value``, awaited if that is what it is for. So a contestant may be sync or async."""
    return await value if inspect.isawaitable(value) else value


async def timed(job: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Run one job; return the seconds it took and what it gave."""
    gc.collect()
    begun = clock()
    value = await finished(job(*args))
    return clock() - begun, value


async def typical(job: Callable[..., Any], *args: Any, times: int = 3) -> tuple[float, Any]:
    """The median seconds of a job that is too short to be timed once, and what it gave last."""
    runs = [await timed(job, *args) for _ in range(times)]
    return median([seconds for seconds, _ in runs]), runs[-1][1]


async def latencies(call: Callable[[], Any], count: int, *, warm_up: int = 100, budget: float = 0.5) -> list[float]:
    """The seconds of up to ``count`` calls, one after another, after a warm-up.

    Calls that are slow (some rivals poll every 10 ms) stop at ``budget`` seconds; the warm-up
    gets as much.
    """
    awaited = inspect.isawaitable(first := call())
    await finished(first)
    take = _awaited_latencies if awaited else _plain_latencies
    await take(call, warm_up, budget)
    gc.collect()
    return await take(call, count, budget)


async def _awaited_latencies(call: Callable[[], Any], count: int, budget: float) -> list[float]:
    samples: list[float] = []
    end = clock() + budget
    while len(samples) < count and (begun := clock()) < end:
        await call()
        samples.append(clock() - begun)
    return samples


async def _plain_latencies(call: Callable[[], Any], count: int, budget: float) -> list[float]:
    samples: list[float] = []
    end = clock() + budget
    while len(samples) < count and (begun := clock()) < end:
        call()
        samples.append(clock() - begun)
    return samples


def run_script(source: str) -> tuple[float, float]:
    """Run ``python -c source``; return the seconds until its first line of output, and until it has ended.

    Raises:
        RuntimeError: It printed nothing, or failed.
    """
    begun = clock()
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        first = clock() - begun
        code = process.wait()
        whole = clock() - begun
    if code or not line:
        raise RuntimeError(f"the script exited with code {code} and printed {line!r}")
    return first, whole


def peak_memory() -> float:
    """This process's peak resident memory so far, in MB (10**6 bytes)."""
    try:
        # ru_maxrss would do, but on Linux it starts at what the parent had when it started us.
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) * 1024 / 1e6
