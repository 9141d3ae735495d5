"""wait_any and wait_all: what they yield and give, their options, and what they leave behind."""

from __future__ import annotations

import asyncio

import pytest

from aioparallel._futures.smart import SmartFuture, failed, finished
from aioparallel._futures.waiting import later, wait_all, wait_any
from aioparallel._model.errors import CallCancelledError

BOTH = pytest.mark.parametrize("wait", [wait_any, wait_all], ids=["wait_any", "wait_all"])


async def listed(iterator):
    return [each async for each in iterator]


@pytest.fixture
async def jobs(work):
    """Three pieces of work that stop at once."""
    made = [work("at once") for _ in range(3)]
    yield made
    for job in made:
        job.stop()


def futures_of(jobs):
    return [job.future for job in jobs]


async def values_of(jobs, **options):
    return await wait_all(futures_of(jobs), **options)


class TestIterating:
    async def test_wait_any_order(self, jobs, turns):
        """wait_any yields the same futures in the order in which they end, each once."""
        seen = []
        take = seen.append

        async def consume():
            async for future in wait_any(futures_of(jobs)):
                take(future)

        task = asyncio.ensure_future(consume())
        for index in (2, 0, 1):
            await turns()
            jobs[index].end(index)
        await task
        assert seen == [jobs[2].future, jobs[0].future, jobs[1].future]

    async def test_wait_all_order(self, jobs, turns):
        """wait_all yields in input order, each as soon as it and those before it have ended."""
        seen = []
        take = seen.append

        async def consume():
            async for future in wait_all(futures_of(jobs)):
                take(future)

        task = asyncio.ensure_future(consume())
        jobs[1].end()
        await turns()
        assert seen == []
        jobs[0].end()
        await turns()
        assert seen == futures_of(jobs)[:2]
        jobs[2].end()
        await task
        assert seen == futures_of(jobs)

    @BOTH
    async def test_finished(self, wait):
        """Futures that have ended before are yielded too, in input order."""
        futures = [finished(n) for n in range(5)]
        assert await listed(wait(futures)) == futures

    @BOTH
    async def test_empty(self, wait):
        """Empty input yields nothing."""
        assert await listed(wait([])) == []
        assert await wait_all([]) == []

    @BOTH
    async def test_duplicates(self, wait, jobs):
        """A future that occurs twice is yielded once."""
        future, other = jobs[0].future, finished(1)
        asyncio.get_running_loop().call_soon(jobs[0].end)
        assert await listed(wait([future, other, future, other])) == (
            [other, future] if wait is wait_any else [future, other]
        )

    @BOTH
    async def test_any_iterable(self, wait):
        """Lists, sets, dict views and generators are taken."""
        futures = [finished(1), finished(2)]
        assert set(await listed(wait(set(futures)))) == set(futures)
        assert await listed(wait(future for future in futures)) == futures
        assert await listed(wait(dict.fromkeys(futures).keys())) == futures

    @BOTH
    async def test_other_awaitables(self, wait):
        """Coroutines and other awaitables are wrapped, and yielded as SmartFutures."""

        async def fn(value):
            return value

        coroutine = fn(1)
        inputs = [coroutine, asyncio.ensure_future(fn(2)), finished(3), coroutine]
        yielded = await listed(wait(inputs))
        assert all(type(future) is SmartFuture for future in yielded)
        assert sorted([await future for future in yielded]) == [1, 2, 3]

    @BOTH
    async def test_nonsense(self, wait):
        """What cannot be awaited is refused at once, and so is one future where several are expected."""
        with pytest.raises(TypeError, match=r"futures\[1\]"):
            wait([finished(1), 2])
        with pytest.raises(TypeError, match="several"):
            wait(finished([1]))

    @BOTH
    async def test_failed_are_yielded(self, wait, jobs, complaints):
        """Failed and cancelled futures are yielded; awaiting them raises; iterating alone is not looking."""
        one, two, three = jobs
        one.fail(ValueError("no"))
        two.future.cancel()
        three.fail(ValueError("unseen"))
        yielded = await listed(wait(futures_of(jobs)))
        assert yielded == futures_of(jobs)
        with pytest.raises(ValueError, match="no"):
            await yielded[0]
        with pytest.raises(CallCancelledError):
            await yielded[1]
        del yielded
        for job in (one, two, three):
            job.future = finished(None)
        assert len(complaints()) == 1

    @BOTH
    async def test_only_watches(self, wait, jobs, turns):
        """Iterating only watches: it keeps nothing alive, and cancelling it cancels nothing."""
        task = asyncio.ensure_future(listed(wait(futures_of(jobs))))
        awaiter = asyncio.ensure_future(jobs[0].future)
        await turns()
        awaiter.cancel()
        await asyncio.wait([awaiter])
        assert jobs[0].cancels == 1
        task.cancel()
        await asyncio.wait([task])
        assert [job.cancels for job in jobs] == [1, 0, 0]

    @BOTH
    async def test_no_tasks(self, wait, jobs, turns):
        """Waiting for futures creates no task."""
        task = asyncio.ensure_future(listed(wait(futures_of(jobs))))
        await turns()
        assert asyncio.all_tasks() == {task, asyncio.current_task()}
        for job in jobs:
            job.end()
        await task

    @BOTH
    async def test_goes_on_after_a_cancelled_step(self, wait, jobs):
        """A step that was cancelled loses nothing: the next one goes on where it was."""
        iterator = wait(futures_of(jobs))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(iterator), 0.001)
        for job in jobs:
            job.end()
        assert await listed(iterator) == futures_of(jobs)

    @BOTH
    async def test_after_the_end(self, wait):
        """After the end it stays at its end."""
        iterator = wait([finished(1)])
        await listed(iterator)
        assert await listed(iterator) == []

    @BOTH
    async def test_two_consumers(self, wait, jobs, turns):
        """Two tasks may share an iterator: each future goes to one of them."""
        iterator = wait(futures_of(jobs))
        tasks = [asyncio.ensure_future(listed(iterator)) for _ in range(2)]
        await turns()
        for job in jobs:
            job.end()
            await turns()
        one, two = await asyncio.gather(*tasks)
        assert sorted(one + two, key=id) == sorted(futures_of(jobs), key=id)

    @BOTH
    async def test_break(self, wait, jobs):
        """Leaving early leaves the others running."""
        jobs[0].end()
        async for _ in wait(futures_of(jobs)):
            break
        assert [job.cancels for job in jobs] == [0, 0, 0]


