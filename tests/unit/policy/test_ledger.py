"""The ledger: every transition of a call and of a worker, without a loop, a clock or a process."""

from __future__ import annotations

import functools
from copy import copy

import pytest

from aioparallel._model.call import Call, Ending, Phase, Stop
from aioparallel._model.errors import (
    ExecutorClosedError,
    PoisonTaskError,
    TaskTimeoutError,
    WorkerLostError,
    WorkerStartError,
)
from aioparallel._model.options import Retry
from aioparallel._policy.backlog import MANY
from aioparallel._policy.ledger import TOP_UP
from aioparallel._policy.roster import MAX_HELD
from aioparallel._policy.seats import Seat, Standing
from aioparallel._policy.steps import Spawn, Verdict
from tests.unit.policy.desk import Desk, Function, halted, lost, lost_with_its_host

OK, RAISED, WITHDRAWN = Ending.OK, Ending.RAISED, Ending.WITHDRAWN
WAITING, QUEUED, PLACED, PAUSED, SETTLED = Phase
SHORT = 10e-6
LONG = 5.0


# The life of a call


def call_in(phase: Phase, desk: Desk) -> Call:
    """A call that has come as far as this."""
    if phase is WAITING:
        return desk.call()
    if phase is not QUEUED:
        desk.worker()
    call = desk.submit(retry=Retry(3))
    if phase is PAUSED:
        desk.fail(call)
    elif phase is SETTLED:
        desk.end(call)
    return call


@pytest.mark.parametrize("phase", Phase)
def test_phases_can_be_reached(phase: Phase) -> None:
    """A call is waiting until it is enqueued, then queued, placed, perhaps paused, and settled in the end."""
    desk = Desk()
    assert call_in(phase, desk).phase is phase
    desk.ledger.check()


@pytest.mark.parametrize(
    ("phase", "after", "verdict", "halts"),
    [
        (WAITING, SETTLED, Verdict.CANCELLED, 0),
        (QUEUED, SETTLED, Verdict.CANCELLED, 0),
        (PLACED, PLACED, None, 1),
        (PAUSED, SETTLED, Verdict.CANCELLED, 0),
        (SETTLED, SETTLED, Verdict.OK, 0),
    ],
)
def test_cancel(phase: Phase, after: Phase, verdict: Verdict | None, halts: int) -> None:
    """Cancelling settles a call that no worker holds at once, and has the others stopped."""
    desk = Desk()
    call = call_in(phase, desk)
    assert desk.cancel(call) is (phase is not SETTLED)
    assert (call.phase, desk.verdict(call), len(desk.halts)) == (after, verdict, halts)
    assert desk.ledger.counts.cancelled == (verdict is Verdict.CANCELLED)


@pytest.mark.parametrize("phase", Phase)
def test_overdue(phase: Phase) -> None:
    """Only a call that a worker holds can be overdue."""
    desk = Desk()
    call = call_in(phase, desk)
    before = desk.verdict(call)
    desk.do(desk.ledger.overdue(call))
    assert call.phase is phase
    assert desk.verdict(call) is before
    assert desk.halts == ([call] if phase is PLACED else [])


@pytest.mark.parametrize("phase", Phase)
def test_resume(phase: Phase) -> None:
    """Only a paused call is queued again when its pause is over."""
    desk = Desk()
    call = call_in(phase, desk)
    desk.ledger.resume(call)
    assert call.phase is (QUEUED if phase is PAUSED else phase)
    desk.ledger.check()


@pytest.mark.parametrize(
    ("stop", "ending", "verdict", "attempts"),
    [
        (None, OK, Verdict.OK, 1),
        (None, RAISED, Verdict.FAILED, 1),
        (None, WITHDRAWN, None, 0),
        (Stop.CANCEL, OK, Verdict.CANCELLED, 1),
        (Stop.CANCEL, RAISED, Verdict.CANCELLED, 1),
        (Stop.CANCEL, WITHDRAWN, Verdict.CANCELLED, 0),
        (Stop.TIMEOUT, OK, Verdict.FAILED, 1),
        (Stop.TIMEOUT, RAISED, Verdict.FAILED, 1),
        (Stop.TIMEOUT, WITHDRAWN, None, 0),
    ],
)
def test_answers(stop: Stop | None, ending: Ending, verdict: Verdict | None, attempts: int) -> None:
    """What an answer means depends on whether the call was to be stopped; one given back unbegun is queued again."""
    desk = Desk(1)
    call = desk.submit()
    if stop is not None:
        halted(desk, call, stop)
    desk.do(desk.ledger.ended(desk.seats[0], [(call.seq, ending, ValueError("no"), 1.0)], desk.now))
    assert (desk.verdict(call), call.attempts) == (verdict, attempts)
    assert call.phase is (QUEUED if verdict is None else SETTLED)
    if stop is Stop.TIMEOUT and verdict is not None:
        assert isinstance(desk.error(call), TaskTimeoutError)


@pytest.mark.parametrize(
    ("stop", "begun", "verdict", "error"),
    [
        (None, True, Verdict.FAILED, WorkerLostError),
        (None, False, None, None),
        (Stop.CANCEL, True, Verdict.CANCELLED, None),
        (Stop.CANCEL, False, Verdict.CANCELLED, None),
        (Stop.TIMEOUT, True, Verdict.FAILED, TaskTimeoutError),
        (Stop.TIMEOUT, False, None, None),
    ],
)
def test_death(stop: Stop | None, begun: bool, verdict: Verdict | None, error: type[Exception] | None) -> None:
    """A death fails the call that was running, and no other."""
    desk = Desk(1)
    call = desk.submit()
    if stop is not None:
        halted(desk, call, stop)
    desk.do(desk.ledger.gone(desk.seats[0], [call.seq] if begun else [], lost, desk.now))
    assert desk.verdict(call) is verdict
    assert call.attempts == begun
    assert (call.begun_at is not None) is begun
    assert call.phase is (QUEUED if verdict is None else SETTLED)
    if error is not None:
        assert type(desk.error(call)) is error


