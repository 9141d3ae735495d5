"""The ledger under random events, beside a model that is too simple to be wrong."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aioparallel._model.call import Call, Ending, Phase
from aioparallel._model.errors import PoisonTaskError, WorkerLostError, WorkerStartError
from aioparallel._model.options import Retry
from aioparallel._policy.retry import MAX_DEATHS
from aioparallel._policy.seats import Seat, Standing
from aioparallel._policy.steps import Instruction, Place, Settle, Spawn, Verdict
from tests.unit.policy.desk import Desk, Function, lost

PRIORITIES = (-1, 0, 2)
ENDINGS = [Ending.OK, Ending.OK, Ending.RAISED, Ending.WITHDRAWN]
retries = st.one_of(
    st.none(),
    st.builds(Retry, st.integers(1, 4), backoff=st.just(0), worker_lost=st.sampled_from([None, True, False])),
)


class Model:
    """What the ledger ought to know, kept in the plainest way.

    Attributes:
        queue: The calls of each priority, in the order in which they are to be placed.
        held: What each worker has, with the number of calls that it was given or has ended in its life.
        begun: How often each call was begun.
        stuck: Workers that gave something back and have not ended a call since.
        last: The function of the calls that each worker was given last.
    """

    def __init__(self) -> None:
        self.queue: dict[int, list[Call]] = {priority: [] for priority in PRIORITIES}
        self.held: dict[Seat, list[Call]] = {}
        self.life: dict[Seat, int] = {}
        self.begun: dict[Call, int] = {}
        self.stuck: set[Seat] = set()
        self.last: dict[Seat, Function | None] = {}

    def take(self, call: Call) -> None:
        """A call leaves the queue to be placed: it must be the first one."""
        first = next(queue for _, queue in sorted(self.queue.items(), reverse=True) if queue)
        assert first[0] is call, "placed out of order"
        del first[0]

    def put(self, call: Call, *, front: int | None = None) -> None:
        if call.pin is None:
            queue = self.queue[call.options.priority]
            queue.insert(len(queue) if front is None else front, call)

    def put_back(self, calls: list[Call]) -> None:
        """Calls that did not begin return to the front, in their order."""
        for call in reversed(calls):
            self.put(call, front=0)

    def drop(self, call: Call) -> None:
        for queue in self.queue.values():
            if call in queue:
                queue.remove(call)


def most_begins(call: Call) -> int:
    """How often a call may be begun: each kind of failure has a budget of its own."""
    retry = call.options.retry
    exceptions = 0 if retry is None else retry.attempts - 1
    return 1 + exceptions + (MAX_DEATHS - 1 if may_follow_a_death(call) else 0)


def may_follow_a_death(call: Call) -> bool:
    """Whether the caller gave his word that a call whose end is unknown may be begun again."""
    retry = call.options.retry
    return call.options.idempotent if retry is None or retry.worker_lost is None else retry.worker_lost


class Machine(RuleBasedStateMachine):
    """Drives a ledger through events in any order."""

    @initialize(
        workers=st.integers(0, 4),
        width=st.sampled_from([1, 1, 3]),
        spare=st.sampled_from([None, None, 0, 2]),
        max_tasks=st.sampled_from([None, None, 1, 5]),
        vacant=st.integers(0, 2),
        fair=st.sampled_from([False, False, True]),
    )
    def open(self, workers: int, width: int, spare: int | None, max_tasks: int | None, vacant: int, fair: bool) -> None:
        seats = [Seat(10 + index, width, spare) for index in range(vacant)]
        self.max_tasks = max_tasks or 1_000_000
        self.desk = Desk(max_tasks=max_tasks, vacant=seats, fair=fair)
        self.ledger = self.desk.ledger
        self.model = Model()
        self.functions = [None, Function("unknown"), Function("short", 10e-6), Function("long", 5.0)]
        self.calls: list[Call] = []
        self.steps = 0
        for index in range(workers):
            self.desk.worker(index, width=width, spare=spare, ready=False)

    # Calls

    @rule(
        count=st.sampled_from([1, 2, 3, 100]),
        function=st.integers(0, 3),
        retry=retries,
        priority=st.sampled_from(PRIORITIES),
        idempotent=st.booleans(),
        lazy=st.booleans(),
    )
    def enqueue(
        self, count: int, function: int, retry: Retry | None, priority: int, idempotent: bool, lazy: bool
    ) -> None:
        for _ in range(count):
            self._enqueue(
                self.desk.call(self.functions[function], retry=retry, priority=priority, idempotent=idempotent)
            )
        self._go_on(lazy)

    @precondition(lambda self: any(seat.pins for seat in self.ledger.seats))
    @rule(data=st.data(), retry=retries, lazy=st.booleans())
    def enqueue_step(self, data: st.DataObject, retry: Retry | None, lazy: bool) -> None:
        seat = data.draw(st.sampled_from([seat for seat in self.ledger.seats if seat.pins]))
        self._enqueue(self.desk.call(pin=seat, retry=retry))
        self._go_on(lazy)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), lazy=st.booleans())
    def cancel(self, data: st.DataObject, lazy: bool) -> None:
        call = data.draw(st.sampled_from(self.calls))
        phase = call.phase
        assert self.desk.cancel(call) is (phase is not Phase.SETTLED)
        self.model.drop(call)
        self.desk.pauses.pop(call, None)
        if phase in (Phase.QUEUED, Phase.PAUSED):
            assert self.desk.verdict(call) is Verdict.CANCELLED
        self._go_on(lazy)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def overdue(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        self.desk.do(self.ledger.overdue(call))

    @precondition(lambda self: self.desk.pauses)
    @rule(data=st.data(), lazy=st.booleans())
    def resume(self, data: st.DataObject, lazy: bool) -> None:
        self._resume(data.draw(st.sampled_from(list(self.desk.pauses))))
        self._go_on(lazy)

    @precondition(lambda self: self.steps % 10 == 9)
    @rule(how=st.sampled_from(["cancel_all", "cancel_queued", "fail_all"]))
    def end_all_that_waits(self, how: str) -> None:
        held = {call for seat in self.ledger.seats for call in seat.held.values()}
        error = (WorkerStartError("nothing can start"),) if how == "fail_all" else ()
        self.desk.do(getattr(self.ledger, how)(*error))
        self._forget_waiting()
        assert {call for call in self.calls if call.phase is not Phase.SETTLED} == held

    # Workers

    @precondition(lambda self: self._seats(Standing.STARTING))
    @rule(data=st.data(), lazy=st.booleans())
    def ready(self, data: st.DataObject, lazy: bool) -> None:
        self.ledger.ready(data.draw(st.sampled_from(self._seats(Standing.STARTING))))
        self._go_on(lazy)

    @precondition(lambda self: self._busy())
    @rule(data=st.data(), seconds=st.sampled_from([1e-6, 10e-6, 1.0]), opens=st.booleans(), lazy=st.booleans())
    def answer(self, data: st.DataObject, seconds: float, opens: bool, lazy: bool) -> None:
        seat = data.draw(st.sampled_from(self._busy()))
        some = data.draw(st.integers(1, len(seat.held)))
        endings = [data.draw(st.sampled_from(ENDINGS)) for _ in range(min(some, 5))]
        ends = {seq: endings[index % len(endings)] for index, seq in enumerate(list(seat.held)[:some])}
        self._answer(seat, ends, seconds, opens=opens)
        self._go_on(lazy)

    @precondition(lambda self: self.ledger.seats)
    @rule(data=st.data(), lazy=st.booleans())
    def die(self, data: st.DataObject, lazy: bool) -> None:
        seat = data.draw(st.sampled_from(list(self.ledger.seats)))
        running = data.draw(st.sets(st.sampled_from(list(seat.held)), max_size=seat.width)) if seat.held else set()
        self._die(seat, running)
        self._go_on(lazy)

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The usual way to die: in a call, which is tried again if it may be, on a worker that is there at once."""
        seat = data.draw(st.sampled_from(self._busy()))
        self._die(seat, set(list(seat.held)[: seat.width]))
        for fresh in self._seats(Standing.STARTING):
            self.ledger.ready(fresh)
        for call in list(self.desk.pauses):
            self._resume(call)
        self._go_on(lazy=False)

    @precondition(lambda self: self._seats(Standing.READY))
    @rule(data=st.data())
    def wear_out(self, data: st.DataObject) -> None:
        self.desk.do(self.ledger.wear_out(data.draw(st.sampled_from(self._seats(Standing.READY)))))

    @rule(keep=st.integers(0, 3))
    def shrink(self, keep: int) -> None:
        self.desk.do(self.ledger.shrink(self.desk.now + 100, 50, keep))

    @precondition(lambda self: any(seat.pins for seat in self.ledger.seats))
    @rule(data=st.data(), lazy=st.booleans())
    def end_stream(self, data: st.DataObject, lazy: bool) -> None:
        seat = data.draw(st.sampled_from([seat for seat in self.ledger.seats if seat.pins]))
        if not seat.pinned and not any(call.pin for call in seat.held.values()):
            self._enqueue(self.desk.call(self.functions[2], pin=seat))
            self._place()
            seat.pins -= 1
        self._go_on(lazy)

    # What has to be true

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.steps += 1
        self.ledger.check()
        for call in self.calls:
            assert (call in self.desk.ends) == (call.phase is Phase.SETTLED)
            assert self.model.begun[call] <= most_begins(call), "begun more often than allowed"

    def teardown(self) -> None:
        """In the end every call has been settled, once."""
        if not hasattr(self, "ledger"):
            return
        if not self.ledger.seats:
            self.desk.worker(99, ready=False)
        for _ in range(10_000):
            if self.ledger.idle:
                break
            self._finish_something()
        assert self.ledger.idle, "something is stuck"
        assert set(self.desk.ends) == set(self.calls)
        counts = self.ledger.counts
        assert counts.done + counts.failed + counts.cancelled == len(self.calls)

    def _finish_something(self) -> None:
        for seat in self._seats(Standing.STARTING):
            self.ledger.ready(seat)
        for seat in self._seats(Standing.RETIRING):
            self._die(seat, set())
        for call in list(self.desk.pauses):
            self._resume(call)
        self._go_on(lazy=False)
        for seat in self._busy():
            self._answer(seat, dict.fromkeys(seat.held, Ending.OK), 1.0)
        for seat in self._seats(Standing.READY):
            if not seat.held:
                seat.pins = 0
                self.desk.do(self.ledger._freed(seat))

    # How it is done

    def _seats(self, standing: Standing) -> list[Seat]:
        return [seat for seat in self.ledger.seats if seat.standing is standing]

    def _able(self) -> list[Seat]:
        """Workers that may be given calls."""
        resting = self.ledger._roster.resting
        return [seat for seat in self._seats(Standing.READY) if not seat.worn and seat not in resting]

    def _busy(self) -> list[Seat]:
        return [seat for seat in self.ledger.seats if seat.held]

    def _enqueue(self, call: Call) -> None:
        try:
            self.ledger.enqueue(call)
        except WorkerStartError:
            assert self.ledger.start_error is not None
            return
        self.calls.append(call)
        self.model.begun[call] = 0
        self.model.put(call)

    def _resume(self, call: Call) -> None:
        del self.desk.pauses[call]
        self.ledger.resume(call)
        self.model.put(call)

    def _answer(self, seat: Seat, ends: dict[int, Ending], seconds: float, *, opens: bool = False) -> None:
        model = self.model
        calls = {seq: seat.held[seq] for seq in ends}
        stopped = {call for call in calls.values() if call.stop is not None}
        cancelled = {call for call in stopped if call.stop == 1}
        back = [call for seq, call in calls.items() if ends[seq] is Ending.WITHDRAWN and call not in cancelled]
        for seq, call in calls.items():
            model.begun[call] += ends[seq] is not Ending.WITHDRAWN
        answers = [(seq, ending, ValueError("no"), seconds) for seq, ending in ends.items()]
        seat.pins += opens and Ending.OK in ends.values()
        self.desk.do(self.ledger.ended(seat, answers, self.desk.now))
        model.held[seat] = [call for call in model.held[seat] if call not in set(calls.values())]
        model.put_back(back)
        (model.stuck.add if Ending.WITHDRAWN in ends.values() and seat.held else model.stuck.discard)(seat)
        for seq, call in calls.items():
            if ends[seq] is Ending.OK and call not in stopped:
                assert self.desk.verdict(call) is Verdict.OK
            elif call in cancelled:
                assert self.desk.verdict(call) is Verdict.CANCELLED

    def _die(self, seat: Seat, running: set[int]) -> None:
        held = dict(seat.held)
        stops = {call: call.stop for call in held.values()}
        for seq in running:
            self.model.begun[held[seq]] += 1
        steps = self.ledger.gone(seat, running, lost, self.desk.now)
        self.desk.do(steps)
        self.model.held.pop(seat, None)
        self.model.put_back(
            [call for seq, call in held.items() if seq not in running and stops[call] != 1 and call.pin is not seat]
        )
        if self.ledger.start_error is not None and not self.ledger.any_ready:
            self._forget_waiting()
        for seq, call in held.items():
            self._check_lost(call, seq in running, stops[call])
        assert sum(isinstance(step, Spawn) for step in steps) <= 1

    def _check_lost(self, call: Call, was_running: bool, stop: Any) -> None:
        if stop == 1:
            assert self.desk.verdict(call) is Verdict.CANCELLED
        elif was_running and stop is None and not may_follow_a_death(call):
            assert type(self.desk.error(call)) is WorkerLostError
        elif was_running and len(call.deaths or ()) >= MAX_DEATHS:
            assert isinstance(self.desk.error(call), (PoisonTaskError, WorkerLostError))

    def _forget_waiting(self) -> None:
        for queue in self.model.queue.values():
            queue.clear()
        self.desk.pauses.clear()

    def _go_on(self, lazy: bool) -> None:
        """What an executor does after every event; it may also be that several come at once."""
        if not lazy:
            self._place()
            idle = [seat for seat in self._able() if not seat.held]
            assert not idle or not any(self.model.queue.values()), "calls wait although a worker is idle"

    def _place(self) -> None:
        steps = self.ledger.place()
        for step in steps:
            self._follow(step)
        self.desk.do(steps)

    def _follow(self, step: Instruction) -> None:
        model = self.model
        if isinstance(step, Settle):
            assert all(call.pin.standing is Standing.GONE for call, _, _ in step.ends)
        if not isinstance(step, Place):
            return
        seat = step.seat
        held = model.held.setdefault(seat, [])
        shared = [call for call in step.calls if call.pin is None]
        if held and shared and seat.spare is None and seat.width == 1:
            self._check_sent_ahead(seat)
        for call in shared:
            model.take(call)
        held += step.calls
        model.last[seat] = step.calls[-1].function
        assert len({call.function for call in step.calls}) == 1 or seat.spare is not None
        assert not shared or seat.spare is not None or seat.ended + len(held) <= self.max_tasks

    def _check_sent_ahead(self, seat: Seat) -> None:
        """A busy worker gets more only if all have something to do, and what it was given last is short."""
        idle = [other for other in self._able() if not self.model.held.get(other)]
        function = self.model.last[seat]
        assert not idle, "a call waits behind another although a worker is idle"
        assert seat not in self.model.stuck, "a worker that is stuck is sent more"
        assert function is not None
        assert function.costs.calls_per_frame > 1, "a call waits behind a long one"


TestLedger = Machine.TestCase
TestLedger.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
