"""The pool that every executor is, with workers that do what the test says."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aioparallel import (
    CallCancelledError,
    ExecutorClosedError,
    NotReadyError,
    PoolFullError,
    Retry,
    SmartFuture,
    WorkerStartError,
)
from aioparallel._executors.pool import Executor, Run
from aioparallel._model.call import Call, Ending, Phase
from aioparallel._model.options import DEFAULT_OPTIONS
from aioparallel._policy.ledger import Ledger
from aioparallel._policy.seats import Seat
from aioparallel._policy.steps import Halt, Place


class Desk(Executor):
    """An executor whose workers are the test.

    Args:
        workers: How many there are, each for one call.
        opening: Awaited while it opens.
    """

    kind = "desk"

    def __init__(self, workers: int = 1, opening: Callable[[], Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.workers = workers
        self.opening = opening
        self.placed: list[Call] = []
        self.halted: list[Call] = []
        self.opened = self.closed = 0

    def _new_ledger(self) -> Ledger:
        return Ledger()

    async def _open(self, run: Run) -> None:
        self.opened += 1
        if self.opening is not None:
            await self.opening()
        for index in range(self.workers):
            seat = Seat(index)
            run.ledger.add(seat)
            run.ledger.ready(seat)

    async def _close(self, run: Run) -> None:
        self.closed += 1

    def _place(self, run: Run, step: Place) -> None:
        self.placed += step.calls

    def _halt(self, run: Run, step: Halt) -> None:
        self.halted.append(step.call)

    def _prepare(self, call: Call) -> None:
        if "poison" in call.args:
            raise LookupError("this cannot travel")

    def end(self, future: SmartFuture[Any], value: Any = None, ending: Ending = Ending.OK) -> None:
        """Have a worker answer."""
        call = source_of(future)
        assert call in self.placed
        assert self._run is not None
        self._answered(self._run, call.worker, [(call.seq, ending, value, 0.0)])


def source_of(future: SmartFuture[Any]) -> Call:
    assert isinstance(future._source, Call)
    return future._source


def job(*args: Any) -> None:
    """What the test's workers would run."""


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Opening


async def test_opened_once() -> None:
    """However many tasks start an executor at once, it is opened once."""
    desk = Desk()
    await asyncio.gather(*(desk.start() for _ in range(5)))
    assert desk.opened == 1
    await asyncio.gather(*(desk.aclose() for _ in range(5)))
    assert desk.closed == 1


async def test_failed_opening() -> None:
    """What opening raises is raised by every start that waits for it, and settles the calls that came early."""

    async def opening() -> None:
        await asyncio.sleep(0)
        raise WorkerStartError("no chair")

    desk = Desk(opening=opening)
    starting = [asyncio.ensure_future(desk.start()) for _ in range(2)]
    await asyncio.sleep(0)
    early = desk.submit(job)
    await asyncio.wait(starting)
    assert [str(start.exception()) for start in starting] == ["no chair"] * 2
    with pytest.raises(WorkerStartError, match="no chair"):
        await early
    assert "closed" in repr(desk)
    assert desk.closed == 1, "what was half open is closed"


async def test_cancelled_opening() -> None:
    """A start that is cancelled closes the executor; another task that waited for it is told so, not cancelled."""
    desk = Desk(opening=asyncio.Event().wait)
    first, second = asyncio.ensure_future(desk.start()), asyncio.ensure_future(desk.start())
    await asyncio.sleep(0)
    early = desk.submit(job)
    await turns()
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert isinstance(second.exception(), ExecutorClosedError)
    assert early.cancelled()
    assert desk.closed == 1


async def test_closed_while_it_opens() -> None:
    """``aclose`` waits for an opening; ``drain=False`` gives it up."""
    desk = Desk(opening=asyncio.Event().wait)
    starting = asyncio.ensure_future(desk.start())
    await turns()
    closing = asyncio.ensure_future(desk.aclose())
    await turns()
    assert not closing.done()
    await desk.aclose(drain=False)
    await asyncio.wait([starting, closing])
    assert isinstance(starting.exception(), ExecutorClosedError)
    assert closing.exception() is None


async def test_calls_before_it_is_open() -> None:
    """Calls may be submitted while the executor opens, and begin when it has."""
    opened = asyncio.Event()
    desk = Desk(opening=opened.wait)
    starting = asyncio.ensure_future(desk.start())
    await asyncio.sleep(0)
    early = desk.submit(job)
    await turns()
    assert (desk.placed, early.info.state) == ([], "queued")
    opened.set()
    await starting
    desk.end(early, "value")
    assert await early == "value"
    await desk.aclose()