def test_timeout_says_where() -> None:
    """A call that was killed because its time was up tells its limit and its stack."""
    desk = Desk(1)
    call = desk.submit(timeout=3)
    halted(desk, call, Stop.TIMEOUT)
    desk.die(desk.seats[0], call)
    error = desk.error(call)
    assert (error.call, error.timeout, error.stack) == ("work", 3, "where")


def test_cancel_wins_over_timeout() -> None:
    """A call that is cancelled after its time was up ends as cancelled, and is stopped once."""
    desk = Desk(1)
    call = desk.submit()
    halted(desk, call, Stop.TIMEOUT)
    halted(desk, call, Stop.CANCEL)
    halted(desk, call, Stop.TIMEOUT)
    assert desk.halts == [call]
    desk.die(desk.seats[0], call)
    assert desk.verdict(call) is Verdict.CANCELLED


def test_a_second_beginning_is_a_new_one() -> None:
    """A call that was given back when its time seemed to be up may succeed elsewhere."""
    desk = Desk(1)
    call = desk.submit()
    halted(desk, call, Stop.TIMEOUT)
    desk.end(call, WITHDRAWN)
    assert call.phase is PLACED
    desk.end(call, value="in time")
    assert desk.ends[call] == (Verdict.OK, "in time")


def test_reprieve() -> None:
    """A call that was spared is not being stopped any more, unless somebody has cancelled it meanwhile."""
    desk = Desk(2)
    spared, cancelled = desk.submit(timeout=5), desk.submit(timeout=5)
    for call in (spared, cancelled):
        desk.do(desk.ledger.overdue(call))
    desk.cancel(cancelled)
    for call in (spared, cancelled):
        desk.do(desk.ledger.reprieve(call))
    assert (spared.stop, cancelled.stop) == (None, Stop.CANCEL)
    assert desk.halts == [spared, cancelled, cancelled]
    desk.end(spared)
    assert desk.verdict(spared) is Verdict.OK


def test_late_answers_are_ignored() -> None:
    """An answer to a call that the worker does not hold changes nothing."""
    desk = Desk(1)
    call = desk.submit()
    desk.end(call, value="first")
    desk.do(desk.ledger.ended(desk.seats[0], [(call.seq, RAISED, ValueError(), 1.0), (99, OK, 1, 1.0)], desk.now))
    assert desk.ends[call] == (Verdict.OK, "first")
    assert desk.ledger.counts.done == 1


def test_times_and_attempts() -> None:
    """A call knows how often it was begun, when last, and how long it took."""
    desk = Desk(1)
    call = desk.submit(retry=2)
    desk.now = 1010.0
    desk.fail(call, seconds=4.0)
    assert (call.attempts, call.begun_at, call.settled_at) == (1, None, None)
    desk.resume(call)
    desk.now = 1020.0
    desk.end(call, seconds=3.0)
    assert (call.attempts, call.begun_at, call.settled_at, call.duration) == (2, 1017.0, 1020.0, 3.0)


def test_lost_call_tells_when_it_began() -> None:
    """A call that died with its worker tells when it began."""
    desk = Desk(1)
    call = desk.submit()
    desk.die(desk.seats[0], call)
    assert (call.begun_at, call.settled_at) == (998.0, 1000.0)
    assert not desk.seats[0].held


def test_a_known_beginning_is_kept() -> None:
    """What an executor says of a call's beginning is not replaced by what its end suggests."""
    desk = Desk(2)
    ended, died = desk.submit(), desk.submit()
    ended.begun_at = died.begun_at = 5.0
    desk.end(ended)
    desk.die(died.worker, died)
    assert ended.begun_at == died.begun_at == 5.0


# Trying again


def test_retry_after_error() -> None:
    """A call that raised is begun again after a pause, as often as its retry allows."""
    desk = Desk(1)
    call = desk.submit(retry=Retry(3, backoff=0.1))
    desk.fail(call)
    assert desk.pauses == {call: 0.1}
    desk.resume(call)
    desk.fail(call)
    assert desk.pauses == {call: 0.2}
    desk.resume(call)
    desk.fail(call, error := ValueError("third"))
    assert (desk.error(call), call.attempts) == (error, 3)
    assert (desk.ledger.counts.retried, desk.ledger.counts.failed) == (2, 1)


def test_retry_after_timeout() -> None:
    """A call that was killed because its time was up is begun again, and may be timed out again."""
    desk = Desk(1)
    call = desk.submit(timeout=1, retry=Retry(2, on=TimeoutError))
    halted(desk, call, Stop.TIMEOUT)
    fresh = desk.die(desk.seats[0], call)
    assert fresh is not None
    desk.ledger.ready(fresh)
    desk.resume(call)
    halted(desk, call, Stop.TIMEOUT)
    assert desk.halts == [call, call]
    desk.die(fresh, call)
    assert isinstance(desk.error(call), TaskTimeoutError)
    assert desk.ledger.counts.deaths == 0


@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({}, False),
        ({"retry": 3}, False),
        ({"idempotent": True}, True),
        ({"retry": Retry(3, worker_lost=True)}, True),
        ({"retry": Retry(3, worker_lost=False), "idempotent": True}, False),
        ({"retry": 1, "idempotent": True}, True),
        ({"retry": Retry(3, worker_lost=0), "idempotent": True}, False),
    ],
)
def test_retry_after_death(options: dict[str, object], again: bool) -> None:
    """A call whose effects are unknown is begun again only by the caller's word."""
    desk = Desk(1)
    call = desk.submit(**options)
    desk.die(desk.seats[0], call)
    assert (call in desk.pauses, call in desk.ends) == (again, not again)


