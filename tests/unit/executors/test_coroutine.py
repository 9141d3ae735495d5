"""The coroutine executor: what runs inside a call must not notice that calls share tasks."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from aioparallel import (
    CallCancelledError,
    CallExitedError,
    CoroutineExecutor,
    Retry,
    SmartFuture,
    TaskTimeoutError,
    check_cancelled,
    current_call,
    wait_all,
)
from aioparallel._workers import tasks
from tests.tools import until

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


class Door:
    """Calls come to it and wait until the test opens it."""

    def __init__(self) -> None:
        self.inside = 0
        self.cancelled = 0
        self._opened = asyncio.Event()

    async def pass_through(self, value: Any = None) -> Any:
        self.inside += 1
        try:
            await self._opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value

    async def endure(self, value: Any = None) -> Any:
        """The same, and no cancellation helps."""
        while not self._opened.is_set():
            try:
                await self.pass_through()
            except asyncio.CancelledError:
                continue
        return value

    def open(self) -> None:
        self._opened.set()

    async def someone(self, count: int = 1) -> None:
        """Wait until so many have come."""
        await until(lambda: self.inside >= count)


@pytest.fixture
async def door() -> Door:
    return Door()


@pytest.fixture
async def one(door: Door) -> AsyncIterator[CoroutineExecutor]:
    """An executor that runs one call at a time."""
    async with CoroutineExecutor(1, name="one", grace=20) as pool:
        yield pool
        door.open()


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fails(pool: CoroutineExecutor, error: type[BaseException], call: SmartFuture[Any]) -> None:
    """The call fails, and after it the same task runs others undisturbed."""
    with pytest.raises(error):
        await call
    assert await pool.submit(answer) == 42


# Concurrency


async def test_only_so_many_run_at_a_time(door: Door) -> None:
    """There is a task for each call that runs, and never more than ``max_concurrency``."""
    async with CoroutineExecutor(3, name="web") as pool:
        calls = [pool.submit(door.pass_through, n) for n in range(5)]
        await door.someone(3)
        names = sorted(task.get_name() for task in asyncio.all_tasks())
        assert names[1:5] == ["aioparallel web", "aioparallel web 0", "aioparallel web 1", "aioparallel web 2"]
        assert door.inside == 3
        assert (pool.status().workers, pool.status().running, pool.status().queued) == (3, 3, 2)
        door.open()
        assert await wait_all(calls) == list(range(5))


async def test_tasks_stay() -> None:
    """One task runs call after call."""
    async with CoroutineExecutor(10) as pool:
        ran_by = {await pool.submit(_current_task) for _ in range(5)}
    assert len(ran_by) == 1


async def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task()


async def test_calls_that_never_wait_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls run without ever waiting, the loop gets its turns in between."""
    monkeypatch.setattr(tasks, "TURN_SECONDS", 0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def busy() -> int:
        return turns

    async with CoroutineExecutor(1) as pool:
        counting = asyncio.ensure_future(count())
        seen = await wait_all([pool.submit(busy) for _ in range(200)])
        counting.cancel()
    assert len(set(seen)) > 50


@pytest.mark.parametrize("max_concurrency", [0, -1, 1.5, True, "2", None])
def test_nonsense_is_refused(max_concurrency: Any) -> None:
    """``max_concurrency`` is a whole number of at least 1."""
    with pytest.raises(ValueError, match="max_concurrency"):
        CoroutineExecutor(max_concurrency)


# What is a coroutine function


class Service:
    async def method(self, x: int) -> int:
        return x

    async def __call__(self, x: int) -> int:
        return x

    @staticmethod
    async def static(x: int) -> int:
        return x


async def plain(x: int) -> int:
    return x


@pytest.mark.parametrize(
    "fn", [plain, Service().method, Service(), Service.static, functools.partial(plain), functools.partial(Service())]
)
async def test_coroutine_functions(one: CoroutineExecutor, fn: Callable[..., Any]) -> None:
    """Functions, methods, partials and objects will do, as long as calling them gives a coroutine."""
    assert await one.submit(fn, 5) == 5


async def test_plain_function_is_refused(one: CoroutineExecutor) -> None:
    """A plain ``def`` is refused by ``submit``, which says what to use; so is what cannot be called."""
    with pytest.raises(TypeError, match="ThreadExecutor"):
        one.submit(len, "abc")
    with pytest.raises(TypeError, match="ThreadExecutor"):
        one.submit(lambda: plain(1))
    with pytest.raises(TypeError, match="cannot be called"):
        one.submit("answer")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write `submit\(answer, x\)`"):
        one.submit(answer())  # type: ignore[arg-type]
    assert one.task_count == 0


async def test_call_that_cannot_begin(one: CoroutineExecutor) -> None:
    """Wrong arguments fail the call."""
    await fails(one, TypeError, one.submit(answer, 1))  # type: ignore[call-arg]


# Contexts


async def test_context_is_the_submitters(one: CoroutineExecutor) -> None:
    """A call sees the contextvars as they were at ``submit``, and its own changes, across every await."""

    async def swap() -> list[str]:
        seen = [request.get()]
        await asyncio.sleep(0)
        request.set("changed")
        await asyncio.sleep(0)
        return [*seen, request.get(), await asyncio.ensure_future(read())]

    async def read() -> str:
        return request.get()

    request.set("first")
    first = one.submit(swap)
    request.set("second")
    second = one.submit(swap)
    assert await first == ["first", "changed", "changed"]
    assert await second == ["second", "changed", "changed"]
    assert request.get() == "second"


async def test_contexts_of_concurrent_calls_do_not_mix() -> None:
    """Calls that take turns each keep their own contextvars."""

    async def work(name: str) -> bool:
        request.set(name)
        for _ in range(5):
            await asyncio.sleep(0)
            if request.get() != name:
                return False
        return True

    async with CoroutineExecutor(10) as pool:
        assert all(await wait_all([pool.submit(work, str(n)) for n in range(50)]))


async def test_tasks_do_not_keep_a_context(one: CoroutineExecutor) -> None:
    """The task that stays is in nobody's context, although it was started by somebody's ``submit``."""
    request.set("the first submitter's")
    await one.submit(answer)
    (resident,) = [task for task in asyncio.all_tasks() if task.get_name() == "aioparallel one 0"]
    if hasattr(resident, "get_context"):
        assert resident.get_context().get(request) is None
    request.set("another's")
    assert await one.submit(_read) == "another's"


async def _read() -> str:
    return request.get()


async def test_current_call(one: CoroutineExecutor) -> None:
    """A call knows its number, name and attempt, and so do the tasks that it starts."""

    async def who() -> Any:
        return await asyncio.ensure_future(_current_call())

    call = one.submit(who)
    here = await call
    assert (here.id, here.attempt, here.worker_index, here.host) == (call.id, 1, 0, None)
    assert here.name.endswith("who")


async def _current_call() -> Any:
    return current_call()


# What works inside


async def _timeout() -> str:
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)
    except TimeoutError:
        return "timed out"
    return "not"


