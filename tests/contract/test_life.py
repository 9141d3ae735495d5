"""Opening and closing: from any task, run and loop, twice, in the middle of work, and again."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import anyio
import pytest

from aioparallel import CallCancelledError, ExecutorClosedError, SmartFuture, wait_all
from tests.contract import jobs
from tests.contract.kinds import Kind, every
from tests.tools import Gate, Log, hold, is_alive, until, wait_for


def later(kind: Kind) -> bool:
    return kind.later


def assert_ended(kind: Kind, gate: Gate) -> None:
    """The processes that had come to the gate are gone."""
    if not kind.confirms:
        wait_for(lambda: not any(map(is_alive, gate.entered)))
    assert not any(map(is_alive, gate.entered))


@every()
async def test_start_and_close(kind: Kind) -> None:
    """``start`` returns the executor; to start an open one and to close a closed one does nothing."""
    pool = kind.make()
    await pool.aclose()
    assert await pool.start() is pool
    call = pool.submit(kind.fit(jobs.add), 1, 2)
    assert await pool.start() is pool
    assert await call == 3
    await pool.aclose()
    await pool.aclose()
    assert "closed" in repr(pool)


@every()
async def test_started_from_several_tasks(kind: Kind) -> None:
    """Several tasks may start the same executor at once: it is opened once, and all of them may use it."""
    pool = kind.make()

    async def use(n: int) -> Any:
        await pool.start()
        return await pool.submit(kind.fit(jobs.add), n, 1)

    assert await asyncio.gather(*map(use, range(5))) == [1, 2, 3, 4, 5]
    await asyncio.gather(*(pool.aclose() for _ in range(5)))


@every()
async def test_opened_and_closed_by_different_tasks(kind: Kind) -> None:
    """An executor may be opened by one task, used by another and closed by a third."""
    pool = kind.make()

    async def use() -> Any:
        return await pool.submit(kind.fit(jobs.add), 1, 2)

    await asyncio.create_task(pool.start())
    assert await asyncio.create_task(use()) == 3
    await asyncio.create_task(pool.aclose())


@every(lambda kind: kind.stays)
def test_opened_and_closed_in_different_runs(kind: Kind) -> None:
    """An executor that is opened in one ``run`` of a loop, as by a notebook cell, works in the next ones."""
    pool = kind.make()

    async def call() -> Any:
        return await pool.submit(kind.fit(jobs.add), 1, 2)

    async def call_and_forget() -> SmartFuture[Any]:
        return pool.submit(kind.fit(jobs.add), 3, 4)

    async def look(future: SmartFuture[Any]) -> Any:
        return await future

    with asyncio.Runner() as runner:
        runner.run(pool.start())
        assert runner.run(call()) == 3
        future = runner.run(call_and_forget())
        assert runner.run(look(future)) == 7
        runner.run(pool.aclose())


@every()
def test_reused_on_another_loop(kind: Kind) -> None:
    """A closed executor may be opened again, also on another loop."""
    pool = kind.make()

    async def use(x: int) -> Any:
        async with pool:
            return await pool.submit(kind.fit(jobs.add), x, 1)

    assert [asyncio.run(use(x)) for x in range(3)] == [1, 2, 3]


@every()
def test_left_open(kind: Kind) -> None:
    """An executor that is left open ends with its loop, and may be opened again on the next one."""
    pool = kind.make()

    async def use(x: int) -> Any:
        await pool.start()
        return await pool.submit(kind.fit(jobs.add), x, 1)

    assert [asyncio.run(use(x)) for x in range(2)] == [1, 2]
    assert "closed" in repr(pool)


@every(later)
def test_left_open_with_calls(kind: Kind, tmp_path: Any) -> None:
    """A loop that shuts down stops the calls of executors that were left open, and settles every future, at once."""
    gate = Gate(str(tmp_path / "gate"))
    pool = kind.make(1, grace=90)

    async def leave() -> list[SmartFuture[Any]]:
        await pool.start()
        calls = [pool.submit(kind.fit(hold), gate) for _ in range(3)]
        await until(lambda: gate.entered)
        if not kind.stops:
            gate.open()
        return calls

    calls = asyncio.run(leave())
    assert all(call.done() for call in calls)
    gate.open()
    if kind.stops:
        assert all(call.cancelled() for call in calls)
        assert not gate.left
    if kind.separate:
        assert_ended(kind, gate)


@pytest.fixture(scope="module")
def pools() -> dict[str, Any]:
    """Executors that live as long as the module, as the globals of a program do."""
    return {}


@every()
@pytest.mark.parametrize("test", [1, 2, 3])
async def test_global_executor_with_a_loop_for_each_test(kind: Kind, pools: dict[str, Any], test: int) -> None:
    """An executor that is a global variable works in one test after the other, each of which has its own loop."""
    pool = pools.setdefault(kind.name, kind.make())
    async with pool:
        assert await pool.submit(kind.fit(jobs.add), test, 1) == test + 1


@every()
@pytest.mark.leak_check(fds=False)  # uvloop keeps descriptors for the next loop
def test_uvloop(kind: Kind) -> None:
    """Executors work on uvloop as they do on asyncio's own loops."""
    uvloop = pytest.importorskip("uvloop")

    async def use() -> Any:
        async with kind.make() as pool:
            return await wait_all([pool.submit(kind.fit(jobs.add), n, 1) for n in range(100)])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use()) == list(range(1, 101))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@every()
