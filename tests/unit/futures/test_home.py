"""Coroutines that futures wait for: owned, ended with their loop, and gone when there is nothing to do."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys

import pytest

from aioparallel._futures import home
from aioparallel._futures.smart import finished, wrapped
from aioparallel._futures.waiting import later
from aioparallel._model.errors import CallCancelledError, CallExitedError
from tests.tools import turns

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


async def forever(log=None):
    try:
        await asyncio.Event().wait()
    finally:
        if log is not None:
            await asyncio.sleep(0.005)
            log.append("cleaned up")


class TestRunning:
    async def test_kinds(self):
        """later takes coroutines, tasks, asyncio futures and any object with __await__."""

        async def fn(value):
            return value

        class Custom:
            def __await__(self):
                yield from asyncio.sleep(0).__await__()
                return 4

        future = asyncio.get_running_loop().create_future()
        future.set_result(3)
        kinds = [fn(1), asyncio.ensure_future(fn(2)), future, Custom(), finished(5)]
        assert [await later(kind) for kind in kinds] == [1, 2, 3, 4, 5]

    async def test_starts_by_itself(self, turns):
        """The coroutine runs whether or not anybody awaits the future."""
        seen = []

        async def fn():
            seen.append(1)

        wrapped(fn())
        await turns()
        assert seen == [1]

    async def test_context(self):
        """The coroutine sees a copy of the caller's contextvars."""
        variable.set("caller")

        async def fn():
            value = variable.get()
            variable.set("inner")
            return value

        future = wrapped(fn())
        variable.set("later")
        assert await future == "caller"
        assert variable.get() == "later"

    async def test_info(self, turns):
        """The future's info says what runs and since when."""
        future = wrapped(forever())
        assert future.info.state == "queued"
        await turns()
        info = future.info
        assert (info.state, info.name, info.method, info.attempts) == ("running", "forever", "coroutine", 1)
        assert info.queued_at <= info.begun_at
        future.cancel()
        await asyncio.wait([future])
        assert future.info.state == "cancelled"
        assert future.info.settled_at >= info.begun_at

    async def test_failures_stay_apart(self):
        """A coroutine that fails, exits, or lets a CancelledError escape does not disturb the others."""

        async def fails(error):
            raise error

        async def works():
            await asyncio.sleep(0.001)
            return 1

        good = wrapped(works())
        with pytest.raises(ValueError, match="no"):
            await wrapped(fails(ValueError("no")))
        with pytest.raises(CallExitedError):
            await wrapped(fails(SystemExit(2)))
        with pytest.raises(CallCancelledError):
            await wrapped(fails(asyncio.CancelledError()))
        assert await good == 1

    async def test_cancelled_task_inside(self, turns):
        """A wrapped task that somebody cancels makes the future cancelled, and the awaiter lives on."""
        task = asyncio.ensure_future(forever())
        future = wrapped(task)
        await turns()
        task.cancel()
        with pytest.raises(CallCancelledError):
            await future

    def test_no_loop(self):
        """Without a running loop a coroutine is refused, and closed."""
        coroutine = forever()
        with pytest.raises(RuntimeError, match="no running event loop"):
            wrapped(coroutine)
        assert inspect.getcoroutinestate(coroutine) == "CORO_CLOSED"


class TestCancelling:
    async def test_cancel(self, turns):
        """cancel stops the coroutine; the future ends when its cleanup, which may await, has ended."""
        log = []
        future = wrapped(forever(log))
        await turns()
        assert future.cancel()
        assert not future.done()
        with pytest.raises(CallCancelledError):
            await future
        assert log == ["cleaned up"]
        assert not future.cancel()
        assert not future._source.cancel()

    async def test_cancel_before_it_begins(self):
        """A coroutine that is cancelled before it begins never begins."""
        log = []

        async def fn():
            log.append("begun")

        future = wrapped(fn())
        assert future.cancel()
        with pytest.raises(CallCancelledError):
            await future
        assert log == []

    async def test_last_awaiter(self, turns):
        """Cancelling the last awaiter cancels the coroutine, and waits for its cleanup."""
        log = []
        task = asyncio.ensure_future(wrapped(forever(log)))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert log == ["cleaned up"]

    async def test_wrapped_task(self, turns):
        """Cancelling the future of a task cancels the task."""
        log = []
        task = asyncio.ensure_future(forever(log))
        future = wrapped(task)
        await turns()
        future.cancel()
        await asyncio.wait([future])
        assert task.cancelled()
        assert log == ["cleaned up"]

    async def test_value_despite_cancellation(self, turns):
        """A coroutine that returns although it was cancelled is cancelled nevertheless."""

        async def stubborn():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return 1

        future = wrapped(stubborn())
        await turns()
        future.cancel()
        with pytest.raises(CallCancelledError):
            await future


class TestLifetime:
    async def test_gone_when_idle(self, turns):
        """When nothing runs any more, nothing of ours is left on the loop."""
        before = asyncio.all_tasks()
        await wrapped(asyncio.sleep(0))
        await turns()
        assert asyncio.all_tasks() == before
        assert home._homes == {}

    async def test_one_for_all(self, turns):
        """All coroutines of a loop share one home, and a new one opens after it has gone."""
        futures = [wrapped(asyncio.sleep(0, n)) for n in range(3)]
        assert len(home._homes) == 1
        assert [await future for future in futures] == [0, 1, 2]
        assert await wrapped(asyncio.sleep(0, 5)) == 5
        await turns()
        assert home._homes == {}

    async def test_begun_by_one_that_ends(self):
        """The last coroutine may start another while it ends."""

        async def outer():
            return wrapped(asyncio.sleep(0, 7))

        assert await (await wrapped(outer())) == 7

    @pytest.mark.parametrize("begun", [True, False])
    def test_loop_shuts_down(self, begun):
        """When the loop shuts down, every coroutine is ended and every future settled."""
        log = []

        async def main():
            futures = [wrapped(forever(log)) for _ in range(3)]
            if begun:
                await turns()
                assert {future.info.state for future in futures} == {"running"}
            return futures

        futures = asyncio.run(main())
        assert [future.cancelled() for future in futures] == [True] * 3
        assert home._homes == {}

    def test_loop_closed_by_hand(self):
        """An idle loop owes us nothing: it can be closed without being shut down."""

        async def main():
            await wrapped(asyncio.sleep(0))
            await asyncio.sleep(0)
            for _ in range(9):
                await asyncio.sleep(0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        assert not asyncio.all_tasks(loop)
        loop.close()
        gc.collect()
        assert home._homes == {}

    def test_two_loops_in_turn(self):
        """Each loop has its own."""

        async def main():
            return await wrapped(asyncio.sleep(0, 3))

        assert [asyncio.run(main()) for _ in range(2)] == [3, 3]

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
    def test_eager_tasks(self):
        """It works where tasks begin eagerly."""

        async def inner():
            return 3

        async def main():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            futures = [wrapped(inner()), wrapped(asyncio.sleep(0, 4)), finished(5).then(lambda v: asyncio.sleep(0, v))]
            assert await asyncio.gather(*futures) == [3, 4, 5]
            future = wrapped(forever())
            future.cancel()
            await asyncio.wait([future])
            return future

        assert asyncio.run(main()).cancelled()
        assert home._homes == {}
