"""Cancelling awaiters: the last one cancels the work, waits until it has stopped, and is then cancelled."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aioparallel._futures.smart import SmartFuture, finished
from aioparallel._futures.waiting import wait_all
from aioparallel._model.errors import CallCancelledError


async def awaits(future):
    return await future


WRAPPERS = {
    "await": awaits,
    "gather": lambda future: awaits(asyncio.gather(future)),
    "wait_for": lambda future: asyncio.wait_for(future, 60),
    "shielded from nothing": lambda future: awaits(asyncio.ensure_future(future)),
    "wait_all": lambda future: awaits(wait_all([future])),
    "expression": lambda future: awaits(future + 1),
    "expression of expressions": lambda future: awaits(-(1 + future) * finished(2)),
}


@pytest.fixture(params=list(WRAPPERS))
def wrapper(request):
    return WRAPPERS[request.param]


class TestLastAwaiter:
    async def test_cancels(self, work, wrapper, turns):
        """Cancelling the last awaiter, whatever wraps the await, cancels the work once and ends the task."""
        job = work("at once")
        task = asyncio.ensure_future(wrapper(job.future))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.cancels == 1
        assert job.future.cancelled()

    async def test_waits_for_the_stop(self, work, wrapper, turns):
        """The cancelled awaiter does not end before the work has stopped."""
        job = work()
        task = asyncio.ensure_future(wrapper(job.future))
        await turns()
        task.cancel()
        await turns()
        assert job.cancels == 1
        assert not task.done()
        job.stop()
        await asyncio.wait([task])
        assert task.cancelled()

    async def test_waits_at_most_for_the_grace(self, work, wrapper, turns):
        """If the work does not stop within its grace, the cancelled awaiter ends without it."""
        job = work(grace=0.01)
        task = asyncio.ensure_future(wrapper(job.future))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not job.future.done()
        job.stop()

    async def test_others_keep_it_alive(self, work, wrapper, turns):
        """Another awaiter keeps the work alive, and gets its value."""
        job = work("at once")
        other = asyncio.ensure_future(job.future)
        task = asyncio.ensure_future(wrapper(job.future))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.cancels == 0
        job.end(8)
        assert await other == 8

    async def test_second_awaiter_is_the_last(self, work, wrapper, turns):
        """When all awaiters are cancelled, one after the other, the last one cancels the work."""
        job = work("at once")
        tasks = [asyncio.ensure_future(wrapper(job.future)) for _ in range(3)]
        await turns()
        for count, task in enumerate(tasks):
            assert job.cancels == 0, count
            task.cancel()
            await asyncio.wait([task])
        assert job.cancels == 1

    async def test_work_that_ends_meanwhile(self, work, wrapper, turns):
        """If the work says that it is too late, the awaiter is cancelled all the same, and the value is kept."""
        job = work("never")
        task = asyncio.ensure_future(wrapper(job.future))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        job.end(3)
        assert await job.future == 3

    async def test_settled_and_cancelled_in_one_turn(self, work, turns):
        """An awaiter that is cancelled in the turn in which the future ends is cancelled; the work is not."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        job.end(3)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.cancels == 0
        assert job.future.result() == 3

    async def test_cancelled_and_settled_in_one_turn(self, work, turns):
        """An awaiter is also cancelled if the future ends after that, in the same turn."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        job.end(3)
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.cancels == 0
        assert job.future.result() == 3

    async def test_leaves_nothing_behind(self, work, turns):
        """Of an awaiter that was cancelled, nothing is left in the future."""
        job = work()
        other = asyncio.ensure_future(job.future)
        await turns()
        before = dict(job.future._watchers)
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert job.future._watchers == before
        job.end(1)
        assert await other == 1

    async def test_value_that_arrives_late(self, work, turns):
        """Cancelled by its last awaiter, the work ends as cancelled even if its value arrives later."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await turns()
        job.end(3)
        await asyncio.wait([task])
        assert task.cancelled()
        assert job.future.cancelled()

    async def test_second_cancellation_does_not_wait(self, work, turns):
        """A task that is cancelled again while it waits for the stop ends at once."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        job.stop()

    async def test_awaiter_after_the_cancellation(self, work, turns):
        """Who comes after the last awaiter was cancelled gets CallCancelledError."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await turns()
        late = asyncio.ensure_future(job.future)
        await turns()
        job.stop()
        with pytest.raises(CallCancelledError):
            await late
        await asyncio.wait([task])


