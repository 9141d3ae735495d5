"""Calls with backup copies: who wins, who is stopped, and what is told."""

from __future__ import annotations

import pytest

from aioparallel._model.call import Call, Ending, Phase, Stop
from aioparallel._model.errors import PoisonTaskError, TaskTimeoutError, WorkerLostError
from aioparallel._model.options import Backups, Retry
from aioparallel._policy.seats import Seat, Site
from aioparallel._policy.steps import Verdict
from tests.unit.policy.desk import Desk, Function, lost


class Hosts(Desk):
    """A ledger with one worker at each of some hosts."""

    def __init__(self, hosts: int, *, slots: int = 1, **backups: object) -> None:
        self.began: dict[Call, float] = {}
        super().__init__(backups=Backups(**{"after": 1.0, "max_extra": 100, **backups}), since=self.began.get)
        self.sites = [Site(f"node{index}", is_open=True) for index in range(hosts)]
        for index, site in enumerate(self.sites * slots):
            seat = Seat(index, site=site)
            self.do(self.ledger.add(seat))
            self.ledger.ready(seat)
        self.function = Function()

    def run(self, **options: object) -> Call:
        """A copyable call that has begun."""
        call = self.submit(self.function, **{"idempotent": True, **options})
        self.began[call] = self.now
        return call

    def look(self, after: float = 2.0) -> list[Call]:
        """Look for late calls; returns the copies that were made."""
        self.now += after
        before = len(self.placed)
        self.do(self.ledger.back_up(self.now))
        for copy in self.placed[before:]:
            self.began[copy] = self.now
        return self.placed[before:]

    def stop(self, call: Call) -> None:
        """The worker of a call that was to be stopped is killed."""
        assert call.stop is not None
        self.do(self.ledger.gone(call.worker, [call.seq], lost, self.now))


def raced(desk: Hosts, copies: int = 1) -> tuple[Call, ...]:
    """A call, and so many copies of it."""
    call = desk.run()
    for _ in range(copies):
        desk.look()
    return call, *call.race.copies


# Making copies


def test_copy_runs_elsewhere() -> None:
    """A late call gets a copy on another host, under the same future, and is the same attempt."""
    desk = Hosts(2)
    call = desk.run()
    call.future = object()  # type: ignore[assignment]
    (copy,) = desk.look()
    assert copy.worker.site is not call.worker.site
    assert (copy.future, copy.attempts, call.copies) == (call.future, call.attempts, 1)
    assert desk.ledger.counts.backups == 1


def test_no_copy_on_the_same_host() -> None:
    """Where only hosts have a free slot that run the call already, there is no copy."""
    desk = Hosts(1, slots=2)
    desk.run()
    assert desk.look() == []


def test_copies_are_not_copied() -> None:
    """There are at most so many copies of a call, each on a host of its own, and none of a copy."""
    desk = Hosts(4, slots=2, max_copies=3)
    call = desk.run()
    made = [desk.look() for _ in range(5)]
    assert [len(copies) for copies in made] == [1, 1, 1, 0, 0]
    assert len({member.worker.site for member in (call, *call.race.copies)}) == 4


@pytest.mark.parametrize("options", [{"idempotent": False}, {"idempotent": False, "retry": Retry(3)}])
def test_only_idempotent_calls(options: dict[str, object]) -> None:
    """Without the caller's word that it may happen twice, a call is never copied."""
    desk = Hosts(2)
    desk.run(**options)
    assert desk.look() == []


def test_copies_where_calls_wait() -> None:
    """While calls wait, only what takes twice as long as late calls is copied: by the next worker that is free."""
    desk = Hosts(4)
    slow = desk.run()
    desk.now += 1.0
    quick, *_, waiting = [desk.run() for _ in range(4)]
    assert desk.look(0.9) == []
    desk.end(quick)
    assert slow.copies == 0
    assert waiting.worker is quick.worker


def test_copy_goes_before_calls_that_wait() -> None:
    """A copy for which there was no worker goes to the next one that is free, before the calls that wait."""
    desk = Hosts(4)
    slow = desk.run()
    desk.now += 1.5
    quick, *_ = [desk.run() for _ in range(3)]
    waiting = desk.run()
    assert desk.look(0.6) == []
    desk.end(quick)
    assert slow.copies == 1
    assert slow.race.copies[0].worker is quick.worker
    assert waiting.worker is None


def test_late_call_that_ends_meanwhile_is_not_copied() -> None:
    """A call for whose copy there was no worker gets none if it ends before there is one."""
    desk = Hosts(4)
    slow = desk.run()
    desk.now += 1.5
    quick, *_ = [desk.run() for _ in range(3)]
    desk.run()
    desk.run()
    assert desk.look(0.6) == []
    desk.end(slow)
    desk.end(quick)
    assert slow.copies == 0
    assert desk.ledger.counts.backups == 0


def test_call_that_is_being_stopped_is_not_copied() -> None:
    """A call that somebody cancelled gets no copy."""
    desk = Hosts(2)
    desk.cancel(desk.run())
    assert desk.look() == []


