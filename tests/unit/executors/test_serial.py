"""The serial executor: everything happens inside ``submit``, and by the same rules as elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioparallel import (
    CallCancelledError,
    CallExitedError,
    ExecutorClosedError,
    PicklingError,
    RemoteTraceback,
    Retry,
    SerialExecutor,
    SmartFuture,
    TaskTimeoutError,
    check_cancelled,
    current_call,
    wait_all,
)
from tests.tools import until

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


@pytest.fixture
async def pool() -> AsyncIterator[SerialExecutor]:
    async with SerialExecutor() as pool:
        yield pool


@pytest.fixture
async def pickling() -> AsyncIterator[SerialExecutor]:
    """Everything makes the trip through pickle."""
    async with SerialExecutor(pickle=True, name="tests") as pool:
        yield pool


# Plain functions


async def test_calls_run_inside_submit(pool: SerialExecutor) -> None:
    """A call has ended when ``submit`` returns; it ran in the same thread, one after the other."""
    order: list[int] = []
    calls = [pool.submit(order.append, n) for n in range(3)]
    assert order == [0, 1, 2]
    assert all(call.done() for call in calls)
    assert pool.submit(threading.get_ident).result() == threading.get_ident()
    assert pool.submit(pow, 2, 10).info.state == "done"
    status = pool.status()
    assert (status.workers, status.queued, status.running, status.done) == (1, 0, 0, 5)


async def test_calls_submit_calls(pool: SerialExecutor) -> None:
    """A call that submits calls has their results at once, however deep."""

    def factorial(n: int) -> int:
        return n * pool.submit(factorial, n - 1).result() if n else 1

    assert pool.submit(factorial, 30).result() == functools.reduce(lambda a, b: a * b, range(1, 31))


async def test_context(pool: SerialExecutor) -> None:
    """A call sees its submitter's contextvars; what it changes, its submitter does not see."""
    request.set("outer")

    def swap() -> str:
        seen = request.get()
        request.set("inner")
        return seen

    assert pool.submit(swap).result() == "outer"
    assert request.get() == "outer"


async def test_current_call(pool: SerialExecutor) -> None:
    """A call knows its number and name, and the one outside of it is itself again afterwards."""

    def who() -> tuple[str, str, str]:
        before = current_call().name
        inner = pool.submit(current_call).result().name
        return before, inner, current_call().name

    before, inner, after = await pool.submit(who)
    assert (before, inner, after) == (before, "current_call", before)
    assert before.endswith("who")


async def test_failure(pool: SerialExecutor) -> None:
    """What a call raises is in its future, with the traceback that it has."""

    def fail() -> None:
        raise LookupError("nothing there")

    call = pool.submit(fail)
    assert call.done()
    with pytest.raises(LookupError, match="nothing there") as caught:
        await call
    assert caught.traceback[-1].name == "fail"
    assert pool.status().failed == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_exit(pool: SerialExecutor, error: BaseException) -> None:
    """``sys.exit`` or an interrupt inside a call does not reach whoever submits it."""

    def leave() -> None:
        raise error

    call = pool.submit(leave)
    with pytest.raises(CallExitedError, match="the worker lives on") as caught:
        await call
    assert caught.value.code == getattr(error, "code", None)


async def test_coroutine_as_a_result(pool: SerialExecutor) -> None:
    """A plain function that returns a coroutine fails, as it does in a thread."""
    with pytest.raises(TypeError, match="returned a coroutine"):
        await pool.submit(lambda: asyncio.sleep(0))


async def test_no_function(pool: SerialExecutor) -> None:
    """What cannot be called is refused."""
    with pytest.raises(TypeError, match="cannot be called"):
        pool.submit("f")  # type: ignore[arg-type]


async def test_retry(pool: SerialExecutor) -> None:
    """The first attempt is made inside ``submit``, the others later, after their pauses."""
    attempts: list[int] = []

    def fail_twice() -> int:
        attempts.append(current_call().attempt)
        if len(attempts) < 3:
            raise OSError
        return len(attempts)

    call = pool.options(retry=Retry(3, backoff=0)).submit(fail_twice)
    assert attempts == [1]
    assert not call.done()
    assert await call == 3
    assert attempts == [1, 2, 3]
    assert (pool.status().retried, pool.status().done, pool.status().failed) == (2, 1, 0)


async def test_retry_that_is_cancelled(pool: SerialExecutor) -> None:
    """A call that waits for its next attempt can be cancelled, and is not begun again."""
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(current_call().attempt)
        raise OSError

    call = pool.options(retry=Retry(3, backoff=0)).submit(fail)
    assert call.cancel()
    assert call.cancelled()
    for _ in range(10):
        await asyncio.sleep(0)
    assert attempts == [1]