async def _wait_for() -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.001)
    except TimeoutError:
        return "timed out"
    return "not"


async def _task_group() -> str:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(60))
            await asyncio.sleep(60)
    except ExceptionGroup:
        return "failed"
    return "not"


async def _anyio_scope() -> bool:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(60)
    return scope.cancelled_caught


async def _anyio_group() -> str:
    async def fail() -> None:
        await anyio.sleep(0.001)
        raise LookupError

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep(60)
    except ExceptionGroup:
        return "failed"
    return "not"


async def _gather() -> list[int]:
    return await asyncio.gather(answer(), answer())


async def _shield() -> int:
    return await asyncio.shield(answer())


async def _current() -> bool:
    task = asyncio.current_task()
    await asyncio.sleep(0)
    return task is not None and task is asyncio.current_task() and task.cancelling() == 0


async def _queue() -> int:
    queue: asyncio.Queue[int] = asyncio.Queue()
    asyncio.get_running_loop().call_soon(queue.put_nowait, 7)
    return await queue.get()


async def _thread() -> int:
    return await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(answer))


async def _generator() -> list[int]:
    async def numbers() -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    return [n async for n in numbers()]


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (_timeout, "timed out"),
        (_wait_for, "timed out"),
        (_task_group, "failed"),
        (_anyio_scope, True),
        (_anyio_group, "failed"),
        (_gather, [42, 42]),
        (_shield, 42),
        (_current, True),
        (_queue, 7),
        (_thread, 42),
        (_generator, [0, 1, 2]),
    ],
)
async def test_asyncio_and_anyio_work_inside(one: CoroutineExecutor, fn: Callable[..., Any], expected: object) -> None:
    """Timeouts, task groups, cancel scopes, threads and the like work in a call as in a task of its own, each time."""
    for _ in range(3):
        assert await one.submit(fn) == expected
    assert await one.submit(_current)


