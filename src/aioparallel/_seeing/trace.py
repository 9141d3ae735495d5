"""Traces: what happens is written to a file as it happens, in the trace-event format.

That is a JSON array with one event in a line. Perfetto and ``chrome://tracing`` open it, and do without its end, so
that a file whose program was killed is as good as its last flush.

On the event loop's thread nothing is done but to note what is told, in lists. Once a second, or when a list is full, a
thread begins that turns what was noted into lines (see :mod:`.scribe`), compresses and writes them, and ends. There is
one at a time; the loop waits for it only when a list is full to the brim. What is kept in memory is that, and what is
in flight.

How it is laid out:

* A "process" of the format is one machine as one executor uses it; its "threads" are lanes. A worker that runs one
  call at a time has one lane, which its replacement takes over; a wider one has as many as it needs for calls not to
  overlap.
* ``X``: an attempt of a call, from its beginning to its end. All times are those of this program's clock: a call
  elsewhere ends here when its answer arrives, so no other machine's clock is asked.
* ``B`` and ``E``: the same, in two parts, of a call that ran when the file was flushed. A ``B`` without its ``E`` is a
  call that never ended while the trace was written: it was running when the program was killed.
* ``b`` and ``e``: a call that waited for a worker, if it waited for some time.
* ``i``: a worker has started, ended, died or was killed; a host came or was lost.
* ``C``: how many calls wait and run, ten times a second at most.
"""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import os
import threading
import time
from asyncio import TimerHandle
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

from .._model.events import CallEnded, CallPlaced, CallRetried, Event, PoolClosed
from .._policy.seats import Standing
from .scribe import Counted, Failed, Known, Note, RunningNow, Runs, Scribe
from .workers import running_calls

if TYPE_CHECKING:
    from .._executors.pool import Executor
    from .observers import Observation

__all__ = ["Trace"]

NOTES = 4000
FLUSH_SECONDS = 1.0
"""What is noted is written after so many notes, or so many seconds."""
MOST_NOTES = 40_000
"""So many may wait while what came before is being written; whoever adds one more waits for that."""
COUNT_SECONDS = 0.1
LEVEL = 1
"""Of compression: more costs more than it saves."""

Batch: TypeAlias = list[tuple[Scribe, list[Note]]]

_log = logging.getLogger("aioparallel")


