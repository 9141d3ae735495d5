"""Those who observe one pool, and how calls are told of to them.

Nothing here is imported, and no record is made, before somebody observes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from .._child import wire
from .._model.call import Call, Stop
from .._model.events import (
    CallEnded,
    CallPlaced,
    CallQueued,
    CallRetried,
    Event,
    HostLost,
    HostUp,
    Observer,
    PoolClosed,
    PoolOpened,
    WorkerEnded,
    WorkerStarted,
)

if TYPE_CHECKING:
    from .._policy.seats import Seat
    from .._policy.steps import Pause, Place
    from .._workers.station import Carrier, Gone

Told: TypeAlias = "tuple[tuple[Observation, Observer], ...]"

__all__ = ["Observation", "Observers", "how_it_ended"]

OUTCOMES = ("done", "failed", "cancelled")
"""In the order of the ledger's verdicts."""

WHY = {None: "in", Stop.CANCEL: "to cancel", Stop.TIMEOUT: "as time was up for"}
"""What a worker's end has to do with the call that it ran."""

_log = logging.getLogger("aioparallel")

_new = tuple.__new__
"""Makes a record of its fields in order, at a quarter of what its own constructor takes, which is a Python function."""


class Observers:
    """Who observes a pool. An observer that fails is named in the log once, and told nothing more.

    Args:
        on_empty: Called when nobody is left, so that nothing is paid any more.
    """

    def __init__(self, on_empty: Callable[[], object]) -> None:
        self._all: Told = ()
        self._steps: Told = ()
        """Those who want to hear of each step of a call ..."""
        self._ends: Told = ()
        """... and those to whom its end says enough."""
        self._on_empty = on_empty

    def add(self, observer: Observer, *, steps: bool = True) -> Observation:
        """Tell somebody, from now on.

        Args:
            observer: Whom.
            steps: Also of calls that are queued or placed, which costs something each time, and which few need: how a
                call ends tells when it was queued and begun. Of calls that have backup copies, all are told.
        """
        if not callable(observer):
            raise TypeError(f"observe takes a function of one argument, the event; {observer!r} cannot be called")
        observation = Observation(self)
        told = (observation, observer)
        if steps:
            self._steps = (*self._steps, told)
        else:
            self._ends = (*self._ends, told)
        self._all = self._steps + self._ends
        return observation

    def drop(self, observation: Observation) -> None:
        """Tell somebody nothing more."""
        self._steps = tuple(pair for pair in self._steps if pair[0] is not observation)
        self._ends = tuple(pair for pair in self._ends if pair[0] is not observation)
        before, self._all = self._all, self._steps + self._ends
        if before and not self._all:
            self._on_empty()

    def tell(self, event: Event) -> None:
        """Something has happened."""
        self._tell(self._all, event)

    def _tell(self, whom: Told, event: Event) -> None:
        for observation, observer in whom:  # those that there are now, whatever they do
            try:
                observer(event)
            except Exception:
                self.drop(observation)
                _log.exception("the observer %r failed at %s, and is told nothing more", observer, type(event).__name__)

    # Calls

    def queued(self, call: Call) -> None:
        """A call waits for a worker."""
        if self._steps:
            self._tell(self._steps, _new(CallQueued, (time.time(), call.future.id, call._name or call.name)))

    def placed(self, step: Place) -> None:
        """Calls are sent to a worker."""
        for call in step.calls:
            race = call.race
            if race is not None and race.call is not call:
                if self._ends:
                    self._tell(self._ends, _placed(race.call, race.call.worker, race.call._began(), backup=False))
                self.tell(_placed(call, step.seat, None, backup=True))
            elif self._steps:
                self._tell(self._steps, _placed(call, step.seat, None, backup=False))

    def paused(self, step: Pause) -> None:
        """An attempt has failed."""
        call = step.call
        where = _name_of(call.worker), call.worker.site.name
        self.tell(
            CallRetried(
                time.time(), call.future.id, call.name, *where, call.attempts, step.begun_at, step.seconds, step.error
            )
        )

    def ended(self, call: Call, verdict: int, value: Any) -> None:
        """A call has ended; its future is still there, but does not know it yet."""
        seat, race, outcome = call.worker, call.race, OUTCOMES[verdict]
        items = 1
        if outcome == "done" and (call.kind or call.give_back is not None) and _is_chunk(call):
            items = len(value[0])
        fields = (
            call.settled_at or time.time(),
            call.future.id,
            call._name or call.name,
            None if seat is None else _name_of(seat),
            None if seat is None else seat.site.name,
            outcome,
            call.attempts,
            call.copies,
            race is not None and race.winner not in (None, call),
            items,
            call.queued_at,
            call.begun_at,
            call.duration,
            value if outcome == "failed" else None,
        )
        self._tell(self._all, _new(CallEnded, fields))

    # Workers and hosts

    def worker_started(self, seat: Seat) -> None:
        """A worker takes calls."""
        pid = getattr(seat.carrier, "pid", None)
        self.tell(WorkerStarted(time.time(), str(seat), seat.site.name, seat.index, pid, seat.width))

    def worker_ended(self, seat: Seat, asked: bool, reason: str, call: int | None, max_rss: int | None) -> None:
        """A worker has ended."""
        pid = getattr(seat.carrier, "pid", None)
        self.tell(WorkerEnded(time.time(), str(seat), seat.site.name, seat.index, pid, asked, reason, call, max_rss))

    def process_ended(self, carrier: Carrier, gone: Gone, call: Call | None, *, asked: bool) -> None:
        """A worker process has ended, in this call if it ran one."""
        reason = how_it_ended(gone)
        if carrier.start_failure:
            reason = f"could not be set up: {carrier.start_failure.rstrip().rpartition(chr(10))[2]}"
        elif call is not None:
            reason += f" {WHY[call.stop]} {call.name}"
        future = getattr(call, "future", None)  # a call whose copy won is settled by now
        self.worker_ended(carrier.seat, asked, reason, None if future is None else future.id, gone.max_rss)

    def crews_started(self, seats: Iterable[Seat]) -> None:
        """Workers have started that are none of their own: they stand for all threads, tasks or places of a pool."""
        for seat in seats:
            if isinstance(seat.carrier, str):
                self.worker_started(seat)

    def crews_ended(self, seats: Iterable[Seat]) -> None:
        """The pool is closed, and with it what stands for all of it."""
        for seat in seats:
            if isinstance(seat.carrier, str):
                self.worker_ended(seat, True, "the executor was closed", None, None)

    def host_up(self, host: str, slots: int) -> None:
        """A host takes calls."""
        self.tell(HostUp(time.time(), host, slots))

    def host_lost(self, host: str, error: BaseException, permanent: bool) -> None:
        """A host cannot be used."""
        self.tell(HostLost(time.time(), host, error, permanent))

    def opened(self, pool: str, kind: str) -> None:
        """The pool was opened."""
        self.tell(PoolOpened(time.time(), pool, kind))

    def closed(self, pool: str) -> None:
        """The pool was closed."""
        self.tell(PoolClosed(time.time(), pool))


class Observation:
    """That somebody observes: it ends by :meth:`close`, or with its ``with`` block."""

    def __init__(self, observers: Observers) -> None:
        self._observers = observers

    def close(self) -> None:
        """End it. Ending it twice does nothing."""
        self._observers.drop(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _placed(call: Call, seat: Seat, at: float | None, *, backup: bool) -> CallPlaced:
    fields = (at or time.time(), call.future.id, call.name, _name_of(seat), seat.site.name, call.attempts, backup)
    return _new(CallPlaced, fields)


def _name_of(seat: Seat) -> str:
    """As ``str`` says it, and quicker where that is asked for each call."""
    carrier = seat.carrier
    return carrier if type(carrier) is str else str(seat)


def _is_chunk(call: Call) -> bool:
    """Whether items of a map travelled in it."""
    return call.give_back is not None or call.kind in (wire.CHUNK, wire.CHUNK_TO_FAILURE)


def how_it_ended(gone: Gone) -> str:
    """How a worker process ended, in words."""
    if gone.out_of_memory:
        return f"out of memory ({gone.out_of_memory})"
    if gone.signal is not None:
        return f"killed by {gone.signal}"
    if gone.exitcode is not None:
        return f"exit code {gone.exitcode}"
    return "lost with its host or agent"