def test_poison() -> None:
    """A call that has killed three workers is set aside, and tells their deaths."""
    desk = Desk(4)
    call = desk.submit(idempotent=True)
    for _ in range(3):
        desk.die(call.worker, call)
        if call in desk.pauses:
            desk.resume(call)
    error = desk.error(call)
    assert type(error) is PoisonTaskError
    assert str(error).startswith("work killed 3 workers and is not run again")
    assert error.history == ("w (pid 7) was killed by SIGSEGV while running work, 2.0 s in",) * 3
    assert (error.call, error.signal, call.attempts) == ("work", "SIGSEGV", 3)


@pytest.mark.parametrize("crashed", [True, False])
def test_deaths_that_nobody_explains(crashed: bool) -> None:
    """Where nobody says how a process ended, it counts as killed by the call only if its machine did not end with it."""
    desk = Desk(1, width=4)
    call = desk.submit(idempotent=True)
    for _ in range(3):
        error = WorkerLostError("gone", call="work", worker="w", crashed=crashed)
        desk.do(desk.ledger.lost(call.worker, call, error, desk.now))
        if call in desk.pauses:
            desk.resume(call)
    assert (call in desk.ends) is crashed
    if crashed:
        assert type(desk.error(call)) is PoisonTaskError


def test_budget_ends_before_poison() -> None:
    """A retry that allows one death begins a call no third time, although poison needs three."""
    desk = Desk(3)
    call = desk.submit(retry=Retry(5, worker_lost=1))
    desk.die(call.worker, call)
    desk.resume(call)
    desk.die(call.worker, call)
    assert type(desk.error(call)) is WorkerLostError


def test_budgets_are_separate() -> None:
    """Deaths and timeouts use up nothing of the attempts for exceptions, nor the other way round."""
    desk = Desk(3)
    call = desk.submit(retry=Retry(2, worker_lost=1, timeout=1), timeout=5)
    desk.die(call.worker, call)
    desk.resume(call)
    halted(desk, call, Stop.TIMEOUT)
    desk.die(call.worker, call)
    desk.resume(call)
    desk.fail(call)
    desk.resume(call)
    assert call.attempts == 4
    desk.fail(call, ValueError("last"))
    assert desk.error(call).args == ("last",)


def test_timeouts_have_a_budget() -> None:
    """A call that ran too long is begun again as often as its retry says of timeouts."""
    desk = Desk(1)
    call = desk.submit(retry=Retry(9, timeout=1), timeout=5)
    for _ in range(2):
        halted(desk, call, Stop.TIMEOUT)
        desk.fail(call)
        if call in desk.pauses:
            desk.resume(call)
    assert isinstance(desk.error(call), TaskTimeoutError)


def test_lost_machines_are_no_poison() -> None:
    """A call that was lost with its machine again and again has killed nobody."""
    desk = Desk(6)
    call = desk.submit(idempotent=True)
    for _ in range(5):
        desk.do(desk.ledger.gone(call.worker, [call.seq], lost_with_its_host, desk.now))
        desk.resume(call)
    assert call.attempts == 6
    assert not call.deaths


@pytest.mark.parametrize(("signal", "killed_for", "deaths"), [("SIGKILL", "overdue", 0), ("SIGSEGV", None, 1)])
def test_killed_for_another_call(signal: str, killed_for: str | None, deaths: int) -> None:
    """Who ran beside a call that was overdue, and was killed with it, is told for whom, and has killed nobody."""
    desk = Desk(1, width=2)
    overdue, neighbour = desk.submit(timeout=1, name="overdue"), desk.submit(retry=Retry(1, worker_lost=0))
    halted(desk, overdue, Stop.TIMEOUT)
    how = WorkerLostError("", signal=signal, exitcode=None)
    desk.do(desk.ledger.gone(overdue.worker, [overdue.seq, neighbour.seq], lambda call: copy(how), desk.now))
    assert isinstance(desk.error(overdue), TaskTimeoutError)
    assert desk.error(neighbour).killed_for == killed_for
    assert len(neighbour.deaths or ()) == deaths
    assert neighbour.losses == 1 - deaths


def test_retry_that_fails_itself() -> None:
    """A retry whose predicate raises costs the call its further attempts, and is named in a note."""

    def wants(error: BaseException) -> bool:
        raise KeyError("oops")

    desk = Desk(1)
    call = desk.submit(retry=Retry(3, on=wants))
    desk.fail(call, ValueError("mine"))
    assert str(desk.error(call)) == "mine"
    assert desk.error(call).__notes__ == ["not begun again, because its Retry failed: KeyError('oops')"]


# Order


def test_first_come_first_served() -> None:
    """Calls of one priority are placed in the order in which they came."""
    desk = Desk()
    calls = [desk.submit() for _ in range(5)]
    desk.worker()
    for call in calls:
        desk.place()
        desk.end(call)
    assert desk.placed == calls


def test_priorities() -> None:
    """A call of higher priority is placed first, whatever priorities came and went before."""
    desk = Desk()
    calls = {priority: desk.submit(priority=priority) for priority in (0, 5, -3, 5000, 2)}
    desk.cancel(calls[5000])
    seat = desk.worker()
    for priority in (5, 2, 0, -3):
        desk.place()
        assert list(seat.held.values()) == [calls[priority]]
        desk.end(calls[priority])
    last = desk.submit()
    assert desk.placed[-1] is last


@pytest.mark.parametrize("priority", [-1, 0, 7])
def test_equal_priorities(priority: int) -> None:
    """Calls of one priority, whichever it is, are placed in the order in which they came."""
    desk = Desk()
    calls = [desk.submit(priority=priority) for _ in range(4)]
    desk.worker(spare=9)
    desk.place()
    assert desk.placed == calls


