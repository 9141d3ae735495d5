"""The thread executor: what only threads do, beside what every executor promises."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import random
import re
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from aioparallel import (
    CallCancelledError,
    CallExitedError,
    Retry,
    SmartFuture,
    TaskTimeoutError,
    ThreadExecutor,
    WorkerStartError,
    check_cancelled,
    current_call,
    wait_all,
)
from tests.tools import until

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Door:
    """Calls come to it and wait until the test opens it."""

    def __init__(self) -> None:
        self._inside: list[int] = []
        self._open = threading.Event()

    def pass_through(self, value: Any = None) -> Any:
        self._inside.append(threading.get_ident())
        assert self._open.wait(20), "the test opens the door"
        return value

    def open(self) -> None:
        self._open.set()

    async def someone(self, count: int = 1) -> None:
        """Wait until so many have come."""
        await until(lambda: len(self._inside) >= count)

    @property
    def inside(self) -> int:
        return len(self._inside)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.open()


@pytest.fixture
async def one(door: Door) -> AsyncIterator[ThreadExecutor]:
    """An executor with one thread."""
    async with ThreadExecutor(1, name="one") as pool:
        yield pool
        door.open()


def own_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("aioparallel"))


# Threads


async def test_threads_are_started_as_calls_need_them(door: Door) -> None:
    """There is a thread for each call that runs, and never more than ``max_workers``."""
    async with ThreadExecutor(3, name="io") as pool:
        assert own_threads() == []
        await pool.submit(int)
        await pool.submit(int)
        assert own_threads() == ["aioparallel io 0"]
        calls = [pool.submit(door.pass_through, n) for n in range(5)]
        await door.someone(3)
        assert own_threads() == ["aioparallel io 0", "aioparallel io 1", "aioparallel io 2"]
        assert (pool.status().running, pool.status().queued) == (3, 2)
        door.open()
        assert await wait_all(calls) == list(range(5))


async def test_closing_ends_all_threads(door: Door) -> None:
    """When the executor is closed, the threads that it had have ended."""
    before = set(threading.enumerate())
    async with ThreadExecutor(4) as pool:
        calls = [pool.submit(door.pass_through) for _ in range(4)]
        await door.someone(4)
        door.open()
        await wait_all(calls)
        assert len(set(threading.enumerate()) - before) == 4
    assert set(threading.enumerate()) == before


async def test_ended_threads_are_forgotten(door: Door) -> None:
    """Nothing refers to a thread that has ended, although the task lives on in which it was started."""
    async with ThreadExecutor(1) as pool:
        thread = weakref.ref(await pool.submit(threading.current_thread))
    gc.collect()
    assert thread() is None


async def test_threads_are_nobody_elses(door: Door) -> None:
    """Calls use neither AnyIO's default limiter nor the loop's default executor."""
    async with ThreadExecutor(2) as pool:
        calls = [pool.submit(door.pass_through) for _ in range(2)]
        await door.someone(2)
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None
        assert await anyio.to_thread.run_sync(int) == 0
        door.open()
        await wait_all(calls)


async def test_initializer_runs_before_the_first_call_of_each_thread(door: Door) -> None:
    """The initializer runs once in each thread, before any call there."""
    local = threading.local()

    def set_up() -> None:
        local.greeting = "hello"

    def greet() -> str:
        door.pass_through()
        return str(local.greeting)

    async with ThreadExecutor(2, initializer=set_up) as pool:
        calls = [pool.submit(greet) for _ in range(2)]
        await door.someone(2)
        door.open()
        assert await wait_all(calls) == ["hello", "hello"]


async def test_initializer_that_fails() -> None:
    """If the initializer fails in the first thread, ``start`` says so, and so do the calls that were waiting."""

    def fail() -> None:
        raise LookupError("no licence")

    pool = ThreadExecutor(2, initializer=fail)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    waiting = pool.submit(int)
    with pytest.raises(WorkerStartError, match="no licence") as caught:
        await starting
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(WorkerStartError, match="no licence"):
        await waiting
    assert own_threads() == []


async def test_initializer_that_fails_later(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """If the initializer fails in a further thread, the others go on, and the log says so."""
    turns = iter([None, LookupError("no second licence")])

    def fail_the_second_time() -> None:
        if error := next(turns):
            raise error

    async with ThreadExecutor(3, initializer=fail_the_second_time) as pool:
        calls = [pool.submit(door.pass_through, n) for n in range(3)]
        await until(lambda: "no second licence" in caplog.text)
        await door.someone()
        assert own_threads() == ["aioparallel thread 0"]
        door.open()
        assert await wait_all(calls) == [0, 1, 2]


async def test_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread for us, calls fail and say why; none waits for ever."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with ThreadExecutor(2) as pool:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        calls = [pool.submit(int) for _ in range(3)]
        for call in calls:
            with pytest.raises(WorkerStartError, match="can't start new thread"):
                await call
        with pytest.raises(WorkerStartError):
            await pool.submit(int)
    monkeypatch.undo()
    async with pool:
        assert await pool.submit(int) == 0, "a closed executor may be started again"


async def test_cancelled_start(door: Door) -> None:
    """Cancelling ``start`` while the initializer runs closes the executor again."""
    pool = ThreadExecutor(1, initializer=door.pass_through)
    starting = asyncio.ensure_future(pool.start())
    await door.someone()
    starting.cancel()
    await asyncio.sleep(0)
    door.open()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert own_threads() == []


@pytest.mark.parametrize("max_workers", [0, -1, 1.5, True, "2"])
def test_nonsense_is_refused(max_workers: Any) -> None:
    """``max_workers`` is a whole number of at least 1."""
    with pytest.raises(ValueError, match="max_workers"):
        ThreadExecutor(max_workers)


def test_defaults() -> None:
    """There are 4 more threads than CPUs by default, but no more than 32; the initializer is a function."""
    assert 5 <= ThreadExecutor().max_workers <= 32
    with pytest.raises(TypeError, match="initializer"):
        ThreadExecutor(initializer=3)  # type: ignore[arg-type]


# Contexts


async def test_context_is_the_submitters(one: ThreadExecutor) -> None:
    """A call sees the contextvars as they were when it was submitted; what it changes, nobody else sees."""

    def swap() -> tuple[str, str]:
        seen = request.get()
        request.set("changed")
        return seen, request.get()

    request.set("first")
    first = one.submit(swap)
    request.set("second")
    second = one.submit(swap)
    assert await first == ("first", "changed")
    assert await second == ("second", "changed")
    assert request.get() == "second"


async def test_context_of_a_submitting_thread(one: ThreadExecutor) -> None:
    """What another thread submits runs in that thread's context."""
    calls: list[SmartFuture[str]] = []

    def submit() -> None:
        request.set("from a thread")
        calls.append(one.submit(request.get))

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    assert await calls[0] == "from a thread"


