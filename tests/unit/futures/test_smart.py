"""A future on its own: producing, awaiting, asking, callbacks, ``then``, and what Python asks of any object."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import traceback
import weakref

import anyio
import pytest

from aioparallel._futures.smart import SmartFuture, failed, finished, wrapped
from aioparallel._model.errors import CallCancelledError, CallExitedError, NotReadyError, PicklingError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class TestProducing:
    async def test_result(self, work):
        """The first end wins; later ones are refused."""
        job = work()
        assert job.future._set_result(1)
        assert not job.future._set_result(2)
        assert not job.future._set_exception(ValueError())
        assert not job.future._set_cancelled()
        assert await job.future == 1

    async def test_exception(self, work):
        """A failed future raises the very exception that the call raised."""
        job, error = work(), ValueError("no")
        assert job.fail(error)
        assert not job.end(1)
        with pytest.raises(ValueError, match="no") as caught:
            await job.future
        assert caught.value is error

    async def test_cancelled_with_reason(self, work):
        """A cancelled future says why, with a fresh exception each time."""
        job = work()
        assert job.future._set_cancelled("the pool was closed")
        errors = []
        for _ in range(2):
            with pytest.raises(CallCancelledError, match="the pool was closed") as caught:
                await job.future
            errors.append(caught.value)
        assert errors[0] is not errors[1]

    @pytest.mark.parametrize("exit_", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    async def test_exits_are_never_stored(self, exit_):
        """What would end the program or the awaiting coroutine arrives as CallExitedError."""
        with pytest.raises(CallExitedError) as caught:
            await failed(exit_)
        assert caught.value.code == getattr(exit_, "code", None)

    async def test_stop_iteration(self):
        """StopIteration, which no coroutine can raise, arrives as a RuntimeError caused by it."""
        error = StopIteration(1)
        future = failed(error)
        with pytest.raises(RuntimeError) as caught:
            await future
        assert caught.value.__cause__ is error
        assert future.exception() is caught.value

    async def test_cancelled_error_is_never_stored(self):
        """A CancelledError that a call let escape makes the future cancelled: it must not end the awaiter silently."""
        future = failed(asyncio.CancelledError())
        assert future.cancelled()
        with pytest.raises(CallCancelledError):
            await future

    async def test_ids_grow(self):
        """A later future has a larger id."""
        assert finished(1).id < finished(1).id

    def test_without_a_loop(self):
        """A finished future works where there is no event loop."""
        future = finished(20)
        assert future.result() == 20
        assert future.exception() is None
        assert (future + 1).result() == 21
        assert future.then(lambda v: v * 2).result() == 40
        seen = []
        future.add_done_callback(seen.append)
        assert seen == [future]
        assert not future.cancel()

    def test_failed_without_a_loop(self):
        """A failed future works where there is no event loop."""
        future = failed(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            future.result()
        with pytest.raises(ValueError, match="no"):
            future.then(str).result()
        with pytest.raises(ValueError, match="no"):
            (1 + future).result()

    def test_async_then_without_a_loop(self):
        """An async function cannot follow where no loop runs; the new future says so."""

        async def fn(value):
            return value

        with pytest.raises(RuntimeError, match="no running event loop"):
            finished(1).then(fn).result()


class TestAwaiting:
    async def test_many_awaiters(self, work):
        """Any number of tasks may await the same future, before and after its end."""
        job = work()
        tasks = asyncio.gather(*[asyncio.ensure_future(job.future) for _ in range(3)])
        asyncio.get_running_loop().call_soon(job.end, 5)
        assert await tasks == [5, 5, 5]
        assert await job.future == 5

    async def test_asyncio_helpers(self, work, turns):
        """gather, wait, wait_for, timeout, shield and anyio scopes take it."""
        loop = asyncio.get_running_loop()

        def soon():
            job = work()
            loop.call_soon(job.end, 7)
            return job.future

        assert await asyncio.gather(soon(), soon()) == [7, 7]
        assert await asyncio.wait_for(soon(), 10) == 7
        assert await asyncio.shield(soon()) == 7
        async with asyncio.timeout(10):
            assert await soon() == 7
        with anyio.fail_after(10):
            assert await soon() == 7
        assert await asyncio.wait_for(finished(7), 10) == 7
        futures = {soon(), soon(), finished(7)}
        done, pending = await asyncio.wait(futures)
        assert (done, pending) == (futures, set())

    async def test_gather_same_twice(self, work):
        """gather takes the same future twice."""
        job = work()
        asyncio.get_running_loop().call_soon(job.end, 7)
        assert await asyncio.gather(job.future, job.future) == [7, 7]

    async def test_asyncio_wait_first(self, work):
        """asyncio.wait returns those that have ended, and leaves no callback on the others."""
        one, two = work(), work()
        asyncio.get_running_loop().call_soon(one.end)
        done, pending = await asyncio.wait([one.future, two.future], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({one.future}, {two.future})
        assert not two.future._watchers

    async def test_asyncio_wait_first_exception(self, work):
        """asyncio.wait notices a failure."""
        one, two = work(), work()
        asyncio.get_running_loop().call_soon(one.fail, ValueError())
        done, _ = await asyncio.wait([one.future, two.future], return_when=asyncio.FIRST_EXCEPTION)
        assert done == {one.future}

    async def test_as_completed(self, work):
        """asyncio.as_completed takes it."""
        one, two = work(), work()
        loop = asyncio.get_running_loop()
        loop.call_soon(two.end, 2)
        loop.call_later(0.01, one.end, 1)
        assert [await each for each in asyncio.as_completed([one.future, two.future])] == [2, 1]

    async def test_is_no_asyncio_future(self):
        """asyncio must wrap it rather than take it for one of its own."""
        assert not asyncio.isfuture(finished(1))
        assert not asyncio.iscoroutine(finished(1))

    async def test_traceback_does_not_grow(self):
        """Awaiting a failure again and again shows the same traceback each time."""

        def raises():
            raise ValueError("no")

        future = finished(1)._compute(lambda _: raises(), (finished(1),))
        sizes = set()
        for _ in range(4):
            with pytest.raises(ValueError, match="no") as caught:
                await future
            sizes.add(len(traceback.extract_tb(caught.value.__traceback__)))
            assert "raises" in {frame.name for frame in traceback.extract_tb(caught.value.__traceback__)}
        assert len(sizes) == 1

    async def test_result_has_no_cycle(self, work):
        """A future that has failed and was awaited is freed without the garbage collector."""

        async def look(job):
            try:
                await job.future
            except ValueError:
                return weakref.ref(job.future)

        job = work()
        asyncio.get_running_loop().call_soon(job.fail, ValueError())
        gc.collect()
        gc.disable()
        try:
            reference = await look(job)
            job.future = None
            assert reference() is None
        finally:
            gc.enable()


class TestAsking:
    async def test_before_the_end(self, work):
        """Before the end it is not done, and asking for the result on a loop raises instead of blocking."""
        job = work()
        assert not job.future.done()
        assert not job.future.is_ready()
        assert not job.future.cancelled()
        for ask in (job.future.result, job.future.exception):
            with pytest.raises(NotReadyError, match="await it first"):
                ask()
            with pytest.raises(NotReadyError, match="await it first"):
                ask(timeout=0)
        job.stop()

    async def test_after_success(self):
        """After success, result gives the value and exception None."""
        future = finished(3)
        assert future.done()
        assert future.is_ready()
        assert not future.cancelled()
        assert (future.result(), future.exception()) == (3, None)

    async def test_after_failure(self):
        """After a failure, result raises it and exception returns it."""
        error = ValueError("no")
        future = failed(error)
        assert future.done()
        assert not future.cancelled()
        assert future.exception() is error
        with pytest.raises(ValueError, match="no"):
            future.result()

    async def test_after_cancellation(self, work):
        """After cancellation, result raises CallCancelledError and exception returns one."""
        job = work()
        job.stop()
        assert job.future.done()
        assert job.future.cancelled()
        assert isinstance(job.future.exception(), CallCancelledError)
        with pytest.raises(CallCancelledError):
            job.future.result()

    async def test_info(self, work):
        """info is the source's record, but the end that the future has seen is what it says."""
        job = work()
        assert (job.future.info.state, job.future.info.worker, job.future.info.attempts) == ("running", "w1", 1)
        job.end()
        assert (job.future.info.state, job.future.info.worker) == ("done", "w1")
        assert finished(1).info.state == "done"
        bad = failed(ValueError())
        assert bad.info.state == "failed"
        bad.exception()
        stopped = work()
        stopped.stop()
        assert stopped.future.info.state == "cancelled"
        assert SmartFuture(None, asyncio.get_running_loop()).info.state == "waiting"