def test_given_back_calls_keep_their_order() -> None:
    """Calls that come back from a worker go before those that were queued behind them."""
    function = Function(seconds=SHORT)
    desk = Desk(1, spare=None)
    calls = [desk.call(function) for _ in range(6)]
    for call in calls:
        desk.ledger.enqueue(call)
    desk.place()
    later = desk.submit(function)
    first, *behind = desk.seats[0].held.values()
    assert behind
    fresh = desk.die(desk.seats[0], first)
    assert fresh is not None
    desk.ledger.ready(fresh)
    desk.placed.clear()
    while len(desk.placed) < 6:
        desk.place()
        for call in list(fresh.held.values()):
            desk.end(call)
    assert desk.placed == [*calls[1:], later]


def test_resumed_calls_go_to_the_end() -> None:
    """A call that is tried again does not overtake those that wait for their first time."""
    desk = Desk(1)
    failing = desk.submit(retry=2)
    waiting = [desk.submit(), desk.submit()]
    desk.fail(failing)
    desk.resume(failing)
    for running in waiting:
        desk.end(running)
    assert desk.placed == [failing, *waiting, failing]


def test_cancelled_calls_are_skipped() -> None:
    """A cancelled call is never placed, wherever in the queue it was."""
    desk = Desk()
    calls = [desk.submit() for _ in range(6)]
    for index in (0, 2, 5):
        desk.cancel(calls[index])
    seat = desk.worker(spare=5)
    desk.place()
    assert list(seat.held.values()) == [calls[1], calls[3], calls[4]]
    assert desk.ledger.counts.cancelled == 3


def test_cancelled_calls_are_let_go() -> None:
    """Calls that are cancelled while all workers are busy do not pile up."""
    desk = Desk(1)
    desk.submit()
    last = desk.submit(priority=1)
    for _ in range(3 * MANY):
        call = desk.call()
        desk.ledger.enqueue(call)
        desk.ledger.cancel(call)
    kept = sum(map(len, desk.ledger._backlog._queues.values()))
    assert kept <= MANY + 2
    assert desk.ledger.queued == 1
    desk.end(desk.placed[0])
    assert desk.placed[-1] is last


# Which worker


def test_idle_workers_come_first() -> None:
    """No call is put behind another while some worker has nothing to do."""
    function = Function(seconds=SHORT)
    desk = Desk(4, spare=None)
    calls = [desk.submit(function) for _ in range(4)]
    assert {call.worker for call in calls} == set(desk.seats)


def test_last_idle_worker_is_taken() -> None:
    """The worker that became idle last is given the next call, so that the others may be let go."""
    desk = Desk(3)
    calls = [desk.submit() for _ in range(3)]
    for index in (2, 0, 1):
        desk.end(calls[index])
    assert desk.submit().worker is calls[1].worker


@pytest.mark.parametrize("seconds", [None, LONG])
def test_long_calls_travel_alone(seconds: float | None) -> None:
    """A worker holds one call of a function that takes long, or that nobody has seen yet."""
    desk = Desk(2, spare=None)
    for _ in range(10 * TOP_UP):
        desk.ledger.enqueue(desk.call(Function(seconds=seconds)))
    desk.place()
    assert [len(seat.held) for seat in desk.seats] == [1, 1]


def test_short_calls_travel_together() -> None:
    """Short calls of one function are cut into frames that all workers share."""
    function = Function(seconds=SHORT)
    desk = Desk(2, spare=None)
    for _ in range(100):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    held = [len(seat.held) for seat in desk.seats]
    assert min(held) >= 15
    assert sum(held) + desk.ledger.queued == 100


def test_frames_hold_one_function() -> None:
    """A frame ends where calls of another function begin."""
    short, long = Function("short", SHORT), Function("long", LONG)
    desk = Desk(1, spare=None)
    for function in (short, short, short, long, short):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    assert {call.function for call in desk.placed} == {short}


def test_nothing_waits_behind_a_long_call() -> None:
    """A worker that holds a call of a function that takes long is given nothing else."""
    short, long = Function("short", SHORT), Function("long", LONG)
    desk = Desk(1, spare=None)
    desk.submit(long)
    for _ in range(10 * TOP_UP):
        desk.ledger.enqueue(desk.call(short))
    desk.place()
    assert len(desk.seats[0].held) == 1


def test_workers_are_kept_busy_with_short_calls() -> None:
    """A busy worker is sent short calls ahead as soon as enough of them wait, up to its window."""
    function = Function(seconds=1e-6)
    desk = Desk(1, spare=None)
    desk.submit(function)
    for _ in range(TOP_UP - 1):
        desk.submit(function)
    assert len(desk.seats[0].held) == 1
    desk.submit(function)
    assert len(desk.seats[0].held) > 1
    for _ in range(5 * MAX_HELD):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    assert MAX_HELD <= len(desk.seats[0].held) < 2 * MAX_HELD


def test_a_worker_stuck_in_a_long_call_is_not_sent_more() -> None:
    """A worker that gave calls back because it is in a long one gets nothing until that one has ended."""
    function = Function(seconds=SHORT)
    desk = Desk(2, spare=None)
    other, stuck = desk.seats
    for _ in range(20 * TOP_UP):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    running, *behind = stuck.held.values()
    desk.do(desk.ledger.ended(stuck, [(call.seq, WITHDRAWN, None, 0.0) for call in behind], desk.now))
    desk.place()
    assert list(stuck.held.values()) == [running]
    for _ in range(3):
        for call in list(other.held.values()):
            desk.end(call, seconds=SHORT)
    assert list(stuck.held.values()) == [running]
    desk.end(running, seconds=SHORT)
    assert stuck.held


def test_costs_belong_to_the_function_that_was_called() -> None:
    """What short calls took is not held against the long one that the worker was given after them."""
    short, unknown = Function("short", SHORT), Function("unknown")
    desk = Desk(1, spare=None)
    for function in (short, short, unknown):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    seat = desk.seats[0]
    while not any(call.function is unknown for call in seat.held.values()):
        desk.end(next(iter(seat.held.values())), seconds=SHORT)
    (long,) = seat.held.values()
    assert unknown.costs.seconds is None
    desk.end(long, seconds=LONG)
    assert (short.costs.seconds, unknown.costs.seconds) == (SHORT, LONG)