class TestLeavingABlock:
    @BOTH
    async def test_leaves_running(self, wait, jobs):
        """Leaving a block leaves running what has not ended, and watches it no longer."""
        jobs[0].end()
        async with wait(futures_of(jobs)) as finished_ones:
            async for _ in finished_ones:
                break
        assert [job.cancels for job in jobs] == [0, 0, 0]
        assert not jobs[1].future._watchers
        assert await listed(finished_ones) == []

    @BOTH
    async def test_cancel_pending(self, wait, jobs):
        """With cancel_pending, leaving a block cancels what has not ended."""
        jobs[0].end(7)
        async with wait(futures_of(jobs), cancel_pending=True) as finished_ones:
            async for future in finished_ones:
                assert await future == 7
                break
        assert [job.cancels for job in jobs] == [0, 1, 1]

    @BOTH
    async def test_cancel_pending_waits(self, wait, work, turns):
        """It waits until what it cancelled has stopped."""
        job = work()

        async def leave():
            async with wait([job.future], cancel_pending=True):
                pass

        task = asyncio.ensure_future(leave())
        await turns()
        assert job.cancels == 1
        assert not task.done()
        job.stop()
        await task

    @BOTH
    async def test_cancel_pending_without_iterating(self, wait, jobs):
        """Also if nothing was iterated."""
        async with wait(futures_of(jobs), cancel_pending=True):
            pass
        assert [job.cancels for job in jobs] == [1, 1, 1]

    @BOTH
    @pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
    async def test_cancel_pending_on_errors(self, wait, jobs, error):
        """Also if the block is left by an exception, which goes on."""
        with pytest.raises(error):
            async with wait(futures_of(jobs), cancel_pending=True):
                raise error
        assert [job.cancels for job in jobs] == [1, 1, 1]

    @BOTH
    async def test_cancel_pending_even_if_awaited_elsewhere(self, wait, jobs, turns):
        """It cancels for everybody."""
        other = asyncio.ensure_future(jobs[0].future)
        await turns()
        async with wait(futures_of(jobs), cancel_pending=True):
            pass
        with pytest.raises(CallCancelledError):
            await other

    @BOTH
    async def test_cancel_pending_without_a_block(self, wait, jobs, turns):
        """Without a block, cancelling the consumer in a step does it."""
        task = asyncio.ensure_future(listed(wait(futures_of(jobs), cancel_pending=True)))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert [job.cancels for job in jobs] == [1, 1, 1]

    @BOTH
    async def test_cancelled_step_in_a_block(self, wait, jobs):
        """Within a block, a cancelled step cancels nothing yet."""
        async with wait(futures_of(jobs), cancel_pending=True) as finished_ones:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(finished_ones), 0.001)
            assert [job.cancels for job in jobs] == [0, 0, 0]
            jobs[0].end(1)
            assert await (await anext(finished_ones)) == 1
        assert [job.cancels for job in jobs] == [0, 1, 1]

    @BOTH
    async def test_coroutines(self, wait):
        """Wrapped coroutines are cancelled as well."""
        ended = []

        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        async with wait([asyncio.sleep(0), forever()], cancel_pending=True) as finished_ones:
            async for _ in finished_ones:
                break
        assert ended == [1]


