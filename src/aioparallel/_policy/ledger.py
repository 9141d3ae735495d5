"""The ledger: the one place that knows where every call is, and decides where it goes.

It is synchronous and pure: events go in as method calls, instructions come out as a
list, and whoever called carries them out. It has no clock, no chance, no loop and no
input or output; times and random numbers are arguments.

The life of a call (``Phase``)::

    WAITING --enqueue--> QUEUED --place--> PLACED --end--> SETTLED
                           ^  \\               |  \\
                           |   `--cancel------|---`--cancel: Stop, then lost/end--> SETTLED
                           |                  |
                           +---withdrawn, or lost before it began
                           +<--PAUSED<--failed, and may be begun again

* ``WAITING``: for the futures among its arguments; the ledger has not seen it.
* ``QUEUED``: here. Cancelling it settles it at once.
* ``PLACED``: a worker holds it; the worker alone knows whether it has begun.
* ``PAUSED``: it failed and waits for its next attempt.
* ``SETTLED``: its end is known. Nothing that arrives later changes it.

The life of a worker (``Standing``)::

    STARTING --ready--> READY --retire--> RETIRING --gone--> GONE
        \\                 \\                  \\
         `--gone (start failure) `--gone (death)  `--gone

A worker that dies takes exactly one call with it: the one that it says was running.
Those behind it go back to the front of the queue, in order, and do not count as tried.

Guarantees, checked by :meth:`Ledger.check` after every step of the tests:

* every call that was enqueued is queued, paused, held by exactly one worker, or settled;
* a call is settled once;
* a call whose end is unknown is never begun again without the caller's word;
* no worker holds more than its window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

from .._model.call import Call, Ending, Phase, Stop
from .._model.errors import ExecutorClosedError, PoisonTaskError, TaskTimeoutError, WorkerLostError, WorkerStartError
from .batching import MAX_CALLS
from .latency import Latencies
from .retry import MAX_DEATHS, pause_after_error, pause_after_loss

__all__ = [
    "Counts",
    "Halt",
    "Instruction",
    "Ledger",
    "Pause",
    "Place",
    "Retire",
    "Seat",
    "Settle",
    "Spawn",
    "Standing",
    "Verdict",
    "WorkerEnd",
]

TOP_UP = 64
"""So many calls must wait before a busy worker is sent some: a frame for each would cost more than it saves."""
MAX_HELD = 1024
"""A worker holds at most so many calls; each needs a flag of its own on the worker's page."""

MANY = 1000
"""So many cancelled calls may lie in the queues, beside as many as those that wait there."""

MAX_START_FAILURES = 3
"""So many workers in a row died before they were ready: no further one is tried."""


class Standing(IntEnum):
    """How a worker stands."""

    STARTING = 0
    READY = 1
    RETIRING = 2
    GONE = 3


class Verdict(IntEnum):
    """How a settled call ended."""

    OK = 0
    FAILED = 1
    CANCELLED = 2


@dataclass(slots=True, eq=False)
class Seat:
    """A worker as the ledger sees it.

    Attributes:
        index: Its place in the pool; a replacement gets the same one.
        width: How many calls it runs at a time.
        spare: How many more it may hold that have not begun; ``None``: as many as fill two frames
            of short calls.
        held: The calls it holds by the number they were sent under, in that order.
        function: The function of the calls it was given last.
        pinned: Calls that only this worker can run: the next step of a stream that lives there.
        pins: How many streams live there.
        ended: How many calls it has ended.
        worn: Whether it is to be replaced as soon as it holds nothing.
        surplus: Whether it ends because there is too little to do.
        idle_since: When it ended its last call (``time.time``).
        carrier: What the executor talks to; the ledger never looks at it.
    """

    index: int
    width: int = 1
    spare: int | None = 0
    standing: Standing = Standing.STARTING
    held: dict[int, Call] = field(default_factory=dict)
    function: Any = None
    pinned: deque[Call] = field(default_factory=deque)
    pins: int = 0
    last_seq: int = 0
    ended: int = 0
    worn: bool = False
    surplus: bool = False
    idle_since: float = 0.0
    carrier: Any = None

    def __str__(self) -> str:
        return str(self.carrier) if self.carrier is not None else f"worker {self.index}"


@dataclass(slots=True)
class Place:
    """Send these calls to this worker, in this order, each under its ``call.seq``."""

    seat: Seat
    calls: list[Call]


