"""A desk to try a ledger at: it makes calls and workers, and carries out instructions by writing them down."""

from __future__ import annotations

from typing import Any

from aioparallel._model.call import Call, Ending, Stop
from aioparallel._model.errors import WorkerLostError
from aioparallel._model.options import CallOptions
from aioparallel._policy.batching import Costs
from aioparallel._policy.ledger import Ledger
from aioparallel._policy.seats import Seat
from aioparallel._policy.steps import Halt, Instruction, Pause, Place, Retire, Settle, Spawn, Verdict


class Function:
    """What an executor knows of a function.

    Args:
        name: Of the function.
        seconds: What its calls have taken so far; ``None``: it has never been called.
    """

    def __init__(self, name: str = "f", seconds: float | None = None) -> None:
        self.name = name
        self.costs = Costs()
        if seconds is not None:
            self.costs.add(seconds, seconds)

    def __repr__(self) -> str:
        return self.name


class Owner:
    """As much of an executor as a call needs."""

    kind = "desk"
    grace = 1.0

    def _cancel_call(self, call: Call) -> bool:
        raise NotImplementedError

    def _began(self, call: Call) -> float | None:
        return None


def work() -> None:
    """What all calls call; nobody runs it."""


def lost(call: Call | None) -> WorkerLostError:
    """How the worker died, as an executor would tell it."""
    return WorkerLostError(
        "", call=call and call.name, worker="w", pid=7, signal="SIGSEGV", running_for=2.0, stack="where"
    )


def lost_with_its_host(call: Call | None) -> WorkerLostError:
    """The same for a worker whose machine is gone: nobody knows how it ended."""
    return WorkerLostError("", call=call and call.name, worker="w", host="node1")


class Desk:
    """A ledger, and what came of it.

    Attributes:
        ends: How each call was settled: (verdict, value or error). A second settlement fails the test.
        placed: What was sent, in order.
        halts: Calls that were to be stopped, in order.
        pauses: Calls that wait for their next attempt, and for how long.
        spawned: Workers that were asked for, with the number of failures before.
        retired: Workers that were asked to end.
    """

    def __init__(self, workers: int = 0, *, width: int = 1, spare: int | None = 0, **options: Any) -> None:
        self.ledger = Ledger(**options)
        self.now = 1000.0
        self.ends: dict[Call, tuple[Verdict, Any]] = {}
        self.placed: list[Call] = []
        self.halts: list[Call] = []
        self.pauses: dict[Call, float] = {}
        self.spawned: list[tuple[Seat, int]] = []
        self.retired: list[Seat] = []
        self.seats = [self.worker(index, width=width, spare=spare) for index in range(workers)]

    # Calls

    def call(self, function: Function | None = None, *, pin: Seat | None = None, **options: Any) -> Call:
        """A call that nobody has handed over yet."""
        call = Call(Owner(), work, (), {}, CallOptions(**options))
        call.queued_at = self.now
        call.function = function
        call.pin = pin
        call.future = object()  # type: ignore[assignment]  # nobody awaits it
        return call

    def submit(self, function: Function | None = None, *, pin: Seat | None = None, **options: Any) -> Call:
        """Hand over a call, and place what can be placed."""
        call = self.call(function, pin=pin, **options)
        self.ledger.enqueue(call)
        self.place()
        return call

    def place(self) -> None:
        self.do(self.ledger.place())

    def cancel(self, call: Call) -> bool:
        steps = self.ledger.cancel(call)
        self.do(steps or [])
        return steps is not None

    def end(
        self, call: Call, ending: Ending = Ending.OK, value: Any = None, seconds: float = 1.0, chance: float = 0.5
    ) -> None:
        """The call's worker answers it."""
        seat: Seat = call.worker
        self.do(self.ledger.ended(seat, [(call.seq, ending, value, seconds)], self.now, chance))
        self.place()

    def fail(self, call: Call, error: BaseException | None = None, **options: Any) -> None:
        self.end(call, Ending.RAISED, error or ValueError("no"), **options)

    def resume(self, call: Call) -> None:
        del self.pauses[call]
        self.ledger.resume(call)
        self.place()

    # Workers

    def worker(self, index: int = 0, *, width: int = 1, spare: int | None = 0, ready: bool = True) -> Seat:
        seat = Seat(index, width, spare)
        self.do(self.ledger.add(seat))
        if ready:
            self.ledger.ready(seat)
        return seat

    def die(self, seat: Seat, *running: Call) -> Seat | None:
        """A worker's process ends; returns the seat of its replacement."""
        before = len(self.spawned)
        self.do(self.ledger.gone(seat, [call.seq for call in running], lost, self.now))
        self.place()
        return self.spawned[-1][0] if len(self.spawned) > before else None

    # Instructions

    def do(self, steps: list[Instruction]) -> None:
        for step in steps:
            if isinstance(step, Place):
                self.placed += step.calls
            elif isinstance(step, Settle):
                for call, verdict, value in step.ends:
                    assert call not in self.ends, "a call was settled twice"
                    self.ends[call] = verdict, value
            elif isinstance(step, Halt):
                assert step.seat.held[step.call.seq] is step.call
                self.halts.append(step.call)
            elif isinstance(step, Pause):
                self.pauses[step.call] = step.seconds
            elif isinstance(step, Spawn):
                self.spawned.append((step.seat, step.failures))
            else:
                assert isinstance(step, Retire)
                assert not step.seat.held
                self.retired.append(step.seat)
        self.ledger.check()

    def verdict(self, call: Call) -> Verdict | None:
        """How the call was settled, ``None`` before."""
        return self.ends[call][0] if call in self.ends else None

    def error(self, call: Call) -> Any:
        """What the call failed with."""
        verdict, error = self.ends[call]
        assert verdict is Verdict.FAILED
        return error


def halted(desk: Desk, call: Call, why: Stop) -> None:
    """Have a placed call stopped: because somebody cancelled it, or its time is up."""
    if why is Stop.CANCEL:
        desk.cancel(call)
    else:
        desk.do(desk.ledger.overdue(call))