class TestTimeout:
    @BOTH
    async def test_deadline(self, wait, jobs):
        """timeout is a deadline for the whole iteration; what has ended is yielded before."""
        jobs[0].end()
        iterator = wait(futures_of(jobs), timeout=0.01)
        assert await anext(iterator) is jobs[0].future
        with pytest.raises(TimeoutError, match=r"0\.01"):
            await anext(iterator)
        assert [job.cancels for job in jobs] == [0, 0, 0]

    @BOTH
    async def test_not_restarted(self, wait, jobs):
        """It is no time for each step."""
        loop = asyncio.get_running_loop()
        for index, job in enumerate(jobs):
            loop.call_later(0.02 * (index + 1), job.end)
        with pytest.raises(TimeoutError):
            await listed(wait(futures_of(jobs), timeout=0.05))
        assert not jobs[2].future.done()

    @BOTH
    async def test_again(self, wait, jobs):
        """After the deadline, each further step that has to wait raises."""
        iterator = wait(futures_of(jobs), timeout=0.001)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await anext(iterator)
        for job in jobs:
            job.end()
        assert await listed(iterator) == futures_of(jobs)

    @BOTH
    async def test_zero(self, wait, jobs):
        """timeout=0 takes what is there."""
        jobs[0].end()
        iterator = wait(futures_of(jobs), timeout=0)
        assert await anext(iterator) is jobs[0].future
        with pytest.raises(TimeoutError):
            await anext(iterator)

    @BOTH
    async def test_in_time(self, wait):
        """If all end in time, nothing happens."""
        assert len(await listed(wait([asyncio.sleep(0), asyncio.sleep(0.001)], timeout=30))) == 2

    @BOTH
    async def test_cancel_pending(self, wait, jobs):
        """With cancel_pending, the deadline cancels what has not ended."""
        with pytest.raises(TimeoutError):
            await listed(wait(futures_of(jobs), timeout=0.001, cancel_pending=True))
        assert [job.cancels for job in jobs] == [1, 1, 1]