@dataclass(slots=True)
class Settle:
    """Settle these calls' futures: (call, how it ended, its value or error)."""

    ends: list[tuple[Call, Verdict, Any]]


@dataclass(slots=True)
class Halt:
    """Stop this call: take it back if it has not begun, kill it if it has."""

    seat: Seat
    call: Call


@dataclass(slots=True)
class Spawn:
    """Start a worker for this seat."""

    seat: Seat
    failures: int = 0


@dataclass(slots=True)
class Retire:
    """Let this worker end: it holds nothing."""

    seat: Seat


@dataclass(slots=True)
class Pause:
    """Call :meth:`Ledger.resume` with this call after so many seconds; this is what it failed with."""

    call: Call
    seconds: float
    error: BaseException


Instruction = Place | Settle | Halt | Spawn | Retire | Pause
WorkerEnd = tuple[int, Ending, Any, float]
"""(number the call was sent under, how it ended, value or error, seconds it took)."""


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    deaths: int = 0


class Ledger:
    """Calls on one side, workers on the other.

    Args:
        max_tasks: Replace a worker after it ended so many calls.
        vacant: Seats for which workers are started when calls wait for one.
        all_or_none: The pool is up when all workers of the beginning are; if one of them cannot be set up, none is.
        fair: A worker whose call failed gets the next one when each of the others has ended one as well: who
            fails at once would otherwise get nearly all.
    """

    def __init__(
        self,
        *,
        max_tasks: int | None = None,
        vacant: Iterable[Seat] = (),
        all_or_none: bool = False,
        fair: bool = False,
    ) -> None:
        self.seats: dict[Seat, None] = {}
        self.counts = Counts()
        self.latencies = Latencies()
        self.queued = 0
        """Calls that wait here for a worker, paused ones included."""
        self.placed = 0
        self.start_error: Exception | None = None
        self.closing = False
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self._queues: dict[int, deque[Call]] = {0: deque()}
        self._order = [0]
        """A heap of the negated priorities that have a queue."""
        self._shared = 0
        self._skipped = 0
        """Cancelled calls that are still in a queue, at most."""
        self._idle: dict[Seat, None] = {}
        """Workers that can begin a call now; the one that became idle last is given the next."""
        self._ahead: dict[Seat, None] = {}
        """Busy workers that may be sent short calls ahead."""
        self._ready = 0
        self._starting = 0
        self._vacant = list(vacant)
        self._pinned: dict[Seat, None] = {}
        """Workers that have pinned calls, and room for one."""
        self._paused: set[Call] = set()
        self._start_failures = 0
        self._all_or_none = all_or_none
        self.is_up = False
        """Whether there were ever workers enough to begin with."""
        self._fair = fair
        self._resting: dict[Seat, int] = {}
        """Workers that rest after a failure, and how many calls of others must end before they go on."""

    @property
    def idle(self) -> bool:
        """Whether no call is anywhere."""
        return not self.queued and not self.placed

    @property
    def width(self) -> int:
        """How many calls may run at a time when all workers are there."""
        return sum(seat.width for seat in (*self.seats, *self._vacant))

    # Calls

    def enqueue(self, call: Call) -> bool:
        """A call is ready to run.

        Returns:
            Whether :meth:`place` can place something now.
        """
        if self.start_error is not None:
            raise self.start_error
        if self.closing:
            raise ExecutorClosedError("the executor was closed before the call came to it")
        if call.pin is None and not call.options.priority and 0 in self._queues:
            call.phase = Phase.QUEUED  # nearly every call: what _push does, in place
            self.queued += 1
            self._shared += 1
            self._queues[0].append(call)
        elif _is_stranded(call):
            raise _stranded(call)
        else:
            self._push(call, front=False)
        return bool(self._idle or self._pinned or self._vacant or (self._ahead and self._shared >= TOP_UP))

    def place_at_once(self, call: Call) -> Place | None:
        """Give a new call to an idle worker if no other call waits: the shortest way, for a lone awaited call.

        Returns:
            The placement; ``None`` if the call has to be enqueued.
        """
        if self.queued or not self._idle or call.pin is not None or self.closing or self.start_error is not None:
            return None
        seat = next(reversed(self._idle))
        calls = [call]
        self.queued += 1  # for as long as a word takes
        self._hand_over(seat, calls)
        return Place(seat, calls)

    def place(self) -> list[Instruction]:
        """Give queued calls to workers with room; to be called after every event."""
        placed: list[Instruction] = []
        if self._pinned:
            pinned, self._pinned = self._pinned, {}
            placed += [step for seat in pinned for step in self._place_pinned(seat)]
        while self._shared:
            if self._idle:
                seat = next(reversed(self._idle))
            elif self._ahead and self._shared >= TOP_UP:
                seat = next(iter(self._ahead))
            else:
                break
            calls = self._batch(seat)
            self._shared -= len(calls)
            self._hand_over(seat, calls)
            placed.append(Place(seat, calls))
        while self._vacant and self._shared > self._starting:
            placed += self.add(self._vacant.pop(0))
        return placed

    def cancel(self, call: Call) -> list[Instruction] | None:
        """Somebody cancelled a call; ``None`` when it has ended."""
        if call.phase is Phase.SETTLED:
            return None
        if call.phase is Phase.PLACED:
            return self._halt(call, Stop.CANCEL)
        if call.phase is Phase.WAITING:
            call.phase = Phase.SETTLED
            self.counts.cancelled += 1
        else:
            self._unqueue(call)
        return [Settle([(call, Verdict.CANCELLED, None)])]

    def overdue(self, call: Call) -> list[Instruction]:
        """A call runs longer than its timeout."""
        return self._halt(call, Stop.TIMEOUT) if call.phase is Phase.PLACED else []

    def resume(self, call: Call) -> None:
        """The pause of a call is over; does nothing if it was cancelled meanwhile."""
        if call in self._paused:
            self._paused.discard(call)
            self.queued -= 1
            self._push(call, front=False)

    def cancel_all(self) -> list[Instruction]:
        """Cancel whatever is here."""
        held = [call for seat in self.seats for call in seat.held.values()]
        return self.cancel_queued() + [step for call in held for step in self.cancel(call) or ()]

    def cancel_queued(self) -> list[Instruction]:
        """Cancel whatever no worker holds."""
        return [step for call in self._waiting() for step in self.cancel(call) or ()]

    def fail_all(self, error: Exception) -> list[Instruction]:
        """Nothing here can ever run: fail whatever waits, now and later."""
        self.start_error = error
        settled: list[tuple[Call, Verdict, Any]] = []
        waiting = self._waiting()
        self._paused.clear()
        for queue in [*self._queues.values(), *(seat.pinned for seat in self._streaming())]:
            queue.clear()
        self.queued = self._shared = 0
        for call in waiting:
            self._settle(call, Verdict.FAILED, error, settled, None)
        return [Settle(settled)]

    # Workers

    def add(self, seat: Seat) -> list[Instruction]:
        """A worker is wanted."""
        self.seats[seat] = None
        self._starting += 1
        return [Spawn(seat)]

    def ready(self, seat: Seat) -> None:
        """A worker has started and takes calls."""
        if seat.standing is not Standing.STARTING:
            return
        seat.standing = Standing.READY
        self._starting -= 1
        self._ready += 1
        self._start_failures = 0
        if self.start_error is None or self.is_up or not self._all_or_none:
            self.start_error = None
            self.is_up = self.is_up or not (self._all_or_none and self._starting)
        self._offer(seat)

    def ended(self, seat: Seat, ends: Iterable[WorkerEnd], now: float, chance: float = 0.5) -> list[Instruction]:
        """A worker answered: calls ended, or were given back unbegun.

        Args:
            seat: The worker.
            ends: What it says of each call.
            now: ``time.time()``.
            chance: A random number from 0 to 1.
        """
        settled: list[tuple[Call, Verdict, Any]] = []
        steps: list[Instruction] = [Settle(settled)]
        held = seat.held
        back: list[Call] = []
        took: list[float] = []
        function: Any = None
        failed = stuck = False
        for seq, ending, value, seconds in ends:
            call = held.pop(seq, None)
            if call is None:
                continue  # it was settled when its worker was given up; the answer came late
            self.placed -= 1
            if ending is Ending.WITHDRAWN:
                self._taken_back(call, settled, back, now)
                stuck = True
                continue
            if call.function is not function:
                self._learn(seat, function, took)
                function, took = call.function, []
            took.append(seconds)
            call.duration = seconds
            if call.begun_at is None:
                call.begun_at = now - seconds
            if ending is Ending.OK and call.stop is None:
                call.phase = Phase.SETTLED
                call.settled_at = now
                self.counts.done += 1
                settled.append((call, Verdict.OK, value))
            else:
                failed = True
                self._ended_badly(call, value, settled, steps, now, chance)
        self._learn(seat, function, took)
        seat.idle_since = now
        if self._fair:
            self._share_out(seat, failed)
        for call in reversed(back):
            self._push(call, front=True)
        steps += self._freed(seat)
        if stuck:
            self._ahead.pop(seat, None)  # it is in a long call: until that ends, nothing more goes behind it
        return steps

    def wear_out(self, seat: Seat) -> list[Instruction]:
        """A worker has become too large: it takes no further calls, and ends when it holds none."""
        seat.worn = True
        return self._freed(seat)

    def shrink(self, now: float, age: float, keep: int) -> list[Instruction]:
        """Let workers end that have had nothing to do for *age* seconds, but keep so many."""
        steps: list[Instruction] = []
        for seat in list(self._idle):
            if len(self.seats) - len(steps) <= keep:
                break
            if not (seat.held or seat.pins or seat.pinned) and now - seat.idle_since > age:
                seat.surplus = True
                self._leave(seat, Standing.RETIRING)
                steps.append(Retire(seat))
        return steps

    def gone(
        self, seat: Seat, running: Iterable[int], error: Callable[[Call | None], WorkerLostError], now: float
    ) -> list[Instruction]:
        """A worker's process has ended, and every answer that it sent has been counted.

        Args:
            seat: The worker.
            running: The numbers of the calls that it was running: usually one or none.
            error: Makes the error for a call, or (with ``None``) for the death of an idle worker.
            now: ``time.time()``.
        """
        standing = seat.standing
        self._leave(seat, Standing.GONE)
        settled: list[tuple[Call, Verdict, Any]] = []
        steps: list[Instruction] = [Settle(settled)]
        begun = set(running)
        back: list[Call] = []
        asked = standing is Standing.RETIRING
        for seq, call in seat.held.items():
            self.placed -= 1
            if seq in begun:
                asked = asked or call.stop is not None
                self._lost(call, error, settled, steps, now)
            else:
                self._taken_back(call, settled, back, now)
        seat.held.clear()
        seat.pins = 0
        for call in reversed(back):
            self._push(call, front=True)
        self._lose_pinned(seat, error, settled, now)
        self._resting.pop(seat, None)
        steps += self._replace(seat, standing, asked, error)
        if self._fair:
            self._share_out(seat, failed=False)
        return steps

    def lost(self, seat: Seat, call: Call, error: WorkerLostError, now: float) -> list[Instruction]:
        """A call's process has ended, but not the worker: for engines whose processes come and go."""
        settled: list[tuple[Call, Verdict, Any]] = []
        steps: list[Instruction] = [Settle(settled)]
        del seat.held[call.seq]
        self.placed -= 1
        self.counts.deaths += call.stop is None
        self._lost(call, lambda _: error, settled, steps, now)
        return steps + self._freed(seat)

    def check(self) -> None:
        """Raise :exc:`AssertionError` if the books do not balance."""
        queued = self._in_queues()
        assert self._shared == len(queued), "shared is miscounted"
        ready = [seat for seat in self.seats if seat.standing is Standing.READY]
        assert self._ready == len(ready), "ready workers are miscounted"
        starting = [seat for seat in self.seats if seat.standing is Standing.STARTING]
        assert self._starting == len(starting), "starting workers are miscounted"
        queued += [call for seat in self._streaming() for call in seat.pinned]
        assert all(call.phase is Phase.QUEUED for call in queued)
        assert all(call.phase is Phase.PAUSED for call in self._paused)
        assert self.queued == len(queued) + len(self._paused), "queued is miscounted"
        held = [call for seat in self.seats for call in seat.held.values()]
        assert self.placed == len(held), "placed is miscounted"
        assert len({id(call) for call in held}) == len(held), "two workers hold one call"
        assert all(call.phase is Phase.PLACED for call in held)
        busy = [seat for seat in self.seats if seat.held and seat not in self._resting]
        assert busy or not self._resting, "all workers rest"
        assert self._resting.keys() <= self.seats.keys(), "a worker rests in peace"
        for seat in self.seats:
            assert list(seat.held) == sorted(seat.held), "a worker holds calls out of order"
            assert seat.standing is Standing.READY or not seat.held, "a worker that is not ready holds calls"
            window = MAX_HELD + MAX_CALLS if seat.spare is None else seat.spare
            assert len(seat.held) <= seat.width + window, "a worker holds more than its window"
            if seat.standing is Standing.READY and not seat.held:
                assert seat.worn or seat in self._idle or seat in self._resting, "an idle worker is forgotten"
                assert not seat.pinned or seat in self._pinned, "a stream is forgotten"

    # How a call ends

    def _ended_badly(
        self,
        call: Call,
        value: Any,
        settled: list[tuple[Call, Verdict, Any]],
        steps: list[Instruction],
        now: float,
        chance: float,
    ) -> None:
        """It raised, or was to be stopped and ended by itself before that happened.

        What arrives after the time was up is no result: the worker may have been disturbed already.
        """
        if call.stop is Stop.TIMEOUT and not isinstance(value, TaskTimeoutError):
            value = TaskTimeoutError(call=call.name, timeout=call.options.timeout)
        self._failed(call, value, settled, steps, now, chance)

    def _learn(self, seat: Seat, function: Any, took: list[float]) -> None:
        """What calls of one function took."""
        if not took:
            return
        seat.ended += len(took)
        self.latencies.extend(took)
        if function is not None:
            function.costs.add(sum(took) / len(took), max(took))

    def _failed(
        self,
        call: Call,
        error: BaseException,
        settled: list[tuple[Call, Verdict, Any]],
        steps: list[Instruction],
        now: float,
        chance: float,
    ) -> None:
        if call.stop is Stop.CANCEL:
            self._settle(call, Verdict.CANCELLED, None, settled, now)
            return
        pause = None if _is_stranded(call) else pause_after_error(call, error, now, chance)
        if pause is None:
            self._settle(call, Verdict.FAILED, error, settled, now)
        else:
            self._pause(call, pause, error, steps)

    def _lost(
        self,
        call: Call,
        error: Callable[[Call | None], WorkerLostError],
        settled: list[tuple[Call, Verdict, Any]],
        steps: list[Instruction],
        now: float,
    ) -> None:
        """The call was running when its worker ended: because of it, or because we stopped it."""
        lost = error(call)
        if call.begun_at is None and lost.running_for is not None:
            call.begun_at = now - lost.running_for
        if call.stop is Stop.TIMEOUT:
            timeout = TaskTimeoutError(call=call.name, timeout=call.options.timeout, stack=lost.stack)
            self._failed(call, timeout, settled, steps, now, 0.5)
            return
        if call.stop is Stop.CANCEL:
            self._settle(call, Verdict.CANCELLED, None, settled, now)
            return
        call.deaths = [*(call.deaths or ()), str(lost).partition("\n")[0]]
        pause = None if _is_stranded(call) else pause_after_loss(call, now)
        if pause is not None:
            self._pause(call, pause, lost, steps)
        elif len(call.deaths) >= MAX_DEATHS:
            poison = PoisonTaskError(
                f"{call.name} killed {len(call.deaths)} workers and is not run again", history=tuple(call.deaths)
            )
            poison.__dict__ = {**lost.__dict__, **poison.__dict__}
            self._settle(call, Verdict.FAILED, poison, settled, now)
        else:
            self._settle(call, Verdict.FAILED, lost, settled, now)

    def _taken_back(self, call: Call, settled: list[tuple[Call, Verdict, Any]], back: list[Call], now: float) -> None:
        """The call never began, so it is not counted as tried."""
        call.attempts -= 1
        call.begun_at = None
        if call.stop is Stop.CANCEL:
            self._settle(call, Verdict.CANCELLED, None, settled, now)
        else:
            call.stop = None
            back.append(call)

    def _settle(
        self, call: Call, verdict: Verdict, value: Any, settled: list[tuple[Call, Verdict, Any]], now: float | None
    ) -> None:
        call.phase = Phase.SETTLED
        call.settled_at = now
        counts = self.counts
        if verdict is Verdict.OK:
            counts.done += 1
        elif verdict is Verdict.FAILED:
            counts.failed += 1
        else:
            counts.cancelled += 1
        settled.append((call, verdict, value))

    def _pause(self, call: Call, seconds: float, error: BaseException, steps: list[Instruction]) -> None:
        call.phase = Phase.PAUSED
        call.stop = None
        call.begun_at = None
        self._paused.add(call)
        self.queued += 1
        self.counts.retried += 1
        steps.append(Pause(call, seconds, error))

    def _halt(self, call: Call, why: Stop) -> list[Instruction]:
        already, call.stop = call.stop, min(call.stop or why, why)
        return [] if already is not None else [Halt(call.worker, call)]

    # The queue

    def _push(self, call: Call, *, front: bool) -> None:
        call.phase = Phase.QUEUED
        self.queued += 1
        if call.pin is not None:
            queue = call.pin.pinned
            self._pinned[call.pin] = None
            self._ahead.pop(call.pin, None)  # what is sent ahead would keep the stream waiting
        else:
            self._shared += 1
            queue = self._queue(call.options.priority)
        if front:
            queue.appendleft(call)
        else:
            queue.append(call)

    def _queue(self, priority: int) -> deque[Call]:
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
            heappush(self._order, -priority)
        return queue

    def _unqueue(self, call: Call) -> None:
        if call.phase is Phase.PAUSED:
            self._paused.discard(call)
        elif call.pin is not None:
            call.pin.pinned.remove(call)
        else:
            self._shared -= 1  # it stays in its queue, settled, and is skipped there
            self._skipped += 1
        self.queued -= 1
        call.phase = Phase.SETTLED
        self.counts.cancelled += 1
        if self._skipped > self._shared + MANY:
            self._sweep()

    def _sweep(self) -> None:
        """Let go of the cancelled calls: it may be long before a worker comes to skip them."""
        for queue in self._queues.values():
            live = [call for call in queue if call.phase is Phase.QUEUED]
            queue.clear()
            queue.extend(live)
        self._skipped = 0

    def _waiting(self) -> list[Call]:
        """Every call that no worker holds."""
        pinned = [call for seat in self._streaming() for call in seat.pinned]
        return [*self._paused, *self._in_queues(), *pinned]

    def _streaming(self) -> dict[Seat, None]:
        """Every worker that may have pinned calls: also one that is gone, as long as somebody asks for it."""
        return {**self.seats, **self._pinned}

    def _in_queues(self) -> list[Call]:
        return [call for queue in self._queues.values() for call in queue if call.phase is Phase.QUEUED]

    def _first_queue(self) -> deque[Call]:
        while True:  # it ends: calls are counted that are in a queue
            queue = self._queues[-self._order[0]]
            while queue and queue[0].phase is not Phase.QUEUED:
                queue.popleft()
            if queue:
                return queue
            del self._queues[-heappop(self._order)]

    def _place_pinned(self, seat: Seat) -> list[Instruction]:
        steps: list[Instruction] = []
        while seat.pinned and seat.standing is Standing.READY and len(seat.held) < seat.width + (seat.spare or 0):
            call = seat.pinned.popleft()
            self._hand_over(seat, [call])
            steps.append(Place(seat, [call]))
        if seat.standing is Standing.GONE:
            ends: list[tuple[Call, Verdict, Any]] = []
            self._lose_pinned(seat, _stranded, ends, None)
            steps.append(Settle(ends))
        return steps

    def _batch(self, seat: Seat) -> list[Call]:
        """The next calls for a worker, as many as it has room for; of one function, if it takes frames."""
        queue = self._first_queue()
        function = queue[0].function
        room = self._room(seat, function)
        if room == 1:
            return [queue.popleft()]
        calls: list[Call] = []
        while queue and len(calls) < room and (seat.spare is not None or queue[0].function is function):
            call = queue.popleft()
            if call.phase is Phase.QUEUED:
                calls.append(call)
        return calls

    def _room(self, seat: Seat, function: Any) -> int:
        """How many calls this worker is given now: all that fit, or a fair share of short ones."""
        if seat.spare is not None:
            return seat.width + seat.spare - len(seat.held)
        full: int = function.costs.calls_per_frame() if function is not None else 1
        fair = -(-self._shared // (2 * self._ready))
        life = int(min(full, self._max_tasks - seat.ended - len(seat.held)))
        return max(1, min(full, fair, life))

    def _hand_over(self, seat: Seat, calls: list[Call]) -> None:
        seq = seat.last_seq
        held = seat.held
        for call in calls:
            seq += 1
            call.phase = Phase.PLACED
            call.worker = seat
            call.seq = seq
            call.attempts += 1
            held[seq] = call
        seat.last_seq = seq
        seat.function = calls[-1].function
        self.queued -= len(calls)
        self.placed += len(calls)
        self._offer(seat)

    # The workers

    def _offer(self, seat: Seat) -> None:
        """Note what a worker could be given now."""
        held = len(seat.held)
        has_room = held < seat.width + (seat.spare or 0)
        if seat.pinned and has_room:
            self._pinned[seat] = None
        rests = seat.worn or seat in self._resting
        if seat.standing is not Standing.READY or rests or seat.ended + held >= self._max_tasks:
            self._idle.pop(seat, None)
            self._ahead.pop(seat, None)
        elif has_room:
            self._idle[seat] = None
            self._ahead.pop(seat, None)
        else:
            self._idle.pop(seat, None)
            if seat.spare is None and seat.width == 1 and not seat.pinned and self._takes_ahead(seat, held):
                self._ahead[seat] = None
            else:
                self._ahead.pop(seat, None)

    def _share_out(self, seat: Seat, failed: bool) -> None:
        """A call of this worker has ended, or the worker has: who rests for that goes on."""
        for other in self._resting:
            self._resting[other] -= 1
        if failed and seat.standing is Standing.READY:
            self._resting[seat] = len(self.seats) - 1
        busy = any(other.held for other in self.seats if other not in self._resting)
        rested = [other for other, calls in self._resting.items() if calls <= 0 or not busy]
        for other in rested:
            del self._resting[other]
            self._offer(other)

    def _takes_ahead(self, seat: Seat, held: int) -> bool:
        """Whether a busy worker may hold more: only if what it holds, and what comes, is short."""
        function = seat.function
        most = min(MAX_HELD, 4 * function.costs.calls_per_frame() - 3) if function is not None else 0
        return held < most

    def _freed(self, seat: Seat) -> list[Instruction]:
        seat.worn = seat.worn or seat.ended >= self._max_tasks
        self._offer(seat)
        if seat.standing is not Standing.READY or not seat.worn:
            return []
        if seat.held or seat.pins or seat.pinned:
            return []
        self._leave(seat, Standing.RETIRING)
        return [Retire(seat)]

    def _leave(self, seat: Seat, standing: Standing) -> None:
        """A worker takes no more calls."""
        self._ready -= seat.standing is Standing.READY
        self._starting -= seat.standing is Standing.STARTING
        seat.standing = standing
        self._offer(seat)

    def _lose_pinned(
        self,
        seat: Seat,
        error: Callable[[Call], Exception],
        settled: list[tuple[Call, Verdict, Any]],
        now: float | None,
    ) -> None:
        """A stream cannot go on elsewhere: its generator died with the worker."""
        self.queued -= len(seat.pinned)
        for call in seat.pinned:
            self._settle(call, Verdict.FAILED, error(call), settled, now)
        seat.pinned.clear()
        self._pinned.pop(seat, None)

    def _replace(
        self,
        seat: Seat,
        standing: Standing,
        asked: bool,
        error: Callable[[Call | None], WorkerLostError],
    ) -> list[Instruction]:
        del self.seats[seat]
        if not asked:
            self.counts.deaths += 1
        if standing is Standing.STARTING:
            self._start_failures += 1
        if self.closing:
            return []
        if self.start_error is not None:
            return [] if self.any_ready else self.fail_all(self.start_error)
        if self._all_or_none and not self.is_up and standing is Standing.STARTING:
            return self._give_up(error(None))
        if self._start_failures >= MAX_START_FAILURES and not self.any_ready:
            return self._give_up(error(None))
        fresh = Seat(seat.index, seat.width, seat.spare)
        if seat.surplus:
            self._vacant.append(fresh)
            return []
        self.seats[fresh] = None
        self._starting += 1
        return [Spawn(fresh, self._start_failures)]

    @property
    def any_ready(self) -> bool:
        """Whether a worker takes calls."""
        return self._ready > 0

    def _give_up(self, cause: WorkerLostError) -> list[Instruction]:
        """Every new worker dies at its start: say so once, and fail what waits."""
        count = self._start_failures
        many = f"{count} in a row ended before they were ready. The last one:"
        one = "one ended before it was ready:"
        error = WorkerStartError(f"no worker can be started: {many if count > 1 else one}\n{cause}")
        error.__cause__ = cause
        return self.fail_all(error)


def _is_stranded(call: Call) -> bool:
    """Whether the one worker that could run the call has ended."""
    return call.pin is not None and call.pin.standing is Standing.GONE


def _stranded(call: Call) -> WorkerLostError:
    return WorkerLostError(f"{call.name} cannot go on: its generator was lost with {call.pin}", call=call.name)
