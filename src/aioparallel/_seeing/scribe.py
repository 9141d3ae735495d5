"""The scribe: writes what was noted of one executor as lines of a trace.

It works through notes in batches, away from the event loop, and knows nothing but them: see :mod:`.trace` for who takes
the notes, and for what the lines mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from .._model.events import (
    CallEnded,
    CallPlaced,
    CallRetried,
    Event,
    HostLost,
    HostUp,
    PoolOpened,
    WorkerEnded,
    WorkerStarted,
)
from .lanes import ManyLanes, OneLane
from .tally import first_line

__all__ = ["Counted", "Failed", "Known", "Note", "RunningNow", "Runs", "Scribe"]

WAIT_SECONDS = 0.001
"""Only a call that waited so long for a worker is shown to wait."""

_NO_ERROR = Exception()

MANY = 2
"""Calls at a time, of a worker of which nobody has said: no two of its calls are drawn over each other."""

_RAN = '%s},"ph":"X","ts":%.1f,"dur":%.1f,"pid":%d,"tid":%d}'

Lanes: TypeAlias = OneLane | ManyLanes


class Counted(NamedTuple):
    """So many calls wait and run."""

    at: float
    queued: int
    running: int


class Failed(NamedTuple):
    """That a call has failed, and with what: of the error, which refers to who knows what, only its text is kept."""

    event: CallEnded | CallRetried
    error: str

    @classmethod
    def of(cls, event: CallEnded | CallRetried, error: BaseException) -> Failed:
        """What is noted of an event that has this error."""
        return cls(event._replace(error=_NO_ERROR), error_text(error))


class Known(NamedTuple):
    """A worker that had started before anybody watched."""

    worker: str
    host: str | None
    width: int


class Runs(NamedTuple):
    """A call that runs."""

    id: int
    name: str
    worker: str
    host: str | None
    attempt: int
    begun_at: float


class RunningNow(NamedTuple):
    """All calls that run."""

    at: float
    calls: list[Runs]


Note: TypeAlias = Event | Counted | Failed | Known | RunningNow


class Scribe:
    """Writes what was noted of one executor.

    Args:
        name: The executor's.
        kind: Its kind.
        began: When the trace began.
        machines: Gives the next number for a machine, which no other scribe of the trace has.
    """

    def __init__(self, name: str, kind: str, began: float, machines: Iterator[int]) -> None:
        self._name, self._kind, self._began = name, kind, began
        self._new_number = machines
        self._lines: list[str] = []
        self._machines: dict[str | None, int] = {}
        self._lanes: dict[str, Lanes] = {}
        self._tids = 0
        self._copies: dict[int, dict[CallPlaced, float | None]] = {}
        """Where calls that have backup copies were sent to, and these; and when a worker ended that had one."""
        self._begun: dict[tuple[int, str], tuple[str, Lanes, int]] = {}
        """Calls that were written when they were seen to run, by number and worker: name, lanes, and the lane."""
        self._handlers: dict[type, Callable[[Any], object]] = {
            CallEnded: self._call_ended,
            CallPlaced: self._call_placed,
            Counted: self._counted,
            Failed: self._failed,
            HostLost: self._host_lost,
            HostUp: self._host_up,
            Known: self._known,
            PoolOpened: lambda event: self._machine(None),
            RunningNow: self._running,
            WorkerEnded: self._worker_ended,
            WorkerStarted: self._worker_started,
        }

    def lines(self, notes: Iterable[Note]) -> list[str]:
        """What these notes say, after all those before them."""
        handlers = self._handlers
        for note in notes:
            if type(note) is CallEnded:  # as most are
                self._call_ended(note)
            else:
                handler = handlers.get(type(note))
                if handler is not None:
                    handler(note)
        for lanes in self._lanes.values():
            self._settle(lanes)
        lines, self._lines = self._lines, []
        return lines

    # Calls

    def _call_placed(self, event: CallPlaced) -> None:
        members = self._copies.setdefault(event.id, {})
        if all((member.worker, member.attempt) != (event.worker, event.attempt) for member in members):
            members[event] = None

    def _call_ended(self, event: CallEnded, error: str = "") -> None:
        at, number, name, worker, host, outcome, attempts, _, won, items, queued_at, begun_at, duration, _ = event
        what = _what(attempts, outcome)
        if items > 1 or won or error:
            what += _more(items, won, error)
        if begun_at is None:
            if at - queued_at > WAIT_SECONDS:
                self._waited(number, name, host, queued_at, at)
        elif begun_at - queued_at > WAIT_SECONDS and attempts == 1:
            self._waited(number, name, host, queued_at, begun_at)
        if worker is not None:
            self._ran(number, name, worker, host, begun_at, at, duration, what)
        if self._copies:
            self._lost(number, worker, at)

    def _lost(self, number: int, winner: str | None, at: float) -> None:
        """Of the copies of a call one decided how it went on; the others were stopped, if they had not ended before."""
        for copy, ended_at in self._copies.pop(number, {}).items():
            if copy.worker != winner:
                outcome = "lost the race" if ended_at is None else "lost"
                what = f'"attempt":{copy.attempt},"outcome":"{outcome}","backup":{_json(copy.backup)}'
                self._ran(number, copy.name, copy.worker, copy.host, copy.at, ended_at or at, None, what)

    def _call_retried(self, event: CallRetried, error: str) -> None:
        what = f'"attempt":{event.attempt},"outcome":"failed","again":true,"error":{json.dumps(error)}'
        self._ran(event.id, event.name, event.worker, event.host, event.begun_at, event.at, None, what)
        if self._copies:
            self._lost(event.id, event.worker, event.at)

    def _ran(
        self,
        number: int,
        name: str,
        worker: str,
        host: str | None,
        begun_at: float | None,
        at: float,
        duration: float | None,
        what: str,
    ) -> None:
        """An attempt of a call has ended, or nothing was to be seen of it."""
        if self._begun and (number, worker) in self._begun:
            self._end(number, worker, at if begun_at is None or duration is None else begun_at + duration, what)
        elif begun_at is not None:
            lanes = self._lanes.get(worker) or self._new_lanes(worker, host, MANY)
            lanes.add(begun_at, at - begun_at if duration is None else duration, f"{_head(name)}{number},{what}")

    def _settle(self, lanes: Lanes) -> None:
        """Write calls whose place is known now."""
        machine, origin = lanes.machine, self._began
        self._lines += [
            # one operation: this is most of what a call costs here
            _RAN % (text, (begun_at - origin) * 1e6, duration * 1e6, machine, lane)
            for begun_at, duration, text, lane in lanes.settle()
        ]

    def _running(self, note: RunningNow) -> None:
        """Write the beginning of what runs, as it may be that nobody lives to write the end."""
        for lanes in self._lanes.values():
            self._settle(lanes)
        for call in note.calls:
            if (call.id, call.worker) not in self._begun:
                self._begin(call)
        running = {(call.id, call.worker) for call in note.calls}
        for number, worker in [key for key in self._begun if key not in running]:  # a copy that died, most likely
            self._end(number, worker, note.at, '"outcome":"lost"')

    def _begin(self, call: Runs) -> None:
        lanes = self._lanes.get(call.worker) or self._new_lanes(call.worker, call.host, MANY)
        place = lanes.begin(call.begun_at)
        if place is not None:
            begun_at, lane = place
            self._begun[call.id, call.worker] = call.name, lanes, lane
            self._write_edge("B", call.id, call.name, begun_at, lanes, lane, f'"attempt":{call.attempt}')

    def _end(self, number: int, worker: str, at: float, what: str) -> None:
        name, lanes, lane = self._begun.pop((number, worker))
        self._settle(lanes)
        self._write_edge("E", number, name, lanes.end(lane, at), lanes, lane, what)

    def _write_edge(self, phase: str, number: int, name: str, at: float, lanes: Lanes, lane: int, what: str) -> None:
        self._lines.append(
            f'{_head(name)}{number},{what}}},"ph":"{phase}","ts":{self._micros(at)},'
            f'"pid":{lanes.machine},"tid":{lane}}}'
        )

    def _waited(self, number: int, name: str, host: str | None, since: float, until: float) -> None:
        head = f'{{"name":{_json(name)},"cat":"queue","id":{number},"pid":{self._machine(host)},"tid":0,'
        self._lines.append(f'{head}"ph":"b","ts":{self._micros(since)}}},\n{head}"ph":"e","ts":{self._micros(until)}}}')

    def _failed(self, note: Failed) -> None:
        event, error = note
        if isinstance(event, CallEnded):
            self._call_ended(event, error)
        else:
            self._call_retried(event, error)

    def _counted(self, note: Counted) -> None:
        self._lines.append(
            f'{{"name":"calls","ph":"C","ts":{self._micros(note.at)},"pid":{self._machine(None)},"tid":0,'
            f'"args":{{"queued":{note.queued},"running":{note.running}}}}}'
        )

    # Workers and hosts

    def _known(self, note: Known) -> None:
        if note.worker not in self._lanes:
            self._new_lanes(note.worker, note.host, note.width)

    def _worker_started(self, event: WorkerStarted) -> None:
        self._known(Known(event.worker, event.host, event.width))
        self._of_worker("started", event.worker, event.at, f'"pid":{_json(event.pid)}')

    def _worker_ended(self, event: WorkerEnded) -> None:
        self._known(Known(event.worker, event.host, 1))
        name = f"ended: {event.reason}" if event.asked else f"died: {event.reason}"
        for members in self._copies.values():
            for member, ended_at in members.items():
                if member.worker == event.worker and ended_at is None:
                    members[member] = event.at
        what = f'"pid":{_json(event.pid)},"asked":{_json(event.asked)},"max_rss":{_json(event.max_rss)}'
        self._of_worker(name, event.worker, event.at, what)

    def _of_worker(self, name: str, worker: str, at: float, what: str) -> None:
        lanes = self._lanes[worker]
        self._lines.append(
            f'{{"name":{json.dumps(name)},"cat":"worker","ph":"i","s":"t","ts":{self._micros(at)},'
            f'"pid":{lanes.machine},"tid":{lanes.first},"args":{{{what}}}}}'
        )

    def _host_up(self, event: HostUp) -> None:
        self._of_host("up", event.host, event.at, f'"slots":{event.slots}')

    def _host_lost(self, event: HostLost) -> None:
        what = f'"error":{json.dumps(error_text(event.error))}'
        self._of_host("given up" if event.permanent else "lost", event.host, event.at, what)

    def _of_host(self, name: str, host: str, at: float, what: str) -> None:
        text = json.dumps(f"{host}: {name}")
        self._lines.append(
            f'{{"name":{text},"cat":"host","ph":"i","s":"p","ts":{self._micros(at)},'
            f'"pid":{self._machine(host)},"tid":0,"args":{{{what}}}}}'
        )

    # Names

    def _micros(self, at: float) -> str:
        """A time as the file has it: none before its beginning, which viewers would leave out."""
        return f"{max(0.0, at - self._began) * 1e6:.1f}"

    def _machine(self, host: str | None) -> int:
        number = self._machines.get(host)
        if number is None:
            number = self._machines[host] = next(self._new_number)
            where = f"{self._name} ({self._kind})" if host is None else f"{self._name} on {host}"
            self._call_it("process_name", number, 0, where)
        return number

    def _new_lanes(self, worker: str, host: str | None, width: int) -> Lanes:
        machine = self._machine(host)

        def new_lane(number: int) -> int:
            self._tids += 1
            self._call_it("thread_name", machine, self._tids, worker if not number else f"{worker} ({number + 1})")
            return self._tids

        lanes = self._lanes[worker] = (OneLane if width == 1 else ManyLanes)(machine, new_lane, self._began)
        return lanes

    def _call_it(self, what: str, machine: int, lane: int, name: str) -> None:
        self._lines.append(
            f'{{"name":"{what}","ph":"M","ts":0,"pid":{machine},"tid":{lane},"args":{{"name":{json.dumps(name)}}}}}'
        )


@lru_cache(100)
def _what(attempts: int, outcome: str) -> str:
    return f'"attempt":{attempts},"outcome":"{outcome}"'


def _more(items: int, won: bool, error: str) -> str:
    """What is said of few calls."""
    text = f',"items":{items}' if items > 1 else ""
    if won:
        text += ',"won_by_copy":true'
    return f'{text},"error":{json.dumps(error)}' if error else text


def error_text(error: BaseException) -> str:
    """An error as the trace has it."""
    return f"{type(error).__name__}: {first_line(error)}"


@lru_cache(1000)
def _json(value: Any) -> str:
    return json.dumps(value)


@lru_cache(1000)
def _head(name: str) -> str:
    """How a call's line begins, up to its number."""
    return f'{{"name":{json.dumps(name)},"cat":"call","args":{{"id":'
