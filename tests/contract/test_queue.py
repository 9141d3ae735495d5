"""Which call begins when, how many at a time, how often, and for how long."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from aioparallel import PoolFullError, Retry, TaskTimeoutError, wait_all
from tests.contract import jobs
from tests.contract.jobs import JobError
from tests.contract.kinds import Kind, every
from tests.tools import Gate, Log, hold, until


def later(kind: Kind) -> bool:
    return kind.later


@every(later)
async def test_first_come_first_served(kind: Kind, opened: Any, gate: Gate, log: Log) -> None:
    """Calls begin in the order in which they were submitted."""
    pool = await opened(1)
    first = pool.submit(kind.fit(hold), gate)
    rest = [pool.submit(kind.fit(jobs.write), log, n) for n in range(20)]
    gate.open()
    await wait_all([first, *rest])
    assert log.lines == [str(n) for n in range(20)]


@every(later)
async def test_priority(kind: Kind, opened: Any, gate: Gate, log: Log) -> None:
    """A higher priority goes first, equal ones in the order of submission; the default is 0."""
    pool = await opened(1)
    first = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    rest = [
        pool.options(priority=priority).submit(kind.fit(jobs.write), log, name)
        for priority, name in [(-1, "last"), (0, "a"), (5, "first"), (0, "b"), (2, "second")]
    ]
    gate.open()
    await wait_all([first, *rest])
    assert log.lines == ["first", "second", "a", "b", "last"]


@every(later)
async def test_no_more_at_a_time_than_workers(kind: Kind, opened: Any, gate: Gate) -> None:
    """So many calls run at a time as there are workers; the others wait."""
    pool = await opened(2)
    calls = [pool.submit(kind.fit(hold), gate, n) for n in range(6)]
    await until(lambda: len(gate.entered) == 2)
    await until(lambda: pool.status().running == 2)
    assert pool.status().queued == 4
    assert [call.info.state for call in calls].count("queued") == 4
    assert len(gate.entered) == 2
    gate.open()
    assert await wait_all(calls) == list(range(6))


# Room


@every(later)
async def test_full(kind: Kind, opened: Any, gate: Gate, log: Log) -> None:
    """Beyond ``max_pending`` waiting calls ``submit`` raises, says what to use, and has submitted nothing."""
    pool = await opened(1, max_pending=2)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    waiting = [pool.submit(kind.fit(jobs.write), log, n) for n in range(2)]
    with pytest.raises(PoolFullError, match="submit_wait"):
        pool.submit(kind.fit(jobs.write), log, "too much")
    assert pool.task_count == 3
    gate.open()
    await wait_all([running, *waiting])
    assert log.lines == ["0", "1"]


@every(later)
async def test_submit_wait_waits_for_room(kind: Kind, opened: Any, gate: Gate) -> None:
    """``submit_wait`` returns as soon as there is room, and not before."""
    pool = await opened(1, max_pending=1)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    waiting = pool.submit(kind.fit(jobs.same), 1)
    submitting = [asyncio.ensure_future(pool.submit_wait(kind.fit(jobs.same), n)) for n in range(5)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in submitting)
    assert pool.task_count == 2
    gate.open()
    assert await wait_all([await task for task in submitting]) == list(range(5))
    await wait_all([running, waiting])


@every(later)
async def test_cancelled_call_makes_room(kind: Kind, opened: Any, gate: Gate) -> None:
    """A queued call that is cancelled makes room for another."""
    pool = await opened(1, max_pending=1)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    waiting = pool.submit(kind.fit(jobs.same), 1)
    submitting = asyncio.ensure_future(pool.options(priority=1).submit_wait(kind.fit(jobs.same), 2))
    await asyncio.sleep(0)
    waiting.cancel()
    other = await submitting
    gate.open()
    assert await other == 2
    await running


@every(later)
async def test_threads_are_refused_too(kind: Kind, opened: Any, gate: Gate) -> None:
    """``max_pending`` holds for whoever submits: a thread that submits too much is told so."""
    pool = await opened(1, max_pending=5)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    futures: list[Any] = []
    refused: list[PoolFullError] = []

    def submit_much() -> None:
        for n in range(50):
            try:
                futures.append(pool.submit(kind.fit(jobs.same), n))
            except PoolFullError as error:
                refused.append(error)

    thread = threading.Thread(target=submit_much)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(futures) == 5
    assert len(refused) == 45
    gate.open()
    assert await wait_all([running, *futures]) == [None, *range(5)]


@every()
@pytest.mark.parametrize(
    "options", [{"max_pending": 0}, {"max_pending": -1}, {"max_pending": math.nan}, {"grace": -1}, {"grace": math.nan}]
)
async def test_nonsense_is_refused_at_birth(kind: Kind, options: dict[str, Any]) -> None:
    """An executor refuses sizes and times that make no sense, and names them."""
    with pytest.raises(ValueError, match=next(iter(options))):
        kind.make(**options)


@every(lambda kind: kind.workers is not None and kind.name != "remote")  # whose hosts have so many slots
@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
async def test_nonsense_workers_are_refused_at_birth(kind: Kind, workers: Any) -> None:
    """An executor refuses a number of workers that is none."""
    with pytest.raises((ValueError, TypeError), match=str(kind.workers)):
        kind.make(workers)


# Options of calls


@every()
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"timeout": "soon"}, ValueError),
        ({"retry": 0}, ValueError),
        ({"retry": "often"}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"priority": 1.5}, TypeError),
        ({"idempotent": "yes"}, TypeError),
        ({"colour": "red"}, TypeError),
    ],
    ids=str,
)
async def test_nonsense_options_are_refused(kind: Kind, options: dict[str, Any], error: type[Exception]) -> None:
    """``options`` refuses a name that is none and a value that makes no sense, and names them."""
    pool = kind.make()
    with pytest.raises(error, match=next(iter(options)) if "retry" not in options else "(?i)retry|attempts"):
        pool.options(**options)


@every()
async def test_views(kind: Kind, pool: Any, log: Log) -> None:
    """A view of an executor adds its options to calls made through it, a view of a view both, and the executor has none."""
    view = pool.options(retry=Retry(2, backoff=0))
    again = view.options(idempotent=True)
    assert await again.submit(kind.fit(jobs.fail_until), log, 2) == 2
    assert await (await view.submit_wait(kind.fit(jobs.add), 1, 2)) == 3
    with pytest.raises(JobError):
        await pool.submit(kind.fit(jobs.fail))
    assert "retry" in repr(view)
    assert "idempotent=True" in repr(again)


# Retries


@every()
async def test_retry(kind: Kind, pool: Any, log: Log) -> None:
    """A call with ``Retry(3)`` is begun at most three times, and succeeds if one of them does."""
    call = pool.options(retry=Retry(3, backoff=0)).submit(kind.fit(jobs.fail_until), log, 3)
    assert await call == 3
    assert len(log.lines) == 3
    assert call.info.attempts == 3
    assert pool.status().retried == 2
    assert (pool.status().done, pool.status().failed) == (1, 0)


@every()
async def test_retry_gives_up(kind: Kind, pool: Any, log: Log) -> None:
    """After the last attempt its exception is raised."""
    call = pool.options(retry=Retry(3, backoff=0)).submit(kind.fit(jobs.fail_until), log, 9)
    with pytest.raises(OSError, match="attempt 3"):
        await call
    assert len(log.lines) == 3


@every()
async def test_retry_of_the_right_errors(kind: Kind, pool: Any, log: Log) -> None:
    """``Retry(on=...)`` says which exceptions are worth another attempt."""
    view = pool.options(retry=Retry(3, on=ValueError, backoff=0))
    with pytest.raises(OSError, match="attempt 1"):
        await view.submit(kind.fit(jobs.fail_until), log, 9)
    assert len(log.lines) == 1
    picky = pool.options(retry=Retry(3, on=lambda error: "attempt 2" in str(error), backoff=0))
    assert await picky.submit(kind.fit(jobs.fail_until), log, 3) == 3


@every(later)
async def test_retry_waits_without_a_worker(kind: Kind, opened: Any, log: Log) -> None:
    """A call that waits for its next attempt holds no worker, and can be cancelled."""
    pool = await opened(1)
    call = pool.options(retry=Retry(2, backoff=1000)).submit(kind.fit(jobs.fail_until), log, 2)
    await until(lambda: log.lines and pool.status().retried)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
    assert call.info.state == "queued"
    call.cancel()
    assert call.cancelled()
    assert len(log.lines) == 1


@every()
async def test_retry_with_arguments_that_are_futures(kind: Kind, pool: Any, log: Log) -> None:
    """A call that is begun again gets the same values."""
    attempt = pool.submit(kind.fit(jobs.same), 2)
    assert await pool.options(retry=Retry(2, backoff=0)).submit(kind.fit(jobs.fail_until), log, attempt) == 2


# Timeouts


@every(later)
async def test_timeout(kind: Kind, opened: Any, gate: Gate) -> None:
    """A call that runs longer than its ``timeout`` fails with TaskTimeoutError, which is a TimeoutError."""
    pool = await opened(1)
    call = pool.options(timeout=0.3).submit(kind.fit(hold), gate)
    with pytest.raises(TaskTimeoutError) as caught:
        await call
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.call, caught.value.timeout) == (kind.fit(hold).__name__, 0.3)
    assert call.info.state == "failed"
    if not kind.stops:
        gate.open()  # a thread is abandoned, and its slot is free when the function returns
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every(later)
async def test_timeout_counts_from_the_beginning(kind: Kind, opened: Any, gate: Gate) -> None:
    """Time in the queue does not count: a quick call behind a slow one has all its time."""
    pool = await opened(1)
    slow = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    quick = pool.options(timeout=0.5).submit(kind.fit(jobs.same), "quick")
    deadline = time.monotonic() + 0.8
    await until(lambda: time.monotonic() > deadline)
    gate.open()
    await slow
    assert await quick == "quick"


@every()
async def test_in_time(kind: Kind, pool: Any) -> None:
    """A call that ends within its ``timeout`` is as any other."""
    assert await pool.options(timeout=60).submit(kind.fit(jobs.add), 1, 2) == 3


@every(lambda kind: kind.later and kind.stops and kind.told)
async def test_timeout_and_retry(kind: Kind, opened: Any, gate: Gate) -> None:
    """A timeout is an exception like others to ``Retry``: each attempt has the whole time."""
    pool = await opened(1)
    call = pool.options(timeout=0.3, retry=Retry(2, backoff=0)).submit(kind.fit(hold), gate)
    with pytest.raises(TaskTimeoutError):
        await call
    assert len(gate.entered) == 2
    assert call.info.attempts == 2
