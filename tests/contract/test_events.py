"""What observers are told, on every kind of executor."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from aioparallel import Retry, TaskTimeoutError, wait_all
from aioparallel.events import (
    CallEnded,
    CallPlaced,
    CallQueued,
    CallRetried,
    Event,
    PoolClosed,
    PoolOpened,
    WorkerEnded,
    WorkerStarted,
)
from tests.contract import jobs
from tests.contract.jobs import JobError
from tests.contract.kinds import Kind, every
from tests.tools import Gate, hold, until


def of(events: list[Event], *kinds: type) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


@every()
async def test_life_of_a_call(kind: Kind, pool: Any) -> None:
    """A call is queued, placed and ended; its end carries all that is known of it."""
    events: list[Event] = []
    with pool.observe(events.append):
        future = pool.options(name="sum").submit(kind.fit(jobs.add), 1, 2)
        assert await future == 3
    queued, placed, ended = of(events, CallQueued, CallPlaced, CallEnded)
    assert [type(event) for event in (queued, placed, ended)] == [CallQueued, CallPlaced, CallEnded]
    assert {event.id for event in (queued, placed, ended)} == {future.id}
    assert {event.name for event in (queued, placed, ended)} == {"sum"}
    assert (placed.worker, placed.host, placed.attempt, placed.backup) == (ended.worker, ended.host, 1, False)
    assert (ended.worker, ended.host) == (future.info.worker, future.info.host)
    assert (ended.outcome, ended.attempts, ended.copies, ended.items, ended.error) == ("done", 1, 0, 1, None)
    assert ended.queued_at <= ended.begun_at <= ended.at
    assert ended.duration >= 0


@every()
async def test_each_call_ends_once(kind: Kind, pool: Any) -> None:
    """Of many calls each is queued, placed and ended once."""
    events: list[Event] = []
    pool.observe(events.append)
    futures = [pool.submit(kind.fit(jobs.add), n, n) for n in range(100)]
    assert await wait_all(futures) == [2 * n for n in range(100)]
    for type_of_event in (CallQueued, CallEnded):
        assert sorted(event.id for event in of(events, type_of_event)) == [future.id for future in futures]
    placed = Counter(event.id for event in of(events, CallPlaced))
    assert placed.keys() == {future.id for future in futures}


@every()
async def test_failure_and_retry(kind: Kind, pool: Any) -> None:
    """A failed attempt is told with its error and the pause after it, and the end of all attempts with the last error."""
    events: list[Event] = []
    pool.observe(events.append)
    with pytest.raises(JobError):
        await pool.options(retry=Retry(2, backoff=0)).submit(kind.fit(jobs.fail))
    (retried,) = of(events, CallRetried)
    assert (retried.attempt, type(retried.error)) == (1, JobError)
    assert retried.begun_at <= retried.at
    (ended,) = of(events, CallEnded)
    assert (ended.outcome, ended.attempts, type(ended.error)) == ("failed", 2, JobError)
    assert [event.attempt for event in of(events, CallPlaced)] == [1, 2]


@every(lambda kind: kind.later)
async def test_cancelled_before_it_began(kind: Kind, opened: Any, gate: Gate) -> None:
    """A call that is cancelled in the queue ends as cancelled, and was begun by nobody."""
    pool = await opened(1)
    events: list[Event] = []
    pool.observe(events.append)
    first = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    waiting = pool.submit(kind.fit(jobs.same), 1)
    waiting.cancel()
    await until(waiting.done)
    gate.open()
    await first
    ended = {event.id: event for event in of(events, CallEnded)}
    assert (ended[waiting.id].outcome, ended[waiting.id].begun_at) == ("cancelled", None)
    assert ended[first.id].outcome == "done"


@every(lambda kind: kind.later and kind.stops and kind.told)
async def test_time_is_up(kind: Kind, opened: Any, gate: Gate) -> None:
    """A call whose time is up ends with that error; a worker that was killed for it was asked to end, and did not die."""
    pool = await opened(1)
    events: list[Event] = []
    pool.observe(events.append)
    with pytest.raises(TaskTimeoutError):
        await pool.options(timeout=0.05).submit(kind.fit(hold), gate)
    (ended,) = of(events, CallEnded)
    assert (ended.outcome, type(ended.error)) == ("failed", TaskTimeoutError)
    assert all(event.asked for event in of(events, WorkerEnded))


@every()
async def test_map(kind: Kind, pool: Any) -> None:
    """The calls of a map say how many items travelled in them, and together that is all of them."""
    events: list[Event] = []
    pool.observe(events.append)
    assert len(await pool.map(kind.fit(jobs.same), range(300))) == 300
    assert sum(event.items for event in of(events, CallEnded) if event.outcome == "done") == 300


@every()
async def test_pool_and_workers(kind: Kind) -> None:
    """An observer may come before the pool is opened; it is told of the workers' coming and going in between, every time."""
    events: list[Event] = []
    pool = kind.make(2)
    pool.observe(events.append)
    for _ in range(2):
        async with pool:
            await pool.submit(kind.fit(jobs.same), 1)
        assert isinstance(events[0], PoolOpened)
        assert (events[0].pool, events[0].kind) == (pool.name, pool.kind)
        assert isinstance(events[-1], PoolClosed)
        started, ended = of(events, WorkerStarted), of(events, WorkerEnded)
        assert started
        assert {event.worker for event in started} == {event.worker for event in ended}
        assert all(event.asked for event in ended)
        events.clear()


