"""Cancelled means stopped: queued work never begins, running work ends, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from aioparallel import CallCancelledError, wait_all, wait_any
from tests.contract import jobs
from tests.contract.kinds import Kind, every
from tests.tools import Gate, Log, hold, is_alive, until


def later(kind: Kind) -> bool:
    return kind.later


def killing(kind: Kind) -> bool:
    return kind.later and kind.stops


async def assert_stopped(kind: Kind, gate: Gate, count: int = 1) -> None:
    """So many calls that had come to the gate are really gone: their processes ended, or they will not go through."""
    if kind.separate and not kind.confirms:
        await until(lambda: sum(not is_alive(pid) for pid in gate.entered) == count)
    elif kind.separate:
        dead = [pid for pid in gate.entered if not is_alive(pid)]
        assert len(dead) == count, f"{gate.entered}, of which {dead} have ended"
    gate.open()
    await asyncio.sleep(0)


@every(later)
async def test_queued_call_never_begins(kind: Kind, opened: Any, gate: Gate, log: Log) -> None:
    """A queued call that is cancelled is done at once and never begins; those behind it do."""
    pool = await opened(1)
    running = pool.submit(kind.fit(hold), gate, "ran")
    await until(lambda: gate.entered)
    queued = [pool.submit(kind.fit(jobs.write), log, n) for n in range(5)]
    assert queued[1].cancel()
    assert queued[3].cancel()
    assert queued[1].cancelled()
    assert queued[1].done()
    gate.open()
    assert await running == "ran"
    assert [await call for call in (queued[0], queued[2], queued[4])] == [0, 2, 4]
    with pytest.raises(CallCancelledError):
        await queued[3]
    assert log.lines == ["0", "2", "4"]
    status = pool.status()
    assert (status.done, status.cancelled, status.failed) == (4, 2, 0)
    assert queued[1].info.state == "cancelled"


@every(killing)
async def test_running_call_is_stopped(kind: Kind, opened: Any, gate: Gate) -> None:
    """A running call that is cancelled has stopped when its future is done, and the pool goes on."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    assert call.cancel()
    assert call.cancel(), "to say it twice does no harm"
    with pytest.raises(CallCancelledError):
        await call
    await assert_stopped(kind, gate)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
    assert not gate.left
    status = pool.status()
    assert (status.cancelled, status.failed, status.deaths) == (1, 0, 0)


