"""What can be known of a call, at every step of its life."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aioparallel import CallCancelledError, Retry
from tests.contract import jobs
from tests.contract.kinds import Kind, every
from tests.tools import Gate, Log, hold, until


@every(lambda kind: kind.later)
async def test_life(kind: Kind, opened: Any, gate: Gate, tmp_path: Any) -> None:
    """A call waits for its arguments, is queued, runs and is done; its times follow each other."""
    pool = await opened(1, name="lives")
    before = time.time()
    blocker = pool.submit(kind.fit(hold), Gate(str(tmp_path / "first")))
    argument = pool.submit(kind.fit(jobs.same), gate)
    call = pool.submit(kind.fit(hold), argument, "value")
    assert call.info.state == "waiting"
    assert (call.info.begun_at, call.info.settled_at, call.info.attempts) == (None, None, 0)
    assert argument.info.state == "queued"
    await until(lambda: blocker.info.state == "running")
    Gate(str(tmp_path / "first")).open()
    await until(lambda: call.info.state == "running")
    running = call.info
    assert running.worker is not None
    assert "lives" in running.worker
    assert (running.attempts, running.settled_at) == (1, None)
    gate.open()
    assert await call == "value"
    done = call.info
    assert (done.state, done.name, done.method, done.attempts, done.copies, done.host is None) == (
        "done",
        kind.fit(hold).__name__,
        type(pool).kind,
        1,
        0,
        kind.name != "remote",
    )
    assert None not in {done.queued_at, done.begun_at, done.settled_at}
    # Two clocks may be read in one turn: a worker's own, and this program's.
    times = [before, done.queued_at, done.begun_at, done.settled_at, time.time()]
    assert all(a <= b + 0.01 for a, b in zip(times, times[1:], strict=False)), times
    with pytest.raises(AttributeError):
        done.state = "failed"


@every()
async def test_info_of_a_failure(kind: Kind, pool: Any) -> None:
    """A call that raised has failed, and when is known."""
    call = pool.submit(kind.fit(jobs.fail))
    with pytest.raises(jobs.JobError):
        await call
    assert (call.info.state, call.info.attempts) == ("failed", 1)
    assert call.info.settled_at is not None
    assert call.info.begun_at is not None


@every(lambda kind: kind.later)
async def test_info_of_a_cancelled_call(kind: Kind, opened: Any, gate: Gate) -> None:
    """A call that was cancelled before it began was never tried, and when it ended is known."""
    pool = await opened(1)
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    queued, waiting = pool.submit(kind.fit(jobs.same), 1), pool.submit(kind.fit(jobs.same), running)
    for call in (queued, waiting):
        call.cancel()
        with pytest.raises(CallCancelledError):
            await call
        assert (call.info.state, call.info.attempts, call.info.begun_at) == ("cancelled", 0, None)
        assert call.info.settled_at is not None
    gate.open()
    await until(running.done)


@every()
async def test_attempts(kind: Kind, pool: Any, log: Log) -> None:
    """``attempts`` counts how often the call was begun."""
    call = pool.options(retry=Retry(5, backoff=0)).submit(kind.fit(jobs.fail_until), log, 4)
    assert await call == 4
    assert call.info.attempts == 4


@every()
async def test_repr_of_a_call(kind: Kind, pool: Any) -> None:
    """``repr`` names the function and the state, before and after the end."""
    call = pool.submit(kind.fit(jobs.add), 1, 2)
    assert f"#{call.id} add: " in repr(call)
    await call
    assert repr(call) == f"<SmartFuture #{call.id} add: done>"


@every()
async def test_ids(kind: Kind, pool: Any) -> None:
    """Every call has a number of its own, and later ones have larger numbers."""
    ids = [pool.submit(kind.fit(jobs.same), n).id for n in range(10)]
    assert ids == sorted(set(ids))