# Winning


def test_copy_wins() -> None:
    """The first success is the call's, at once; the loser is stopped, and keeps its worker until it is gone."""
    desk = Hosts(3)
    call, copy = raced(desk)
    slow, quick = call.worker, copy.worker
    desk.end(copy, value="quick", seconds=0.5)
    assert desk.ends[call] == (Verdict.OK, "quick")
    assert call.worker is quick
    assert desk.halts == [call]
    assert list(slow.held.values()) == [call]
    assert not desk.ledger.idle
    desk.do(desk.ledger.gone(slow, [call.seq], lost, desk.now))
    assert desk.ledger.idle
    counts = desk.ledger.counts
    assert (counts.done, counts.failed, counts.cancelled, counts.backups_won, counts.deaths) == (1, 0, 0, 1, 0)


def test_call_itself_wins() -> None:
    """If the call itself succeeds first, its copies are stopped."""
    desk = Hosts(4)
    call, *copies = raced(desk, 2)
    desk.end(call, value="first")
    assert desk.ends[call] == (Verdict.OK, "first")
    assert desk.halts == copies
    for copy in copies:
        desk.stop(copy)
    assert desk.ledger.idle
    assert desk.ledger.counts.backups_won == 0


def test_loser_that_answers_before_it_is_stopped() -> None:
    """What a loser answers, well or badly, changes nothing."""
    desk = Hosts(4)
    call, one, two = raced(desk, 2)
    own = call.worker
    desk.end(one, value="one")
    desk.do(desk.ledger.ended(own, [(call.seq, Ending.OK, "late", 1.0)], desk.now))
    desk.fail(two)
    assert desk.ends == {call: (Verdict.OK, "one")}
    assert desk.ledger.idle


def test_loser_is_taken_back() -> None:
    """A loser that had not begun is gone when it is given back."""
    desk = Hosts(2)
    call, copy = raced(desk)
    desk.end(call)
    desk.end(copy, Ending.WITHDRAWN)
    assert desk.ledger.idle


# Losing


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_failure_decides_nothing_while_another_runs(order: tuple[int, int]) -> None:
    """If all fail, the call fails with what the first to begin failed with; the others' errors are notes."""
    desk = Hosts(2)
    members = raced(desk)
    errors = [ValueError("own"), KeyError("copy")]
    desk.fail(members[order[0]], errors[order[0]])
    assert not desk.ends
    desk.fail(members[order[1]], errors[order[1]])
    assert desk.error(members[0]) is errors[0]
    assert errors[0].__notes__ == ["its backup copy on node1 failed as well: KeyError: 'copy'"]


def test_success_after_a_failure() -> None:
    """One that succeeds is enough, whatever the others did."""
    desk = Hosts(3)
    call, one, two = raced(desk, 2)
    desk.fail(call)
    desk.die(one.worker, one)
    desk.end(two, value=2)
    assert desk.ends == {call: (Verdict.OK, 2)}


def test_failed_race_is_tried_again() -> None:
    """When all have failed, the call's retry decides, and a further attempt may have copies again."""
    desk = Hosts(4)
    call = desk.run(retry=2)
    (copy,) = desk.look()
    desk.fail(call)
    desk.fail(copy)
    desk.resume(call)
    assert (call.attempts, call.race, call.phase) == (2, None, Phase.PLACED)
    desk.began[call] = desk.now
    assert len(desk.look()) == 1


def test_deaths_of_copies_count() -> None:
    """A call whose copies kill their workers is poison like any other."""
    desk = Hosts(6)
    call, *copies = raced(desk, 2)
    for member in (call, *copies):
        desk.die(member.worker, member)
    assert type(desk.error(call)) is PoisonTaskError


def test_member_that_is_taken_back() -> None:
    """A member that was given back unbegun decides nothing; the call is queued again when nobody else runs."""
    desk = Hosts(3)
    call, copy = raced(desk)
    desk.end(call, Ending.WITHDRAWN)
    assert call.phase is Phase.PLACED
    desk.end(copy, Ending.WITHDRAWN)
    assert call.phase is Phase.PLACED, "it is placed again, at once"
    assert (call.race, call.attempts) == (None, 1)
    desk.end(call, value="again")
    assert desk.ends == {call: (Verdict.OK, "again")}


# Stopping


def test_cancel_stops_all() -> None:
    """Cancelling the call stops every member; it is cancelled when the last is gone."""
    desk = Hosts(3)
    call, *copies = raced(desk, 2)
    assert desk.cancel(call)
    assert set(desk.halts) == {call, *copies}
    desk.stop(copies[0])
    desk.stop(call)
    assert not desk.ends
    desk.end(copies[1], value="too late")
    assert desk.verdict(call) is Verdict.CANCELLED
    assert desk.ledger.counts.cancelled == 1


def test_cancel_when_only_copies_run() -> None:
    """A call whose own attempt has failed is cancelled with its copies."""
    desk = Hosts(2)
    call, copy = raced(desk)
    desk.fail(call)
    assert desk.cancel(call)
    assert desk.halts == [copy]
    desk.stop(copy)
    assert desk.verdict(call) is Verdict.CANCELLED