async def test_timeout(pool: SerialExecutor) -> None:
    """A function that took too long fails when it has returned, as it would have elsewhere."""
    call = pool.options(timeout=0.001).submit(time.sleep, 0.002)
    with pytest.raises(TaskTimeoutError, match=r"sleep ran longer than its timeout of 0\.001 s"):
        await call
    assert pool.options(timeout=60).submit(pow, 2, 2).result() == 4


async def test_cancelling_itself(pool: SerialExecutor) -> None:
    """A call can cancel itself: that is noted, and its result dropped."""
    seen = []
    mine: list[SmartFuture[str]] = []

    def attempt() -> str:
        if current_call().attempt == 1:
            raise OSError
        assert mine[0].cancel()
        try:
            check_cancelled()
        except BaseException as error:
            seen.append(type(error))
        return "dropped"

    mine.append(pool.options(retry=Retry(2, backoff=0)).submit(attempt))
    with pytest.raises(CallCancelledError):
        await mine[0]
    await until(lambda: seen)
    assert pool.status().cancelled == 1
    assert pool.submit(pow, 2, 2).result() == 4


# When calls run


async def test_submitted_while_it_opens() -> None:
    """What is submitted before the executor is open runs when it is, by priority; a call may cancel the next."""
    pool = SerialExecutor()
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    order: list[str] = []
    calls: list[SmartFuture[Any]] = []
    calls.append(pool.submit(lambda n: calls[n].cancel(), 1))
    calls.append(pool.submit(order.append, "cancelled"))
    calls.append(pool.submit(order.append, "low"))
    calls.append(pool.options(priority=1).submit(order.append, "high"))
    await starting
    await asyncio.wait(calls)
    assert order == ["high", "low"]
    assert calls[1].cancelled()
    await pool.aclose()


async def test_closed() -> None:
    """A closed executor takes no calls."""
    with pytest.raises(ExecutorClosedError):
        SerialExecutor().submit(int)


async def test_futures_as_arguments(pool: SerialExecutor) -> None:
    """A call whose arguments are not ready runs when they are."""
    later = pool.submit(_answer)
    call = pool.submit(pow, later, 2)
    assert not call.done()
    assert await call == 42**2


async def test_submit_from_a_thread(pool: SerialExecutor) -> None:
    """What another thread submits runs on the loop's thread, in the submitter's context."""
    here = threading.get_ident()
    calls: list[SmartFuture[Any]] = []

    def submit() -> None:
        request.set("a thread's")
        calls.append(pool.submit(lambda: (threading.get_ident(), request.get())))

    await asyncio.to_thread(submit)
    assert await calls[0] == (here, "a thread's")


# Coroutines


async def _answer() -> int:
    await asyncio.sleep(0)
    return 42


async def test_coroutines_run_as_tasks(pool: SerialExecutor) -> None:
    """An ``async def`` begins in the loop's next turn, and runs beside others."""
    met = asyncio.Barrier(5)

    async def meet(n: int) -> int:
        await met.wait()
        return n

    calls = [pool.submit(meet, n) for n in range(5)]
    assert not any(call.done() for call in calls)
    assert await wait_all(calls) == list(range(5))


async def test_coroutine_is_cancelled(pool: SerialExecutor) -> None:
    """A coroutine that runs can be cancelled, and has ended when it has cleaned up."""
    trace: list[str] = []

    async def work() -> None:
        trace.append("in")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            trace.append("out")

    call = pool.submit(work)
    await until(lambda: trace)
    assert call.cancel()
    with pytest.raises(CallCancelledError):
        await call
    assert trace == ["in", "out"]


async def test_coroutine_times_out(pool: SerialExecutor) -> None:
    """A coroutine that runs too long is stopped."""
    with pytest.raises(TaskTimeoutError):
        await pool.options(timeout=0.01).submit(asyncio.sleep, 60)


async def test_closing_cancels_coroutines() -> None:
    """``aclose(drain=False)`` cancels the coroutines that run."""
    pool = await SerialExecutor().start()
    call = pool.submit(asyncio.sleep, 60)
    await pool.aclose(drain=False)
    assert call.cancelled()


async def test_coroutine_of_any_shape(pool: SerialExecutor, pickling: SerialExecutor) -> None:
    """Partials and objects whose call is an ``async def`` run as tasks, too."""
    assert await pool.submit(functools.partial(_answer)) == 42
    assert await pool.submit(Answer()) == 42
    assert await pickling.submit(functools.partial(_answer)) == 42
    assert await pickling.submit(Answer()) == 42


