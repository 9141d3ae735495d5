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

A worker that dies takes exactly one call with it: the one that it says was running.
Those behind it go back to the front of the queue, in order, and do not count as tried.
(The life of a worker is drawn in :mod:`.roster`.)

Guarantees, checked by :meth:`Ledger.check` after every step of the tests:

* every call that was enqueued is queued, paused, held by exactly one worker, or settled;
* a call is settled once;
* a call whose end is unknown is never begun again without the caller's word;
* no worker holds more than its window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .._model.call import Call, Ending, Phase, Stop
from .._model.errors import (
    AioParallelError,
    CallCancelledError,
    ExecutorClosedError,
    PoisonTaskError,
    TaskTimeoutError,
    WorkerLostError,
    WorkerStartError,
)
from .._model.options import Backups
from .backlog import Backlog
from .backups import BackupDesk
from .latency import Latencies
from .placement import Placement
from .races import Race
from .retry import MAX_DEATHS, pause_after_error, pause_after_loss
from .roster import Roster
from .seats import Seat, Site, Standing
from .steps import Halt, Instruction, Pause, Place, Retire, Settle, Spawn, Suspend, Verdict, WorkerEnd

__all__ = ["Counts", "Ledger"]

TOP_UP = 64
"""So many calls must wait before a busy worker is sent some: a frame for each would cost more than it saves ..."""
CROWDED = 2.0
"""While calls wait for a worker, only those get copies that take so many times longer than late ones."""
MAX_START_FAILURES = 3
"""So many workers in a row died before they were ready: when all were tried, no further one is."""

Ends = list[tuple[Call, Verdict, Any]]


class Counts:
    """What happened so far.

    Attributes:
        backup_seconds: What workers spent on copies.
    """

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = self.retried = self.deaths = 0
        self.backups = self.backups_won = 0
        self.backup_seconds = 0.0


class _Turn:
    """What comes of one event.

    Attributes:
        now: ``time.time()``; ``None`` where that is not known, and nothing depends on it.
        chance: A random number from 0 to 1.
        settled: Calls that have ended.
        back: Calls that go back to the front of the queue, in their order.
        steps: What else is to be done.
    """

    __slots__ = ("back", "chance", "now", "settled", "steps")

    def __init__(self, now: float | None, chance: float) -> None:
        self.now: Any = now
        self.chance = chance
        self.settled: Ends = []
        self.back: list[Call] = []
        self.steps: list[Instruction] = []