def test_eager_tasks(kind: Kind) -> None:
    """Executors and maps work where tasks begin in the moment in which they are made, and cancellation does."""

    async def use() -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with kind.make() as pool:
            slow = pool.submit(kind.fit(jobs.add), "x", "y")
            with anyio.move_on_after(0):
                await asyncio.ensure_future(slow)
            await asyncio.wait([slow])
            values = await wait_all([pool.submit(kind.fit(jobs.add), n, 1) for n in range(20)])
            return values + [result async for result in pool.map(kind.fit(jobs.same), range(20))]

    with asyncio.Runner() as runner:
        assert runner.run(use()) == [*range(1, 21), *range(20)]


# Not open


@every()
@pytest.mark.parametrize("before", ["never opened", "closed"])
async def test_submit_needs_an_open_executor(kind: Kind, before: str) -> None:
    """``submit`` on an executor that is not open raises an error that says how to open one."""
    pool = kind.make()
    if before == "closed":
        await pool.start()
        await pool.aclose()
    with pytest.raises(ExecutorClosedError, match=r"async with \w+\(\.\.\.\).*start\(\)"):
        pool.submit(kind.fit(jobs.add), 1, 2)
    with pytest.raises(ExecutorClosedError):
        await pool.submit_wait(kind.fit(jobs.add), 1, 2)
    with pytest.raises(ExecutorClosedError):
        pool.options(priority=1).submit(kind.fit(jobs.add), 1, 2)


@every(later)
async def test_submit_while_closing(kind: Kind, gate: Gate) -> None:
    """While an executor closes it takes no more calls, and ends those it has."""
    pool = await kind.make(1).start()
    calls = [pool.submit(kind.fit(hold), gate, n) for n in range(3)]
    closing = asyncio.ensure_future(pool.aclose())
    await until(lambda: gate.entered)
    with pytest.raises(ExecutorClosedError, match="is closing: it ends what it has, and takes nothing new"):
        pool.submit(kind.fit(jobs.add), 1, 2)
    with pytest.raises(ExecutorClosedError, match="closing"):
        await pool.start()
    assert not closing.done()
    gate.open()
    await closing
    assert [call.result() for call in calls] == [0, 1, 2]


@every(later)
async def test_submit_wait_while_closing(kind: Kind, gate: Gate) -> None:
    """Who waits for room in an executor that closes is told that it is closed."""
    pool = await kind.make(1, max_pending=1).start()
    calls = [pool.submit(kind.fit(hold), gate)]
    await until(lambda: gate.entered)
    calls.append(pool.submit(kind.fit(hold), gate))
    submitting = asyncio.ensure_future(pool.submit_wait(kind.fit(jobs.add), 1, 2))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(pool.aclose())
    with pytest.raises(ExecutorClosedError):
        await submitting
    gate.open()
    await closing
    assert all(call.done() and not call.cancelled() for call in calls)


