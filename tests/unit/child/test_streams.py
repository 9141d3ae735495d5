"""Generators and coroutines in a worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aioparallel._child import streams, wire
from aioparallel._child.streams import STEP_ITEMS, Loop, Streams
from aioparallel._workers.returning import unpack_failure
from tests.tools import wait_for

OPEN, NEXT, CLOSE = wire.STREAM_OPEN, wire.STREAM_NEXT, wire.STREAM_CLOSE
log: list[object] = []
"""What generators did, in order."""


@pytest.fixture
def living() -> Iterator[Streams]:
    log.clear()
    found = Streams()
    yield found
    found.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def opened(living: Streams, fn: Callable[..., Any], *args: Any, id: int = 1) -> Any:
    return living.step(OPEN, id, fn, args, {})


def advanced(living: Streams, id: int = 1) -> Any:
    return living.step(NEXT, 99, print, (id,), {})


def closed(living: Streams, id: int = 1) -> Any:
    return living.step(CLOSE, 99, print, (id,), {})


def count(most: int) -> Iterator[int]:
    try:
        yield from range(most)
    finally:
        log.append("closed")


async def acount(most: int) -> AsyncIterator[int]:
    try:
        for number in range(most):
            yield number
    finally:
        log.append("closed")


def fails_after(most: int) -> Iterator[int]:
    yield from range(most)
    raise ValueError("no more")


async def afails_after(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number
    raise ValueError("no more")


# Streams


@pytest.mark.parametrize("fn", [count, acount])
def test_steps(living: Streams, fn: Callable[..., Any]) -> None:
    """A stream is made of steps of a bounded number of items, the last of which says so."""
    many = 2 * STEP_ITEMS + 3
    steps = [opened(living, fn, many)]
    while not steps[-1][1]:
        assert not log
        steps.append(advanced(living))
    assert [item for items, _, _ in steps for item in items] == list(range(many))
    assert [ended for _, ended, _ in steps] == [False] * (len(steps) - 1) + [True]
    assert max(len(items) for items, _, _ in steps) == STEP_ITEMS
    assert log == ["closed"]


@pytest.mark.parametrize("fn", [count, acount])
def test_empty_streams(living: Streams, fn: Callable[..., Any]) -> None:
    """A stream without items has ended when it is opened."""
    assert opened(living, fn, 0) == ([], True, None)


@pytest.mark.parametrize("fn", [count, acount])
def test_slow_items_travel_alone(living: Streams, fn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends after the first item when that took long."""
    now = iter(range(1000))
    monkeypatch.setattr(streams, "monotonic", lambda: float(next(now)))
    assert opened(living, fn, 5) == ([0], False, None)
    assert advanced(living) == ([1], False, None)


@pytest.mark.parametrize("fn", [fails_after, afails_after])
def test_failures_come_after_the_items(living: Streams, fn: Callable[..., Any]) -> None:
    """What a generator raises ends the stream, behind the items that it made before."""
    items, ended, packed = opened(living, fn, 3)
    assert (items, ended) == ([0, 1, 2], True)
    error = unpack_failure(packed, "fails_after", "w")
    assert (type(error), error.args) == (ValueError, ("no more",))
    with pytest.raises(KeyError):
        advanced(living)


@pytest.mark.parametrize("fn", [count, acount])
def test_closing(living: Streams, fn: Callable[..., Any]) -> None:
    """Closing a stream closes its generator, and forgets it."""
    opened(living, fn, 10 * STEP_ITEMS)
    assert closed(living) is None
    assert log == ["closed"]
    with pytest.raises(KeyError):
        advanced(living)


def test_closing_twice(living: Streams) -> None:
    """Closing a stream that has ended, or never was, does nothing."""
    opened(living, count, 1)
    assert closed(living) is None
    assert closed(living, id=77) is None


def test_streams_are_separate(living: Streams) -> None:
    """Several streams live side by side."""
    opened(living, count, 100, id=1)
    opened(living, acount, 100, id=2)
    closed(living, id=1)
    assert advanced(living, id=2) == (list(range(STEP_ITEMS, 100)), True, None)


def test_functions_that_make_no_generator(living: Streams) -> None:
    """A function that returns something else is a stream of nothing but an error."""
    items, ended, packed = opened(living, lambda: [1, 2])
    assert (items, ended) == ([], True)
    assert "'list' object is not an iterator" in str(unpack_failure(packed, "f", "w"))