async def test_each_attempt_has_a_fresh_context(one: ThreadExecutor) -> None:
    """An attempt does not see what the one before has changed, but knows its own number."""
    seen = []

    def fail() -> None:
        seen.append((request.get(), current_call().attempt))
        request.set("spoilt")
        raise OSError

    request.set("fresh")
    with pytest.raises(OSError):
        await one.options(retry=Retry(3, backoff=0)).submit(fail)
    assert seen == [("fresh", 1), ("fresh", 2), ("fresh", 3)]


async def test_current_call(one: ThreadExecutor) -> None:
    """A call knows its number, name and thread."""
    call = one.submit(current_call)
    here = await call
    assert (here.id, here.name, here.attempt, here.worker_index, here.host) == (call.id, "current_call", 1, 0, None)


# Cancellation


async def test_waiting_call_that_is_cancelled_never_begins(one: ThreadExecutor, door: Door) -> None:
    """A call that waits for a thread ends at once when it is cancelled, and never runs."""
    blocker = one.submit(door.pass_through)
    await door.someone()
    calls = [one.submit(door.pass_through) for _ in range(3)]
    assert calls[1].cancel()
    assert calls[1].cancelled()
    assert (one.status().queued, one.status().cancelled) == (2, 1)
    door.open()
    await wait_all([blocker, calls[0], calls[2]])
    assert door.inside == 3


async def test_running_call_that_is_cancelled_is_abandoned(one: ThreadExecutor, door: Door) -> None:
    """A running call ends at once for whoever awaits it; its thread takes no other call before its function returns."""
    call = one.submit(door.pass_through, "dropped")
    await door.someone()
    awaiting = asyncio.ensure_future(asyncio.wait_for(call, None))
    await asyncio.sleep(0)
    assert call.cancel()
    with pytest.raises(CallCancelledError):
        await awaiting
    next_call = one.submit(door.pass_through, "next")
    assert (one.status().running, one.status().queued) == (0, 1)
    assert door.inside == 1
    door.open()
    assert await next_call == "next"
    assert one.status().running == 0
    assert (one.status().done, one.status().failed, one.status().cancelled) == (1, 0, 1)