@every()
async def test_open_on_another_loop(kind: Kind, pool: Any) -> None:
    """An executor that is open on one loop cannot be opened on another meanwhile; the error says what to do."""

    async def start() -> None:
        await pool.start()

    with pytest.raises(ExecutorClosedError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, start())
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


# Ends


@every(later)
async def test_leaving_waits_for_what_was_submitted(kind: Kind, log: Log) -> None:
    """Leaving an executor waits until every call has ended, those that wait for other calls included."""
    async with kind.make(1) as pool:
        first = pool.submit(kind.fit(jobs.write), log, 0)
        for n in range(1, 20):
            first = pool.submit(kind.fit(jobs.describe), first, log, n).then(lambda value: value[0][2])
        last = pool.submit(kind.fit(jobs.write), log, pool.submit(kind.fit(jobs.same), 20))
    assert log.lines == ["0", "20"]
    assert await last == 20


@every(lambda kind: kind.later and kind.stops)
@pytest.mark.parametrize("how", ["exception", "cancellation", "drain=False"])
async def test_leaving_early_stops_everything(kind: Kind, gate: Gate, log: Log, how: str) -> None:
    """Leaving by an exception or a cancellation, and ``aclose(drain=False)``, cancel what is left and wait for its end."""
    pool = kind.make(1)
    calls: list[SmartFuture[Any]] = []

    async def work() -> None:
        async with pool:
            calls.append(pool.submit(kind.fit(hold), gate))
            calls.append(pool.submit(kind.fit(jobs.write), log, calls[0]))
            calls.append(pool.submit(kind.fit(jobs.write), log, "queued"))
            await until(lambda: gate.entered)
            if how == "exception":
                raise LookupError("the body failed")
            if how == "drain=False":
                await pool.aclose(drain=False)
            else:
                await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await until(lambda: gate.entered)
    if how == "cancellation":
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() == (how == "cancellation")
    assert how != "exception" or isinstance(task.exception(), LookupError)
    assert all(call.done() for call in calls)
    with pytest.raises(CallCancelledError):
        await calls[0]
    gate.open()
    assert not log.lines
    assert not gate.left
    if kind.separate:
        assert_ended(kind, gate)