def test_functions_that_raise_at_once(living: Streams) -> None:
    """What the function itself raises is raised by opening the stream."""
    with pytest.raises(ZeroDivisionError):
        opened(living, lambda: 1 / 0)
    assert closed(living) is None


def test_everything_is_closed_in_the_end() -> None:
    """Closing the streams closes each of them, although one fails to close."""
    log.clear()

    def stubborn() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise SystemExit("never")

    found = Streams()
    for id, fn in enumerate([lambda: count(1000), stubborn, lambda: acount(1000)]):
        opened(found, fn, id=id)
    found.close()
    assert log == ["closed", "closed"]


def test_failures_at_the_end_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What a generator raises when its worker ends is written to standard error."""

    def stubborn() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise RuntimeError("never")

    found = Streams()
    opened(found, stubborn)
    found.close()
    assert "RuntimeError: never" in capsys.readouterr().err


# Tasks of streams


async def fed_by_a_task() -> AsyncIterator[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def feed() -> None:
        try:
            for number in range(10 * STEP_ITEMS):
                await queue.put(number)
        finally:
            log.append("feeder ended")

    feeder = asyncio.create_task(feed(), name="feeder")
    while not feeder.done() or queue.qsize():
        yield await queue.get()


def test_tasks_of_a_stream_go_on(living: Streams, capsys: pytest.CaptureFixture[str]) -> None:
    """A task that a generator started is there from one step to the next."""
    items, ended, _ = opened(living, fed_by_a_task)
    while not ended:
        more, ended, problem = advanced(living)
        assert problem is None
        items += more
    assert items == list(range(10 * STEP_ITEMS))
    assert log == ["feeder ended"]
    assert capsys.readouterr().err == ""


def test_tasks_of_a_stream_end_with_it(living: Streams, capsys: pytest.CaptureFixture[str]) -> None:
    """A task that a generator left behind is cancelled and reported when the stream is closed."""
    opened(living, fed_by_a_task)
    living.loop.run(asyncio.sleep(0), "another call")
    assert not log
    closed(living)
    assert log == ["feeder ended"]
    assert capsys.readouterr().err == "a stream left 1 tasks behind; they were cancelled: feeder\n"


# Coroutines


def test_coroutines(loop: Loop) -> None:
    """A coroutine runs to its end, and every one on the same event loop."""

    async def which() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    assert loop.run(which(), "which") is loop.run(which(), "which")


def test_coroutines_raise(loop: Loop) -> None:
    """What a coroutine raises is raised."""

    async def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        loop.run(fail(), "fail")


def test_tasks_left_behind(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks that a coroutine leaves behind are cancelled and named."""
    left: list[asyncio.Task[None]] = []

    async def careless() -> int:
        left.extend(asyncio.create_task(asyncio.sleep(3600), name=name) for name in ("one", "two"))
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        return 5

    assert loop.run(careless(), "careless") == 5
    assert all(task.cancelled() for task in left)
    assert capsys.readouterr().err == "careless left 2 tasks behind; they were cancelled: one, two\n"


def test_no_loop_is_made_for_nothing() -> None:
    """A worker that runs no coroutine has no event loop, and none to close."""
    loop = Loop()
    loop.close()
    assert loop._runner is None


def test_closed_loops(loop: Loop) -> None:
    """A closed loop is made anew when a coroutine comes after all."""

    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first = loop.run(which(), "which")
    loop.close()
    assert first.is_closed()
    assert loop.run(which(), "which") is not first


def test_threads_share_a_loop() -> None:
    """Coroutines of several threads run on one loop, at the same time."""
    loop = Loop()
    loop.share()
    met = threading.Barrier(3)
    found: list[object] = []

    async def meet() -> object:
        await asyncio.to_thread(met.wait, 20)
        return asyncio.get_running_loop()

    threads = [threading.Thread(target=lambda: found.append(loop.run(meet(), "meet"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3
    assert len(set(map(id, found))) == 1
    shared = loop._runner.get_loop()
    shared.call_soon_threadsafe(shared.stop)
    wait_for(lambda: not shared.is_running())
    loop._runner.close()