async def test_calls_await_calls() -> None:
    """A call may submit further calls and await them."""

    async def fibonacci(n: int) -> int:
        if n < 2:
            return n
        return sum(await wait_all([pool.submit(fibonacci, n - 1), pool.submit(fibonacci, n - 2)]))

    async with CoroutineExecutor(100) as pool:
        assert await pool.submit(fibonacci, 8) == 21


# Cancellation


async def test_cancelling_a_running_call(door: Door) -> None:
    """A running call is cancelled where it waits, and ends when its coroutine has; no other call notices."""
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await door.pass_through()
        finally:
            await cleaned.wait()

    async with CoroutineExecutor(2) as pool:
        call, other = pool.submit(work), pool.submit(door.pass_through, "other")
        await door.someone(2)
        assert call.cancel()
        await until(lambda: door.cancelled)
        assert not call.done()
        cleaned.set()
        with pytest.raises(CallCancelledError):
            await call
        assert await pool.submit(answer) == 42
        door.open()
        assert await other == "other"
        assert door.cancelled == 1
        assert (pool.status().done, pool.status().cancelled) == (2, 1)


@pytest.mark.parametrize("step", range(6))
async def test_cancellation_at_each_await(one: CoroutineExecutor, step: int) -> None:
    """Wherever a call is when it is cancelled, it is cleaned up, and the next call is not disturbed."""
    at = asyncio.Event()
    trace: list[str] = []

    async def pause(n: int) -> None:
        if n == step:
            at.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    async def work() -> None:
        trace.append("in")
        try:
            await pause(0)
            async with asyncio.TaskGroup() as group:
                group.create_task(pause(1))
                await pause(2)
            with anyio.CancelScope():
                await pause(3)
            async with asyncio.timeout(60):
                await pause(4)
            await asyncio.wait_for(pause(5), 60)
        finally:
            await asyncio.sleep(0)
            trace.append("out")

    call = one.submit(work)
    await at.wait()
    call.cancel()
    await fails(one, CallCancelledError, call)
    assert trace == ["in", "out"]
    assert await one.submit(_current)


async def test_waiting_call_that_is_cancelled_never_begins(one: CoroutineExecutor, door: Door) -> None:
    """A call that waits for its turn ends at once when it is cancelled, and never runs."""
    blocker = one.submit(door.pass_through)
    await door.someone()
    waiting = one.submit(door.pass_through)
    assert waiting.cancel()
    assert waiting.cancelled()
    door.open()
    await blocker
    assert await one.submit(answer) == 42
    assert door.inside == 1


async def test_coroutine_that_ignores_its_cancellation(door: Door) -> None:
    """Whoever awaits waits at most ``grace``; the coroutine keeps its place until it ends."""
    async with CoroutineExecutor(1, grace=0.02) as pool:
        call = pool.submit(door.endure)
        await door.someone()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await call
        await until(call.cancelled)
        waiting = pool.submit(answer)
        await asyncio.sleep(0)
        assert not waiting.done()
        assert pool.status().queued == 1
        door.open()
        assert await waiting == 42
        assert (pool.status().done, pool.status().cancelled) == (1, 1)


async def test_coroutine_that_answers_its_cancellation_with_a_value(one: CoroutineExecutor, door: Door) -> None:
    """A call that was cancelled is cancelled, even if its coroutine returns something."""

    async def stubborn() -> str:
        try:
            await door.pass_through()
        except asyncio.CancelledError:
            return "never mind"
        return ""

    call = one.submit(stubborn)
    await door.someone()
    call.cancel()
    await fails(one, CallCancelledError, call)