async def test_call_that_looks_can_stop(one: ThreadExecutor, door: Door) -> None:
    """``check_cancelled`` raises in a call that was cancelled, and in no other."""
    ended = threading.Event()

    def work() -> None:
        check_cancelled()
        try:
            while True:
                door.pass_through()
                check_cancelled()
        finally:
            ended.set()

    call = one.submit(work)
    await door.someone()
    call.cancel()
    door.open()
    await until(ended.is_set)
    assert await one.submit(check_cancelled) is None


async def test_last_awaiter_that_is_cancelled_does_not_wait(one: ThreadExecutor, door: Door) -> None:
    """Cancelling the only awaiter abandons the call, without waiting for the thread."""
    call = one.submit(door.pass_through)
    await door.someone()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await call
    assert call.cancelled()
    assert not door._open.is_set()


async def test_abandoned_thread_outlives_its_executor(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Closing waits ``grace`` seconds for an abandoned thread, then leaves it; the log names its function."""
    async with ThreadExecutor(2, name="slow", grace=0.05) as pool:
        call = pool.submit(door.pass_through)
        await door.someone()
        call.cancel()
        await pool.submit(int)
    assert own_threads() == ["aioparallel slow 0"]
    (record,) = [record for record in caplog.records if record.name == "aioparallel"]
    assert record.levelno == logging.WARNING
    assert "Door.pass_through" in record.getMessage()
    async with pool:
        assert await pool.submit(int) == 0
    door.open()
    await until(lambda: own_threads() == [])


async def test_closing_waits_for_an_abandoned_thread(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that returns within ``grace`` ends with its executor, and nothing is logged."""
    pool = await ThreadExecutor(1, grace=20).start()
    call = pool.submit(door.pass_through)
    await door.someone()
    call.cancel()
    closing = asyncio.ensure_future(pool.aclose())
    await asyncio.sleep(0)
    door.open()
    await closing
    assert own_threads() == []
    assert not caplog.records


async def test_closing_without_drain_cancels(door: Door) -> None:
    """``aclose(drain=False)`` cancels what runs and what waits, and waits for neither."""
    pool = await ThreadExecutor(1, grace=0).start()
    calls = [pool.submit(door.pass_through) for _ in range(3)]
    await door.someone()
    await pool.aclose(drain=False)
    assert all(call.cancelled() for call in calls)
    assert door.inside == 1
    door.open()
    await until(lambda: own_threads() == [])


async def test_cancelled_while_it_is_queued_for_its_turn(one: ThreadExecutor) -> None:
    """Many calls that are cancelled at any moment either run to their end or never begin, and the books balance."""
    begun: list[int] = []
    chance = random.Random(1)
    rounds = 20
    for first in range(0, rounds * 50, 50):
        calls = {n: one.submit(begun.append, n) for n in range(first, first + 50)}
        await asyncio.sleep(0)
        for n in chance.sample(list(calls), 25):
            calls[n].cancel()
        await until(lambda calls=calls: all(call.done() for call in calls.values()))
        assert one._run is not None
        one._run.ledger.check()
        done = {n for n, call in calls.items() if not call.cancelled()}
        assert done <= set(begun)
    status = one.status()
    assert status.done + status.cancelled == rounds * 50
    assert status.queued == status.running == one.task_count == 0
    assert len(begun) == len(set(begun))


# Time


async def test_timeout(one: ThreadExecutor, door: Door) -> None:
    """A call that runs too long fails, and says where it was; its thread goes on with it."""
    with pytest.raises(TaskTimeoutError, match=r"pass_through ran longer than its timeout of 0\.02 s") as caught:
        await one.options(timeout=0.02).submit(door.pass_through)
    assert "in pass_through" in caught.value.stack
    assert "aioparallel" not in caught.value.stack
    next_call = one.submit(int)
    assert one.status().queued == 1
    door.open()
    assert await next_call == 0
    assert one.status().failed == 1


async def test_timeout_runs_from_the_beginning(one: ThreadExecutor, door: Door) -> None:
    """Time that a call waits for a thread does not count."""
    blocker = one.submit(door.pass_through)
    call = one.options(timeout=0.05).submit(int)
    deadline = time.monotonic() + 0.15
    await until(lambda: time.monotonic() > deadline)
    assert not call.done()
    door.open()
    await blocker
    assert await call == 0


async def test_timeout_and_retry(door: Door) -> None:
    """A call that timed out may be begun again, in another thread, although the first attempt still runs."""
    attempts = []

    def work() -> int:
        attempts.append(current_call().attempt)
        if len(attempts) == 1:
            door.pass_through()
        return attempts[-1]

    async with ThreadExecutor(2) as pool:
        assert await pool.options(timeout=0.05, retry=Retry(2, on=TimeoutError, backoff=0)).submit(work) == 2
        door.open()
    assert attempts == [1, 2]


async def test_cancelled_after_its_timeout_was_set(one: ThreadExecutor, door: Door) -> None:
    """A call that is cancelled before its timeout is cancelled, and stays so."""
    call = one.options(timeout=0.05).submit(door.pass_through)
    await door.someone()
    call.cancel()
    deadline = time.monotonic() + 0.1
    await until(lambda: time.monotonic() > deadline)
    assert call.cancelled()
    assert one.status().failed == 0


# Order


async def test_priority(one: ThreadExecutor, door: Door) -> None:
    """Calls of higher priority go first, those of equal priority in their order, whenever they were submitted."""
    order: list[str] = []
    blocker = one.submit(door.pass_through)
    await door.someone()
    calls = [
        one.options(priority=priority).submit(order.append, f"{priority}{letter}")
        for letter in "ab"
        for priority in (0, 2, -1, 1)
    ]
    assert one.status().queued == 8
    door.open()
    await wait_all([blocker, *calls])
    assert order == ["2a", "2b", "1a", "1b", "0a", "0b", "-1a", "-1b"]


async def test_retried_call_goes_first_too(one: ThreadExecutor, door: Door) -> None:
    """A call that is begun again keeps its priority."""
    order: list[str] = []

    def fail_once() -> None:
        order.append(f"attempt {current_call().attempt}")
        if current_call().attempt == 1:
            raise OSError

    urgent = one.options(retry=Retry(2, backoff=0), priority=1).submit(fail_once)
    await until(lambda: one.status().retried == 1)
    blocker = one.submit(door.pass_through)
    calls = [one.submit(order.append, "low") for _ in range(2)]
    await until(lambda: door.inside == 1 or urgent.done())
    door.open()
    await wait_all([urgent, blocker, *calls])
    assert order.index("attempt 2") <= 1


# What calls do


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_exit(one: ThreadExecutor, error: BaseException) -> None:
    """``sys.exit`` or an interrupt inside a call fails that call; its thread lives."""

    def leave() -> None:
        raise error

    thread = await one.submit(threading.get_ident)
    with pytest.raises(CallExitedError, match="the worker lives on") as caught:
        await one.submit(leave)
    assert caught.value.code == getattr(error, "code", None)
    assert await one.submit(threading.get_ident) == thread


class Caller:
    async def __call__(self) -> None: ...


async def _coroutine_function(_: int = 0) -> None: ...


@pytest.mark.parametrize("fn", [_coroutine_function, functools.partial(_coroutine_function, 1), Caller()])
async def test_async_def_is_refused(one: ThreadExecutor, fn: Callable[..., Any]) -> None:
    """An ``async def`` in any form is refused by ``submit``, which says what to do instead."""
    with pytest.raises(TypeError, match="CoroutineExecutor"):
        one.submit(fn)
    with pytest.raises(TypeError, match="CoroutineExecutor"):
        one.submit(fn, one.submit(int))
    assert one.task_count <= 1


async def test_coroutine_as_a_result(one: ThreadExecutor) -> None:
    """A function that returns a coroutine fails, rather than let it be forgotten."""
    with pytest.raises(TypeError, match="returned a coroutine"):
        await one.submit(lambda: _coroutine_function(1))


async def test_no_function(one: ThreadExecutor) -> None:
    """What cannot be called is refused."""
    with pytest.raises(TypeError, match="3 cannot be called"):
        one.submit(3)  # type: ignore[arg-type]


async def test_cancelled_error_of_somebody_else(one: ThreadExecutor) -> None:
    """A call that lets a cancellation escape counts as cancelled, and never cancels who awaits it."""

    def fail() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CallCancelledError):
        await one.submit(fail)
    assert (one.status().cancelled, one.status().failed) == (1, 0)


