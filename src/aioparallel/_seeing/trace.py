"""Traces: what happens is written to a file as it happens, in the trace-event format.

That is a JSON array with one event in a line. Perfetto and ``chrome://tracing`` open it, and do without its end, so
that a file whose program was killed is as good as its last flush. What is kept in memory is what is in flight, and a
second's worth of lines.

How it is laid out:

* A "process" of the format is one machine as one executor uses it; its "threads" are lanes. A worker that runs one
  call at a time has one lane, which its replacement takes over; a wider one has as many as it needs for calls not to
  overlap.
* ``X``: an attempt of a call, from its beginning to its end. All times are those of this program's clock: a call
  elsewhere ends here when its answer arrives, so no other machine's clock is asked.
* ``b`` and ``e``: a call that waited for a worker, if it waited for some time.
* ``i``: a worker has started, ended, died or was killed; a host came or was lost.
* ``C``: how many calls wait and run, ten times a second at most.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import time
from asyncio import TimerHandle
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from .._model.events import (
    CallEnded,
    CallPlaced,
    CallRetried,
    Event,
    HostLost,
    HostUp,
    PoolClosed,
    PoolOpened,
    WorkerEnded,
    WorkerStarted,
)
from .lanes import Lanes, Span
from .tally import first_line

if TYPE_CHECKING:
    from .._executors.pool import Executor
    from .observers import Observation

__all__ = ["Trace"]

LINES = 2000
FLUSH_SECONDS = 1.0
"""What is written goes to the file after so many lines, or so many seconds."""
COUNT_SECONDS = 0.1
WAIT_SECONDS = 0.001
"""Only a call that waited so long for a worker is shown to wait."""
LEVEL = 1
"""Of compression: more costs more than it saves."""

_log = logging.getLogger("aioparallel")


class Trace:
    """A trace file that is being written; :meth:`Executor.trace` makes it.

    Args:
        path: The file, which is written anew, and compressed if its name ends in ``.gz``.

    Raises:
        OSError: It cannot be written.

    Cancellation:
        Does not touch it.

    Example:
        ::

            with Trace("run.json.gz") as trace:
                reading.trace(trace)
                crunching.trace(trace)
                ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with open(self.path, "wb"):
            pass  # so that a path that cannot be written is known at once
        self._file: BinaryIO | None = None
        self._began = time.time()
        self._lines: list[str] = []
        self._timer: TimerHandle | None = None
        self._watched: dict[_Watched, Observation] = {}
        self._is_flushing = False
        self._is_over = False
        self._machines = 0

    def watch(self, pool: Executor) -> None:
        """Write down what happens in one more executor, until it is closed.

        Args:
            pool: The executor.

        Raises:
            ValueError: The trace is closed.
        """
        if self._is_over:
            raise ValueError(f"the trace {self.path} is closed")
        watched = _Watched(self, pool)
        self._watched[watched] = pool.observe(watched)

    def close(self) -> None:
        """Complete the file. Closing a closed trace does nothing."""
        if self._is_over:
            return
        for watched in list(self._watched):
            self._left(watched)
        if not self._is_over:  # nobody was watched
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # For those who write it

    def _micros(self, at: float) -> float:
        """A time as the file has it."""
        return (at - self._began) * 1e6

    def _new_machine(self) -> int:
        """A number for a machine as an executor uses it."""
        self._machines += 1
        return self._machines

    def _write(self, line: str) -> None:
        """One event, or several with a comma and a new line between them."""
        lines = self._lines
        lines.append(line)
        if self._is_flushing:
            return  # it is what was held back until now
        if len(lines) >= LINES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _left(self, watched: _Watched) -> None:
        """An executor is watched no more; without any, the trace is over."""
        observation = self._watched.pop(watched, None)
        if observation is not None:
            observation.close()
            self._is_flushing = True
            watched.end()
            self._is_flushing = False
            if not self._watched:
                self._finish()

    # The file

    def _flush(self) -> None:
        """Write what there is, so that whoever reads the file now can read that."""
        try:
            self._try_flush()
        except OSError as error:
            _log.error("the trace %s ends here: %s", self.path, error)
            self._abandon()

    def _try_flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_flushing = True
        for watched in self._watched:
            watched.settle_lanes()
        self._is_flushing = False
        lines, self._lines = self._lines, []
        file = self._file
        if file is None:
            file = self._file = self._open()
            lines.insert(0, _header(self._began))
        if lines:
            file.write((",\n".join(lines) + ",\n").encode())
        file.flush()  # a compressed one up to here, too

    def _open(self) -> Any:
        if not self.path.endswith(".gz"):
            return open(self.path, "wb")
        return gzip.open(self.path, "wb", compresslevel=LEVEL)

    def _finish(self) -> None:
        try:
            self._try_flush()
            assert self._file is not None, "it has been flushed"
            end = self._micros(time.time())
            self._file.write(b'{"name":"end","ph":"i","s":"g","pid":0,"tid":0,"ts":%.1f}\n]\n' % end)
        except OSError as error:
            _log.error("the trace %s has no end: %s", self.path, error)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Write nothing more."""
        self._is_over = True
        watched, self._watched = self._watched, {}
        for observation in watched.values():
            observation.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lines.clear()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            _log.error("the trace %s was not closed well: %s", self.path, error)


class _Watched:
    """What happens in one executor, written down."""

    def __init__(self, trace: Trace, pool: Executor) -> None:
        self._trace = trace
        self._pool = pool
        self._machines: dict[str | None, int] = {}
        self._lanes: dict[str, Lanes] = {}
        self._tids = 0
        self._placed: dict[int, list[CallPlaced]] = {}
        """Calls in flight, and where they were sent to: more than one place for those with backup copies."""
        self._next_count = 0.0
        self._handlers: dict[type, Any] = {
            CallPlaced: self._call_placed,
            CallRetried: self._call_retried,
            CallEnded: self._call_ended,
            WorkerStarted: self._worker_started,
            WorkerEnded: self._worker_ended,
            HostUp: self._host_up,
            HostLost: self._host_lost,
            PoolOpened: lambda event: self._machine(None),
            PoolClosed: lambda event: self._trace._left(self),
        }

    def __call__(self, event: Event) -> None:
        """This has happened."""
        if event.at >= self._next_count:
            self._count(event.at)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def end(self) -> None:
        """Nothing more will happen."""
        self._count(time.time())
        self.settle_lanes()

    def settle_lanes(self) -> None:
        """Write what is held back until it is known what came next."""
        for lanes in self._lanes.values():
            lanes.settle()

    # Calls

    def _call_placed(self, event: CallPlaced) -> None:
        if event.backup:
            self._placed.setdefault(event.id, []).append(event)
        else:
            self._placed[event.id] = [event]

    def _call_retried(self, event: CallRetried) -> None:
        self._placed.pop(event.id, None)
        if event.begun_at is not None:
            what = f'"attempt":{event.attempt},"outcome":"failed","again":true,"error":{_error(event.error)}'
            self._span(event.worker, event.host, event.begun_at, event.at - event.begun_at, event, what)

    def _call_ended(self, event: CallEnded) -> None:
        placed = self._placed.pop(event.id, None)
        at, begun_at, worker = event.at, event.begun_at, event.worker
        if begun_at is not None and worker is not None:
            duration = event.duration
            if duration is None:
                duration = at - begun_at
            what = f'"attempt":{event.attempts},"outcome":"{event.outcome}"'
            if event.items > 1:
                what += f',"items":{event.items}'
            if event.won_by_copy:
                what += ',"won_by_copy":true'
            if event.error is not None:
                what += f',"error":{_error(event.error)}'
            self._span(worker, event.host, begun_at, duration, event, what)
            if begun_at - event.queued_at > WAIT_SECONDS and event.attempts == 1:
                self._waited(event, begun_at)
        elif at - event.queued_at > WAIT_SECONDS:
            self._waited(event, at)
        if placed is not None and len(placed) > 1:
            self._losers(event, placed)

    def _losers(self, event: CallEnded, placed: list[CallPlaced]) -> None:
        """A call had backup copies: those who did not win were stopped."""
        for copy in placed:
            if copy.worker != event.worker:
                what = f'"attempt":{copy.attempt},"outcome":"lost the race","backup":{_json(copy.backup)}'
                self._span(copy.worker, copy.host, copy.at, event.at - copy.at, event, what)

    def _span(
        self,
        worker: str,
        host: str | None,
        begun_at: float,
        duration: float,
        event: CallEnded | CallRetried,
        what: str,
    ) -> None:
        lanes = self._lanes.get(worker)
        if lanes is None:
            lanes = self._new_lanes(worker, host, self._width_of(worker))
        lanes.add(begun_at, duration, f'{{"name":{_json(event.name)},"cat":"call","args":{{"id":{event.id},{what}}}')

    def _waited(self, event: CallEnded, until: float) -> None:
        pid = self._machine(event.host)
        name, micros = _json(event.name), self._trace._micros
        head = f'{{"name":{name},"cat":"queue","id":{event.id},"pid":{pid},"tid":0,'
        self._trace._write(
            f'{head}"ph":"b","ts":{micros(event.queued_at):.1f}}},\n{head}"ph":"e","ts":{micros(until):.1f}}}'
        )

    # Workers and hosts

    def _worker_started(self, event: WorkerStarted) -> None:
        if event.worker not in self._lanes:
            self._new_lanes(event.worker, event.host, event.width)
        self._instant("started", event.worker, event.at, f'"pid":{_json(event.pid)}')

    def _worker_ended(self, event: WorkerEnded) -> None:
        name = f"ended: {event.reason}" if event.asked else f"died: {event.reason}"
        what = f'"pid":{_json(event.pid)},"asked":{_json(event.asked)},"max_rss":{_json(event.max_rss)}'
        if event.worker not in self._lanes:
            self._new_lanes(event.worker, event.host, 1)
        self._instant(name, event.worker, event.at, what)

    def _instant(self, name: str, worker: str, at: float, what: str) -> None:
        lanes = self._lanes[worker]
        self._trace._write(
            f'{{"name":{json.dumps(name)},"cat":"worker","ph":"i","s":"t","ts":{self._trace._micros(at):.1f},'
            f'"pid":{lanes.machine},"tid":{lanes.first},"args":{{{what}}}}}'
        )

    def _host_up(self, event: HostUp) -> None:
        self._of_host("up", event.host, event.at, f'"slots":{event.slots}')

    def _host_lost(self, event: HostLost) -> None:
        self._of_host("given up" if event.permanent else "lost", event.host, event.at, f'"error":{_error(event.error)}')

    def _of_host(self, name: str, host: str, at: float, what: str) -> None:
        text = json.dumps(f"{host}: {name}")
        self._trace._write(
            f'{{"name":{text},"cat":"host","ph":"i","s":"p","ts":{self._trace._micros(at):.1f},'
            f'"pid":{self._machine(host)},"tid":0,"args":{{{what}}}}}'
        )

    def _count(self, at: float) -> None:
        """Write how many calls wait and run."""
        self._next_count = at + COUNT_SECONDS
        run = self._pool._run
        if run is not None:
            self._trace._write(
                f'{{"name":"calls","ph":"C","ts":{self._trace._micros(at):.1f},"pid":{self._machine(None)},"tid":0,'
                f'"args":{{"queued":{run.pending},"running":{run.ledger.running}}}}}'
            )

    # Names

    def _machine(self, host: str | None) -> int:
        number = self._machines.get(host)
        if number is None:
            number = self._machines[host] = self._trace._new_machine()
            where = f"{self._pool.name} ({self._pool.kind})" if host is None else f"{self._pool.name} on {host}"
            self._name("process_name", number, 0, where)
        return number

    def _width_of(self, worker: str) -> int:
        """How many calls a worker runs at a time that had started before anybody watched."""
        workers = self._pool.status(per_worker=True).per_worker
        return next((each.width for each in workers if each.name == worker), 1)

    def _new_lanes(self, worker: str, host: str | None, width: int) -> Lanes:
        machine = self._machine(host)

        def new_lane(number: int) -> int:
            self._tids += 1
            self._name("thread_name", machine, self._tids, worker if not number else f"{worker} ({number + 1})")
            return self._tids

        def write(span: Span, tid: int) -> None:
            self._trace._write(
                f'{span.text},"ph":"X","ts":{self._trace._micros(span.begun_at):.1f},'
                f'"dur":{span.duration * 1e6:.1f},"pid":{machine},"tid":{tid}}}'
            )

        lanes = self._lanes[worker] = Lanes(machine, width, new_lane, write)
        return lanes

    def _name(self, what: str, machine: int, lane: int, name: str) -> None:
        self._trace._write(
            f'{{"name":"{what}","ph":"M","ts":0,"pid":{machine},"tid":{lane},"args":{{"name":{json.dumps(name)}}}}}'
        )


def _header(began: float) -> str:
    head = {"name": "aioparallel", "ph": "M", "ts": 0, "pid": 0, "tid": 0, "args": {"began": began, "version": 1}}
    return f"[\n{json.dumps(head)}"


@lru_cache(1000)
def _json(value: Any) -> str:
    return json.dumps(value)


def _error(error: BaseException) -> str:
    return json.dumps(f"{type(error).__name__}: {first_line(error)}")