class TestIdentity:
    async def test_equality_and_hash(self, work):
        """Storing, hashing and comparing with == never wait: they are identity."""
        job = work()
        assert job.future == job.future
        assert job.future != finished(1)
        assert finished(5) != 5
        assert job.future in {job.future: 1}
        assert job.future in [finished(1), job.future]
        assert len({job.future, job.future, finished(1)}) == 2
        assert hash(job.future) == hash(job.future)

    async def test_repr(self, work):
        """repr shows the number, the function's name and the state, and never waits."""
        job = work(name="crunch")
        assert repr(job.future) == f"<SmartFuture #{job.future.id} crunch: running>"
        job.future.cancel()
        assert repr(job.future).endswith("crunch: cancelling>")
        job.stop()
        assert repr(job.future).endswith("crunch: cancelled>")
        assert repr(finished([1] * 1000)).endswith(" done>")

    async def test_repr_of_a_broken_source(self, work, monkeypatch, complaints):
        """repr and the log work while the executor does not."""
        job = work()
        monkeypatch.setattr(job, "info", lambda: 1 / 0)
        assert repr(job.future) == f"<SmartFuture #{job.future.id} pending>"
        job.fail(ValueError())
        assert repr(job.future) == f"<SmartFuture #{job.future.id} failed>"
        del job.future
        assert len(complaints()) == 1

    @pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
    async def test_no_copies(self, attempt):
        """It cannot be pickled or copied; the error says what to do."""
        with pytest.raises(PicklingError, match="await it first"):
            attempt(finished(1))

    def test_generic(self):
        """SmartFuture[int] works at run time."""
        assert SmartFuture[int].__origin__ is SmartFuture

    async def test_weak_references(self):
        """It can be referred to weakly, like other futures."""
        future = finished(1)
        assert weakref.ref(future)() is future