async def test_closing_closes_what_does_not_stop(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine that goes on although it was cancelled is closed with the executor, and the log names it."""
    closed = False

    async def stubborn() -> None:
        nonlocal closed
        try:
            await door.endure()
        except GeneratorExit:
            closed = True
            raise

    async with CoroutineExecutor(1, name="web", grace=0.02) as pool:
        call = pool.submit(stubborn)
        await door.someone()
        await pool.aclose(drain=False)
    assert closed
    assert call.cancelled()
    (record,) = [record for record in caplog.records if record.name == "aioparallel"]
    assert record.levelno == logging.WARNING
    assert "stubborn" in record.getMessage()
    async with pool:
        assert await pool.submit(answer) == 42


async def test_cancelling_itself(one: CoroutineExecutor) -> None:
    """A call may cancel its own future: it is cancelled at its next await."""
    mine: list[SmartFuture[None]] = []

    async def give_up() -> None:
        mine[0].cancel()
        await asyncio.sleep(60)

    mine.append(one.submit(give_up))
    await fails(one, CallCancelledError, mine[0])


async def test_cancelling_itself_too_late(one: CoroutineExecutor) -> None:
    """A cancellation that comes when a call does not await any more reaches no other call."""
    mine: list[SmartFuture[None]] = []

    async def give_up() -> None:
        mine[0].cancel()

    mine.append(one.submit(give_up))
    following = [one.submit(answer) for _ in range(3)]
    await fails(one, CallCancelledError, mine[0])
    assert await wait_all(following) == [42, 42, 42]


@pytest.mark.parametrize("waits", [True, False])
async def test_cancelling_its_task(one: CoroutineExecutor, waits: bool) -> None:
    """A call that cancels the task it runs in is cancelled if it waits after that; no other call is."""

    async def cancel_task() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(60)
        return "done"

    call = one.submit(cancel_task)
    following = one.submit(answer)
    if waits:
        await fails(one, CallCancelledError, call)
    else:
        assert await call == "done"
    assert await following == 42
    assert await one.submit(_current)


async def test_task_that_is_cancelled_from_outside(one: CoroutineExecutor, door: Door) -> None:
    """Whoever keeps a call's task and cancels it, in another call or between calls, does not end the executor."""
    task = await one.submit(_current_task)
    task.cancel()
    assert await one.submit(answer) == 42
    task = await one.submit(_current_task)
    call = one.submit(door.pass_through)
    await door.someone()
    task.cancel()
    await fails(one, CallCancelledError, call)
    assert one.status().cancelled == 1


async def test_cancelled_error_of_somebody_else(one: CoroutineExecutor) -> None:
    """A call that lets the cancellation of something escape counts as cancelled, and never cancels who awaits it."""

    async def let_escape() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    await fails(one, CallCancelledError, one.submit(let_escape))
    assert (one.status().cancelled, one.status().failed) == (1, 0)


async def test_shielded_cleanup(one: CoroutineExecutor, door: Door) -> None:
    """What a cancelled call does in a shielded scope is finished."""
    done = False

    async def work() -> None:
        nonlocal done
        try:
            await door.pass_through()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
                done = True

    call = one.submit(work)
    await door.someone()
    call.cancel()
    await fails(one, CallCancelledError, call)
    assert done


async def test_check_cancelled(one: CoroutineExecutor, door: Door) -> None:
    """``check_cancelled`` raises in a call that was cancelled, and in no other."""
    raised = False

    async def work() -> None:
        nonlocal raised
        check_cancelled()
        try:
            await door.pass_through()
        except asyncio.CancelledError:
            try:
                check_cancelled()
            except BaseException:
                raised = True
            raise

    call = one.submit(work)
    await door.someone()
    call.cancel()
    await fails(one, CallCancelledError, call)
    assert raised


# Time


async def test_timeout(one: CoroutineExecutor, door: Door) -> None:
    """A call that runs too long is cancelled and fails, and says where it was."""
    with pytest.raises(TaskTimeoutError, match="pass_through ran longer") as caught:
        await one.options(timeout=0.01).submit(door.pass_through)
    assert "in pass_through" in caught.value.stack
    assert "in wait" in caught.value.stack
    assert door.cancelled == 1
    assert await one.submit(answer) == 42
    assert (one.status().failed, one.status().cancelled) == (1, 0)


async def test_timeout_runs_from_the_beginning(one: CoroutineExecutor, door: Door) -> None:
    """Time that a call waits for its turn does not count."""
    blocker = one.submit(door.pass_through)
    call = one.options(timeout=0.05).submit(answer)
    deadline = time.monotonic() + 0.15
    await until(lambda: time.monotonic() > deadline)
    assert not call.done()
    door.open()
    await blocker
    assert await call == 42


async def test_failure_after_the_timeout(one: CoroutineExecutor, door: Door) -> None:
    """What the coroutine raises when it is stopped becomes the cause of the timeout's error."""

    async def work() -> None:
        try:
            await door.pass_through()
        finally:
            raise LookupError("while it was cleaning up")

    with pytest.raises(TaskTimeoutError) as caught:
        await one.options(timeout=0.01).submit(work)
    assert isinstance(caught.value.__cause__, LookupError)


async def test_timeout_that_is_ignored(door: Door) -> None:
    """A coroutine that goes on after its timeout keeps its place, but ``grace`` seconds later nobody waits for it."""
    async with CoroutineExecutor(1, grace=0.02) as pool:
        with pytest.raises(TaskTimeoutError):
            await pool.options(timeout=0.01).submit(door.endure)
        waiting = pool.submit(answer)
        await asyncio.sleep(0)
        assert pool.status().queued == 1
        door.open()
        assert await waiting == 42


async def test_cancelled_after_its_timeout_was_set(one: CoroutineExecutor, door: Door) -> None:
    """A call that is cancelled before its timeout is cancelled, and stays so."""
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await door.pass_through()
        finally:
            await cleaned.wait()

    call = one.options(timeout=0.05).submit(work)
    await door.someone()
    call.cancel()
    deadline = time.monotonic() + 0.1
    await until(lambda: time.monotonic() > deadline)
    cleaned.set()
    await fails(one, CallCancelledError, call)


# Order, retry, errors


async def test_priority(one: CoroutineExecutor, door: Door) -> None:
    """Calls of higher priority go first, those of equal priority in their order."""
    order: list[str] = []

    async def note(label: str) -> None:
        order.append(label)

    blocker = one.submit(door.pass_through)
    await door.someone()
    calls = [
        one.options(priority=priority).submit(note, f"{priority}{letter}")
        for letter in "ab"
        for priority in (0, 2, -1, 1)
    ]
    door.open()
    await wait_all([blocker, *calls])
    assert order == ["2a", "2b", "1a", "1b", "0a", "0b", "-1a", "-1b"]


async def test_retry(one: CoroutineExecutor) -> None:
    """Each attempt is a new coroutine in a fresh copy of the submitter's context."""
    seen = []

    async def fail() -> int:
        seen.append((request.get(), current_call().attempt))
        request.set("spoilt")
        await asyncio.sleep(0)
        if current_call().attempt < 3:
            raise OSError
        return 3

    request.set("fresh")
    assert await one.options(retry=Retry(3, backoff=0)).submit(fail) == 3
    assert seen == [("fresh", 1), ("fresh", 2), ("fresh", 3)]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_exit(one: CoroutineExecutor, error: BaseException) -> None:
    """``sys.exit`` or an interrupt inside a call fails that call, not the loop."""

    async def leave() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(CallExitedError, match="the worker lives on") as caught:
        await one.submit(leave)
    assert caught.value.code == getattr(error, "code", None)
    assert await one.submit(answer) == 42


async def test_traceback_begins_in_the_coroutine(one: CoroutineExecutor) -> None:
    """A failure's traceback leads from who awaits it straight into the coroutine."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await one.submit(fail)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "fail"
    assert not any("_workers" in frame.filename for frame in frames)


class Payload:
    pass


async def test_idle_tasks_keep_nothing_alive(one: CoroutineExecutor) -> None:
    """Arguments and results are dropped as soon as nobody else has them, although task and future live on."""

    async def wrap(payload: Payload) -> list[Payload]:
        return [payload]

    argument = Payload()
    freed = weakref.ref(argument)
    call = one.submit(wrap, argument)
    await call
    del argument
    assert freed() is not None
    del call
    await asyncio.sleep(0)
    assert freed() is None


# Loops


def test_loop_that_ends_first(caplog: pytest.LogCaptureFixture) -> None:
    """An executor that is never closed ends with its loop: what runs is cancelled and cleaned up."""
    pool = CoroutineExecutor(1)
    trace: list[str] = []

    async def work() -> None:
        trace.append("in")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            trace.append("out")

    async def use() -> list[SmartFuture[None]]:
        await pool.start()
        calls = [pool.submit(work) for _ in range(2)]
        await until(lambda: trace)
        return calls

    calls = asyncio.run(use())
    assert [call.cancelled() for call in calls] == [True, True]
    assert trace[:2] == ["in", "out"]
    assert not caplog.records
    assert asyncio.run(_use(pool)) == 42


async def _use(pool: CoroutineExecutor) -> int:
    async with pool:
        result: int = await pool.submit(answer)
        return result
