"""Streams on a stepper that does what the test says."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import pytest

from aioparallel._executors.stream import LocalSteps, Stream
from aioparallel._futures.smart import SmartFuture
from aioparallel._model.info import CallInfo, CallState


class Work:
    """A step's source: it stops when it is told to, and says how often it was begun."""

    grace = 5.0

    def __init__(self, attempts: int = 1) -> None:
        self.attempts = attempts
        self.future: SmartFuture[Any] = SmartFuture(self, asyncio.get_running_loop())

    def cancel(self) -> bool:
        self.future._set_cancelled()
        return True

    def info(self) -> CallInfo:
        return CallInfo(CallState.RUNNING, attempts=self.attempts)


class Steps:
    """A stepper whose steps the test ends."""

    def __init__(self, attempts: int = 1) -> None:
        self.works: list[Work] = []
        self.closed = 0
        self._attempts = attempts

    def advance(self) -> SmartFuture[Any]:
        self.works.append(Work(self._attempts))
        return self.works[-1].future

    def close(self) -> SmartFuture[Any]:
        self.closed += 1
        work = Work()
        work.future._set_result(None)
        return work.future

    def end(self, items: list[Any], ended: bool = False, error: BaseException | None = None) -> None:
        self.works[-1].future._set_result((items, ended, error))


async def take(stream: Stream[Any], steps: Steps, *answer: Any) -> Any:
    """The next item, for which the stepper is asked, and answers."""
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    steps.end(*answer)
    return await asking


async def test_asks_when_items_are_used_up() -> None:
    """A stream asks for items only when its consumer does, and when it has none left."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    assert not steps.works
    assert await take(stream, steps, [1, 2, 3]) == 1
    assert [await anext(stream), await anext(stream)] == [2, 3]
    assert len(steps.works) == 1
    assert await take(stream, steps, [4], True) == 4
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert len(steps.works) == 2
    await stream.aclose()
    assert not steps.closed, "it has ended by itself"


async def test_steps_without_items() -> None:
    """A step that made nothing is followed by another."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    asking = asyncio.ensure_future(anext(stream))
    for items in ([], [], [1]):
        while not steps.works or steps.works[-1].future.done():
            await asyncio.sleep(0)
        steps.end(items)
    assert await asking == 1
    await stream.aclose()


async def test_failure_after_items() -> None:
    """A failure is raised once, after the items that were made before it."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    assert await take(stream, steps, [1], True, LookupError("no more")) == 1
    with pytest.raises(LookupError, match="no more"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_failed_step() -> None:
    """A step that fails ends the stream."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    steps.works[0].future._set_exception(LookupError("the worker is gone"))
    with pytest.raises(LookupError):
        await asking
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(("attempts", "closed"), [(0, 1), (1, 0)])
async def test_cancelled_step(attempts: int, closed: int) -> None:
    """A step that is cancelled before it began leaves a generator that must be closed; one that was stopped does not."""
    steps = Steps(attempts)
    stream: Stream[int] = Stream(steps, "numbers")
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert steps.closed == closed
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("how", ["aclose", "with", "drop"])
async def test_closed_once(how: str) -> None:
    """A stream is closed once, by ``aclose``, by the end of ``async with``, or when it is dropped."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    assert await take(stream, steps, [1, 2]) == 1
    assert repr(stream) == "<Stream numbers open>"
    if how == "aclose":
        await stream.aclose()
        await stream.aclose()
        assert repr(stream) == "<Stream numbers ended>"
    elif how == "with":
        async with stream:
            pass
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert steps.closed == 1


async def test_second_consumer() -> None:
    """Two consumers at once are a mistake, which the second is told."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two consumers"):
        await anext(stream)
    steps.end([1])
    assert await first == 1
    await stream.aclose()


# Generators in this process


class Here:
    """An executor that runs what it is given at once, and knows what that was called."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def submit(self, step: Any, args: Any, kwargs: Any) -> SmartFuture[Any]:
        future: SmartFuture[Any] = SmartFuture(None, asyncio.get_running_loop())
        self.log.append(step.__qualname__)
        future._settle_by(partial(step, *args, **kwargs))
        return future


def numbers(log: list[str], first: int, *, last: int) -> Any:
    try:
        yield from range(first, last + 1)
    finally:
        log.append("closed")


async def test_local_generator() -> None:
    """A generator function is called by its first step, with its arguments, and its steps bear its name."""
    here = Here()
    stream: Stream[int] = Stream(LocalSteps(here.submit, numbers, (here.log, 1), {"last": 100}), "numbers")
    assert here.log == []
    assert [item async for item in stream] == list(range(1, 101))
    assert here.log == ["numbers", "numbers", "closed"], "64 items, then the rest"


async def test_local_generator_that_is_left() -> None:
    """A generator that is left half-way is closed by a step of its own."""
    here = Here()
    steps = LocalSteps(here.submit, numbers, (here.log, 1), {"last": 1000})
    stream: Stream[int] = Stream(steps, "numbers")
    assert await anext(stream) == 1
    await stream.aclose()
    assert here.log == ["numbers", "numbers", "closed"]
    assert steps.close() is None