class TestCallback:
    @BOTH
    @pytest.mark.parametrize("kind", ["plain", "async"])
    async def test_before_each_yield_and_at_the_end(self, wait, kind):
        """The callback, plain or async, runs before each yield and once at the end."""
        log = []

        async def coroutine():
            await asyncio.sleep(0)
            log.append("callback")

        callback = coroutine if kind == "async" else lambda: log.append("callback")
        iterator = wait([finished(1), finished(2)], callback=callback)
        assert log == []
        for expected in (1, 2):
            await anext(iterator)
            assert log == ["callback"] * expected
        assert await listed(iterator) == []
        assert log == ["callback"] * 3

    @BOTH
    async def test_empty(self, wait):
        """With empty input it runs once."""
        log = []
        iterator = wait([], callback=lambda: log.append(1))
        assert await listed(iterator) == await listed(iterator) == []
        assert log == [1]

    @BOTH
    async def test_heartbeat(self, wait, jobs):
        """With a heartbeat it also runs while there is nothing to yield, and nothing is yielded twice."""
        beats = []

        def callback():
            beats.append(1)
            if len(beats) == 4:
                for job in jobs:
                    job.end()

        assert await listed(wait(futures_of(jobs), heartbeat=0.001, callback=callback)) == futures_of(jobs)
        assert len(beats) == 4 + 3 + 1

    @BOTH
    async def test_heartbeat_without_callback(self, wait):
        """A heartbeat without a callback does nothing."""
        assert len(await listed(wait([asyncio.sleep(0.005)], heartbeat=0.001))) == 1

    @BOTH
    @pytest.mark.parametrize("heartbeat", [0, -1])
    async def test_bad_heartbeat(self, wait, heartbeat):
        """A heartbeat that is not positive is refused."""
        with pytest.raises(ValueError, match="heartbeat"):
            wait([], heartbeat=heartbeat)

    @BOTH
    async def test_heartbeat_and_deadline(self, wait, jobs):
        """The heart beats until the deadline."""
        beats = []
        with pytest.raises(TimeoutError):
            await listed(wait(futures_of(jobs), heartbeat=0.001, callback=lambda: beats.append(1), timeout=0.3))
        assert len(beats) > 3

    @BOTH
    async def test_raising(self, wait, jobs):
        """What the callback raises ends the iteration; with cancel_pending, what has not ended is cancelled."""

        def abort():
            raise RuntimeError("enough")

        for cancel_pending in (False, True):
            with pytest.raises(RuntimeError, match="enough"):
                await listed(wait(futures_of(jobs), heartbeat=0.001, callback=abort, cancel_pending=cancel_pending))
            assert [job.cancels for job in jobs] == [int(cancel_pending)] * 3

    async def test_awaiting_all(self, jobs):
        """await wait_all calls back at each heartbeat and once at the end."""
        beats = []

        def callback():
            beats.append(1)
            if len(beats) == 3:
                for job in jobs:
                    job.end(1)

        assert await wait_all(futures_of(jobs), heartbeat=0.001, callback=callback) == [1, 1, 1]
        assert len(beats) == 4


class TestLogging:
    @BOTH
    async def test_logs_each_failure(self, wait, work, complaints):
        """log_exceptions logs each failure, once, when it is yielded; cancellations are none."""
        job = work("at once")
        job.future.cancel()
        futures = [failed(ValueError("one")), finished(1), failed(ValueError("two")), job.future]
        assert len(await listed(wait(futures, log_exceptions=True))) == 4
        del futures, job
        assert len(complaints()) == 2

    async def test_awaiting_all(self, complaints):
        """await wait_all logs each failure and raises the first."""
        futures = [finished(1), failed(ValueError("one")), failed(ValueError("two"))]
        with pytest.raises(ValueError, match="one"):
            await wait_all(futures, log_exceptions=True)
        del futures
        assert len(complaints()) == 2