@every(lambda kind: kind.later and kind.stops)
async def test_close_that_is_cancelled(kind: Kind, gate: Gate) -> None:
    """To cancel a close that waits for calls cancels them, and ends when they have stopped."""
    pool = await kind.make(1).start()
    calls = [pool.submit(kind.fit(hold), gate) for _ in range(3)]
    await until(lambda: gate.entered)
    closing = asyncio.ensure_future(pool.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert all(call.cancelled() for call in calls)
    if kind.separate:
        assert_ended(kind, gate)
    gate.open()
    assert not gate.left
    with pytest.raises(ExecutorClosedError):
        pool.submit(kind.fit(jobs.add), 1, 2)


@every(lambda kind: kind.later and kind.stops)
async def test_close_that_is_hurried(kind: Kind, gate: Gate) -> None:
    """``aclose(drain=False)`` also ends a close that is waiting for calls."""
    pool = await kind.make(1).start()
    call = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    closing = asyncio.ensure_future(pool.aclose())
    await asyncio.sleep(0)
    await pool.aclose(drain=False)
    await closing
    assert call.cancelled()


@every()
async def test_error_in_the_body_is_what_arrives(kind: Kind) -> None:
    """The exception that leaves ``async with`` is the one of its body, as it is."""
    error = LookupError("the body failed")
    with pytest.raises(LookupError) as caught:
        async with kind.make():
            raise error
    assert caught.value is error


@every()
async def test_future_outlives_its_executor(kind: Kind) -> None:
    """A future that has ended keeps its value and says how it was, after its executor and all its workers are gone."""
    async with kind.make() as pool:
        call = pool.submit(kind.fit(jobs.add), 1, 2)
    assert await call == 3
    assert call.info.state == "done"
    assert call.info.worker is not None
    assert "done" in repr(call)


# How it stands


@every(later)
async def test_shutdown_if_idle(kind: Kind, gate: Gate) -> None:
    """``shutdown_if_idle`` closes an executor that has nothing to do, leaves any other alone, and says which it was."""
    pool = await kind.make(1).start()
    call = pool.submit(kind.fit(hold), gate)
    dependent = pool.submit(kind.fit(jobs.same), call)
    assert not await pool.shutdown_if_idle()
    gate.open()
    await dependent
    assert await pool.shutdown_if_idle()
    with pytest.raises(ExecutorClosedError):
        pool.submit(kind.fit(jobs.add), 1, 2)
    assert await pool.shutdown_if_idle(), "it is closed already"


@every(lambda kind: kind.pickles)
async def test_failed_submission_leaves_nothing_behind(kind: Kind) -> None:
    """A call that could not be pickled is not counted, so the executor is still idle and can be closed."""
    pool = await kind.make().start()
    with pytest.raises(Exception, match="lock"):
        pool.submit(jobs.same, threading.Lock())
    assert pool.task_count == 0
    assert await pool.shutdown_if_idle()


@every(later)
async def test_status(kind: Kind, opened: Any, gate: Gate) -> None:
    """``status``, ``task_count`` and ``repr`` say how many calls there are, and where, and only look."""
    pool = await opened(2, name="numbers")
    assert (pool.task_count, pool.status().done) == (0, 0)
    calls = [pool.submit(kind.fit(hold), gate) for _ in range(5)]
    waiting = pool.submit(kind.fit(jobs.same), calls[0])
    await until(lambda: len(gate.entered) == 2)
    await until(lambda: pool.status().running == 2)
    status = pool.status()
    assert (status.name, status.queued, status.done) == ("numbers", 4, 0)
    assert status.workers >= 1
    assert pool.task_count == 6
    assert repr(pool).startswith(f"<{type(pool).__name__} 'numbers' workers=")
    assert "queued=4 running=2 done=0" in repr(pool)
    failing = pool.submit(kind.fit(jobs.fail))
    gate.open()
    await wait_all([*calls, waiting])
    await asyncio.wait([failing])
    assert failing.exception()
    status = pool.status()
    assert (status.queued, status.running, status.done, status.failed) == (0, 0, 6, 1)
    assert pool.task_count == 0
    assert status.p50 is not None
    assert status.p95 is not None
    assert 0 <= status.p50 <= status.p95 < 60
    with pytest.raises(AttributeError):
        status.done = 7


@every()
async def test_status_of_a_closed_executor(kind: Kind) -> None:
    """An executor that is not open can be looked at too."""
    pool = kind.make(name="shut")
    status = pool.status()
    assert (status.name, status.workers, status.queued, status.running) == ("shut", 0, 0, 0)
    assert pool.task_count == 0
    assert repr(pool) == f"<{type(pool).__name__} 'shut' closed>"


# Several executors, threads and loops


@every()
async def test_two_executors(kind: Kind, opened: Any) -> None:
    """Two executors of one kind do not disturb each other, and take each other's futures as arguments."""
    one, two = await opened(), await opened()
    assert await two.submit(kind.fit(jobs.add), one.submit(kind.fit(jobs.same), 1), 2) == 3
    await one.aclose()
    assert await two.submit(kind.fit(jobs.add), 2, 2) == 4


@every()
async def test_submit_from_threads(kind: Kind, pool: Any) -> None:
    """Any thread may submit, also with futures as arguments; calls with different functions do not mix."""
    calls: dict[tuple[int, int], SmartFuture[Any]] = {}

    def submit(thread: int) -> None:
        for n in range(25):
            first = pool.submit(kind.fit(lambda n=n: (thread, n)))
            calls[thread, n] = pool.submit(kind.fit(jobs.same), first)

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(calls) == 100
    for key, call in calls.items():
        assert await call == key


@every()
async def test_results_in_threads(kind: Kind, pool: Any) -> None:
    """``result`` and ``exception`` block in a thread without a loop, until the call has ended."""
    call, failing = pool.submit(kind.fit(jobs.add), 1, 2), pool.submit(kind.fit(jobs.fail))
    assert await asyncio.to_thread(call.result, 20) == 3
    assert isinstance(await asyncio.to_thread(failing.exception, 20), jobs.JobError)


@every(later)
async def test_result_with_a_timeout(kind: Kind, opened: Any, gate: Gate) -> None:
    """``result(timeout)`` in a thread gives up after so long, and the call goes on; on the loop it raises at once."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate, "done")
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(call.result, 0.05)
    with pytest.raises(Exception, match="await it first"):
        call.result()
    gate.open()
    assert await call == "done"


@every(later)
async def test_cancel_from_a_thread(kind: Kind, opened: Any, gate: Gate, log: Log) -> None:
    """A thread may cancel a call."""
    pool = await opened(1)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    queued = pool.submit(kind.fit(jobs.write), log, "never")
    assert await asyncio.to_thread(queued.cancel)
    await until(queued.done)
    gate.open()
    await running
    assert queued.cancelled()
    assert not log.lines


@every()
async def test_used_from_another_loop(kind: Kind, pool: Any) -> None:
    """A coroutine on another loop, in another thread, may submit calls and await them."""

    async def use() -> Any:
        call = pool.submit(kind.fit(jobs.add), 1, 2)
        return await call, await wait_all([pool.submit(kind.fit(jobs.add), call, n) for n in range(5)])

    assert await asyncio.to_thread(asyncio.run, use()) == (3, [3, 4, 5, 6, 7])


@every()
def test_submit_from_a_thread_when_the_loop_is_gone(kind: Kind) -> None:
    """A thread that submits to an executor whose loop has ended is told that it is closed."""
    pool = kind.make()

    async def leave_open() -> None:
        await pool.start()

    asyncio.run(leave_open())
    with pytest.raises(ExecutorClosedError):
        pool.submit(kind.fit(jobs.add), 1, 2)


@every()
async def test_threads_that_submit_while_it_closes(kind: Kind) -> None:
    """However a thread's calls and the closing of the executor interleave, every call is settled or refused."""
    for _ in range(5):
        pool = await kind.make().start()
        futures: list[SmartFuture[Any]] = []

        def submit_until_closed(pool: Any = pool, futures: list[SmartFuture[Any]] = futures) -> None:
            try:
                while True:
                    futures.append(pool.submit(kind.fit(jobs.same), len(futures)))
                    time.sleep(0)  # or there are thousands before the loop gets a turn
            except ExecutorClosedError:
                return

        thread = threading.Thread(target=submit_until_closed)
        thread.start()
        await until(lambda futures=futures: len(futures) > 20)
        await pool.aclose(drain=kind.later)
        await asyncio.to_thread(thread.join)
        await until(lambda futures=futures: all(future.done() for future in futures))


# Context variables


@every(lambda kind: kind.contexts)
async def test_context_variables(kind: Kind, pool: Any) -> None:
    """A call sees the context variables as they were when it was submitted, and changes them for nobody else."""
    token = jobs.REQUEST.set("request 1")
    first = pool.submit(kind.fit(jobs.request))
    jobs.REQUEST.set("request 2")
    second = pool.submit(kind.fit(jobs.request))
    assert await pool.submit(kind.fit(jobs.set_request), "changed") == "changed"
    assert [await first, await second] == ["request 1", "request 2"]
    assert jobs.REQUEST.get() == "request 2"
    jobs.REQUEST.reset(token)
    assert await pool.submit(kind.fit(jobs.request)) == "none"


@every(lambda kind: kind.contexts)
async def test_context_variables_of_dependent_calls(kind: Kind, pool: Any) -> None:
    """A call that waits for its arguments still sees the context in which it was submitted."""
    token = jobs.REQUEST.set("submitter")
    call = pool.submit(kind.fit(lambda _: jobs.REQUEST.get()), pool.submit(kind.fit(jobs.same), 1))
    jobs.REQUEST.reset(token)
    assert await call == "submitter"
