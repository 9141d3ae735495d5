"""The futures of blocking executors: real ones of concurrent.futures, which tell the truth about cancelling."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from aioparallel import NotReadyError, PicklingError
from tests.contract import jobs
from tests.tools import Gate, Log, hold, is_alive, until, wait_for


def test_they_are_the_standard_librarys(pool: Any) -> None:
    """``submit`` returns a ``concurrent.futures.Future``, with its results and exceptions."""
    future = pool.submit(jobs.add, 1, 2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 3
    assert (future.done(), future.running(), future.cancelled(), future.exception()) == (True, False, False, None)
    failing = pool.submit(jobs.fail, code=9)
    with pytest.raises(jobs.JobError) as caught:
        failing.result(20)
    assert caught.value.code == 9
    assert failing.exception() is caught.value


def test_a_timeout_only_ends_the_waiting(pool: Any, gate: Gate) -> None:
    """``result(timeout)`` raises ``TimeoutError``, and the call runs on."""
    future = pool.submit(hold, gate, 5)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    gate.open()
    assert future.result(20) == 5


def test_wait_and_as_completed(pool: Any, gate: Gate) -> None:
    """``concurrent.futures.wait`` and ``as_completed`` take them."""
    slow, quick = pool.submit(hold, gate, "slow"), pool.submit(jobs.same, "quick")
    done, left = concurrent.futures.wait([slow, quick], 20, concurrent.futures.FIRST_COMPLETED)
    assert (done, left) == ({quick}, {slow})
    completed = concurrent.futures.as_completed([slow, quick], 20)
    assert next(completed) is quick
    gate.open()
    assert next(completed).result() == "slow"
    assert concurrent.futures.wait([slow, quick]).not_done == set()


def test_running(pool: Any, gate: Gate) -> None:
    """``running`` says whether the call has begun and not ended."""
    future = pool.submit(hold, gate)
    wait_for(lambda: gate.entered)
    assert future.running()
    gate.open()
    future.result(20)
    assert not future.running()


# Cancelling


def test_what_waits_never_begins(kind: str, opened: Callable[..., Any], gate: Gate, log: Log) -> None:
    """A call that has not begun can be cancelled, and never begins."""
    pool = opened(kind, 1)
    blocker = pool.submit(hold, gate)
    wait_for(lambda: gate.entered)
    waiting = pool.submit(jobs.write, log, "begun")
    assert not waiting.running()
    assert waiting.cancel()
    assert waiting.cancel(), "it may be cancelled again"
    assert (waiting.cancelled(), waiting.done()) == (True, True)
    with pytest.raises(CancelledError):
        waiting.result()
    gate.open()
    blocker.result(20)
    pool.shutdown()
    assert not log.lines


def test_a_running_process_is_killed(opened: Callable[..., Any], gate: Gate) -> None:
    """A call that a process runs can be cancelled; ``wait`` returns when its process is gone, and the pool goes on."""
    pool = opened("process", 1)
    future = pool.submit(hold, gate)
    (pid,) = wait_for(lambda: gate.entered)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert concurrent.futures.wait([future], 20).done == {future}
    assert not is_alive(pid)
    assert pool.submit(jobs.add, 1, 2).result(20) == 3
    assert not gate.left


def test_a_running_thread_cannot_be_stopped(opened: Callable[..., Any], gate: Gate) -> None:
    """A call that a thread runs cannot be cancelled: ``cancel`` says so, and the result comes."""
    pool = opened("thread", 1)
    future = pool.submit(hold, gate, 5)
    wait_for(lambda: gate.entered)
    assert not future.cancel()
    assert not future.cancelled()
    gate.open()
    assert future.result(20) == 5


def test_cancelled_or_run_never_both(opened: Callable[..., Any], log: Log) -> None:
    """However cancelling and beginning interleave in threads, a call has either run or been cancelled."""
    pool = opened("thread", 2)
    for n in range(300):
        future = pool.submit(jobs.write, log, n)
        if future.cancel():
            assert str(n) not in log.lines
            with pytest.raises(CancelledError):
                future.result(20)
        else:
            assert future.result(20) == n
    ran = len(log.lines)
    pool.shutdown()
    assert len(log.lines) == ran


def test_too_late(pool: Any) -> None:
    """A call that has ended cannot be cancelled."""
    future = pool.submit(jobs.same, 1)
    future.result(20)
    assert not future.cancel()
    assert future.result() == 1


def test_a_call_that_cancels_itself(pool: Any) -> None:
    """A function that raises ``asyncio.CancelledError`` ends as cancelled, also for who waits with ``wait``."""
    future = pool.submit(jobs.raise_, asyncio.CancelledError())
    with pytest.raises(CancelledError):
        future.result(20)
    assert concurrent.futures.wait([future], 20).done == {future}


def test_cancel_from_many_threads(opened: Callable[..., Any], gate: Gate) -> None:
    """Any thread may cancel; all get the same answer."""
    pool = opened("process", 1)
    future = pool.submit(hold, gate)
    wait_for(lambda: gate.entered)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(future.cancel())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [True] * 8


# Callbacks


def test_callbacks(pool: Any) -> None:
    """Callbacks get the future when it has ended, also if it has already; one that fails disturbs nobody."""
    seen: list[Any] = []
    future = pool.submit(jobs.add, 1, 2)
    future.add_done_callback(seen.append)
    assert future.result(20) == 3
    wait_for(lambda: seen)
    future.add_done_callback(seen.append)
    assert seen == [future, future]


@pytest.mark.parametrize("error", [LookupError("no luck"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_callback_that_fails(pool: Any, gate: Gate, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """Whatever a callback raises is logged, and everything goes on."""
    future = pool.submit(hold, gate)
    future.add_done_callback(lambda _: jobs.raise_(error))
    with caplog.at_level(logging.ERROR):
        gate.open()
        future.result(20)
        wait_for(lambda: caplog.records)
    assert type(error).__name__ in caplog.text
    assert pool.submit(jobs.add, 1, 2).result(20) == 3


def test_a_callback_may_submit(pool: Any) -> None:
    """A callback may submit further calls, and cancel them."""
    ended = threading.Event()
    chain: list[Any] = []

    def again(future: Any) -> None:
        if future.result() < 10:
            following = pool.submit(jobs.add, future.result(), 1)
            chain.append(following)
            following.add_done_callback(again)
        else:
            pool.submit(jobs.same).cancel()
            ended.set()

    pool.submit(jobs.same, 0).add_done_callback(again)
    assert ended.wait(20)
    assert len(chain) == 10


@pytest.mark.parametrize("how", ["result", "exception", "wait", "as_completed", "shutdown"])
def test_a_callback_that_waits(pool: Any, gate: Gate, how: str) -> None:
    """To wait in a callback for what comes from its own thread raises, instead of waiting for ever."""
    other = pool.submit(hold, gate)
    waits = {
        "result": other.result,
        "exception": other.exception,
        "wait": lambda: concurrent.futures.wait([other]),
        "as_completed": lambda: list(concurrent.futures.as_completed([other])),
        "shutdown": pool.shutdown,
    }
    caught: list[BaseException] = []

    def wait(_: Any) -> None:
        try:
            waits[how]()
        except NotReadyError as error:
            caught.append(error)

    quick = pool.submit(jobs.same)
    quick.add_done_callback(wait)
    wait_for(lambda: caught, f"{how} raises")
    assert "would be for ever" in str(caught[0])
    gate.open()
    assert other.result(20) is None


# Beside event loops


async def test_in_run_in_executor(pool: Any) -> None:
    """``loop.run_in_executor`` takes such an executor."""
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(pool, jobs.add, 1, 2) == 3
    with pytest.raises(jobs.JobError):
        await loop.run_in_executor(pool, jobs.fail)


async def test_cancelled_through_asyncio(opened: Callable[..., Any], gate: Gate) -> None:
    """Cancelling what ``asyncio`` has made of a future cancels its call."""
    pool = opened("process", 1)
    future = pool.submit(hold, gate)
    wrapped = asyncio.wrap_future(future)
    await until(lambda: gate.entered)
    wrapped.cancel()
    await asyncio.wait([wrapped])
    assert future.cancelled()


async def test_result_beside_a_running_loop(pool: Any) -> None:
    """On the thread of another event loop, as in a notebook, ``result`` blocks as it does anywhere."""
    assert pool.submit(jobs.add, 1, 2).result(20) == 3


def test_not_picklable(pool: Any) -> None:
    """A future cannot be pickled, and says what to do."""
    future = pool.submit(jobs.same, 1)
    with pytest.raises(PicklingError, match=r"result\(\)"):
        pickle.dumps(future)
    with pytest.raises(PicklingError, match=r"result\(\)"):
        pool.submit(pickle.dumps, [future]).result(20)