def test_costs_of_several_functions_in_one_answer() -> None:
    """What calls took that ended together counts for the function of each."""
    functions = [Function("a"), Function("b"), Function("a again")]
    desk = Desk(1, spare=2)
    for function in functions:
        desk.submit(function)
    seat = desk.seats[0]
    ends = [(call.seq, OK, None, float(call.seq)) for call in seat.held.values()]
    desk.do(desk.ledger.ended(seat, ends, desk.now))
    assert [function.costs.seconds for function in functions] == [1.0, 2.0, 3.0]
    assert seat.ended == desk.ledger.latencies.count == 3


def test_fixed_windows_are_filled() -> None:
    """A worker of fixed width and spare is given calls of all functions until it is full."""
    desk = Desk(1, width=2, spare=3)
    for _ in range(9):
        desk.ledger.enqueue(desk.call(Function(seconds=LONG)))
    desk.place()
    assert len(desk.seats[0].held) == 5


def test_ended_calls_make_room() -> None:
    """Each call that ends lets the next one be placed."""
    desk = Desk(1)
    first, second = desk.submit(), desk.submit()
    assert (first.phase, second.phase) == (PLACED, QUEUED)
    desk.end(first)
    assert second.phase is PLACED


@pytest.mark.parametrize(
    ("workers", "waiting", "placeable"),
    [(0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True)],
)
def test_enqueue_says_whether_to_place(workers: int, waiting: int, placeable: bool) -> None:
    """Enqueueing says whether something can be placed now."""
    desk = Desk(workers)
    for _ in range(waiting):
        desk.submit()
    assert desk.ledger.enqueue(desk.call()) is placeable


def test_enqueue_says_to_place_a_step() -> None:
    """Enqueueing a pinned call says that it can be placed."""
    desk = Desk(1)
    assert desk.ledger.enqueue(desk.call(pin=desk.seats[0])) is True


def test_enqueue_says_to_start_a_worker() -> None:
    """Enqueueing says so when a call may have a worker started for it."""
    assert Desk(vacant=[Seat(0)]).ledger.enqueue(Desk().call()) is True


def test_who_fails_rests() -> None:
    """A fair ledger gives nothing to a worker whose call failed until each of the others has ended one as well."""
    desk = Desk(3, fair=True)
    failing, *others = desk.submit(), desk.submit(), desk.submit()
    waiting = [desk.submit() for _ in range(5)]
    desk.fail(failing)
    assert waiting[0].phase is QUEUED
    desk.end(others[0])
    assert waiting[0].worker is others[0].worker
    desk.end(others[1])
    assert {call.worker for call in waiting[:3]} == set(desk.seats)


def test_who_fails_works_when_nobody_else_does() -> None:
    """A worker whose call failed rests no longer than another is at work."""
    desk = Desk(2, fair=True)
    failing, other = desk.submit(), desk.submit()
    waiting = desk.submit()
    desk.fail(failing)
    assert waiting.phase is QUEUED
    desk.die(other.worker, other)
    assert waiting.worker is failing.worker
    desk.fail(waiting)
    assert desk.submit().phase is PLACED


# The life of a worker


def test_worn_before_it_is_ready() -> None:
    """A worker that is to end before it is ready ends as soon as it is, and is replaced."""
    desk = Desk()
    seat = desk.worker(ready=False)
    call = desk.submit()
    desk.do(desk.ledger.wear_out(seat))
    desk.do(desk.ledger.ready(seat))
    assert desk.retired == [seat]
    fresh = desk.die(seat)
    assert fresh is not None
    desk.do(desk.ledger.ready(fresh))
    desk.place()
    assert call.worker is fresh


def test_discarded() -> None:
    """A worker that is not started after all leaves nothing behind, and is not counted as dead."""
    desk = Desk(1)
    seat = desk.worker(1, ready=False)
    desk.ledger.discard(seat)
    desk.ledger.check()
    assert list(desk.ledger.seats) == desk.seats
    assert (desk.ledger.width, desk.ledger.counts.deaths) == (1, 0)
    assert desk.ledger.ready(seat) == []


def test_a_site_is_closed_while_a_worker_starts() -> None:
    """A worker that starts at a site that is being closed ends when it is ready, and is not replaced."""
    desk = Desk()
    seat = desk.worker(ready=False)
    desk.do(desk.ledger.close_site(seat.site))
    desk.do(desk.ledger.ready(seat))
    assert desk.retired == [seat]
    assert desk.die(seat) is None


@pytest.mark.parametrize(("failures", "pause"), [(0, 0), (1, 0.1), (2, 0.2), (20, 30.0), (5000, 30.0)])
def test_pauses_before_a_start(failures: int, pause: float) -> None:
    """After failures a worker is started later and later, up to a limit: what was wrong may have passed."""
    assert Spawn(Seat(0), failures).pause == pytest.approx(pause)


@pytest.mark.parametrize(
    ("standing", "after"),
    [(Standing.STARTING, Standing.READY), *((standing, standing) for standing in list(Standing)[1:])],
)
def test_ready(standing: Standing, after: Standing) -> None:
    """Only a worker that starts can become ready, and only once."""
    desk = Desk()
    seat = seat_in(standing, desk)
    desk.ledger.ready(seat)
    assert seat.standing is after
    desk.ledger.check()


