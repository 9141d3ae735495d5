"""Futures seen from other threads and other event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aioparallel._futures import abroad
from aioparallel._futures.smart import SmartFuture
from aioparallel._futures.waiting import wait_all, wait_any
from aioparallel._model.errors import CallCancelledError, NotReadyError


async def awaits(future):
    return await future


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Other threads look often whether a loop was closed."""
    monkeypatch.setattr(abroad, "PATIENCE", 0.01)
    monkeypatch.setattr("aioparallel._futures.smart.PATIENCE", 0.01)


@pytest.fixture
def job(work, other_loop):
    made = other_loop.work()
    yield made
    if not other_loop.loop.is_closed():
        other_loop.call(made.stop)


class TestBlocking:
    def test_result(self, job, other_loop):
        """Off the loop's thread, result blocks until the end."""
        other_loop.loop.call_soon_threadsafe(other_loop.loop.call_later, 0.01, job.end, 3)
        assert job.future.result() == 3
        assert job.future.result(timeout=0) == 3
        assert job.future.exception() is None

    def test_failure(self, job, other_loop):
        """It raises what the call raised."""
        other_loop.loop.call_soon_threadsafe(job.fail, ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            job.future.result()
        assert isinstance(job.future.exception(), ValueError)

    def test_cancelled(self, job, other_loop):
        """It raises CallCancelledError if the call was cancelled."""
        other_loop.loop.call_soon_threadsafe(job.stop)
        with pytest.raises(CallCancelledError):
            job.future.result()

    @pytest.mark.parametrize("timeout", [0, 0.001, 0.03, -1])
    def test_timeout(self, job, other_loop, timeout):
        """After timeout seconds it raises TimeoutError; the call runs on, and nothing of the wait is left."""
        with pytest.raises(TimeoutError, match=r"has not ended within"):
            job.future.result(timeout)
        assert not other_loop.call(lambda: job.future._watchers)
        assert job.cancels == 0

    async def test_on_a_loop(self, job, other_loop):
        """Where any loop runs in the thread, it raises instead of blocking."""
        with pytest.raises(NotReadyError, match="await it first"):
            job.future.result()

    def test_loop_is_closed(self, job, other_loop):
        """If the loop is closed before the end, it raises instead of waiting for ever."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(job.future.result)
            other_loop.close()
            with pytest.raises(NotReadyError, match="loop was closed"):
                answer.result(10)
        with pytest.raises(NotReadyError, match="loop was closed"):
            job.future.result()


class TestFromAnotherThread:
    def test_cancel(self, job, other_loop):
        """cancel may be called from any thread; the source is asked on the loop's."""
        assert job.future.cancel()
        other_loop.call(lambda: None)
        assert job.threads == [other_loop.thread.ident]
        other_loop.call(job.stop)
        assert not job.future.cancel()

    def test_cancel_after_the_loop_is_closed(self, job, other_loop):
        """When the loop is closed nobody is left to ask: the future is cancelled at once."""
        other_loop.close()
        assert job.future.cancel()
        assert job.future.cancelled()
        assert job.cancels == 0

    def test_callbacks(self, job, other_loop):
        """A callback may be added from any thread, and runs on the loop's."""
        threads = []

        def callback(_):
            threads.append(threading.get_ident())

        job.future.add_done_callback(callback)
        other_loop.call(job.end)
        other_loop.call(lambda: None)
        assert threads == [other_loop.thread.ident]
        job.future.add_done_callback(callback)
        other_loop.call(lambda: None)
        other_loop.call(lambda: None)
        assert threads == [other_loop.thread.ident] * 2

    def test_callback_removed(self, job, other_loop):
        """A callback may be removed from any thread."""
        seen = []
        job.future.add_done_callback(seen.append)
        assert job.future.remove_done_callback(seen.append) == 0
        other_loop.call(job.end)
        other_loop.call(lambda: None)
        assert seen == []

    def test_callback_after_the_loop_is_closed(self, job, other_loop):
        """When the loop is closed, a callback is called at once."""
        other_loop.call(job.end)
        other_loop.close()
        seen = []
        job.future.add_done_callback(seen.append)
        assert seen == [job.future]

    def test_expression_and_then(self, job, other_loop):
        """Expressions and then work from any thread."""
        total = (job.future + 1).then(lambda value: (value, threading.get_ident()))
        other_loop.loop.call_soon_threadsafe(job.end, 2)
        assert total.result(10) == (3, other_loop.thread.ident)

    def test_cancel_an_expression(self, job, other_loop):
        """So does cancelling an expression."""
        total = job.future + 1
        assert total.cancel()
        for _ in range(3):
            other_loop.call(lambda: None)
        assert job.cancels == 1
        other_loop.call(job.stop)
        with pytest.raises(CallCancelledError):
            total.result(10)


class TestFromAnotherLoop:
    async def test_await(self, job, other_loop):
        """A future may be awaited from another running loop than its own."""
        other_loop.loop.call_soon_threadsafe(other_loop.loop.call_later, 0.01, job.end, 3)
        assert await job.future == 3
        assert await job.future == 3

    async def test_await_a_failure(self, job, other_loop, complaints):
        """A failure arrives as well, and is seen."""
        other_loop.loop.call_soon_threadsafe(job.fail, ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await job.future
        job.future = SmartFuture(None, other_loop.loop)
        assert complaints() == []

    async def test_cancel_the_last_awaiter(self, job, other_loop, turns):
        """Cancelling the last awaiter cancels the work, and waits until it has stopped."""
        task = asyncio.ensure_future(awaits(job.future))
        await turns()
        other_loop.call(lambda: None)
        task.cancel()
        await turns()
        other_loop.call(lambda: None)
        assert job.cancels == 1
        await turns()
        assert not task.done()
        other_loop.call(job.stop)
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.threads == [other_loop.thread.ident]

    async def test_cancel_one_of_two(self, job, other_loop, turns):
        """Awaiters on different loops count together."""
        abroad_task = asyncio.ensure_future(awaits(job.future))
        home_task = other_loop.run(awaits(job.future))
        await turns()
        other_loop.call(lambda: None)
        abroad_task.cancel()
        await asyncio.wait([abroad_task])
        assert abroad_task.cancelled()
        assert job.cancels == 0
        other_loop.call(job.end, 4)
        assert await asyncio.wrap_future(home_task) == 4

    async def test_cancelled_elsewhere(self, job, other_loop, turns):
        """A cancellation on the future's own loop arrives as CallCancelledError."""
        task = asyncio.ensure_future(awaits(job.future))
        await turns()
        other_loop.call(job.future.cancel)
        other_loop.call(job.stop)
        with pytest.raises(CallCancelledError):
            await task

    async def test_expression_over_two_loops(self, job, other_loop, work):
        """An expression may mix futures of several loops; it lives on the one where it is written."""
        mine = work()
        total = mine.future + job.future * 10
        assert total._loop is asyncio.get_running_loop()
        other_loop.call(job.end, 4)
        mine.end(2)
        assert await total == 42

    async def test_wait_any_and_wait_all(self, job, other_loop, work):
        """wait_any and wait_all take futures of several loops."""
        for wait in (wait_any, wait_all):
            mine, theirs = work(), other_loop.work()
            iterator = wait([theirs.future, mine.future])
            other_loop.loop.call_soon_threadsafe(other_loop.loop.call_later, 0.01, theirs.end, 1)
            asyncio.get_running_loop().call_later(0.03, mine.end, 2)
            assert [future async for future in iterator] == [theirs.future, mine.future]
        other_loop.loop.call_soon_threadsafe(job.end, 3)
        assert await wait_all([mine.future, job.future]) == [2, 3]

    async def test_wait_any_only_watches(self, job, other_loop, turns):
        """Also across loops, iterating only watches, and cancel_pending cancels and waits."""
        async with wait_any([job.future]) as finished_ones:
            task = asyncio.ensure_future(anext(finished_ones))
            await turns()
            other_loop.call(lambda: None)
            assert job.future._awaiters == 0
            task.cancel()
            await asyncio.wait([task])
        assert job.cancels == 0
        other_loop.loop.call_soon_threadsafe(other_loop.loop.call_later, 0.02, job.stop)
        async with wait_any([job.future], cancel_pending=True):
            pass
        assert job.cancels == 1
        assert job.future.cancelled()

    async def test_info(self, job):
        """What stands for a future on another loop says how the original stands."""
        here = job.future._here(asyncio.get_running_loop())
        assert here is not job.future
        assert here.info == job.future.info

    def test_closed_with_an_awaiter(self, job, other_loop):
        """A loop that is closed while something is awaited on it does not disturb who ends that."""
        other_loop.call(lambda: other_loop.loop.create_task(awaits(job.future)))
        other_loop.call(lambda: None)
        other_loop.call(lambda: None)
        (task,) = asyncio.all_tasks(other_loop.loop)
        other_loop.close()
        assert job.future.cancel()
        assert job.future.cancelled()
        task._log_destroy_pending = False

    async def test_closed_before(self, job, other_loop):
        """A future whose loop was closed before its end raises NotReadyError."""
        other_loop.close()
        with pytest.raises(NotReadyError, match="loop was closed"):
            await job.future

    async def test_closed_meanwhile(self, job, other_loop, turns):
        """The same if the loop is closed while the future is awaited."""
        task = asyncio.ensure_future(awaits(job.future))
        await turns()
        other_loop.close()
        with pytest.raises(NotReadyError, match="loop was closed"):
            await task

    async def test_settled_while_the_loop_closes(self, job, other_loop, turns):
        """An end that the closing loop did not tell is found."""
        task = asyncio.ensure_future(awaits(job.future))
        await turns()
        other_loop.call(lambda: None)
        other_loop.call(job.future._watchers.clear)
        other_loop.call(job.end, 8)
        assert await task == 8

    def test_awaiting_loop_is_gone(self, job, other_loop):
        """An awaiter whose own loop has gone does not disturb the future's."""

        async def give_up():
            task = asyncio.ensure_future(awaits(job.future))
            await asyncio.sleep(0)
            other_loop.call(lambda: None)
            job.grace = 0
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        job.grace = 0
        asyncio.run(give_up())
        other_loop.call(job.end)
        assert job.future.done()