class TestCancel:
    async def test_asks_the_source(self, work):
        """cancel asks for the stop; the future is done when that is confirmed."""
        job = work()
        assert job.future.cancel()
        assert job.cancels == 1
        assert not job.future.done()
        job.stop()
        assert job.future.cancelled()

    async def test_again(self, work):
        """Repeated calls are harmless."""
        job = work()
        assert job.future.cancel()
        assert job.future.cancel()
        assert job.cancels == 1
        job.stop()
        assert not job.future.cancel()

    async def test_too_late(self, work):
        """A settled future, or one whose work says it has ended, is not cancelled."""
        assert not finished(1).cancel()
        job = work("never")
        assert not job.future.cancel()
        job.end(4)
        assert await job.future == 4

    async def test_without_source(self):
        """A future with nothing behind it is cancelled at once."""
        future = SmartFuture(None, asyncio.get_running_loop())
        assert future.cancel()
        assert future.cancelled()

    @pytest.mark.parametrize("late", [lambda f: f._set_result(1), lambda f: f._set_exception(ValueError())])
    async def test_late_end(self, work, late, complaints):
        """Once a cancellation was accepted, whatever comes settles the future as cancelled."""
        job = work()
        job.future.cancel()
        assert late(job.future)
        assert job.future.cancelled()
        assert not late(job.future)
        with pytest.raises(CallCancelledError):
            await job.future
        assert complaints() == []

    async def test_everybody_sees_it(self, work, turns):
        """cancel is for everybody: all awaiters get CallCancelledError, never asyncio.CancelledError."""
        job = work("at once")
        tasks = [asyncio.ensure_future(job.future) for _ in range(2)]
        await turns()
        job.future.cancel()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [CallCancelledError] * 2

    async def test_source_that_cancels_its_future(self, work, monkeypatch):
        """A source may cancel the future again while it is being asked to stop."""
        job = work("at once")
        ask = job.cancel
        monkeypatch.setattr(job, "cancel", lambda: job.future.cancel() and ask())
        assert job.future.cancel()
        assert job.cancels == 1

    async def test_source_that_raises(self, work, monkeypatch):
        """If the source cannot even be asked, the future can still end as it would have."""
        job = work()
        monkeypatch.setattr(job, "cancel", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            job.future.cancel()
        job.end(2)
        assert await job.future == 2


class TestCallbacks:
    async def test_called_later_on_the_loop(self, work, turns):
        """A callback is called with the future, in a later turn of the loop."""
        job, seen = work(), []
        job.future.add_done_callback(seen.append)
        job.end()
        assert seen == []
        await turns()
        assert seen == [job.future]

    async def test_after_the_end(self, turns):
        """Added after the end, a callback is called all the same."""
        future, seen = finished(1, asyncio.get_running_loop()), []
        future.add_done_callback(seen.append)
        assert seen == []
        await turns()
        assert seen == [future]

    async def test_twice(self, work, turns):
        """A callback that was added twice is called twice, and removing it removes both."""
        job, seen = work(), []
        job.future.add_done_callback(seen.append)
        job.future.add_done_callback(seen.append)
        job.end()
        await turns()
        assert len(seen) == 2
        job = work()
        job.future.add_done_callback(seen.append)
        job.future.add_done_callback(seen.append)
        assert job.future.remove_done_callback(seen.append) == 2
        assert job.future.remove_done_callback(seen.append) == 0
        job.end()
        await turns()
        assert len(seen) == 2

    async def test_context(self, work, turns):
        """A callback runs in the context in which it was added, or in the one that is given."""
        job, seen = work(), []
        variable.set("adder")
        job.future.add_done_callback(lambda _: seen.append(variable.get()))
        job.future.add_done_callback(lambda _: seen.append(variable.get()), context=contextvars.Context())
        variable.set("later")
        job.end()
        await turns()
        assert seen == ["adder", "unset"]

    async def test_failure_is_logged(self, work, turns, complaints):
        """What a callback raises is logged, and the others are called."""
        job, seen = work(), []
        job.future.add_done_callback(lambda _: 1 / 0)
        job.future.add_done_callback(seen.append)
        job.end()
        await turns()
        assert seen == [job.future]
        (text,) = complaints()
        assert "callback" in text
        assert repr(job.future) in text

    def test_failure_is_logged_without_a_loop(self, complaints):
        """The same where there is no loop: it does not reach who settles the future."""
        finished(1).add_done_callback(lambda _: 1 / 0)
        assert len(complaints()) == 1

    async def test_only_watch(self, work, turns):
        """A callback keeps nothing from being cancelled."""
        job = work("at once")
        job.future.add_done_callback(lambda _: None)
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert job.cancels == 1


class TestThen:
    async def test_plain(self, work):
        """then gives a future of the function's result."""
        job = work()
        asyncio.get_running_loop().call_soon(job.end, 3)
        derived = job.future.then(lambda value: value * 2)
        assert isinstance(derived, SmartFuture)
        assert await derived == 6
        assert await derived.then(str) == "6"

    async def test_async(self):
        """An async function is awaited."""

        async def double(value):
            await asyncio.sleep(0)
            return value * 2

        assert await finished(3, asyncio.get_running_loop()).then(double) == 6

    async def test_future_in_between(self, work):
        """A future that the function returns is awaited too."""
        inner = work()
        asyncio.get_running_loop().call_later(0.01, inner.end, 9)
        assert await finished(3).then(lambda _: inner.future) == 9

    async def test_not_within_the_settling_call(self, work):
        """The function runs in a later turn of the loop, not inside the executor that settles the future."""
        job, seen = work(), []
        derived = job.future.then(seen.append)
        job.end(1)
        assert seen == []
        await derived
        assert seen == [1]

    @pytest.mark.parametrize("make", ["plain", "async"])
    async def test_function_fails(self, make):
        """What the function raises is raised by the new future."""

        def plain(value):
            raise ValueError(value)

        async def coroutine(value):
            plain(value)

        with pytest.raises(ValueError, match="3"):
            await finished(3).then(plain if make == "plain" else coroutine)

    @pytest.mark.parametrize("make", ["plain", "async"])
    async def test_function_exits(self, make):
        """sys.exit in the function does not end the loop."""

        def plain(value):
            raise SystemExit(value)

        async def coroutine(value):
            plain(value)

        with pytest.raises(CallExitedError) as caught:
            await finished(3).then(plain if make == "plain" else coroutine)
        assert caught.value.code == 3

    async def test_source_fails(self, work, complaints):
        """A failure passes through, the function is not called, and seeing it once is seeing it."""
        job, seen = work(), []
        derived = job.future.then(seen.append)
        error = ValueError("no")
        job.fail(error)
        with pytest.raises(ValueError, match="no") as caught:
            await derived
        assert caught.value is error
        assert seen == []
        del caught, error, derived, job
        assert complaints() == []

    async def test_source_fails_unseen(self, work, turns, complaints):
        """A failure that passed through and that nobody saw is logged once, not once for each future."""
        job = work()
        derived = [job.future.then(str), job.future.then(str)]
        job.fail(ValueError("no"))
        await turns()
        del derived, job
        assert len(complaints()) == 1

    async def test_source_cancelled(self, work):
        """If the source is cancelled, so is the new future."""
        job = work("at once")
        derived = job.future.then(str)
        job.future.cancel()
        with pytest.raises(CallCancelledError):
            await derived
        assert derived.cancelled()

    async def test_cancel_derived(self, work, turns):
        """then only watches: cancelling the new future leaves the source alone, and the function is not called."""
        job, seen = work(), []
        derived = job.future.then(seen.append)
        assert derived.cancel()
        assert derived.cancelled()
        assert job.cancels == 0
        job.end(1)
        await turns()
        assert seen == []

    async def test_watcher_does_not_keep_alive(self, work, turns):
        """An awaiter of the new future is none of the source: the source's last awaiter cancels it."""
        job = work("at once")
        derived = job.future.then(str)
        other = asyncio.ensure_future(derived)
        task = asyncio.ensure_future(job.future)
        await turns()
        task.cancel()
        await asyncio.wait([task, other])
        assert job.cancels == 1
        assert isinstance(other.exception(), CallCancelledError)

    async def test_cancel_running_function(self, turns):
        """Cancelling the new future while its async function runs stops that, and then it is cancelled."""
        begun, ended = asyncio.Event(), []

        async def fn(value):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(value)

        derived = finished(1).then(fn)
        await begun.wait()
        assert derived.cancel()
        assert not derived.done()
        with pytest.raises(CallCancelledError):
            await derived
        assert ended == [1]

    @pytest.mark.parametrize("make", ["plain", "async"])
    async def test_context(self, work, make):
        """The function sees the contextvars of who called then."""

        async def coroutine(_):
            return variable.get()

        job = work()
        variable.set("caller")
        derived = job.future.then(coroutine if make == "async" else lambda _: variable.get())
        variable.set("later")
        contextvars.Context().run(job.end)
        assert await derived == "caller"

    async def test_long_chain(self, work):
        """A chain of thousands of futures needs no deep stack, not even when it fails."""
        for end in ("end", "fail", "stop"):
            job = work()
            future = job.future
            for _ in range(5000):
                future = future.then(lambda value: value + 1)
            if end == "end":
                job.end(0)
                assert await future == 5000
            else:
                job.fail(ValueError()) if end == "fail" else job.stop()
                with pytest.raises(ValueError if end == "fail" else CallCancelledError):
                    await future


class TestUnseenFailures:
    async def test_logged_once(self, work, complaints):
        """A failure that nobody saw is logged once, with its traceback, when the future is dropped."""
        job = work(name="crunch")
        number = job.future.id
        job.fail(ValueError("the reason"))
        assert complaints() == []
        del job
        (text,) = complaints()
        assert f"#{number}" in text
        assert "crunch" in text
        assert len(complaints()) == 1

    async def test_log_has_the_exception(self, caplog, complaints):
        """The log record carries the exception."""
        error = ValueError("the reason")
        failed(error)
        complaints()
        (record,) = [record for record in caplog.records if record.name == "aioparallel"]
        assert record.exc_info[1] is error

    async def look(self, future, how):
        if how == "await":
            await future
        elif how == "gather":
            await asyncio.gather(future)
        elif how == "result":
            future.result()
        elif how == "bool":
            bool(future)
        else:
            await (future + 1)

    @pytest.mark.parametrize("see", ["await", "result", "exception", "bool", "expression", "gather"])
    async def test_seen(self, work, see, complaints):
        """Whoever awaits it or asks for it has seen it."""
        job = work()
        job.fail(ValueError("no"))
        if see == "exception":
            job.future.exception()
        else:
            with pytest.raises(ValueError, match="no"):
                await self.look(job.future, see)
        del job
        assert complaints() == []

    async def test_seen_by_an_awaiter_that_waited(self, work, complaints):
        """The same for who waited for it."""
        job = work()
        asyncio.get_running_loop().call_soon(job.fail, ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await job.future
        del job
        assert complaints() == []

    async def test_cancelled_is_no_failure(self, work, complaints):
        """A cancelled future complains to nobody, nor do those that depended on it."""
        job = work("at once")
        derived = [job.future + 1, job.future.then(str)]
        job.future.cancel()
        await asyncio.wait(derived)
        del job, derived
        assert complaints() == []

    async def test_call_that_met_a_cancelled_one(self, complaints):
        """A call that failed because another was cancelled complains no more than that one."""
        failed(CallCancelledError("the call was cancelled"))
        assert complaints() == []


class TestWrapped:
    async def test_same(self, work):
        """A SmartFuture is returned as it is."""
        job = work()
        assert wrapped(job.future) is job.future
        job.stop()

    async def test_coroutine(self):
        """A coroutine becomes a future."""

        async def fn():
            return 4

        assert await wrapped(fn()) == 4

    async def test_nonsense(self):
        """What cannot be awaited is refused."""
        with pytest.raises(TypeError, match="awaited"):
            wrapped(3)  # type: ignore[type-var]