class Ledger:
    """Calls on one side, workers on the other.

    Args:
        max_tasks: Replace a worker after it ended so many calls.
        vacant: Seats for which workers are started when calls wait for one.
        all_or_none: The pool is up when all workers of the beginning are; if one of them cannot be set up, none is.
        fair: A worker whose call failed gets the next one when each of the others has ended one as well: who
            fails at once would otherwise get nearly all.
        placement: Chooses among idle workers; by default the one that became idle last.
        backups: When late calls get copies, if ever.
        since: When a call began, or the one that it waits behind (``time.time``); ``None``: that cannot be told.
    """

    def __init__(
        self,
        *,
        max_tasks: int | None = None,
        vacant: Iterable[Seat] = (),
        all_or_none: bool = False,
        fair: bool = False,
        placement: Placement | None = None,
        backups: Backups | None = None,
        since: Callable[[Call], float | None] = lambda call: None,
    ) -> None:
        self.counts = Counts()
        self.latencies = Latencies()
        self.queued = 0
        """Calls that wait here for a worker, paused ones included."""
        self.placed = 0
        self.start_error: Exception | None = None
        self.closing = False
        self.is_up = False
        """Whether there were ever workers enough to begin with."""
        self._backlog = Backlog()
        self._roster = Roster(max_tasks=max_tasks, vacant=vacant, fair=fair, placement=placement)
        self._desk = None if backups is None else BackupDesk(backups)
        self._since = since
        self._late: list[Call] = []
        """Calls that get a copy as soon as a worker elsewhere can take one."""
        self._paused: set[Call] = set()
        self._all_or_none = all_or_none

    @property
    def seats(self) -> dict[Seat, None]:
        """The workers."""
        return self._roster.seats

    @property
    def idle(self) -> bool:
        """Whether no call is anywhere."""
        return not self.queued and not self.placed

    @property
    def width(self) -> int:
        """How many calls may run at a time when all workers are there."""
        return self._roster.width

    @property
    def running(self) -> int:
        """How many calls run, as far as can be told."""
        return self._roster.running

    @property
    def any_ready(self) -> bool:
        """Whether a worker takes calls."""
        return self._roster.ready > 0

    @property
    def any_free(self) -> bool:
        """Whether a worker has nothing to do, or might be started for what comes."""
        return self._roster.has_free_hand()

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
        if _is_stranded(call):
            raise _stranded(call)
        self._push(call, front=False)
        roster = self._roster
        return bool(roster.idle.sites or roster.pinned or roster.vacant or (roster.ahead and self._may_top_up()))

    def place_at_once(self, call: Call) -> Place | None:
        """Give a new call to an idle worker if no other call waits: the shortest way, for a lone awaited call.

        Returns:
            The placement; ``None`` if the call has to be enqueued.
        """
        idle = self._roster.idle
        if self.queued or not idle.sites or call.pin is not None or self.closing or self.start_error is not None:
            return None
        seat = idle.choose()
        calls = [call]
        self.queued += 1  # for as long as a word takes
        self._hand_over(seat, calls)
        return Place(seat, calls)

    def place(self) -> list[Instruction]:
        """Give queued calls to workers with room; to be called after every event."""
        placed: list[Instruction] = []
        roster, backlog = self._roster, self._backlog
        if roster.pinned:
            pinned, roster.pinned = roster.pinned, {}
            placed += [step for seat in pinned for step in self._place_pinned(seat)]
        if self._late:
            placed += self._copy_late()
        while backlog.count:
            queue = backlog.first()
            if roster.idle.sites:
                seat = roster.idle.choose(queue[0].avoid)
            elif roster.ahead and self._may_top_up():
                seat = _first(roster.ahead, queue[0].avoid)
            else:
                break
            room = roster.room(seat, queue[0].function, backlog.count)
            calls = backlog.take(queue, room, alike=seat.spare is None)
            self._hand_over(seat, calls)
            placed.append(Place(seat, calls))
        while roster.vacant and backlog.count > roster.starting:
            placed += self._fill_vacancy()
        return placed

    def cancel(self, call: Call) -> list[Instruction] | None:
        """Somebody cancelled a call; ``None`` when it has ended."""
        if call.race is not None:
            call = call.race.call
        if call.phase is Phase.SETTLED:
            return None
        if call.phase is Phase.PLACED:
            members = [call] if call.race is None else call.race.running
            steps = [step for member in members for step in self._halt(member, Stop.CANCEL)]
            call.stop = Stop.CANCEL  # although none of a race may be its own
            return steps
        if call.phase is Phase.WAITING:
            call.phase = Phase.SETTLED
            self.counts.cancelled += 1
        else:
            self._unqueue(call)
        return [Settle([(call, Verdict.CANCELLED, None)])]

    def overdue(self, call: Call) -> list[Instruction]:
        """A call runs longer than its timeout."""
        return self._halt(call, Stop.TIMEOUT) if call.phase is Phase.PLACED else []

    def reprieve(self, call: Call) -> list[Instruction]:
        """A call that was to be stopped for its timeout was not: it began later than it seemed."""
        if call.stop is Stop.TIMEOUT:
            call.stop = None
            return []
        return [Halt(call.worker, call)] if call.stop is Stop.CANCEL else []

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
        turn = _Turn(None, 0.5)
        waiting = self._waiting()
        self._paused.clear()
        self._backlog.clear()
        for seat in self._roster.streaming():
            seat.pinned.clear()
        self.queued = 0
        for call in waiting:
            self._settle(call, Verdict.FAILED, error, turn)
        return [Settle(turn.settled)]

    # Workers

    def add(self, seat: Seat) -> list[Instruction]:
        """A worker is wanted."""
        self._roster.add(seat)
        return [Spawn(seat)]

    def ready(self, seat: Seat) -> list[Instruction]:
        """A worker has started and takes calls, unless it was to end before it came to that."""
        if seat.standing is not Standing.STARTING:
            return []
        self._roster.has_started(seat)
        seat.site.start_failures = 0
        if self.start_error is None or self.is_up or not self._all_or_none:
            self.start_error = None
            self.is_up = self.is_up or not (self._all_or_none and self._roster.starting)
        return self._freed(seat) if seat.worn else []

    def discard(self, seat: Seat) -> None:
        """A worker that is wanted will not be started; nobody has given it anything."""
        self._roster.leave(seat, Standing.GONE)
        self._roster.remove(seat)

    def resize(self, seat: Seat, width: int) -> None:
        """A worker runs so many calls at a time from now on."""
        self._roster.resize(seat, width)

    def ended(self, seat: Seat, ends: Iterable[WorkerEnd], now: float, chance: float = 0.5) -> list[Instruction]:
        """A worker answered: calls ended, or were given back unbegun.

        Args:
            seat: The worker.
            ends: What it says of each call.
            now: ``time.time()``.
            chance: A random number from 0 to 1.
        """
        turn = _Turn(now, chance)
        held, settled = seat.held, turn.settled
        took: list[float] = []
        function: Any = None
        failed = stuck = False
        for seq, ending, value, seconds in ends:
            call = held.pop(seq, None)
            if call is None:
                continue  # it was settled when its worker was given up; the answer came late
            self.placed -= 1
            if ending is Ending.WITHDRAWN:
                self._taken_back(call, turn)
                stuck = True
                continue
            if call.function is not function:
                if took:
                    self._learn(seat, function, took)
                function, took = call.function, []
            took.append(seconds)
            call.duration = seconds
            if call.begun_at is None:
                call.begun_at = now - seconds
            if ending is Ending.OK and call.stop is None and call.race is None:
                call.phase = Phase.SETTLED
                call.settled_at = now
                self.counts.done += 1
                settled.append((call, Verdict.OK, value))
                if self._desk is not None:
                    self._desk.ended(call, self._age(call, seconds, now), is_cold=not seat.ended)
            elif ending is Ending.OK and call.stop is None:
                self._finished(call, value, turn)
            else:
                failed = True
                self._ended_badly(call, value, turn)
        if took:
            self._learn(seat, function, took)
        seat.idle_since = now
        if self._roster.fair:
            self._roster.share_out(seat, failed=failed)
        steps = self._conclude(turn, seat)
        if stuck:
            self._roster.ahead.pop(seat, None)  # it is in a long call: until that ends, nothing more goes behind it
        return steps

    def wear_out(self, seat: Seat) -> list[Instruction]:
        """A worker takes no further calls, for it has become too large or old, and ends when it holds none."""
        seat.worn = True
        return self._freed(seat)

    def shrink(self, now: float, age: float, keep: int) -> list[Instruction]:
        """Let workers end that have had nothing to do for *age* seconds, but keep so many."""
        steps: list[Instruction] = []
        for seat in list(self._roster.idle):
            if len(self.seats) - len(steps) <= keep:
                break
            if not (seat.held or seat.pins or seat.pinned) and now - seat.idle_since > age:
                seat.surplus = True
                self._roster.leave(seat, Standing.RETIRING)
                steps.append(Retire(seat))
        return steps

    def close_site(self, site: Site) -> list[Instruction]:
        """Nothing new goes to a site: its workers end when they hold nothing, and are not replaced."""
        site.is_open = False
        return [step for seat in list(site.seats) for step in self.wear_out(seat)]

    def gone(
        self, seat: Seat, running: Iterable[int], error: Callable[[Call | None], WorkerLostError], now: float
    ) -> list[Instruction]:
        """A worker's process has ended, and every answer that it sent has been counted.

        Args:
            seat: The worker.
            running: The numbers of the calls that it was running, or may have been: usually one or none.
            error: Makes the error for a call, or (with ``None``) for the death of an idle worker.
            now: ``time.time()``.
        """
        standing = seat.standing
        self._roster.leave(seat, Standing.GONE)
        turn = _Turn(now, 0.5)
        begun = set(running)
        asked = standing is Standing.RETIRING
        overdue = next((call for seq, call in seat.held.items() if seq in begun and call.stop is Stop.TIMEOUT), None)
        for seq, call in seat.held.items():
            self.placed -= 1
            if seq in begun:
                asked = asked or call.stop is not None
                self._lost(call, _for(overdue, call, error(call)), turn)
            else:
                self._taken_back(call, turn)
        seat.held.clear()
        seat.pins = 0
        self._lose_pinned(seat, error, turn)
        steps = self._conclude(turn) + self._replace(seat, standing, asked, error)
        if self._roster.fair:
            self._roster.share_out(seat, failed=False)
        return steps

    def lost(self, seat: Seat, call: Call, error: WorkerLostError, now: float) -> list[Instruction]:
        """A call's process has ended, but not the worker: for engines whose processes come and go."""
        turn = _Turn(now, 0.5)
        del seat.held[call.seq]
        self.placed -= 1
        self.counts.deaths += call.stop is None
        self._lost(call, error, turn)
        return self._conclude(turn, seat)

    # Backup copies

    def back_up(self, now: float) -> list[Instruction]:
        """Look which calls are late, and give copies of them to workers elsewhere.

        A worker that has nothing to do is given one at once. Where all are busy, the copy goes before the calls that
        wait: the worker that a straggler holds is free again much sooner for it.

        Args:
            now: ``time.time()``.
        """
        desk = self._desk
        if desk is None or self.closing:
            return []
        crowded = CROWDED if self._backlog.count else 1.0
        self._late = desk.late(now, self._since, self.width, crowded) if self.placed else []
        return self._copy_late()

    def _copy_late(self) -> list[Instruction]:
        """Copy the calls that were found late, and still are, for which there is a worker and a budget."""
        desk, steps = self._desk, list[Instruction]()
        late, self._late = self._late, []
        for call in late:
            if desk is None or desk.budget < 1:
                break
            if call.phase is not Phase.PLACED or call.stop is not None or call.copies >= desk.backups.max_copies:
                continue
            seat = self._elsewhere(frozenset({call.worker.site}) if call.race is None else call.race.sites)
            if seat is None:
                self._late.append(call)
                continue
            steps.append(self._copy(call, seat))
            desk.copies += 1
        return steps

    def _age(self, call: Call, seconds: float, now: float) -> float:
        """What a call took as seen from here, as the age of those that run is: with its ways, and our own delays."""
        began = self._since(call)
        return seconds if began is None else max(seconds, now - began)

    def _elsewhere(self, sites: frozenset[Site]) -> Seat | None:
        """A worker at none of these sites that can begin a call now, or next."""
        idle, ahead = self._roster.idle, self._roster.ahead
        seat = idle.elsewhere(sites) if idle.sites else None
        if seat is None and self._backlog.count:
            return next((each for each in ahead if each.site not in sites), None)
        return seat

    def _copy(self, call: Call, seat: Seat) -> Instruction:
        call.race = call.race or Race(call)
        copies = [call.race.add()]
        self.queued += 1  # for as long as a word takes
        self._hand_over(seat, copies)
        self.counts.backups += 1
        return Place(seat, copies)

    def check(self) -> None:
        """Raise :exc:`AssertionError` if the books do not balance."""
        self._roster.check()
        queued = self._backlog.waiting()
        assert self._backlog.count == len(queued), "the backlog is miscounted"
        queued += self._roster.pinned_calls()
        assert all(call.phase is Phase.QUEUED for call in queued)
        assert all(call.phase is Phase.PAUSED for call in self._paused)
        assert self.queued == len(queued) + len(self._paused), "queued is miscounted"
        held = [call for seat in self.seats for call in seat.held.values()]
        assert self.placed == len(held), "placed is miscounted"
        assert len({id(call) for call in held}) == len(held), "two workers hold one call"
        assert all(call.phase is Phase.PLACED or _has_lost(call) for call in held)
        races = {call.race for call in held if call.race is not None}
        running = {member for race in races for member in race.running}
        assert running == {call for call in held if call.race is not None}, "a race has other members than workers"

    # How a call ends

    def _ended_badly(self, call: Call, value: Any, turn: _Turn) -> None:
        """It raised, or was to be stopped and ended by itself before that happened.

        What arrives after the time was up is no result: the worker may have been disturbed already.
        """
        if call.stop is Stop.TIMEOUT and not isinstance(value, TaskTimeoutError):
            value = TaskTimeoutError(call=call.name, timeout=call.options.timeout)
        if self._is_decided(call, value, turn):
            self._failed(call, value, turn)

    def _lost(self, call: Call, lost: WorkerLostError, turn: _Turn) -> None:
        """The call was running when its worker ended: because of it, or because we stopped it."""
        if lost.running_for is not None:
            call.duration = lost.running_for
            if call.begun_at is None:
                call.begun_at = turn.now - lost.running_for
        error: AioParallelError = lost
        if call.stop is Stop.TIMEOUT:
            error = TaskTimeoutError(call=call.name, timeout=call.options.timeout, stack=lost.stack)
        elif call.stop is None:
            _count_loss(call if call.race is None else call.race.call, lost)
        if self._is_decided(call, error, turn):
            self._failed(call, error, turn)

    def _failed(self, call: Call, error: BaseException, turn: _Turn) -> None:
        """Nobody runs the call any more: it is begun again, or this is how it ends."""
        _avoid(call)
        if call.stop is Stop.CANCEL:
            self._settle(call, Verdict.CANCELLED, None, turn)
        elif (pause := _pause_after(call, error, turn)) is not None:
            self._pause(call, pause, error, turn)
        else:
            self._settle(call, Verdict.FAILED, _poison(call, error), turn)

    def _taken_back(self, call: Call, turn: _Turn) -> None:
        """The call never began, so it is not counted as tried."""
        call.attempts -= 1
        call.begun_at = None
        if self._is_decided(call, None, turn):
            self._requeue(call, turn)

    def _requeue(self, call: Call, turn: _Turn) -> None:
        if call.stop is Stop.CANCEL:
            self._settle(call, Verdict.CANCELLED, None, turn)
        else:
            call.stop = None
            turn.back.append(call)

    def _learn(self, seat: Seat, function: Any, took: list[float]) -> None:
        """What calls of one function took."""
        seat.ended += len(took)
        self.latencies.extend(took)
        if function is not None:
            function.costs.add(sum(took) / len(took), max(took))

    def _settle(self, call: Call, verdict: Verdict, value: Any, turn: _Turn) -> None:
        call.phase = Phase.SETTLED
        call.settled_at = turn.now
        counts = self.counts
        if verdict is Verdict.OK:
            counts.done += 1
        elif verdict is Verdict.FAILED:
            counts.failed += 1
        else:
            counts.cancelled += 1
        turn.settled.append((call, verdict, value))

    def _pause(self, call: Call, seconds: float, error: BaseException, turn: _Turn) -> None:
        call.phase = Phase.PAUSED
        call.stop = None
        begun_at, call.begun_at = call.begun_at, None
        self._paused.add(call)
        self.queued += 1
        self.counts.retried += 1
        turn.steps.append(Pause(call, seconds, error, begun_at))

    def _halt(self, call: Call, why: Stop) -> list[Instruction]:
        already, call.stop = call.stop, min(call.stop or why, why)
        return [] if already is not None else [Halt(call.worker, call)]

    def _conclude(self, turn: _Turn, seat: Seat | None = None) -> list[Instruction]:
        """What is to be done after workers' words have been taken down; this worker may have room now."""
        for call in reversed(turn.back):
            self._push(call, front=True)
        return [Settle(turn.settled), *turn.steps, *(self._freed(seat) if seat is not None else ())]

    # How a race ends

    def _is_decided(self, member: Call, error: BaseException | None, turn: _Turn) -> bool:
        """Whether the end of a call decides anything, which it does unless there are copies.

        Args:
            member: The call, or a copy of one, that is not held any more.
            error: What it failed with; ``None`` if it was taken back.
            turn: What comes of it, where it is the last member of a race.
        """
        race: Race | None = member.race
        if self._desk is not None:
            if error is None:
                self._desk.taken_back(member)
            else:
                self._desk.ended(member, None)
        if race is None:
            return True
        race.leave(member)
        call = race.call
        if member is not call:
            member.phase = Phase.SETTLED
            self.counts.backup_seconds += member.duration or 0.0
        if error is not None:
            race.failed(member, error)
        elif member is not call:
            race.withdraw(member)
            self.counts.backups -= 1
            if self._desk is not None:
                self._desk.copies -= 1
        if call.phase is Phase.PLACED and not race.running:
            call.race = None
            if not race.errors:
                self._requeue(call, turn)
            else:
                call.avoid |= race.sites
                self._failed(call, race.error(), turn)
        if member is not call:
            race.forget(member)
        return False

    def _finished(self, winner: Call, value: Any, turn: _Turn) -> None:
        """A member of a race has succeeded: it wins, unless another has, or the call is not wanted any more."""
        race: Race = winner.race
        call = race.call
        if call.phase is not Phase.PLACED or call.stop is Stop.CANCEL:  # its own timeout is not its copies'
            self._is_decided(winner, CallCancelledError(f"{call.name} was cancelled"), turn)
            return
        race.leave(winner)
        race.winner = winner
        for loser in race.running:
            turn.steps += self._halt(loser, Stop.CANCEL)
        if winner is not call:
            winner.phase = Phase.SETTLED
            self.counts.backups_won += 1
            self.counts.backup_seconds += winner.duration or 0.0
            race.forget(winner)
        if self._desk is not None:
            took = self._age(winner, winner.duration or 0.0, turn.now)
            self._desk.ended(call, took, is_cold=not winner.worker.ended)
        call.worker, call.begun_at, call.duration = winner.worker, winner.begun_at, winner.duration
        self._settle(call, Verdict.OK, value, turn)

    # The queue

    def _push(self, call: Call, *, front: bool) -> None:
        call.phase = Phase.QUEUED
        self.queued += 1
        if call.pin is None:
            self._backlog.push(call, front=front)
            return
        queue = call.pin.pinned
        self._roster.pinned[call.pin] = None
        self._roster.ahead.pop(call.pin, None)  # what is sent ahead would keep the stream waiting
        if front:
            queue.appendleft(call)
        else:
            queue.append(call)

    def _unqueue(self, call: Call) -> None:
        in_backlog = call.phase is Phase.QUEUED and call.pin is None
        if call.phase is Phase.PAUSED:
            self._paused.discard(call)
        elif call.pin is not None:
            call.pin.pinned.remove(call)
        self.queued -= 1
        call.phase = Phase.SETTLED
        self.counts.cancelled += 1
        if in_backlog:
            self._backlog.drop(call)

    def _waiting(self) -> list[Call]:
        """Every call that no worker holds."""
        return [*self._paused, *self._backlog.waiting(), *self._roster.pinned_calls()]

    def _may_top_up(self) -> bool:
        """Whether so much waits that a busy worker may be sent some; ``ahead`` must not be empty."""
        return self._backlog.count >= TOP_UP or next(iter(self._roster.ahead)).site.trip > 0

    def _place_pinned(self, seat: Seat) -> list[Instruction]:
        steps: list[Instruction] = []
        while seat.pinned and seat.standing is Standing.READY and len(seat.held) < seat.width + (seat.spare or 0):
            call = seat.pinned.popleft()
            self._hand_over(seat, [call])
            steps.append(Place(seat, [call]))
        if seat.standing is Standing.GONE:
            turn = _Turn(None, 0.5)
            self._lose_pinned(seat, _stranded, turn)
            steps.append(Settle(turn.settled))
        return steps

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
        if self._desk is not None:
            self._desk.placed(calls)
        seat.last_seq = seq
        seat.function = calls[-1].function
        self.queued -= len(calls)
        self.placed += len(calls)
        self._roster.offer(seat)

    # The workers

    def _fill_vacancy(self) -> list[Instruction]:
        seat = self._roster.vacant.pop(0)
        self._roster.width -= seat.width
        return self.add(seat)

    def _freed(self, seat: Seat) -> list[Instruction]:
        seat.worn = seat.worn or seat.ended >= self._roster.max_tasks
        self._roster.offer(seat)
        if seat.standing is not Standing.READY or not seat.worn:
            return []
        if seat.held or seat.pins or seat.pinned:
            return []
        self._roster.leave(seat, Standing.RETIRING)
        return [Retire(seat)]

    def _lose_pinned(self, seat: Seat, error: Callable[[Call], Exception], turn: _Turn) -> None:
        """A stream cannot go on elsewhere: its generator died with the worker."""
        self.queued -= len(seat.pinned)
        for call in seat.pinned:
            self._settle(call, Verdict.FAILED, error(call), turn)
        seat.pinned.clear()
        self._roster.pinned.pop(seat, None)

    def _replace(
        self, seat: Seat, standing: Standing, asked: bool, error: Callable[[Call | None], WorkerLostError]
    ) -> list[Instruction]:
        roster, site = self._roster, seat.site
        roster.remove(seat)
        if not asked:
            self.counts.deaths += 1
        if standing is Standing.STARTING:
            site.start_failures += 1
        if self.closing or not site.is_open:
            return []
        if self.start_error is not None and site.name is None:
            return [] if self.any_ready else self.fail_all(self.start_error)
        if self._all_or_none and not self.is_up and standing is Standing.STARTING:
            return self._give_up(site, error(None))
        if site.start_failures >= MAX_START_FAILURES and not site.ready and not _has_untried(site):
            return self._give_up(site, error(None))
        fresh = roster.successor(seat)
        fresh.start_failures = seat.start_failures + 1 if standing is Standing.STARTING else 0
        fresh.function = seat.function if asked else None
        if seat.surplus:
            roster.vacant.append(fresh)
            roster.width += fresh.width
            return []
        roster.add(fresh)
        return [Spawn(fresh, site.start_failures)]

    def _give_up(self, site: Site, cause: WorkerLostError) -> list[Instruction]:
        """Every new worker dies at its start: say so once; here, nothing that waits can ever run."""
        count = site.start_failures
        many = f"{count} in a row ended before they were ready. The last one:"
        one = "one ended before it was ready:"
        error = WorkerStartError(f"no worker can be started: {many if count > 1 else one}\n{cause}")
        error.__cause__ = cause
        return self.fail_all(error) if site.name is None else [Suspend(site, error)]