@pytest.mark.parametrize(
    ("standing", "failures", "deaths"),
    [(Standing.STARTING, 1, 1), (Standing.READY, 0, 1), (Standing.RETIRING, 0, 0)],
)
def test_replacement(standing: Standing, failures: int, deaths: int) -> None:
    """Every worker that ends is replaced in its place, and what nobody asked for counts as a death."""
    desk = Desk()
    seat = seat_in(standing, desk)
    fresh = desk.die(seat)
    assert fresh is not None
    assert (fresh.index, fresh.width, fresh.spare, fresh.standing) == (3, 1, 0, Standing.STARTING)
    assert desk.spawned[-1] == (fresh, failures)
    assert desk.ledger.counts.deaths == deaths
    assert seat not in desk.ledger.seats


def seat_in(standing: Standing, desk: Desk) -> Seat:
    """A worker that has come as far as this."""
    seat = desk.worker(3, ready=standing is not Standing.STARTING)
    if standing is Standing.RETIRING:
        desk.do(desk.ledger.wear_out(seat))
    elif standing is Standing.GONE:
        desk.die(seat)
    assert seat.standing is standing
    return seat


def test_killed_for_a_call_is_no_death() -> None:
    """A worker that was killed to stop its call does not count as having died."""
    desk = Desk(1)
    call = desk.submit()
    desk.cancel(call)
    desk.die(desk.seats[0], call)
    assert desk.ledger.counts.deaths == 0


def test_start_failures() -> None:
    """When three workers in a row end before they are ready, what waits fails once, with the reason."""
    desk = Desk()
    seat: Seat | None = desk.worker(ready=False)
    calls = [desk.submit(), desk.submit(priority=2)]
    for failures in (1, 2):
        assert seat is not None
        seat = desk.die(seat)
        assert desk.spawned[-1][1] == failures
        assert not desk.ends
    assert seat is not None
    assert desk.die(seat) is None
    for call in calls:
        assert isinstance(desk.error(call), WorkerStartError)
        assert "3 in a row" in str(desk.error(call))
        assert "was killed by SIGSEGV" in str(desk.error(call))
    with pytest.raises(WorkerStartError):
        desk.submit()
    assert desk.ledger.idle


def test_nobody_gives_up_before_all_were_tried() -> None:
    """Workers that cannot start fail nothing while one is starting for the first time, however often they are tried."""
    desk = Desk()
    slow, seat = desk.worker(0, ready=False), desk.worker(1, ready=False)
    call = desk.submit()
    for _ in range(5):
        fresh = desk.die(seat)
        assert fresh is not None
        seat = fresh
    assert not desk.ends
    desk.ledger.ready(slow)
    desk.place()
    assert call.worker is slow


def test_giving_up_happens_once() -> None:
    """Workers that fail to start after the ledger gave up change nothing any more."""
    desk = Desk()
    seats = [desk.worker(index, ready=False) for index in range(5)]
    others = [desk.die(seat) for seat in seats]
    error = desk.ledger.start_error
    assert error is not None
    for other in others[:-1]:
        assert other is not None
        assert desk.die(other) is None
    assert desk.ledger.start_error is error


def test_a_late_start_is_welcome() -> None:
    """A worker that becomes ready after the ledger gave up takes calls after all."""
    desk = Desk()
    first, *others = [desk.die(desk.worker(index, ready=False)) for index in range(4)]
    assert first is not None
    assert others[-1] is None, "it gave up"
    desk.ledger.ready(first)
    assert desk.submit().phase is PLACED


def test_all_or_none() -> None:
    """A pool that is to have all of its workers fails as soon as one of them cannot start."""
    desk = Desk(all_or_none=True)
    seats = [desk.worker(index, ready=False) for index in range(3)]
    call = desk.submit()
    desk.ledger.ready(seats[0])
    desk.place()
    assert not desk.ledger.is_up
    assert desk.die(seats[1]) is None
    assert "one ended before it was ready" in str(desk.ledger.start_error)
    desk.ledger.ready(seats[2])
    assert desk.ledger.start_error is not None
    assert not desk.ledger.is_up
    assert call.phase is PLACED


def test_all_or_none_once_they_are_there() -> None:
    """A pool that had all of its workers replaces those that die, and forgives a few failures, like any other."""
    desk = Desk(all_or_none=True)
    seats = [desk.worker(index, ready=False) for index in range(2)]
    for seat in seats:
        assert not desk.ledger.is_up
        desk.ledger.ready(seat)
    assert desk.ledger.is_up
    fresh = desk.die(seats[0])
    assert fresh is not None
    assert desk.die(fresh) is not None
    assert desk.ledger.start_error is None


def test_failures_while_others_work() -> None:
    """As long as one worker is ready, start failures fail no call."""
    desk = Desk(1)
    seat: Seat | None = desk.worker(1, ready=False)
    for _ in range(5):
        assert seat is not None
        seat = desk.die(seat)
    assert desk.ledger.start_error is None


def test_a_start_that_works_forgives() -> None:
    """Failures to start count in a row: a worker that becomes ready forgives those before it."""
    desk = Desk()
    seat: Seat | None = desk.worker(ready=False)
    for _ in range(2):
        for _ in range(2):
            assert seat is not None
            seat = desk.die(seat)
        assert seat is not None
        desk.ledger.ready(seat)
        seat = desk.die(seat)
        assert desk.spawned[-1][1] == 0
    assert desk.ledger.start_error is None


def test_last_worker_of_a_lost_host() -> None:
    """When no worker can ever come, the calls of the last one that dies fail instead of waiting."""
    function = Function(seconds=SHORT)
    desk = Desk(1, spare=None)
    calls = [desk.call(function) for _ in range(4)]
    for call in calls:
        desk.ledger.enqueue(call)
    desk.place()
    reason = WorkerStartError("the host is gone")
    desk.ledger.start_error = reason
    assert desk.die(desk.seats[0], calls[0]) is None
    assert type(desk.error(calls[0])) is WorkerLostError
    assert [desk.error(call) for call in calls[1:]] == [reason] * 3


