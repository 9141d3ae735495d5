"""Ledgers whose workers differ: all must be there in the beginning, and none gets more of the work for failing it."""

from __future__ import annotations

from typing import Any

import pytest

from aioparallel._model.errors import WorkerStartError
from aioparallel._policy.seats import Seat, Standing
from tests.unit.policy.desk import Desk, lost


def worker_of(call: object) -> Seat:
    seat: Seat = call.worker  # type: ignore[attr-defined]
    return seat


# All or none


def test_pool_is_up_when_every_worker_is_ready() -> None:
    """With ``all_or_none`` the first worker that is ready is not enough."""
    desk = Desk(all_or_none=True)
    seats = [Seat(index) for index in range(3)]
    for seat in seats:
        desk.do(desk.ledger.add(seat))
    for number, seat in enumerate(seats, start=1):
        assert not desk.ledger.is_up
        desk.ledger.ready(seat)
        assert desk.ledger.is_up == (number == 3)


def test_one_ready_worker_is_enough_otherwise() -> None:
    """Without ``all_or_none`` the first worker that is ready is enough."""
    desk = Desk()
    seats = [Seat(0), Seat(1)]
    for seat in seats:
        desk.do(desk.ledger.add(seat))
    desk.ledger.ready(seats[1])
    assert desk.ledger.is_up


@pytest.mark.parametrize("order", ["before", "after"])
def test_one_that_cannot_be_set_up_fails_all(order: str) -> None:
    """With ``all_or_none`` the first worker that ends before it is ready is the end, also if others are ready."""
    desk = Desk(all_or_none=True)
    good, bad = Seat(0), Seat(1)
    for seat in (good, bad):
        desk.do(desk.ledger.add(seat))
    if order == "before":
        desk.ledger.ready(good)
    desk.do(desk.ledger.gone(bad, [], lost, desk.now))
    if order == "after":
        desk.ledger.ready(good)
    assert isinstance(desk.ledger.start_error, WorkerStartError)
    assert not desk.ledger.is_up
    with pytest.raises(WorkerStartError):
        desk.ledger.enqueue(desk.call())


def test_later_deaths_are_like_any() -> None:
    """Once all were there, a worker that dies, or cannot be set up again, is replaced as in any pool."""
    desk = Desk(workers=2, all_or_none=True)
    assert desk.ledger.is_up
    desk.do(desk.ledger.gone(desk.seats[1], [], lost, desk.now))
    fresh, _ = desk.spawned[-1]
    desk.do(desk.ledger.gone(fresh, [], lost, desk.now))
    assert desk.ledger.start_error is None
    assert desk.spawned[-1][0].index == 1


# Fair shares


def test_who_fails_rests_until_the_others_have_ended_a_call() -> None:
    """A worker whose call failed gets the next one when each of the others has ended one."""
    desk = Desk(workers=3, fair=True)
    first, second, third = (desk.submit() for _ in range(3))
    waiting = [desk.submit() for _ in range(10)]
    bad = worker_of(first)
    desk.fail(first)
    assert not bad.held, "it rests, although calls wait"
    desk.end(second)
    assert not bad.held
    desk.end(third)
    assert bad.held, "two others have ended one"
    assert sum(call.worker is bad for call in waiting) == 1
    desk.ledger.check()


def test_who_succeeds_does_not_rest() -> None:
    """A worker whose call succeeded gets the next one at once."""
    desk = Desk(workers=2, fair=True)
    first, _ = desk.submit(), desk.submit()
    third = desk.submit()
    desk.end(first)
    assert third.worker is worker_of(first)


def test_nobody_rests_when_nobody_works() -> None:
    """Where all fail, or nobody else has a call, no worker waits for others."""
    desk = Desk(workers=2, fair=True)
    calls = [desk.submit() for _ in range(6)]
    for _ in range(6):
        running = next(call for call in calls if call in desk.placed and call not in desk.ends)
        desk.fail(running)
    assert len(desk.ends) == 6
    desk.ledger.check()


def test_single_worker_never_rests() -> None:
    """A pool of one worker goes on after a failure."""
    desk = Desk(workers=1, fair=True)
    first, second = desk.submit(), desk.submit()
    desk.fail(first)
    assert second in desk.placed


def test_death_of_the_others_ends_the_rest() -> None:
    """A worker that rests goes on when those it waits for have died."""
    desk = Desk(workers=2, fair=True)
    first, second, third = (desk.submit() for _ in range(3))
    bad, other = worker_of(first), worker_of(second)
    desk.fail(first)
    assert not bad.held
    desk.do(desk.ledger.gone(other, [second.seq], lost, desk.now))
    desk.place()
    assert third.worker is bad


def test_death_while_resting() -> None:
    """A worker that dies while it rests is forgotten, and its successor does not rest."""
    desk = Desk(workers=2, fair=True)
    first, second, third = (desk.submit() for _ in range(3))
    bad = worker_of(first)
    desk.fail(first)
    desk.do(desk.ledger.gone(bad, [], lost, desk.now))
    assert bad.standing is Standing.GONE
    fresh, _ = desk.spawned[-1]
    desk.ledger.ready(fresh)
    desk.place()
    assert third.worker is fresh
    desk.end(second)
    desk.ledger.check()


class Unseen(dict[Any, Any]):
    """A table in which things may be found, but that nobody goes through."""

    def __iter__(self) -> Any:
        raise AssertionError("somebody looks at each")


def test_sharing_looks_at_those_who_rest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers there are, the end of a call costs the same as long as few of them rest."""
    desk = Desk(workers=4, fair=True)
    first, *others = (desk.submit() for _ in range(12))
    roster = desk.ledger._roster
    monkeypatch.setattr(roster, "seats", Unseen(roster.seats))
    monkeypatch.setattr(desk.ledger, "check", lambda: None)  # that looks at each, in tests alone
    desk.end(others[0])
    desk.fail(first)
    assert not worker_of(first).held
    for call in others[1:4]:
        desk.end(call)
    assert worker_of(first).held


def test_without_fairness_nobody_rests() -> None:
    """Other pools give work to whoever is free: a call that fails has said something about itself only."""
    desk = Desk(workers=2)
    first, _ = desk.submit(), desk.submit()
    third = desk.submit()
    desk.fail(first)
    assert third.worker is worker_of(first)