class Trace:
    """A trace file that is being written; :meth:`Executor.trace` makes it.

    Args:
        path: The file, which is written anew, and compressed if its name ends in ``.gz``.

    Raises:
        OSError: It cannot be written.

    Cancellation:
        Does not touch it.

    What may still be running:
        Nothing once it is closed; before, a thread that writes, for some milliseconds of each second.

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
        self._machines = itertools.count(1)
        self._watched: dict[_Watched, Observation] = {}
        self._rest: Batch = []
        """What is still to be written of those that are watched no more."""
        self._timer: TimerHandle | None = None
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None
        """Why nothing more can be written."""
        self._is_over = False

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
        self._watched[watched] = pool._observe(watched, steps=False)
        self._tick_later(watched)

    def close(self) -> None:
        """Complete the file. Closing a closed trace does nothing."""
        if not self._is_over:
            for watched in self._watched:
                watched.look()
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # For those who take notes

    def _at_work(self, watched: _Watched) -> None:
        """Something happens there: see to it that it is written in time."""
        self._tick_later(watched)
        if len(watched.notes) >= watched.limit:
            self._flush()

    def _left(self, watched: _Watched) -> None:
        """An executor was closed; without any, the trace is over."""
        observation = self._watched.pop(watched, None)
        if observation is not None:
            observation.close()
            self._rest.append((watched.scribe, watched.take()))
            self._end_timer()  # its loop may end now
            for other in self._watched:
                self._tick_later(other)
            if not self._watched:
                self._finish()

    # In time

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick_later(self, watched: _Watched) -> None:
        run = watched.pool._run
        if self._timer is None and run is not None:
            self._timer = run.loop.call_later(FLUSH_SECONDS, self._tick)

    def _tick(self) -> None:
        """Have what there is written, so that whoever reads the file now can read that."""
        self._timer = None
        for watched in self._watched:
            if watched.look():
                self._tick_later(watched)
        self._flush()

    def _flush(self) -> None:
        """Have what was noted written, unless there is time to wait for whoever is still writing."""
        writer = self._writer
        if writer is not None and writer.is_alive():
            if all(watched.may_wait() for watched in self._watched):
                return
            writer.join()
        self._writer = None
        if self._error is not None:
            self._abandon()
            return
        batch = self._take()
        if batch:
            writer = threading.Thread(target=self._try_to_write, args=(batch,), name="aioparallel trace")
            try:
                writer.start()
            except RuntimeError:  # no thread can be started any more
                self._try_to_write(batch)
            else:
                self._writer = writer

    def _take(self) -> Batch:
        batch, self._rest = self._rest, []
        batch += [(watched.scribe, watched.take()) for watched in self._watched if watched.notes]
        return batch

    def _finish(self) -> None:
        """Write what is left, and the end."""
        if self._writer is not None:
            self._writer.join()
        try:
            if self._error is None:
                self._write(self._take())
                assert self._file is not None, "it has been written to"
                end = (time.time() - self._began) * 1e6
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
        self._end_timer()
        self._writer = None
        self._rest.clear()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            _log.error("the trace %s was not closed well: %s", self.path, error)

    # The file, in the writer's thread, and in the end in that of the loop

    def _try_to_write(self, batch: Batch) -> None:
        try:
            self._write(batch)
        except Exception as error:
            self._error = error
            _log.error("the trace %s ends here: %s", self.path, error, exc_info=not isinstance(error, OSError))

    def _write(self, batch: Batch) -> None:
        lines = [line for scribe, notes in batch for line in scribe.lines(notes)]
        file = self._file
        if file is None:
            file = self._file = self._open()
            file.write(_header(self._began))
        if lines:
            file.write((",\n".join(lines) + ",\n").encode())
        file.flush()  # a compressed one up to here, too

    def _open(self) -> Any:
        if not self.path.endswith(".gz"):
            return open(self.path, "wb")
        return gzip.open(self.path, "wb", compresslevel=LEVEL)


class _Watched:
    """What happens in one executor, noted in a list."""

    def __init__(self, trace: Trace, pool: Executor) -> None:
        self.pool = pool
        self.scribe = Scribe(pool.name, pool.kind, trace._began, trace._machines)
        self.limit = NOTES
        """After so many notes the trace is told."""
        self._trace = trace
        self._next_count = 0.0
        seats = () if pool._run is None else pool._run.ledger.seats
        ready = [seat for seat in seats if seat.standing is Standing.READY]
        self.notes: list[Note] = [Known(str(seat), seat.site.name, seat.width) for seat in ready]
        for seat, call, begun_at in running_calls(pool):
            if call.race is not None:  # of its members nobody will tell any more
                where, is_copy = (str(seat), seat.site.name), call.race.call is not call
                self.notes.append(CallPlaced(begun_at, call.future.id, call.name, *where, call.attempts, is_copy))

    def __call__(self, event: Event) -> None:
        """This has happened: it is noted, and looked at later."""
        notes = self.notes
        error = event[-1]
        if isinstance(error, BaseException):
            assert isinstance(event, CallEnded | CallRetried), "only these end with an error"
            notes.append(Failed.of(event, error))
        else:
            notes.append(event)
        if event[0] >= self._next_count or len(notes) >= self.limit:
            if event[0] >= self._next_count:
                self._count(event[0])
            self._trace._at_work(self)
        if type(event) is PoolClosed:
            self._trace._left(self)

    def take(self) -> list[Note]:
        """What was noted since this was asked last."""
        notes, self.notes, self.limit = self.notes, [], NOTES
        return notes

    def may_wait(self) -> bool:
        """Whether there is room for more notes; then the trace is told again after some more."""
        self.limit = min(len(self.notes) + NOTES, MOST_NOTES)
        return len(self.notes) < MOST_NOTES

    def look(self) -> bool:
        """Note what runs; returns whether there is anything that may begin or end."""
        now, run = time.time(), self.pool._run
        if run is None:
            return False
        self._count(now)
        self._next_count = 0.0  # the next thing that happens is looked at, whenever it comes
        running = [
            Runs(call.future.id, call.name, str(seat), seat.site.name, call.attempts, begun_at)
            for seat, call, begun_at in running_calls(self.pool)
        ]
        self.notes.append(RunningNow(now, running))
        return bool(run.ledger.placed)

    def _count(self, at: float) -> None:
        run = self.pool._run
        if run is not None:
            self._next_count = at + COUNT_SECONDS
            self.notes.append(Counted(at, run.pending, run.ledger.running))


def _header(began: float) -> bytes:
    head = {"name": "aioparallel", "ph": "M", "ts": 0, "pid": 0, "tid": 0, "args": {"began": began, "version": 1}}
    return f"[\n{json.dumps(head)},\n".encode()