@pytest.mark.leak_check(tasks=False)
def test_loop_that_was_closed_under_it() -> None:
    """An executor whose loop was closed without any ado may be opened on another one."""
    desk = Desk()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # it says that pending tasks are destroyed
    loop.run_until_complete(desk.start())
    loop.close()

    async def use() -> Any:
        async with desk:
            call = desk.submit(job)
            desk.end(call, "value")
            return await call

    assert asyncio.run(use()) == "value"
    gc.collect()


# Closing


async def test_close_waits_for_calls() -> None:
    """Closing waits for running calls, for queued ones, and for those that wait for their arguments."""
    desk = await Desk().start()
    first = desk.submit(job)
    second = desk.submit(job, first)
    closing = asyncio.ensure_future(desk.aclose())
    await turns()
    assert not closing.done()
    desk.end(first, 1)
    await turns()
    assert not closing.done()
    desk.end(second, 2)
    await closing
    assert (first.result(), second.result()) == (1, 2)


async def test_close_waits_for_the_confirmation() -> None:
    """A close that cancels waits until the worker says that the call has stopped."""
    desk = await Desk().start()
    call = desk.submit(job)
    closing = asyncio.ensure_future(desk.aclose(drain=False))
    await turns()
    assert desk.halted == [source_of(call)]
    assert not closing.done()
    assert not call.done()
    desk.end(call, ending=Ending.WITHDRAWN)
    await closing
    assert call.cancelled()


async def test_close_does_not_wait_for_ever() -> None:
    """A call that never stops is given up after the grace, and its future is settled all the same."""
    desk = await Desk(grace=0.01).start()
    call = desk.submit(job)
    await desk.aclose(drain=False)
    assert call.cancelled()
    with pytest.raises(CallCancelledError, match="closed before it stopped"):
        await call


@pytest.mark.parametrize("drain", [False, True])
async def test_close_and_pauses(drain: bool) -> None:
    """A call that waits for its next attempt is awaited by a close that drains, and cancelled by any other."""
    desk = await Desk().start()
    call = desk.options(retry=Retry(2, backoff=0.01)).submit(job)
    desk.end(call, OSError("again"), Ending.RAISED)
    assert desk.status().retried == 1
    closing = asyncio.ensure_future(desk.aclose(drain=drain))
    while drain and len(desk.placed) < 2:
        await asyncio.sleep(0)
    if drain:
        desk.end(call, "value")
    await closing
    assert call.cancelled() == (not drain)


# Submitting


async def test_room_when_a_worker_is_free() -> None:
    """Who waits for room gets it as soon as a queued call is given to a worker."""
    desk = await Desk(max_pending=1).start()
    running, queued = desk.submit(job), desk.submit(job)
    with pytest.raises(PoolFullError, match="max_pending=1"):
        desk.submit(job)
    waiting = asyncio.ensure_future(desk.submit_wait(job))
    await turns()
    assert not waiting.done()
    desk.end(running)
    last = await waiting
    for call in (queued, last):
        desk.end(call)
    await desk.aclose()


async def test_first_to_wait_is_first_to_get_room() -> None:
    """Those who wait for room get it in the order in which they came."""
    desk = await Desk(max_pending=1).start()
    running = [desk.submit(job), desk.submit(job)]
    waiting = [asyncio.ensure_future(desk.submit_wait(job, n)) for n in range(4)]
    await turns()
    order: list[Any] = []
    for _ in range(4):
        desk.end(running.pop(0))
        await turns()
        (ready,) = [task for task in waiting if task.done() and task not in order]
        order.append(ready)
        running.append(ready.result())
    assert order == waiting
    for call in running:
        desk.end(call)
    await desk.aclose()


async def test_what_cannot_travel() -> None:
    """A call that cannot be prepared fails in ``submit``; when its arguments are awaited first, in its future."""
    desk = await Desk(2).start()
    with pytest.raises(LookupError, match="cannot travel"):
        desk.submit(job, "poison")
    assert desk.task_count == 0
    argument = desk.submit(job)
    call = desk.submit(job, argument)
    desk.end(argument, "poison")
    with pytest.raises(LookupError, match="cannot travel"):
        await call
    assert (desk.status().failed, desk.status().done) == (1, 1)
    await desk.aclose()


async def test_argument_of_a_closed_loop() -> None:
    """A call whose argument will never be there, because its loop was closed, fails, and closing waits for nothing."""
    loop = asyncio.new_event_loop()
    orphan: SmartFuture[int] = SmartFuture(None, loop)
    loop.close()
    async with Desk() as desk:
        with pytest.raises(NotReadyError, match="loop was closed"):
            await desk.submit(job, orphan)
        assert desk.task_count == 0


async def test_other_threads_count() -> None:
    """A call of another thread counts at once, before the loop has seen it."""
    desk = await Desk(max_pending=1).start()
    running = desk.submit(job)
    found: list[Any] = []

    def submit() -> None:
        found.append(desk.submit(job))
        try:
            desk.submit(job)
        except PoolFullError as error:
            found.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()  # the loop stands still meanwhile
    assert isinstance(found[1], PoolFullError)
    assert desk.task_count == 2
    assert desk.status().queued == 1
    desk.end(running)
    await turns()
    desk.end(found[0], "value")
    assert await found[0] == "value"
    await desk.aclose()


