"""Which calls are late."""

from __future__ import annotations

import pytest

from aioparallel._model.call import Call
from aioparallel._model.options import Backups
from aioparallel._policy.backups import MANY, BackupDesk
from aioparallel._policy.races import Race
from aioparallel._policy.seats import Seat, Site
from tests.unit.policy.desk import Desk, Function

SLOTS = 100


class Late:
    """A desk, and calls that began when the test says."""

    def __init__(self, **backups: object) -> None:
        self.desk = BackupDesk(Backups(**{"interval": 1e-6, **backups}))
        self.function = Function()
        self.began: dict[Call, float] = {}

    def run(self, began: float | None, weight: float = 1.0, copies: int = 0, function: Function | None = None) -> Call:
        call = Desk().call(function or self.function, idempotent=True)
        call.worker = Seat(0, site=Site("node", weight), ended=1)
        if copies:
            call.copies = copies
        self.desk.placed([call])
        if began is not None:
            self.began[call] = began
        return call

    def finish(self, *seconds: float, function: Function | None = None) -> None:
        for each in seconds:
            self.desk.ended(self.run(0.0, function=function), each)

    def late(self, now: float, slots: int = SLOTS) -> list[Call]:
        return self.desk.late(now, self.began.get, slots)


def test_quantile_of_finished_calls() -> None:
    """A call is late when it runs longer than 95 of 100 finished ones."""
    late = Late(after="p95")
    late.finish(*(0.01 * n for n in range(1, 101)))
    call = late.run(100.0)
    assert late.late(100.9) == []
    assert late.late(101.0) == [call]


def test_too_little_data() -> None:
    """Before enough calls have finished, none is late, however long it runs."""
    late = Late(min_completed=5)
    late.finish(1, 1, 1, 1)
    call = late.run(0.0)
    assert late.late(1000.0) == []
    late.finish(1)
    assert late.late(1000.0) == [call]


def test_functions_are_apart() -> None:
    """What is late for one function says nothing about another."""
    late = Late(min_completed=3)
    quick, slow = Function("quick"), Function("slow")
    late.finish(0.1, 0.1, 0.1, function=quick)
    late.finish(10, 10, 10, function=slow)
    first = late.run(0.0, function=quick)
    late.run(0.0, function=slow)
    assert late.late(5.0) == [first]


def test_many_functions_at_once() -> None:
    """However many functions have calls at workers, it is not looked for each new one which can be forgotten."""
    late = Late()
    tables: dict[int, object] = {}
    for number in range(4 * MANY):
        late.run(None, function=Function(f"f{number}"))
        tables[id(late.desk._functions)] = late.desk._functions
    assert len(tables) <= 4
    for _ in range(20 * MANY):
        late.finish(1.0, function=Function())
    assert len(late.desk._functions) < 20 * MANY


def test_seconds() -> None:
    """A limit in seconds needs no finished calls."""
    late = Late(after=2.5)
    call = late.run(0.0)
    assert late.late(2.4) == []
    assert late.late(2.6) == [call]


def test_calls_that_wait_are_not_late() -> None:
    """A call that waits at its worker has not begun, so it is not late; those behind it may be."""
    late = Late(after=1.0)
    late.run(None)
    call = late.run(0.0)
    assert late.late(5.0) == [call]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"began": 0.0}, {"began": 2.0}),
        ({"began": 0.0, "weight": 1}, {"began": 0.0, "weight": 4}),
        ({"began": 0.0}, {"began": 0.0, "copies": 1}),
        ({"began": 0.0, "copies": 1}, {"began": 0.0, "copies": 2}),
        ({"began": 0.0, "copies": 2}, {"began": 0.0, "copies": 3}),
    ],
)
def test_who_comes_first(first: dict[str, float], second: dict[str, float]) -> None:
    """The later a call, the lighter its host and the fewer its copies, the sooner it gets one."""
    late = Late(after=1.0)
    calls = [late.run(**options) for options in sorted((second, first), key=lambda options: options["began"])]  # type: ignore[arg-type]
    found = late.late(10.0)
    assert set(found) == set(calls)
    assert found[0].worker.site.weight == first.get("weight", 1)
    assert late.began[found[0]] == first["began"]
    assert found[0].copies == first.get("copies", 0)


def test_outage_is_no_straggler() -> None:
    """When more than half of all slots hold late calls, none is copied."""
    late = Late(after=1.0)
    for _ in range(5):
        late.run(0.0)
    assert len(late.late(9.0, slots=10)) == 5
    late.run(0.0)
    assert late.late(9.0, slots=10) == []


def test_budget() -> None:
    """There may be as many copies as are a given part of all calls that may be copied."""
    late = Late(max_extra=0.1)
    assert late.desk.budget == 0
    for _ in range(25):
        late.run(0.0)
    assert late.desk.budget == 2
    late.desk.copies = 2
    assert late.desk.budget == 0


def test_calls_that_have_ended_are_forgotten() -> None:
    """A call that has ended, or was taken back, is not late any more; if it failed, its time is no measure."""
    late = Late(after="p50", min_completed=1)
    call = late.run(0.0)
    late.desk.ended(call, None)
    late.desk.ended(call, None)
    late.run(0.0)
    assert late.late(100.0) == []


def test_slightly_late_is_not_late() -> None:
    """A call is not late before it has run longer than the others by the time from one look to the next."""
    late = Late(min_completed=1, interval=0.5)
    late.finish(0.1)
    call = late.run(0.0)
    assert late.late(0.5) == []
    assert late.late(0.7) == [call]


def test_long_ways_are_not_late() -> None:
    """The time that a call and its answer travel is no part of its own."""
    late = Late(after=1.0)
    call = late.run(0.0)
    call.worker.site.trip = 0.5
    assert late.late(1.4) == []
    assert late.late(1.6) == [call]


def test_functions_without_end() -> None:
    """Of thousands of functions that have no calls any more, only so many are remembered."""
    late = Late(min_completed=1)
    for _ in range(2500):
        late.finish(1.0, function=Function())
    assert len(late.desk._functions) <= 1000


def test_one_worker_is_one_slot() -> None:
    """Calls that wait behind a late one are late with it, but do not make an outage of it."""
    late = Late(after=1.0)
    calls = [late.run(0.0) for _ in range(4)]
    for call in calls:
        call.worker = calls[0].worker
    assert len(late.late(5.0, slots=3)) == 4


def test_a_copy_has_its_time() -> None:
    """There is no further copy of a call before its newest one is late as well."""
    late = Late(after=1.0)
    call = late.run(0.0)
    race = call.race = Race(call)
    copy = race.add()
    copy.worker = Seat(1, ended=1)
    late.began[copy] = 2.0
    assert late.late(2.9) == []
    assert late.late(3.1) == [call]
    race.leave(copy)
    assert late.late(2.9) == [call]


def test_many_stragglers_hide_nobody() -> None:
    """Where more calls straggle than the quantile leaves out, what takes five times the median is late."""
    late = Late(after="p95")
    late.finish(*[1.0] * 18, 20.0, 20.0)
    call = late.run(0.0)
    assert late.late(4.9) == []
    assert late.late(5.2) == [call]


def test_first_calls_of_workers() -> None:
    """The first call of a worker, which has everything to import, is measured by other first calls."""
    late = Late(min_completed=2)
    late.finish(0.1, 0.1)
    call = late.run(0.0)
    call.worker.ended = 0
    assert late.late(1.0) == []
    assert late.late(1.2) == [call]
    for _ in range(2):
        late.desk.ended(late.run(0.0), 3.0, is_cold=True)
    assert late.late(2.9) == []
    assert late.late(3.1) == [call]