def test_cancel_all_stops_members_once() -> None:
    """When the pool ends, every member is asked to stop once."""
    desk = Hosts(3)
    call, *copies = raced(desk, 2)
    desk.do(desk.ledger.cancel_all())
    assert sorted(map(id, desk.halts)) == sorted(map(id, (call, *copies)))


def test_each_member_has_its_own_time() -> None:
    """A member that runs too long is stopped, and the others run on; the call has timed out when all have."""
    desk = Hosts(2)
    call = desk.run(timeout=5)
    (copy,) = desk.look()
    desk.do(desk.ledger.overdue(call))
    desk.stop(call)
    assert not desk.ends
    desk.do(desk.ledger.overdue(copy))
    desk.stop(copy)
    assert isinstance(desk.error(call), TaskTimeoutError)
    assert desk.error(call).stack == "where"


def test_copy_wins_while_the_call_is_stopped_for_its_time() -> None:
    """A copy that succeeds before the call itself has been stopped for its timeout gives the call its value."""
    desk = Hosts(2)
    call = desk.run(timeout=3.0)
    (copy,) = desk.look()
    straggler = call.worker
    desk.do(desk.ledger.overdue(call))
    desk.end(copy, value="late")
    assert desk.ends[call] == (Verdict.OK, "late")
    desk.die(straggler, call)
    assert desk.ledger.placed == 0


def test_lost_host_is_survived() -> None:
    """A copy may win although the call's own host was lost."""
    desk = Hosts(2)
    call, copy = raced(desk)
    desk.do(desk.ledger.gone(call.worker, [call.seq], lambda _: WorkerLostError("", host="node0"), desk.now))
    assert not desk.ends
    desk.end(copy, value="survived")
    assert desk.ends == {call: (Verdict.OK, "survived")}


def test_stop_is_noted_on_members() -> None:
    """Whoever is stopped because another has won is cancelled, not late."""
    desk = Hosts(2)
    call, copy = raced(desk)
    desk.end(copy)
    assert call.stop is Stop.CANCEL


# What is counted


def test_copies_are_counted_for_all_attempts() -> None:
    """A call that is begun again has no further copies than a call may have in all."""
    desk = Hosts(6, max_copies=1)
    call, copy = raced(desk)
    desk.fail(copy)
    call.options = call.options.changed(retry=Retry(2, backoff=0))
    desk.fail(call)
    desk.resume(call)
    assert call.race is None
    assert call.phase is Phase.PLACED
    desk.began[call] = desk.now
    assert desk.look() == []
    assert call.info().copies == 1


@pytest.mark.parametrize("idle", ["before", "between", "after"])
def test_next_attempt_goes_where_nobody_failed(idle: str) -> None:
    """When a call and its copy have failed, the next attempt goes to a host that is neither's, whoever idles longest."""
    desk = Hosts(3)
    call, copy = raced(desk)
    other = desk.submit()
    failed = call.worker.site, copy.worker.site
    call.options = call.options.changed(retry=Retry(2, backoff=0))
    for moment, member in {"before": None, "between": copy, "after": call}.items():
        if member is not None:
            desk.fail(member)
        if moment == idle:
            desk.end(other)
    desk.resume(call)
    assert call.worker.site not in failed


def test_copy_that_never_began_costs_nothing() -> None:
    """A copy that was taken back before it began is not counted, and may be made again."""
    desk = Hosts(3)
    call, copy = raced(desk)
    desk.end(copy, Ending.WITHDRAWN)
    assert (call.copies, desk.ledger.counts.backups) == (0, 0)
    assert len(desk.look()) == 1


def test_seconds_of_losers_are_counted() -> None:
    """What a copy ran before it was killed is counted as what copies cost."""
    desk = Hosts(3)
    call, copy = raced(desk)
    desk.end(call)
    desk.stop(copy)
    assert desk.ledger.counts.backup_seconds == 2.0  # so says `lost`


def test_seconds_of_winners_are_counted() -> None:
    """What a copy ran until it won is counted as what copies cost, and once."""
    desk = Hosts(3)
    call, copy = raced(desk)
    desk.end(copy, seconds=3.0)
    desk.stop(call)
    assert desk.ledger.counts.backup_seconds == 3.0


def test_copies_keep_nothing() -> None:
    """What a copy was sent with is let go when it has ended."""
    desk = Hosts(3)
    call, copy = raced(desk)
    copy.payload = b"large"
    desk.end(copy)
    desk.stop(call)
    assert copy.payload is None
    assert not hasattr(copy, "future")


def test_what_was_taken_back_makes_no_room_for_copies() -> None:
    """A call that is sent, taken back and sent again is one call of which the budget for copies is a part, not two."""
    desk = Hosts(3, max_extra=0.5)
    call = desk.run()
    for _ in range(3):
        desk.end(call, Ending.WITHDRAWN)
    assert not desk.look()
    desk.end(desk.run())
    assert len(desk.look()) == 1
