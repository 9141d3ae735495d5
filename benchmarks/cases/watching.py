"""What it costs to be watched: calls that do nothing, in this process, so that nothing hides it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioparallel import SerialExecutor, watch
from benchmarks import work
from benchmarks.suite import Goal, Metric, Sample, case

NOBODY = "nobody observes"
EVENTS = 3
"""Of each call: queued, placed, ended."""


@case(
    "watching",
    title="{size} calls that do nothing, inside submit: CPU time for each",
    metrics=[Metric("cost", "us")],
    goals=[
        Goal("cost", NOBODY, plus=20.0, ours="a board"),  # 2 % of a call of 1 ms
        Goal("cost", NOBODY, plus=1.5 * EVENTS, ours="a trace"),
    ],
    size=20_000,
    quick=2000,
)
async def watching(pool: Any, size: int) -> Sample:
    """Microseconds of CPU time for each call."""
    began = time.process_time()
    for _ in range(size):
        pool.submit(work.noop)
    return {"cost": (time.process_time() - began) / size * 1e6}


@watching.contestant(NOBODY, role="floor")
@asynccontextmanager
async def nobody() -> AsyncIterator[Any]:
    """The pool alone."""
    async with SerialExecutor() as pool:
        yield pool


@watching.contestant("an observer that does nothing", role="ours")
@asynccontextmanager
async def observer() -> AsyncIterator[Any]:
    """Records are made, and told of to one function."""
    async with SerialExecutor() as pool:
        with pool.observe(lambda event: None):
            yield pool


@watching.contestant("a board", role="ours")
@asynccontextmanager
async def board() -> AsyncIterator[Any]:
    """What a board adds up."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: ASYNC230  # set-up
        async with SerialExecutor() as pool, watch(pool, stream=nowhere):
            yield pool


@watching.contestant("a trace", role="ours")
@asynccontextmanager
async def trace() -> AsyncIterator[Any]:
    """A compressed trace of every call."""
    with tempfile.TemporaryDirectory() as folder:
        async with SerialExecutor() as pool:
            with pool.trace(os.path.join(folder, "run.json.gz")):
                yield pool