async def test_other_threads_are_not_forgotten() -> None:
    """A call of another thread that arrives when the executor has been closed is told so."""
    desk = await Desk().start()
    run = desk._run
    assert run is not None
    await desk.aclose()
    call = Call(desk, job, (), {}, DEFAULT_OPTIONS)
    future = call.future = SmartFuture(call, run.loop)
    desk._send_home(run, call, [])
    with pytest.raises(ExecutorClosedError):
        await asyncio.wait_for(future, 5)
    assert call.phase is Phase.SETTLED


async def test_other_threads_while_it_closes() -> None:
    """A call of another thread that arrives while the executor cancels everything never begins."""
    desk = await Desk().start()
    running = desk.submit(job)
    found: list[SmartFuture[Any]] = []
    thread = threading.Thread(target=lambda: found.append(desk.submit(job)))
    thread.start()
    thread.join()
    closing = asyncio.ensure_future(desk.aclose(drain=False))
    await turns()
    desk.end(running, ending=Ending.WITHDRAWN)
    await closing
    assert found[0].done()
    assert desk.placed == [source_of(running)]


# Cancelling


async def test_cancelled_when_it_has_stopped() -> None:
    """A call that a worker holds is not done before the worker says how it ended, and is cancelled whatever that is."""
    desk = await Desk(3).start()
    calls = [desk.submit(job) for _ in range(3)]
    for call in calls:
        assert call.cancel()
        assert not call.done()
    desk.end(calls[0], "a value, too late")
    desk.end(calls[1], OSError("too late"), Ending.RAISED)
    desk.end(calls[2], ending=Ending.WITHDRAWN)
    assert all(call.cancelled() for call in calls)
    assert desk.status().cancelled == 3
    await desk.aclose()


@pytest.mark.parametrize("confirmed", [True, False])
async def test_awaiter_waits_for_the_end(confirmed: bool) -> None:
    """Who is cancelled while awaiting a call goes when that has stopped, or when the grace is over."""
    desk = await Desk(grace=60 if confirmed else 0.01).start()
    call = desk.submit(job)

    async def wait() -> None:
        await call

    waiting = asyncio.ensure_future(wait())
    await turns()
    waiting.cancel()
    await turns()
    assert not waiting.done()
    if confirmed:
        desk.end(call, ending=Ending.WITHDRAWN)
    await asyncio.wait([waiting], timeout=5)
    assert waiting.cancelled()
    assert call.done() == confirmed
    await desk.aclose(drain=False)


@pytest.mark.parametrize("closing", [False, True])
async def test_end_by_force(closing: bool) -> None:
    """An executor that is ended by force waits for nothing, whether or not it was being closed; its calls are settled."""

    class Hands:
        async def give_up(self) -> None:
            given_up.append(True)

    given_up: list[bool] = []
    desk = await Desk(grace=600).start()
    call, run = desk.submit(job), desk._run
    assert run is not None
    run.hands = Hands()
    ending = asyncio.ensure_future(desk.aclose(drain=False)) if closing else None
    await turns()
    async with asyncio.timeout(10):
        await desk._end_by_force(run)
        if ending is not None:
            await ending
    assert call.cancelled()
    assert given_up == [True]


# Looking


async def test_counts() -> None:
    """``status`` counts what waits for arguments as queued, and what a worker holds as running."""
    desk = await Desk(2, name="front").start()
    calls = [desk.submit(job) for _ in range(3)]
    waiting = desk.submit(job, calls[0])
    status = desk.status()
    assert (status.workers, status.queued, status.running) == (2, 2, 2)
    assert desk.task_count == 4
    assert repr(desk) == "<Desk 'front' workers=2 queued=2 running=2 done=0 failed=0>"
    desk.end(calls[0], 1)
    desk.end(calls[1], OSError("no"), Ending.RAISED)
    await turns()
    status = desk.status()
    assert (status.queued, status.running, status.done, status.failed) == (0, 2, 1, 1)
    assert isinstance(calls[1].exception(), OSError)
    for call in (calls[2], waiting):
        desk.end(call)
    await desk.aclose()
    assert repr(desk) == "<Desk 'front' closed>"


async def test_times() -> None:
    """When a call ended is known however it ended."""
    desk = await Desk().start()
    done, cancelled = desk.submit(job), desk.submit(job)
    waiting = desk.submit(job, done)
    cancelled.cancel()
    waiting.cancel()
    desk.end(done)
    for call in (done, cancelled, waiting):
        assert call.info.settled_at is not None
        assert call.info.queued_at is not None
        assert call.info.queued_at <= call.info.settled_at
    await desk.aclose()