class TestHow:
    async def test_asyncio_timeout(self, work):
        """asyncio.timeout cancels the work and raises TimeoutError."""
        job = work("at once")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await job.future
        assert job.cancels == 1

    async def test_wait_for(self, work):
        """asyncio.wait_for cancels the work and raises TimeoutError."""
        job = work("at once")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.future, 0.001)
        assert job.cancels == 1

    async def test_shield(self, work, turns):
        """asyncio.shield protects it: the work ends as if nothing had happened."""
        job = work("at once")
        task = asyncio.ensure_future(awaits(asyncio.shield(job.future)))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert job.cancels == 0
        job.end(1)
        assert await job.future == 1

    async def test_gather_failure(self, work, turns):
        """When one future of a gather fails, the others go on."""
        one, two = work("at once"), work("at once")
        task = asyncio.gather(one.future, two.future)
        await turns()
        one.fail(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await task
        assert two.cancels == 0
        two.end()

    async def test_task_group(self, work, turns):
        """When one task of a TaskGroup fails, what its others await is cancelled."""
        job = work("at once")

        async def fails():
            await turns()
            raise ValueError("no")

        async def both():
            async with asyncio.TaskGroup() as group:
                group.create_task(awaits(job.future))
                group.create_task(fails())

        with pytest.raises(ExceptionGroup):
            await both()
        assert job.cancels == 1

    async def test_anyio_scope(self, work):
        """An anyio scope that is cancelled cancels the work."""
        job = work("at once")
        with anyio.move_on_after(0.001) as scope:
            await job.future
        assert scope.cancelled_caught
        assert job.cancels == 1

    async def test_anyio_scope_waits_for_the_stop(self, work):
        """Also under an anyio scope, which cancels again and again, the stop is waited for."""
        job = work()
        asyncio.get_running_loop().call_later(0.03, job.stop)
        with anyio.move_on_after(0.001):
            await job.future
        assert job.future.cancelled()

    async def test_asyncio_wait_only_watches(self, work, turns):
        """asyncio.wait only watches: cancelling it leaves the work alone, and it keeps nothing alive."""
        job = work("at once")
        watching = asyncio.ensure_future(asyncio.wait([job.future]))
        await turns()
        watching.cancel()
        await asyncio.wait([watching])
        assert job.cancels == 0
        watching = asyncio.ensure_future(asyncio.wait([job.future]))
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        done, _ = await watching
        assert done == {job.future}
        assert job.cancels == 1

    async def test_nobody_awaits(self, work, turns):
        """A future that nobody awaits, or whose awaiter was thrown away uncancelled, runs to its end."""
        job = work("at once")
        coroutine = awaits(job.future)
        coroutine.send(None)
        coroutine.close()
        await turns()
        assert job.cancels == 0
        assert job.future._awaiters == 0
        job.end(1)
        assert await job.future == 1

    async def test_explicit_cancel_while_awaited(self, work, turns):
        """After cancel(), awaiters learn of it when the stop is confirmed, not before."""
        job = work()
        task = asyncio.ensure_future(job.future)
        await turns()
        job.future.cancel()
        await turns()
        assert not task.done()
        job.stop()
        with pytest.raises(CallCancelledError):
            await task

    async def test_many_awaiters_cancelled_at_once(self, work, turns):
        """Thousands of awaiters that are cancelled together cancel the work once."""
        job = work("at once")
        tasks = [asyncio.ensure_future(job.future) for _ in range(3000)]
        await turns()
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        assert job.cancels == 1
        assert all(task.cancelled() for task in tasks)


class TestExpressions:
    async def test_cancel_leaves_the_operands(self, work, turns):
        """Cancelling an expression cancels the operands that nobody else awaits, and them only."""
        mine, shared = work("at once"), work("at once")
        other = asyncio.ensure_future(shared.future)
        total = mine.future + shared.future
        await turns()
        assert total.cancel()
        with pytest.raises(CallCancelledError):
            await total
        assert total.cancelled()
        assert (mine.cancels, shared.cancels) == (1, 0)
        shared.end(2)
        assert await other == 2

    async def test_cancelled_when_the_operands_have_stopped(self, work, turns):
        """A cancelled expression ends when the operands that it cancelled have stopped."""
        one, two = work(), work()
        total = one.future + two.future
        total.cancel()
        await turns()
        assert (one.cancels, two.cancels) == (1, 1)
        one.stop()
        await turns()
        assert not total.done()
        two.stop()
        await turns()
        assert total.cancelled()

    async def test_operand_fails(self, work, turns):
        """When one operand fails the expression fails at once, and the other operand goes on."""
        one, two = work("at once"), work("at once")
        total = one.future + two.future
        two.fail(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await total
        assert one.cancels == 0
        one.end()

    async def test_operand_is_cancelled(self, work):
        """When an operand is cancelled, so is the expression."""
        one, two = work("at once"), work("at once")
        total = one.future + two.future
        one.future.cancel()
        with pytest.raises(CallCancelledError):
            await total
        assert total.cancelled()
        two.end()

    async def test_same_operand_twice(self, work):
        """The same future on both sides is one operand."""
        job = work("at once")
        total = job.future * job.future
        total.cancel()
        with pytest.raises(CallCancelledError):
            await total
        assert job.cancels == 1

    async def test_cancel_a_long_sum(self, work):
        """Cancelling a sum of a thousand futures needs no deep stack, and cancels each of them."""
        jobs = [work("at once") for _ in range(1000)]
        total = sum(job.future for job in jobs)
        assert isinstance(total, SmartFuture)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(total, 0.001)
        assert {job.cancels for job in jobs} == {1}
        assert total.cancelled()

    async def test_cancelled_after_all_operands_ended(self, work, turns):
        """Cancelling between the last operand's end and the computation still cancels."""
        job = work()
        total = job.future + 1
        job.end(1)
        assert total.cancel()
        await turns()
        assert total.cancelled()
        assert not total.cancel()