class TestAwaitingAll:
    async def test_values(self, jobs):
        """await wait_all gives all values, in input order, however they end."""
        loop = asyncio.get_running_loop()
        for index in (2, 0, 1):
            loop.call_soon(jobs[index].end, index)
        assert await wait_all(futures_of(jobs)) == [0, 1, 2]

    async def test_duplicates(self, jobs):
        """There is one value for each input, also for the same future twice."""
        asyncio.get_running_loop().call_soon(jobs[0].end, 5)
        assert await wait_all([jobs[0].future, finished(6), jobs[0].future]) == [5, 6, 5]

    async def test_again(self):
        """It can be awaited again."""
        waiting = wait_all([finished(1), asyncio.sleep(0, 2)])
        assert await waiting == await waiting == [1, 2]

    async def test_mixed(self):
        """Coroutines and other awaitables are taken."""
        assert await wait_all([asyncio.sleep(0, 1), finished(2), asyncio.ensure_future(asyncio.sleep(0, 3))]) == [
            1,
            2,
            3,
        ]

    async def test_first_failure_in_input_order(self, jobs, turns, complaints):
        """When all have ended, the first failure in input order raises, and all failures count as seen."""
        task = asyncio.ensure_future(values_of(jobs))
        jobs[2].fail(ValueError("last in the input, first in time"))
        await turns()
        assert not task.done()
        jobs[1].fail(ValueError("first in the input"))
        await turns()
        assert not task.done()
        jobs[0].end()
        with pytest.raises(ValueError, match="first in the input"):
            await task
        del task
        for job in jobs:
            job.future = finished(None)
        assert complaints() == []

    async def test_cancelling(self, jobs, turns):
        """Cancelling it takes one awaiter from each: what nobody else awaits is cancelled."""
        other = asyncio.ensure_future(jobs[1].future)
        task = asyncio.ensure_future(values_of(jobs))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert [job.cancels for job in jobs] == [1, 0, 1]
        jobs[1].end(3)
        assert await other == 3

    async def test_keeps_alive(self, jobs, turns):
        """It is an awaiter of each future, from the beginning."""
        task = asyncio.ensure_future(values_of(jobs))
        other = asyncio.ensure_future(jobs[0].future)
        await turns()
        other.cancel()
        await asyncio.wait([other])
        assert jobs[0].cancels == 0
        for job in jobs:
            job.end(1)
        assert await task == [1, 1, 1]

    async def test_cancelling_waits_for_the_stop(self, work, turns):
        """A cancelled wait_all ends when what it cancelled has stopped."""
        made = [work(), work()]
        task = asyncio.ensure_future(values_of(made))
        await turns()
        task.cancel()
        await turns()
        made[0].stop()
        await turns()
        assert not task.done()
        made[1].stop()
        await asyncio.wait([task])
        assert task.cancelled()

    async def test_cancelling_with_cancel_pending(self, jobs, turns):
        """With cancel_pending, cancelling it cancels for everybody."""
        other = asyncio.ensure_future(jobs[1].future)
        task = asyncio.ensure_future(values_of(jobs, cancel_pending=True))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(CallCancelledError):
            await other

    async def test_timeout(self, jobs):
        """At the deadline it raises TimeoutError, and what has not ended goes on without it."""
        with pytest.raises(TimeoutError):
            await wait_all(futures_of(jobs), timeout=0.001)
        assert [job.cancels for job in jobs] == [0, 0, 0]
        assert [job.future._awaiters for job in jobs] == [0, 0, 0]

    async def test_timeout_with_cancel_pending(self, jobs):
        """With cancel_pending, the deadline cancels what has not ended."""
        jobs[0].end()
        with pytest.raises(TimeoutError):
            await wait_all(futures_of(jobs), timeout=0.001, cancel_pending=True)
        assert [job.cancels for job in jobs] == [0, 1, 1]

    async def test_thrown_away(self, jobs, turns):
        """A wait_all that is thrown away uncancelled leaves the work alone."""
        coroutine = wait_all(futures_of(jobs))._values()
        coroutine.send(None)
        coroutine.close()
        await turns()
        assert [job.cancels for job in jobs] == [0, 0, 0]
        assert [job.future._awaiters for job in jobs] == [0, 0, 0]

    async def test_no_task(self, jobs, turns):
        """It creates no task."""
        task = asyncio.ensure_future(values_of(jobs))
        await turns()
        assert asyncio.all_tasks() == {task, asyncio.current_task()}
        task.cancel()
        await asyncio.wait([task])


class TestLater:
    async def test_same(self, jobs):
        """A SmartFuture is returned as it is."""
        assert later(jobs[0].future) is jobs[0].future

    async def test_wraps(self):
        """Anything else that can be awaited is wrapped in a SmartFuture."""
        future = later(asyncio.sleep(0, 4))
        assert type(future) is SmartFuture
        assert await future == 4

    async def test_nonsense(self):
        """What cannot be awaited is refused."""
        with pytest.raises(TypeError, match="awaited"):
            later(4)  # type: ignore[type-var]