async def test_traceback_begins_in_the_function(one: ThreadExecutor) -> None:
    """A failure's traceback leads from who awaits it straight into the function."""

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await one.submit(fail)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "fail"
    assert not any("_workers" in frame.filename for frame in frames)


class Payload:
    pass


async def test_idle_threads_keep_nothing_alive(one: ThreadExecutor) -> None:
    """Arguments and results are dropped as soon as nobody else has them, although thread and future live on."""
    argument = Payload()
    call = one.submit(lambda payload: [payload], argument)
    await call
    freed = weakref.ref(argument)
    done = one.submit(id, argument)
    await done
    del argument, call
    assert freed() is None


async def test_contexts_are_dropped(one: ThreadExecutor) -> None:
    """A future that is kept does not keep its submitter's contextvars alive."""
    holder: contextvars.ContextVar[Payload] = contextvars.ContextVar("holder")

    def submit() -> tuple[SmartFuture[int], weakref.ref[Payload]]:
        payload = Payload()
        holder.set(payload)
        return one.submit(int), weakref.ref(payload)

    call, payload = contextvars.copy_context().run(submit)
    await call
    await one.submit(int)  # the thread is in another context now
    assert payload() is None


async def test_ends_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that end while the loop is busy wake it once for all of them."""
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    post = loop.call_soon_threadsafe
    last = threading.Event()
    async with ThreadExecutor(1) as pool:
        await pool.submit(int)
        calls = [*[pool.submit(int) for _ in range(100)], pool.submit(last.set)]
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (wakes.append(args), post(*args))[1])
        await asyncio.sleep(0)
        assert last.wait(20), "the thread goes on while the loop is blocked"
        monkeypatch.undo()
        await wait_all(calls)
    assert 1 <= len(wakes) <= 2, "the first call goes to the thread at once, and may have ended before the others came"


async def test_abandoned_threads_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """A thread that goes on after its call was given up is seen in `status`, also when the pool is closed, and named."""
    door = Door()
    pool = ThreadExecutor(1, grace=0, name="waiters")
    async with pool:
        call = pool.submit(door.pass_through)
        await door.someone()
        assert pool.status().abandoned == 0
        call.cancel()
        assert pool.status().abandoned == 1
    assert pool.status().abandoned == 1
    (record,) = caplog.records
    assert "waiters was closed, but its thread 'aioparallel waiters 0' is still in " in record.getMessage()
    assert re.search(r"pass_through, which began \d+\.\d s ago", record.getMessage())
    door.open()
    await until(lambda: pool.status().abandoned == 0)


# Loops and programs


def test_restart_on_another_loop() -> None:
    """A closed executor may be started on another loop, with an abandoned thread still in it."""
    door = Door()
    pool = ThreadExecutor(1, grace=0)

    async def abandon() -> None:
        async with pool:
            call = pool.submit(door.pass_through)
            await door.someone()
            call.cancel()

    async def use() -> int:
        async with pool:
            result: int = await pool.submit(int)
            return result

    asyncio.run(abandon())
    assert asyncio.run(use()) == 0
    door.open()
    deadline = time.monotonic() + 20
    while own_threads():
        assert time.monotonic() < deadline


def test_loop_that_ends_first(caplog: pytest.LogCaptureFixture) -> None:
    """An executor that is never closed ends with its loop, and so do its threads."""
    pool = ThreadExecutor(2)

    async def use() -> SmartFuture[int]:
        await pool.start()
        await pool.submit(int)
        return pool.submit(time.sleep, 0.01)

    call = asyncio.run(use())
    assert call.done()
    assert own_threads() == []
    assert not caplog.records


@contextmanager
def program(source: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("run", ["loop.run_until_complete(main())", "loop.create_task(main()); loop.run_forever()"])
def test_program_that_never_closes_its_executor_ends(run: str) -> None:
    """Idle threads do not keep the interpreter from exiting, although neither executor nor loop was closed."""
    source = f"""
import asyncio
from aioparallel import ThreadExecutor

loop = asyncio.new_event_loop()
pool = ThreadExecutor(2)

async def main():
    await pool.start()
    print(await pool.submit(pow, 2, 3), await pool.submit(pow, 2, 4))
    loop.stop()

{run}
"""
    with program(source) as process:
        output, _ = process.communicate(timeout=20)
    assert output.split() == ["8", "16"]
    assert process.returncode == 0
