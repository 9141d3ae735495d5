"""The queue of calls that wait for any worker."""

from __future__ import annotations

from typing import Any

from aioparallel._model.call import Call, Phase
from aioparallel._model.options import CallOptions
from aioparallel._policy.backlog import MANY, Backlog
from tests.unit.policy.desk import Owner, work


def call(priority: int = 0, function: Any = None) -> Call:
    """A call that waits."""
    made = Call(Owner(), work, (), {}, CallOptions(priority=priority))  # type: ignore[arg-type]
    made.function = function
    made.phase = Phase.QUEUED
    return made


def drain(backlog: Backlog) -> list[Call]:
    found = []
    while backlog.count:
        found += backlog.take(backlog.first(), 1, alike=False)
    return found


def test_order() -> None:
    """Calls leave by priority, and those of equal priority as they came; one put back goes before the others."""
    backlog = Backlog()
    calls = [call(0), call(5), call(0), call(-1), call(5)]
    for each in calls:
        backlog.push(each)
    again = call(0)
    backlog.push(again, front=True)
    assert drain(backlog) == [calls[1], calls[4], again, calls[0], calls[2], calls[3]]


def test_alike() -> None:
    """Calls that travel together are of one function, and never more than there is room for."""
    backlog = Backlog()
    calls = [call(function="f"), call(function="f"), call(function="g"), call(function="f")]
    for each in calls:
        backlog.push(each)
    assert backlog.take(backlog.first(), 10, alike=True) == calls[:2]
    assert backlog.take(backlog.first(), 10, alike=False) == calls[2:]
    assert backlog.count == 0


def test_dropped_calls_are_skipped() -> None:
    """A call that was cancelled in the queue is never given to anybody."""
    backlog = Backlog()
    calls = [call() for _ in range(4)]
    for each in calls:
        backlog.push(each)
    for each in (calls[0], calls[2]):
        each.phase = Phase.SETTLED
        backlog.drop(each)
    assert backlog.count == 2
    assert backlog.waiting() == [calls[1], calls[3]]
    assert backlog.take(backlog.first(), 10, alike=True) == [calls[1], calls[3]]


def test_dropped_calls_do_not_pile_up() -> None:
    """Calls that are cancelled while nobody takes any are let go of."""
    backlog = Backlog()
    for _ in range(3 * MANY):
        each = call()
        backlog.push(each)
        each.phase = Phase.SETTLED
        backlog.drop(each)
    assert sum(map(len, backlog._queues.values())) <= MANY + 1
    assert backlog.count == 0


def test_clearing() -> None:
    """A backlog that was cleared is empty, and takes calls again."""
    backlog = Backlog()
    backlog.push(call(3))
    backlog.clear()
    assert (backlog.count, backlog.waiting()) == (0, [])
    again = call()
    backlog.push(again)
    assert drain(backlog) == [again]