def test_worn_workers_retire() -> None:
    """After its share of calls a worker is asked to end, and replaced when it has."""
    desk = Desk(1, max_tasks=2)
    for _ in range(2):
        assert not desk.retired
        desk.end(desk.submit())
    assert desk.retired == desk.seats
    call = desk.submit()
    assert call.phase is QUEUED
    fresh = desk.die(desk.seats[0])
    assert fresh is not None
    desk.ledger.ready(fresh)
    desk.place()
    assert call.worker is fresh


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("max_tasks", [1, 2, 7])
def test_max_tasks_holds_for_short_calls(max_tasks: int, width: int) -> None:
    """A worker is never given more calls than it may end, however short they are."""
    function = Function(seconds=SHORT)
    desk = Desk(1, width=width, spare=None, max_tasks=max_tasks)
    for _ in range(500):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    for call in desk.placed[:-1]:
        desk.end(call, seconds=SHORT)
        assert len(desk.placed) <= max_tasks
    while not desk.retired:
        desk.end(next(iter(desk.seats[0].held.values())), seconds=SHORT)
    assert len(desk.placed) == max_tasks


def test_worn_out_worker_ends_when_it_is_empty() -> None:
    """A worker that has grown too large ends its calls, takes no others, and retires."""
    desk = Desk(1, spare=2)
    calls = [desk.submit() for _ in range(3)]
    desk.do(desk.ledger.wear_out(desk.seats[0]))
    waiting = desk.submit()
    for call in calls:
        assert not desk.retired
        desk.end(call)
    assert desk.retired == desk.seats
    assert waiting.phase is QUEUED


def test_worn_out_worker_is_sent_nothing_ahead() -> None:
    """A worker that has grown too large is not sent short calls ahead any more."""
    function = Function(seconds=SHORT)
    desk = Desk(1, spare=None)
    desk.submit(function)
    desk.do(desk.ledger.wear_out(desk.seats[0]))
    for _ in range(2 * TOP_UP):
        desk.submit(function)
    assert len(desk.seats[0].held) == 1


def test_vacant_seats_are_filled_on_demand() -> None:
    """A worker of a vacant seat is started when a call finds all others busy, one for each call that waits."""
    vacant = [Seat(1), Seat(2), Seat(3)]
    desk = Desk(1, vacant=vacant)
    desk.submit()
    assert len(desk.spawned) == 1
    desk.submit()
    desk.submit()
    assert [seat for seat, _ in desk.spawned[1:]] == vacant[:2]
    desk.ledger.ready(vacant[0])
    desk.place()
    assert [seat for seat, _ in desk.spawned[1:]] == vacant[:2]


def test_shrinking_and_growing() -> None:
    """Workers that were idle for long end, but for those to keep, and their seats are filled again when needed."""
    desk = Desk(3)
    busy = desk.submit()
    for call in (desk.submit(), desk.submit()):
        desk.end(call)
    desk.do(desk.ledger.shrink(desk.now + 10, age=5, keep=2))
    (surplus,) = desk.retired
    assert surplus is not busy.worker
    assert desk.die(surplus) is None
    assert desk.ledger.counts.deaths == 0
    desk.submit()
    assert len(desk.spawned) == 3
    desk.submit()
    assert desk.spawned[-1][0].index == surplus.index


@pytest.mark.parametrize("age", [5, 20])
def test_shrinking_spares_the_young(age: float) -> None:
    """Only workers that have been idle for longer than the age end."""
    desk = Desk(2)
    desk.end(desk.submit())
    desk.do(desk.ledger.shrink(desk.now + 10, age=age, keep=0))
    assert len([seat for seat in desk.retired if seat is desk.placed[0].worker]) == (age < 10)


def test_shrinking_spares_streams() -> None:
    """A worker in which a stream lives does not end for having nothing to do."""
    desk = Desk(2)
    stream(desk)
    desk.do(desk.ledger.shrink(desk.now + 10, age=5, keep=0))
    assert desk.retired == desk.seats[1:]


# Streams


def stream(desk: Desk) -> Seat:
    """A worker in which a stream lives."""
    seat = desk.seats[0]
    opening = desk.submit()
    seat.pins += 1
    desk.end(opening)
    return seat


def test_steps_go_where_the_stream_lives() -> None:
    """A pinned call waits for its worker although others are idle, and goes before shared calls."""
    desk = Desk(1)
    seat = stream(desk)
    running, shared = desk.submit(), desk.submit()
    step = desk.submit(pin=seat)
    desk.worker(1)
    desk.place()
    assert (shared.phase, step.phase) == (PLACED, QUEUED)
    later = desk.submit()
    desk.end(running)
    assert (step.worker, later.phase) == (seat, QUEUED)


def test_short_calls_do_not_keep_a_stream_waiting() -> None:
    """A worker whose stream is to go on is sent no short calls ahead."""
    function = Function(seconds=SHORT)
    desk = Desk(1, spare=None)
    seat = stream(desk)
    for _ in range(30 * TOP_UP):
        desk.ledger.enqueue(desk.call(function))
    desk.place()
    assert desk.ledger.queued > TOP_UP
    step = desk.submit(pin=seat)
    for call in list(seat.held.values()):
        assert step.phase is QUEUED
        desk.end(call, seconds=SHORT)
    assert step.phase is PLACED


def test_steps_die_with_their_worker() -> None:
    """When a worker dies, the pinned calls that wait for it, here or there, fail instead of waiting forever."""
    desk = Desk(1, width=2)
    seat = stream(desk)
    running, unbegun = desk.submit(), desk.submit(pin=seat)
    waiting = desk.submit(pin=seat)
    desk.die(seat, running)
    assert type(desk.error(unbegun)) is type(desk.error(waiting)) is WorkerLostError
    assert desk.error(waiting).signal == "SIGSEGV"
    assert not seat.pinned
    assert desk.ledger.idle