@every(killing)
async def test_cancelling_the_awaiter_stops_the_call(kind: Kind, opened: Any, gate: Gate) -> None:
    """A task that is cancelled while it awaits a call ends when the call has really stopped."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate)

    async def wait() -> None:
        await call

    task = asyncio.ensure_future(wait())
    await until(lambda: gate.entered)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    await assert_stopped(kind, gate)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every(killing)
@pytest.mark.parametrize("how", ["asyncio.timeout", "wait_for", "anyio", "gather", "TaskGroup"])
async def test_whatever_cancels_the_awaiter(kind: Kind, opened: Any, gate: Gate, how: str) -> None:
    """``asyncio.timeout``, ``wait_for``, anyio's scopes, gather and task groups stop the call that they wait for."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)

    async def wait() -> None:
        await call

    async def fail() -> None:
        raise LookupError("a sibling failed")

    if how == "asyncio.timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await call
    elif how == "wait_for":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.01)
    elif how == "anyio":
        with anyio.move_on_after(0.01) as scope:
            await call
        assert scope.cancelled_caught
    elif how == "gather":
        task = asyncio.ensure_future(asyncio.gather(call, pool.submit(kind.fit(jobs.add), 1, 2)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(wait())
                await asyncio.sleep(0)
                group.create_task(fail())
    await until(call.done)
    assert call.cancelled()
    await assert_stopped(kind, gate)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every(later)
async def test_other_awaiters_keep_a_call_alive(kind: Kind, opened: Any, gate: Gate) -> None:
    """As long as somebody else awaits a call, cancelling one of its awaiters does not stop it."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate, "alive")

    async def wait() -> Any:
        return await call

    first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
    dependent = pool.submit(kind.fit(jobs.same), call)
    await until(lambda: gate.entered)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    second.cancel()
    await asyncio.wait([second])
    assert not call.done(), "a call that takes it as an argument awaits it too"
    gate.open()
    assert await dependent == "alive"
    assert await call == "alive"


@every(later)
async def test_shield(kind: Kind, opened: Any, gate: Gate) -> None:
    """``asyncio.shield`` keeps a call alive when its awaiter is cancelled."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate, "shielded")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.shield(call)
    await until(lambda: gate.entered)
    gate.open()
    assert await call == "shielded"


@every(later)
async def test_watching_is_not_awaiting(kind: Kind, opened: Any, gate: Gate) -> None:
    """Whoever only watches a call (``asyncio.wait``, ``wait_any``, callbacks) neither keeps it alive nor stops it."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate, "watched")
    done, pending = await asyncio.wait([call], timeout=0.01)
    assert (done, pending) == (set(), {call})
    with pytest.raises(TimeoutError):
        async for _ in wait_any([call], timeout=0.01):
            pass
    gate.open()
    assert await call == "watched"


@every(later)
async def test_cancelled_dependent_releases_its_arguments(kind: Kind, opened: Any, gate: Gate) -> None:
    """Cancelling a call that waits for its arguments cancels those that nobody else awaits."""
    pool = await opened(1)
    running = pool.submit(kind.fit(hold), gate, 1)
    await until(lambda: gate.entered)
    wanted, unwanted = pool.submit(kind.fit(jobs.same), 1), pool.submit(kind.fit(jobs.same), 2)
    awaiter = asyncio.ensure_future(asyncio.wait_for(wanted, 60))
    await asyncio.sleep(0)
    dependent = pool.submit(kind.fit(jobs.add), wanted, unwanted)
    await asyncio.sleep(0)
    dependent.cancel()
    assert dependent.cancelled()
    await until(unwanted.done)
    assert unwanted.cancelled()
    gate.open()
    assert await awaiter == 1
    await running


@every(later)
async def test_ended_call_cannot_be_cancelled(kind: Kind, pool: Any) -> None:
    """It is too late to cancel a call that has ended."""
    call = pool.submit(kind.fit(jobs.same), 1)
    await call
    assert not call.cancel()
    assert not call.cancelled()
    assert await call == 1


@every(killing)
async def test_neighbours_are_unharmed(kind: Kind, opened: Any, gate: Gate, tmp_path: Any) -> None:
    """Cancelling some calls takes nothing from the others, whether they run or wait."""
    pool = await opened(3)
    doomed = [pool.submit(kind.fit(hold), Gate(str(tmp_path / f"doomed{n}"))) for n in range(2)]
    neighbour = pool.submit(kind.fit(hold), gate, "neighbour")
    await until(lambda: gate.entered)
    await until(lambda: pool.status().running == 3)
    waiting = [pool.submit(kind.fit(jobs.same), n) for n in range(50)]
    for call in doomed:
        call.cancel()
    assert await wait_all(waiting) == list(range(50))
    gate.open()
    assert await neighbour == "neighbour"
    assert all(call.cancelled() for call in doomed)


@every(killing)
async def test_ten_cancelled_calls_in_a_row(kind: Kind, opened: Any, tmp_path: Any) -> None:
    """One worker survives, or is replaced after, ten cancelled calls in a row."""
    pool = await opened(1)
    for n in range(10):
        gate = Gate(str(tmp_path / f"gate{n}"))
        call = pool.submit(kind.fit(hold), gate)
        await until(lambda gate=gate: gate.entered)
        call.cancel()
        await until(call.done)
        await assert_stopped(kind, gate)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every(lambda kind: kind.later and not kind.stops)
async def test_call_that_cannot_be_stopped_is_abandoned(kind: Kind, opened: Any, gate: Gate) -> None:
    """A running call that cannot be stopped is abandoned: its result is dropped, its slot is free when it returns."""
    pool = await opened(1)
    call = pool.submit(kind.fit(hold), gate, "too late")
    await until(lambda: gate.entered)
    call.cancel()
    with pytest.raises(CallCancelledError):
        await call
    assert not gate.left
    following = pool.submit(kind.fit(jobs.add), 1, 2)
    gate.open()
    assert await following == 3
    assert call.cancelled()


@every(killing)
async def test_cancel_pending(kind: Kind, opened: Any, gate: Gate) -> None:
    """Leaving ``wait_any(..., cancel_pending=True)`` early stops what is left before it ends."""
    pool = await opened(2)
    slow = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    calls = [slow, pool.submit(kind.fit(jobs.same), "quick"), *(pool.submit(kind.fit(jobs.same), n) for n in range(3))]
    async with wait_any(calls, cancel_pending=True) as finished:
        async for call in finished:
            assert await call == "quick"
            break
    assert all(call.done() for call in calls)
    assert slow.cancelled()
    await assert_stopped(kind, gate)
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
