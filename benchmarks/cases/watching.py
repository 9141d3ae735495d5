"""What it costs to be watched, in this process, where nothing hides it.

Blocks of calls with and without a watcher take turns within one process, and each is compared with the one before it:
what else the machine does meets both. What counts is CPU time, and for a trace two figures: of the event loop's thread,
which takes notes, and of the whole process, which also turns them into a compressed file.
"""

from __future__ import annotations

import gc
import io
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, NamedTuple

import anyio.lowlevel

from aioparallel import SerialExecutor, watch
from benchmarks import work
from benchmarks.stats import median
from benchmarks.suite import Goal, Metric, Sample, case

EVENTS = 3
"""Of each call: queued, placed, ended. (A trace takes no note of the first: the last one says when it was.)"""
BLOCK = 2000
SHORT = 0.001
SHORT_BLOCK = 300
"""Calls that take so long, for longer than a board takes between two drawings."""


class Watched(NamedTuple):
    """A pool, and what watches it for as long as it is entered."""

    pool: SerialExecutor
    watcher: Callable[[], AbstractAsyncContextManager[Any]]


class _Screen(io.StringIO):
    """A terminal that nobody looks at, so that all of a board is drawn."""

    def isatty(self) -> bool:
        return True


async def _block(pool: SerialExecutor, fn: Callable[[], Any], size: int, watcher: Any) -> tuple[float, float]:
    """Seconds of CPU time, of this thread and of the process, until all is written."""
    gc.collect()
    own, whole = time.thread_time(), time.process_time()
    async with watcher:
        for _ in range(size):
            pool.submit(fn)
            if fn is not work.noop:
                await anyio.lowlevel.checkpoint()  # for the board to draw
        own = time.thread_time() - own
    return own, time.process_time() - whole


async def _pairs(subject: Watched, fn: Callable[[], Any], size: int, block: int) -> list[tuple[float, float, float]]:
    """Of each pair of blocks: what the one without a watcher took, and how much more the other, per call."""
    found = []
    for _ in range(max(1, size // block)):
        alone, bare = await _block(subject.pool, fn, block, nullcontext())
        own, whole = await _block(subject.pool, fn, block, subject.watcher())
        found.append((bare / block, (own - alone) / block, (whole - bare) / block))
    return found


@case(
    "watching",
    title="{size} calls that do nothing, inside submit: CPU time for each of their 3 events",
    metrics=[Metric("in all", "us"), Metric("on the loop's thread", "us")],
    goals=[
        Goal("in all", None, plus=1.5, ours="a trace"),
        Goal("on the loop's thread", None, plus=1.5, ours="a trace"),
    ],
    size=40_000,
    quick=4000,
)
async def watching(subject: Watched, size: int) -> Sample:
    """Microseconds for each event: the median of all pairs of blocks."""
    pairs = await _pairs(subject, work.noop, size, BLOCK)
    return {
        "in all": median([whole for _, _, whole in pairs]) / EVENTS * 1e6,
        "on the loop's thread": median([own for _, own, _ in pairs]) / EVENTS * 1e6,
    }


@case(
    "watching-1ms",
    title="{size} calls of 1 ms, one after the other: CPU time that is added by being watched",
    metrics=[Metric("added", "%")],
    goals=[Goal("added", None, plus=2.0, ours="a board"), Goal("added", None, plus=2.0, ours="a trace")],
    size=3000,
    quick=300,
)
async def watching_short_calls(subject: Watched, size: int) -> Sample:
    """By how much more of its CPU time the process pays for calls of 1 ms: the median of all pairs of blocks."""
    pairs = await _pairs(subject, spin, size, SHORT_BLOCK)
    return {"added": median([100 * whole / bare for bare, _, whole in pairs])}


def spin() -> None:
    """Work for a millisecond, however busy the machine is."""
    end = time.thread_time() + SHORT
    while time.thread_time() < end:
        pass


@watching.contestant("an observer that does nothing", role="ours")
@watching_short_calls.contestant("an observer that does nothing", role="ours")
@asynccontextmanager
async def observer() -> AsyncIterator[Watched]:
    """Records are made, and told of to one function."""
    async with SerialExecutor() as pool:

        @asynccontextmanager
        async def watcher() -> AsyncIterator[None]:
            with pool.observe(lambda event: None):
                yield

        yield Watched(pool, watcher)


@watching.contestant("a board", role="ours")
@watching_short_calls.contestant("a board", role="ours")
@asynccontextmanager
async def board() -> AsyncIterator[Watched]:
    """What a board adds up, and, where the loop comes to it, draws four times a second."""
    async with SerialExecutor() as pool:
        yield Watched(pool, lambda: watch(pool, stream=_Screen()))


@watching.contestant("a trace", role="ours")
@watching_short_calls.contestant("a trace", role="ours")
@asynccontextmanager
async def trace() -> AsyncIterator[Watched]:
    """A compressed trace of every call, complete in the end."""
    with tempfile.TemporaryDirectory() as folder:
        async with SerialExecutor() as pool:

            @asynccontextmanager
            async def watcher() -> AsyncIterator[None]:
                with pool.trace(os.path.join(folder, "run.json.gz")):
                    yield

            yield Watched(pool, watcher)
