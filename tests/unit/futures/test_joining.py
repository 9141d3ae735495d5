"""Waiting for several futures as one awaiter, without a task."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from aioparallel._futures.joining import Join
from aioparallel._futures.smart import failed, finished
from aioparallel._model.errors import CallCancelledError, NotReadyError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@pytest.fixture
def said():
    return []


class TestReporting:
    async def test_all_ready(self, work, turns, said):
        """The callback is called with None when all have succeeded, in a later turn."""
        one, two = work(), work()
        Join([one.future, finished(1), two.future, one.future], said.append)
        one.end()
        await turns()
        assert said == []
        two.end()
        assert said == []
        await turns()
        assert said == [None]

    @pytest.mark.parametrize("futures", [[], [finished(1)], [finished(1), finished(2)]])
    async def test_nothing_to_wait_for(self, futures, turns, said):
        """Where there is nothing to wait for, the callback is called all the same."""
        Join(futures, said.append)
        await turns()
        assert said == [None]

    async def test_first_failure(self, work, turns, said):
        """A failure is reported at once; the others go on, without this awaiter."""
        one, two, error = work("at once"), work("at once"), ValueError("no")
        Join([one.future, two.future], said.append)
        other = asyncio.ensure_future(one.future)
        await turns()
        two.fail(error)
        await turns()
        assert said == [error]
        assert one.cancels == 0
        other.cancel()
        await asyncio.wait([other])
        assert one.cancels == 1

    async def test_closed_loop(self, work, other_loop, turns, said):
        """A future that nobody will settle, because its loop was closed, is reported as a failure."""
        job, orphan = work(), other_loop.work()
        other_loop.close()
        Join([job.future, orphan.future], said.append)
        assert said == []
        await turns()
        assert [type(error) for error in said] == [NotReadyError]
        assert job.cancels == 0

    async def test_settled_failure(self, work, turns, said):
        """A future that had failed before is reported, and the others are not awaited."""
        job, error = work(), ValueError("no")
        Join([job.future, failed(error)], said.append)
        await turns()
        assert said == [error]
        assert job.future._awaiters == 0
        job.end()

    async def test_cancelled_future(self, work, turns, said):
        """A cancelled future is reported as CallCancelledError."""
        job = work("at once")
        Join([job.future], said.append)
        job.future.cancel()
        await turns()
        assert [type(error) for error in said] == [CallCancelledError]

    async def test_reported_once(self, work, turns, said):
        """Failures after the first one are not reported."""
        one, two = work(), work()
        Join([one.future, two.future], said.append)
        one.fail(ValueError("first"))
        two.fail(ValueError("second"))
        await turns()
        assert [str(error) for error in said] == ["first"]
        two.future.exception()

    async def test_context(self, work, turns, said):
        """The callback runs in the context in which the join was made."""
        job = work()
        variable.set("maker")
        Join([job.future], lambda _: said.append(variable.get()))
        variable.set("later")
        job.end()
        await turns()
        assert said == ["maker"]


class TestBeingAnAwaiter:
    async def test_keeps_alive(self, work, turns, said):
        """It is an awaiter: who else awaits the future can go without cancelling it."""
        job = work("at once")
        Join([job.future], said.append)
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert job.cancels == 0
        job.end()
        await turns()
        assert said == [None]

    async def test_abandoned(self, work, turns, said):
        """When it is abandoned, what nobody else awaits is cancelled, and its end is told."""
        mine, shared, ended = work(), work(), []
        other = asyncio.ensure_future(shared.future)
        await turns()
        join = Join([mine.future, shared.future], said.append)
        join.abandon(lambda: ended.append(True))
        await turns()
        assert (mine.cancels, shared.cancels) == (1, 0)
        assert ended == []
        mine.stop()
        await turns()
        assert ended == [True]
        shared.end(1)
        assert await other == 1
        assert said == []

    async def test_abandoned_without_asking(self, work, turns, said):
        """It may be abandoned without wanting to know."""
        job = work("at once")
        Join([job.future], said.append).abandon()
        await turns()
        assert job.future.cancelled()
        assert said == []

    async def test_abandoned_between_end_and_report(self, work, turns, said):
        """Abandoned after the last end and before the report, it does not report."""
        job, ended = work(), []
        join = Join([job.future], said.append)
        job.end()
        join.abandon(lambda: ended.append(True))
        await turns()
        assert said == []
        assert ended == [True]

    async def test_settled_between_abandon_and_leaving(self, work, turns, said):
        """A future that ends in the turn in which the join is abandoned keeps its value."""
        job, ended = work(), []
        Join([job.future], said.append).abandon(lambda: ended.append(True))
        job.end(5)
        await turns()
        assert said == []
        assert ended == [True]
        assert job.cancels == 0
        assert await job.future == 5