def _has_untried(site: Site) -> bool:
    """Whether a worker is about to start there that is the first at its place: it may be the one that can."""
    return any(seat.standing is Standing.STARTING and not seat.start_failures for seat in site.seats)


def _first(seats: dict[Seat, None], avoid: frozenset[Site]) -> Seat:
    """The first of these workers, at none of these sites if that can be."""
    first = next(iter(seats))
    return first if not avoid else next((seat for seat in seats if seat.site not in avoid), first)


def _pause_after(call: Call, error: BaseException, turn: _Turn) -> float | None:
    """Seconds until the call is begun again, if it is."""
    if _is_stranded(call):
        return None
    if isinstance(error, WorkerLostError):
        return pause_after_loss(call, turn.now)
    return pause_after_error(call, error, turn.now, turn.chance)


def _for(overdue: Call | None, call: Call, lost: WorkerLostError) -> WorkerLostError:
    """The error for a call whose worker we have killed, if we did, for another one beside it."""
    if overdue is not None and call.stop is None and lost.signal == "SIGKILL":
        lost.killed_for = overdue.name
    return lost


def _count_loss(call: Call, lost: WorkerLostError) -> None:
    """A worker died of the call, or was lost with its machine, or killed for another call: that is not its fault."""
    if lost.killed_for is not None or (lost.signal is None and lost.exitcode is None and not lost.crashed):
        call.losses += 1
    else:
        call.deaths = [*(call.deaths or ()), str(lost).partition("\n")[0]]


def _poison(call: Call, error: BaseException) -> BaseException:
    """What a call fails with: the last death of too many is told as that."""
    deaths = call.deaths or ()
    if not isinstance(error, WorkerLostError) or len(deaths) < MAX_DEATHS:
        return error
    poison = PoisonTaskError(f"{call.name} killed {len(deaths)} workers and is not run again", history=tuple(deaths))
    poison.__dict__ = {**error.__dict__, **poison.__dict__}
    return poison


def _has_lost(call: Call) -> bool:
    """Whether a worker still holds a call that another member of its race has ended."""
    return call.race is not None and call.race.call.phase is Phase.SETTLED


def _avoid(call: Call) -> None:
    """The call's next attempt goes to another site, if there is one."""
    site = call.worker.site
    if site.name is not None:
        call.avoid = call.avoid | {site} if call.avoid else frozenset({site})


def _is_stranded(call: Call) -> bool:
    """Whether the one worker that could run the call has ended."""
    return call.pin is not None and call.pin.standing is Standing.GONE


def _stranded(call: Call) -> WorkerLostError:
    return WorkerLostError(f"{call.name} cannot go on: its generator was lost with {call.pin}", call=call.name)
