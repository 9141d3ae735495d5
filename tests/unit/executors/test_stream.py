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
    """A step's source: it stops when it is told to."""

    grace = 5.0

    def __init__(self) -> None:
        self.future: SmartFuture[Any] = SmartFuture(self, asyncio.get_running_loop())

    def cancel(self) -> bool:
        self.future._set_cancelled()
        return True

    def info(self) -> CallInfo:
        return CallInfo(CallState.RUNNING, attempts=1)


class Steps:
    """A stepper whose steps the test ends."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.closed = 0
        self.interrupts: list[SmartFuture[Any]] = []

    def advance(self) -> SmartFuture[Any]:
        self.works.append(Work())
        return self.works[-1].future

    def interrupted(self, step: SmartFuture[Any]) -> None:
        self.interrupts.append(step)

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


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_interrupted_step(how: str) -> None:
    """A step that is cancelled, or fails as a whole, ends the stream, and the stepper is told."""
    steps = Steps()
    stream: Stream[int] = Stream(steps, "numbers")
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    if how == "cancelled":
        asking.cancel()
    else:
        steps.works[0].future._set_exception(LookupError("the worker is gone"))
    await asyncio.wait([asking])
    assert steps.interrupts == [steps.works[0].future]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()
    assert not steps.closed


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


class Elsewhere:
    """An executor that keeps what it is given until the test runs it, as a thread would."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any]] = []

    def submit(self, step: Any, args: Any, kwargs: Any) -> SmartFuture[Any]:
        self.steps.append((step, args, kwargs))
        return Work().future

    def run(self) -> Any:
        step, args, kwargs = self.steps.pop(0)
        return step(*args, **kwargs)


@pytest.mark.parametrize("is_async", [False, True])
async def test_interrupted_inside_the_generator(is_async: bool) -> None:
    """A step that cannot be stopped closes its generator when it comes out of it, and nobody else touches that."""
    elsewhere = Elsewhere()
    log: list[str] = []

    def interrupting() -> Any:
        try:
            steps.interrupted(SmartFuture())
            log.append("inside")
            yield 1
        finally:
            log.append("closed")

    async def interrupting_async() -> Any:
        for item in interrupting():
            yield item

    steps = LocalSteps(elsewhere.submit, interrupting_async if is_async else interrupting, (), {})
    steps.advance()
    items = elsewhere.run()
    assert (await items if is_async else items) == ([1], True, None)
    assert log == ["inside", "closed"]
    assert not elsewhere.steps
    assert steps.close() is None


async def test_interrupted_before_the_generator() -> None:
    """A step that was cancelled in the moment in which it began does not touch the generator any more."""
    elsewhere = Elsewhere()
    log: list[str] = []
    steps = LocalSteps(elsewhere.submit, numbers, (log, 1), {"last": 1000})
    steps.advance()
    elsewhere.run()
    steps.advance()
    steps.interrupted(SmartFuture())
    assert elsewhere.run() == ([], True, None)
    assert not log
    elsewhere.run()
    assert log == ["closed"]