@every(lambda kind: kind.separate and kind.told)
async def test_worker_dies(kind: Kind, opened: Any) -> None:
    """The death of a worker is told with its signal and the call that it was in, and then its replacement."""
    pool = await opened(1)
    (before,) = pool.status(per_worker=True).per_worker
    events: list[Event] = []
    pool.observe(events.append)
    future = pool.submit(jobs.kill_me)
    with pytest.raises(Exception, match="SIGKILL"):
        await future
    (died,) = of(events, WorkerEnded)
    assert (died.asked, died.worker, died.worker_index, died.pid) == (False, before.name, before.index, before.pid)
    assert died.reason == "killed by SIGKILL in kill_me"
    assert died.call == future.id
    assert died.max_rss > 0
    (started,) = await until(lambda: of(events, WorkerStarted))
    assert (started.worker_index, started.width) == (before.index, 1)
    assert started.pid != before.pid


@every()
async def test_failing_observer(kind: Kind, pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An observer that raises is named in the log once and dropped; calls, and other observers, lose nothing by it."""
    events: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("the observer is broken")

    pool.observe(broken)
    pool.observe(events.append)
    with caplog.at_level(logging.ERROR, "aioparallel"):
        assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
    assert [record.message.count("is told nothing more") for record in caplog.records] == [1]
    assert of(events, CallEnded)


@every()
async def test_end_of_an_observation(kind: Kind, pool: Any) -> None:
    """Who has left is told nothing more; leaving twice does nothing."""
    events: list[Event] = []
    observation = pool.observe(events.append)
    observation.close()
    observation.close()
    await pool.submit(kind.fit(jobs.same), 1)
    assert events == []


@every()
async def test_what_cannot_be_called(kind: Kind) -> None:
    """What is no function is refused at once."""
    with pytest.raises(TypeError, match="observe takes a function"):
        kind.make().observe("log.txt")


@every(lambda kind: kind.later and kind.told)
async def test_workers(kind: Kind, opened: Any, gate: Gate) -> None:
    """The status says, if it is asked, what runs where, since when, and what waits there."""
    pool = await opened(1)
    first = pool.options(name="first").submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    second = pool.submit(kind.fit(jobs.same), 2)
    (worker,) = pool.status(per_worker=True).per_worker
    (running,) = worker.running
    assert (running.id, running.name, running.attempt, running.stopping) == (first.id, "first", 1, False)
    assert running.begun_at == first.info.begun_at
    assert (worker.index, worker.state, worker.width, worker.ended) == (0, "ready", 1, 0)
    assert worker.waiting <= 1  # where calls are sent ahead
    gate.open()
    await wait_all([first, second])
    (worker,) = pool.status(per_worker=True).per_worker
    assert (worker.running, worker.waiting, worker.ended) == ((), 0, 2)