class Answer:
    async def __call__(self) -> int:
        return await _answer()


# Pickle


async def test_what_arrives_is_a_copy(pickling: SerialExecutor) -> None:
    """With ``pickle=True`` a call gets copies of its arguments, and its submitter a copy of the result."""
    argument = [1, 2]

    def work(items: list[int]) -> list[int]:
        items.append(3)
        kept.append(items)
        return items

    kept: list[list[int]] = []
    result = pickling.submit(work, argument).result()
    assert argument == [1, 2]
    assert result == [1, 2, 3]
    assert kept == [], "the function is a copy, too"


async def test_large_buffers_are_copied(pickling: SerialExecutor) -> None:
    """Large arrays travel beside the pickle, and arrive as other memory that may be written to."""
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(100_000)

    def fill(a: Any) -> Any:
        a[:] = 1
        return a

    result = pickling.submit(fill, array).result()
    assert array.sum() == 0
    assert result.sum() == 100_000
    result[0] = 5


async def test_argument_that_cannot_be_pickled(pickling: SerialExecutor) -> None:
    """An argument that could not travel fails in ``submit``, which names it."""
    with pytest.raises(PicklingError, match="lock") as caught:
        pickling.submit(len, [threading.Lock()])
    assert caught.value.path == "args[0][0]"
    assert pickling.task_count == 0


async def test_function_that_cannot_be_pickled(pickling: SerialExecutor) -> None:
    """So does a function that could not travel."""
    lock = threading.Lock()
    with pytest.raises(PicklingError, match="lock"):
        pickling.submit(lambda: lock)


async def test_result_that_cannot_be_pickled(pickling: SerialExecutor) -> None:
    """A result that could not travel back fails the call, and is named."""
    with pytest.raises(PicklingError, match="the result of"):
        await pickling.submit(lambda: {"lock": threading.Lock()})


class Unloadable:
    def __reduce__(self) -> Any:
        return _fail_to_load, ()


def _fail_to_load() -> None:
    raise LookupError("not here")


async def test_what_cannot_be_rebuilt(pickling: SerialExecutor) -> None:
    """Arguments and results whose pickles do not load fail the call, which says on which way."""
    with pytest.raises(PicklingError, match=r"arguments of .* cannot be rebuilt in the worker"):
        await pickling.submit(len, Unloadable())
    with pytest.raises(PicklingError, match=r"result of .* arrived but cannot be rebuilt here"):
        await pickling.submit(Unloadable)


class OddError(Exception):
    """Its pickle does not load."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


async def test_exceptions_travel_too(pickling: SerialExecutor) -> None:
    """What a call raises arrives as from a worker: a copy with a note and the remote traceback, or a stand-in."""
    error = LookupError("nothing there")

    def fail() -> None:
        raise error

    with pytest.raises(LookupError, match="nothing there") as caught:
        await pickling.submit(fail)
    assert caught.value is not error
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert any("tests, attempt 1" in note for note in caught.value.__notes__)
    with pytest.raises(Exception, match="odd") as stand_in:
        await pickling.submit(lambda: (_ for _ in ()).throw(OddError(1, 2)))
    assert type(stand_in.value).__name__ == "OddError"


@pytest.mark.parametrize("how", [sys.exit, None])
async def test_exit_with_pickle(pickling: SerialExecutor, how: Any) -> None:
    """``sys.exit`` arrives as it does from a worker."""

    def leave() -> None:
        sys.exit(5)

    async def leave_async() -> None:
        sys.exit(5)

    with pytest.raises(CallExitedError) as caught:
        await pickling.submit(leave if how else leave_async)
    assert caught.value.code == 5


async def test_coroutines_with_pickle(pickling: SerialExecutor) -> None:
    """Coroutines make the same trip: copies in both directions, stand-ins, and cancellation."""
    argument = [1]

    async def work(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        items.append(2)
        return items

    assert await pickling.submit(work, argument) == [1, 2]
    assert argument == [1]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OddError(1, 2)

    with pytest.raises(Exception, match="odd"):
        await pickling.submit(fail)
    with pytest.raises(TaskTimeoutError):
        await pickling.options(timeout=0.01).submit(asyncio.sleep, 60)


async def test_retry_with_pickle(pickling: SerialExecutor) -> None:
    """Each attempt gets a fresh copy of the arguments, and the function's own name is kept."""

    def grow(items: list[int]) -> list[int]:
        items.append(1)
        if current_call().attempt < 3:
            raise OSError
        return items

    call = pickling.options(retry=Retry(3, backoff=0)).submit(grow, [])
    assert "grow" in repr(call)
    assert await call == [1]