def test_steps_after_their_worker() -> None:
    """A pinned call that comes when its worker is gone is refused."""
    desk = Desk(1)
    seat = stream(desk)
    desk.die(seat)
    with pytest.raises(WorkerLostError, match="cannot go on: its generator was lost"):
        desk.ledger.enqueue(desk.call(pin=seat))
    desk.ledger.check()


def test_paused_steps_die_with_their_worker() -> None:
    """A pinned call that waits for its next attempt fails when its worker is gone by then."""
    desk = Desk(1)
    seat = stream(desk)
    step = desk.submit(pin=seat, retry=3)
    desk.fail(step)
    desk.die(seat)
    assert step.phase is PAUSED
    desk.resume(step)
    assert type(desk.error(step)) is WorkerLostError


@pytest.mark.parametrize("why", [None, Stop.TIMEOUT])
def test_steps_are_not_tried_again_elsewhere(why: Stop | None) -> None:
    """A pinned call whose worker died with it has failed, whatever its retry says."""
    desk = Desk(1)
    seat = stream(desk)
    step = desk.submit(pin=seat, retry=3, idempotent=True)
    if why is not None:
        halted(desk, step, why)
    desk.die(seat, step)
    assert type(desk.error(step)) is (TaskTimeoutError if why else WorkerLostError)


def test_streams_keep_a_worn_worker() -> None:
    """A worker in which streams live retires only when they have ended."""
    desk = Desk(1, max_tasks=1)
    seat = stream(desk)
    step = desk.submit(pin=seat)
    assert step.phase is PLACED
    shared = desk.submit()
    desk.end(step)
    assert not desk.retired
    close = desk.submit(pin=seat)
    seat.pins -= 1
    desk.end(close)
    assert desk.retired == [seat]
    assert shared.phase is QUEUED


def test_cancelled_steps() -> None:
    """A pinned call that is cancelled while it waits is not placed."""
    desk = Desk(1)
    seat = stream(desk)
    running, step, other = desk.submit(), desk.submit(pin=seat), desk.submit(pin=seat)
    desk.cancel(step)
    desk.end(running)
    assert (desk.verdict(step), other.phase) == (Verdict.CANCELLED, PLACED)


# All at once


def everywhere(desk: Desk) -> list[Call]:
    """Calls in every place where a call can be."""
    seat = stream(desk)
    running = desk.submit(retry=3)
    desk.fail(running)
    return [running, desk.submit(), desk.submit(), desk.submit(priority=3), desk.submit(pin=seat)]


def test_cancel_all() -> None:
    """Cancelling everything settles what waits, and stops what a worker holds."""
    desk = Desk(1)
    paused, held, *waiting = calls = everywhere(desk)
    desk.do(desk.ledger.cancel_all())
    assert {call for call in calls if desk.verdict(call) is Verdict.CANCELLED} == {paused, *waiting}
    assert desk.halts == [held]
    desk.end(held)
    assert desk.verdict(held) is Verdict.CANCELLED
    assert desk.ledger.idle


def test_cancel_queued() -> None:
    """Cancelling what is queued leaves alone what a worker holds."""
    desk = Desk(1)
    paused, held, *waiting = calls = everywhere(desk)
    desk.do(desk.ledger.cancel_queued())
    assert {call for call in calls if desk.verdict(call) is Verdict.CANCELLED} == {paused, *waiting}
    assert (held.phase, desk.halts) == (PLACED, [])


def test_fail_all() -> None:
    """When nothing can run, what waits fails with the reason, and so does what comes later."""
    desk = Desk(1)
    paused, held, *waiting = everywhere(desk)
    reason = OSError("no more")
    desk.do(desk.ledger.fail_all(reason))
    assert [desk.error(call) for call in (paused, *waiting)] == [reason] * 4
    assert held.phase is PLACED
    with pytest.raises(OSError, match="no more"):
        desk.ledger.enqueue(desk.call())
    assert (desk.ledger.queued, desk.ledger.placed) == (0, 1)


def test_closing() -> None:
    """A ledger that closes refuses calls, and replaces no worker."""
    desk = Desk(1)
    desk.ledger.closing = True
    with pytest.raises(ExecutorClosedError):
        desk.ledger.enqueue(desk.call())
    assert desk.die(desk.seats[0]) is None


def test_process_that_comes_and_goes() -> None:
    """Where each call has a process of its own, its death takes the call and not the worker."""
    desk = Desk(1, width=2)
    seat = desk.seats[0]
    calls = [desk.submit() for _ in range(3)]
    desk.do(desk.ledger.lost(seat, calls[0], lost(calls[0]), desk.now))
    desk.place()
    assert type(desk.error(calls[0])) is WorkerLostError
    assert list(seat.held.values()) == calls[1:]
    desk.cancel(calls[1])
    desk.do(desk.ledger.lost(seat, calls[1], lost(calls[1]), desk.now))
    assert desk.verdict(calls[1]) is Verdict.CANCELLED
    assert desk.ledger.counts.deaths == 1


def test_counts() -> None:
    """The counts say how every call ended."""
    desk = Desk(1)
    desk.end(desk.submit())
    desk.fail(desk.submit())
    desk.cancel(desk.submit())
    desk.end(desk.placed[-1])
    counts = desk.ledger.counts
    assert (counts.done, counts.failed, counts.cancelled, counts.deaths) == (1, 1, 1, 0)
    assert desk.ledger.latencies.count == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queued", 3),
        ("placed", 2),
        ("_backlog.count", 1),
        ("_roster.ready", 4),
        ("_roster.starting", 1),
        ("_roster.running", 2),
        ("_roster.width", 1),
        ("_roster.idle.sites", {}),
    ],
)
def test_check_notices(field: str, value: object) -> None:
    """The ledger's own check notices books that do not balance."""
    desk = Desk(2)
    desk.submit()
    desk.ledger.check()
    *path, name = field.split(".")
    setattr(functools.reduce(getattr, path, desk.ledger), name, value)
    with pytest.raises(AssertionError):
        desk.ledger.check()
