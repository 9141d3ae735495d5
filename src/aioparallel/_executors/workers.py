"""Calls on worker processes: carries out what the ledger decides, and tells it what workers say.

When a call began is told from here, without asking: a worker runs its calls in the order in which it was sent them, so
it began one when it answered the one before, or when it was sent the first. That is late by the trip of the answer,
and by a few milliseconds where an answer waited in the outbox; who needs it exactly, to blame or to kill, is the agent.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from .._child import chunks, wire
from .._child.wire import ANSWER, CALL
from .._model.call import Call, Ending, Phase, Stop
from .._model.errors import WorkerLostError
from .._policy.seats import Standing
from .._policy.steps import Halt, Place, Retire, WorkerEnd
from .._workers import logs
from .._workers.returning import cannot_be_rebuilt, unpack_failure
from .._workers.station import Carrier, Gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from .pool import Run
    from .processes import ProcessPool

__all__ = ["Workers"]

LOOK_SECONDS = 0.005
"""How often it is looked whether workers answer that have more than one call, or a chunk ..."""
LOOK_AT_EACH = 20e-6
"""... and so much longer for each of them, so that looking never takes long itself."""
MAX_ASK_SECONDS = 1.0
MAX_LESSON = 1 << 16
"""No larger function is sent to a worker of which it is not certain that it will be asked for it (bytes)."""
MAX_KNOWN = 1000
"""So many functions a worker keeps, before it forgets them all and learns anew what it needs."""
COMPLAIN_SECONDS = 60.0
"""It is told no oftener than that a worker could not be started."""

_log = logging.getLogger("aioparallel")


class Workers:
    """The workers of one run of a pool, wherever they are."""

    def __init__(self, pool: ProcessPool, run: Run) -> None:
        self.pool = pool
        self.run = run
        self._threads = pool.threads_per_worker
        self._timers: dict[Call, Any] = {}
        self._watched: dict[Carrier, int] = {}
        """Workers that hold more than one call, or a chunk, and how often they had answered at the last look."""
        self._looking = False
        self._complained_at = -math.inf

    # Sending calls

    def place(self, step: Place) -> None:
        """Send calls to their worker."""
        carrier: Carrier = step.seat.carrier
        if len(carrier.known) >= MAX_KNOWN and not carrier.seat.pins:
            carrier.send(wire.FORGET, [b""])
            carrier.known.clear()
        frame: list[bytes] = []
        first = step.calls[0].seq
        for call in step.calls:
            function = call.function
            if function.number not in carrier.known:
                self._teach(carrier, function)
            payload, buffers = call.payload
            head = CALL.pack(
                call.seq, call.future.id, function.number, call.attempts, call.kind, len(buffers), len(payload)
            )
            if buffers:
                _send(carrier, frame, first)
                frame, first = [], call.seq + 1
                carrier.send(wire.CALLS, wire.with_buffers(head, payload, buffers), call.seq)
            else:
                frame.append(head)
                frame.append(payload)
            if call.options.timeout is not None:
                self._set_timer(call, call.options.timeout)
        _send(carrier, frame, first)
        self._note_front(carrier)
        if len(step.seat.held) > 1 or step.calls[0].give_back is not None:
            self._watch(carrier)

    def _teach(self, carrier: Carrier, function: Any) -> None:
        carrier.send(wire.FUNCTIONS, [_lesson(function)])
        carrier.known.add(function.number)

    def warm_up(self, carrier: Carrier) -> None:
        """A worker that replaces one that we have killed learns first what that knew, if it is known to do no harm."""
        function = carrier.seat.function
        if function is not None and function.costs.seconds is not None and len(function.packed) <= MAX_LESSON:
            carrier.lesson = _lesson(function)
            carrier.known.add(function.number)

    # When calls began

    def _note_front(self, carrier: Carrier) -> None:
        """What a worker holds has changed: the calls that it can be in have begun by now."""
        held, fronts = carrier.seat.held, carrier.fronts
        if self._threads == 1:
            front = next(iter(held), 0)
            if front not in fronts:
                fronts.clear()
                if front:
                    fronts[front] = time.time()
            return
        running = list(islice(held, self._threads))
        for number in [number for number in fronts if number not in held]:
            del fronts[number]
        for number in running:
            fronts.setdefault(number, time.time())

    def began(self, call: Call) -> float | None:
        """When a call began (``time.time``), or ``None`` if it waits."""
        carrier = call.worker.carrier if call.worker is not None else None
        return None if carrier is None else carrier.fronts.get(call.seq)

    # Stopping calls

    def halt(self, step: Halt) -> None:
        """Take a call back if it has not begun, and kill it if it has."""
        carrier: Carrier = step.seat.carrier
        call = step.call
        carrier.halting[call.seq] = call
        if self._threads > 1:
            self._halt_thread(carrier, call)
        elif call.stop is Stop.TIMEOUT:
            carrier.station.halt(carrier, call.seq, stack=True, after=call.options.timeout)
        else:
            carrier.station.halt(carrier, call.seq, stack=False)

    def _halt_thread(self, carrier: Carrier, call: Call) -> None:
        """A thread cannot be killed alone: a cancelled call is asked, an overdue one takes the worker along."""
        if call.stop is Stop.TIMEOUT and call.seq in carrier.fronts:
            carrier.station.kill(carrier, stack=True)
        else:
            carrier.station.say(op="ask", serial=carrier.serial, call=call.seq)

    def _halted(self, carrier: Carrier, number: int) -> None:
        """A call that was to be stopped has ended."""
        del carrier.halting[number]
        carrier.station.say(op="forget", serial=carrier.serial, call=number)

    def _set_timer(self, call: Call, seconds: float) -> None:
        self._timers[call] = self.run.loop.call_later(seconds, self._time_up, call)

    def _forget_timer(self, call: Call) -> None:
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()

    def _time_up(self, call: Call) -> None:
        """So long ago the call was sent; its time runs from when it began."""
        self._timers.pop(call, None)
        timeout = call.options.timeout
        if call.phase is not Phase.PLACED or timeout is None:
            return
        began = self.began(call)
        left = timeout if began is None else timeout - (time.time() - began)
        if left <= 0:
            self.pool._carry_out(self.run, self.run.ledger.overdue(call))
        else:
            self._set_timer(call, left)

    # Looking whether workers answer

    def _watch(self, carrier: Carrier) -> None:
        self._watched.setdefault(carrier, carrier.answered)
        self._look_soon()

    def _look_soon(self) -> None:
        if self._watched and not self._looking:
            self._looking = True
            self.run.loop.call_later(LOOK_SECONDS + LOOK_AT_EACH * len(self._watched), self._look)

    def _look(self) -> None:
        """Where a worker has not answered since the last look, let its station look what it does."""
        self._looking = False
        now = time.monotonic()
        for carrier, answered in list(self._watched.items()):
            if carrier.finished or not _is_worth_a_look(carrier):
                del self._watched[carrier]
            elif answered != carrier.answered:
                self._watched[carrier] = carrier.answered
                carrier.ask_again, carrier.ask_interval = 0.0, carrier.station.patience
            elif now >= carrier.ask_again:
                carrier.ask_again = now + carrier.ask_interval
                carrier.ask_interval = min(2 * carrier.ask_interval, MAX_ASK_SECONDS)
                self._ask(carrier)
        self._look_soon()

    def _ask(self, carrier: Carrier) -> None:
        if self._threads == 1:
            held = carrier.seat.held
            chunks = any(call.give_back is not None for call in held.values())
            carrier.station.say(op="look", serial=carrier.serial, call=next(reversed(held)), chunks=chunks)

    # What workers say

    def worker_ready(self, carrier: Carrier) -> None:
        """A worker has started, and takes calls."""
        steps = self.run.ledger.ready(carrier.seat)
        if self.pool._observers:
            self.pool._observers.worker_started(carrier.seat)
        self.pool._carry_out(self.run, steps)
        self.pool._pump(self.run)
        self.run.quiet.set()  # there may be room in the queue

    def worker_late(self, carrier: Carrier, stack: str) -> None:
        """A worker still takes no calls; this is where it is in Python, as far as that can be seen."""
        age = time.time() - carrier.asked_at
        theirs = [line for line in stack.splitlines() if "<frozen importlib" not in line]
        told = "\n".join([_stage(carrier), *theirs])
        _log.warning("%s (pid %s) takes no calls yet, %.0f s after its start: %s", carrier, carrier.pid, age, told)

    def worker_answered(self, carrier: Carrier, body: memoryview) -> None:
        """Answers have come."""
        carrier.answered += 1
        self.pool._answered(self.run, carrier.seat, self._read_answers(carrier, body))
        self._note_front(carrier)

    def worker_logged(self, carrier: Carrier, body: memoryview) -> None:
        """A log record has come."""
        logs.handle(body, carrier.name)

    def worker_full(self, carrier: Carrier) -> None:
        """A worker has become too large."""
        self.pool._carry_out(self.run, self.run.ledger.wear_out(carrier.seat))

    def worker_split(self, carrier: Carrier, number: int, item: int) -> None:
        """In this chunk, the items from this one on will not run: they go elsewhere."""
        call = carrier.seat.held.get(number)
        if call is not None and call.give_back is not None:
            call.give_back(item)

    def worker_spared(self, carrier: Carrier, number: int, ran: float) -> None:
        """This call has not run so long yet as it may, but for so many seconds: it began later than it seemed."""
        call = carrier.seat.held.get(number)
        if call is None:
            return
        del carrier.halting[number]
        self.pool._carry_out(self.run, self.run.ledger.reprieve(call))
        if call.stop is None and call.options.timeout is not None:
            if number in carrier.fronts:
                carrier.fronts[number] = time.time() - ran
            self._set_timer(call, call.options.timeout - ran)

    def worker_gone(self, carrier: Carrier, gone: Gone) -> None:
        """A worker has ended: settle what it leaves behind."""
        self._watched.pop(carrier, None)
        for call in carrier.seat.held.values() if self._timers else ():
            self._forget_timer(call)
        running = _may_have_run(carrier, gone) if gone.running is None else gone.running
        ended = {number: self._recover(carrier, number) for number in running}

        def lost(call: Call | None) -> WorkerLostError:
            error = lost_error(carrier, gone, call)
            error.ended = ended.get(call.seq) if call is not None else None
            return error

        if carrier.seat.standing is Standing.STARTING:
            self._complain(carrier, lost)
        deaths = self.run.ledger.counts.deaths
        ran = next((carrier.seat.held[number] for number in running if number in carrier.seat.held), None)
        steps = self.run.ledger.gone(carrier.seat, running, lost, time.time())
        if self.pool._observers:
            asked = self.run.closing or self.run.ledger.counts.deaths == deaths
            self.pool._observers.process_ended(carrier, gone, ran, asked=asked)
        self.pool._carry_out(self.run, steps)
        self.pool._pump(self.run)

    def _complain(self, carrier: Carrier, lost: Callable[[None], WorkerLostError]) -> None:
        """A worker could not be started. Where others can, no call and no start will ever tell."""
        now = time.monotonic()
        wanted = carrier.seat.site.is_open and not self.run.closing
        if wanted and self.run.ledger.any_ready and now - self._complained_at > COMPLAIN_SECONDS:
            self._complained_at = now
            _log.warning("%s: a worker cannot be started; it is tried again. %s", self.pool.name, lost(None))

    def _recover(self, carrier: Carrier, number: int) -> Any:
        """What the items of a chunk returned before the one that the worker died in."""
        call = carrier.seat.held.get(number)
        if call is None or call.give_back is None or carrier.notes is None:
            return None
        self.run.ledger.counts.done += 1  # its one is counted as a failure
        return self._read_chunk(carrier, call, chunks.recover(carrier.notes))

    # Reading answers

    def _read_answers(self, carrier: Carrier, body: memoryview) -> list[WorkerEnd]:
        held = carrier.seat.held
        ends: list[WorkerEnd] = []
        position, end, size = 0, len(body), ANSWER.size
        plain = not (self._timers or carrier.halting)
        while position < end:
            number, micros, ending, count, length = ANSWER.unpack_from(body, position)
            position += size
            payload = body[position : position + length]
            position += length
            if plain and not (ending or count):  # nearly every answer: what follows, without its questions
                call = held.get(number)
                if call is not None and not call.kind:
                    try:
                        ends.append((number, Ending.OK, pickle.loads(payload), micros * 1e-6))
                        continue
                    except BaseException:
                        pass  # it is looked at again below, for its error
            buffers: list[memoryview] = []
            if count:
                buffers = wire.read_buffers(body, position, count)
                position = end
            if number in carrier.halting:
                self._halted(carrier, number)
            call = held.get(number)
            if call is not None:
                ends.append((number, *self._read_answer(carrier, call, ending, payload, buffers), micros * 1e-6))
        return ends

    def _read_answer(
        self, carrier: Carrier, call: Call, ending: int, payload: memoryview, buffers: list[memoryview]
    ) -> tuple[Ending, Any]:
        if self._timers:
            self._forget_timer(call)
        if ending == wire.OK:
            try:
                value = pickle.loads(payload, buffers=buffers)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a result may well exit, and must not end the program
                return Ending.RAISED, cannot_be_rebuilt(error, call.name)
            return Ending.OK, self._read_step(carrier, call, value) if call.kind else value
        if ending == wire.RAISED:
            if call.kind in (wire.STREAM_OPEN, wire.STREAM_NEXT):
                carrier.seat.pins += call.kind == wire.STREAM_OPEN
                self._close_stream(call)  # its items could not travel, but the generator may live
            return Ending.RAISED, _read_failure(carrier, call, payload)
        return Ending.WITHDRAWN, None

    def _read_step(self, carrier: Carrier, call: Call, value: Any) -> Any:
        """A stream has opened, gone on, or closed: as long as it lives, its worker must."""
        seat = carrier.seat
        if call.give_back is not None:
            return self._read_chunk(carrier, call, value)
        if call.kind == wire.STREAM_CLOSE:
            seat.pins -= 1
            return value
        items, ended, packed = value
        seat.pins += (call.kind == wire.STREAM_OPEN) - ended
        if call.stop is not None and not ended:
            self._close_stream(call)
        return items, ended, None if packed is None else _read_failure(carrier, call, packed)

    def _read_chunk(self, carrier: Carrier, call: Call, ended: Any) -> Any:
        values, failed = ended
        counts = self.run.ledger.counts  # which has one for the chunk as a whole
        counts.done += len(values) - len(failed) - 1
        counts.failed += len(failed)
        return values, {index: _read_failure(carrier, call, packed) for index, packed in failed.items()}

    def _close_stream(self, step: Call) -> None:
        """A step failed, or was cancelled too late: nobody knows of the generator any more."""
        if self.run.closing:
            return
        opened = step.future.id if step.kind == wire.STREAM_OPEN else step.args[0]
        self.pool._submit(step.fn, (opened,), {}, step.options, verb=wire.STREAM_CLOSE, pin=step.worker)

    # The end of a worker

    def retire(self, step: Retire) -> None:
        """Let an idle worker end."""
        carrier: Carrier = step.seat.carrier
        carrier.station.bid_farewell(carrier, politely=True)


def _stage(carrier: Carrier) -> str:
    """How far the start of a worker has come."""
    if carrier.pid is None:
        return "its process has not been made"
    if carrier.link is None:
        return "it has not connected"
    return "it imports what is to be preloaded, or is in its initializer"


def _lesson(function: Any) -> bytes:
    name = function.name.encode()
    lesson: bytes = wire.FUNCTION.pack(function.number, len(name)) + name + function.packed
    return lesson


def _send(carrier: Carrier, frame: list[bytes], first: int) -> None:
    if frame:
        carrier.send(wire.CALLS, [b"".join(frame)], first)


def _may_have_run(carrier: Carrier, gone: Gone) -> list[int]:
    """Where nobody can tell, any call that was sent may have."""
    return [number for number in carrier.seat.held if gone.unsent_from is None or number < gone.unsent_from]


def _is_worth_a_look(carrier: Carrier) -> bool:
    held = carrier.seat.held
    return len(held) > 1 or any(call.give_back is not None for call in held.values())


def _read_failure(carrier: Carrier, call: Call, packed: Any) -> BaseException:
    return unpack_failure(packed, call.name, f"{carrier} (pid {carrier.pid}), attempt {call.attempts}")


def lost_error(carrier: Carrier, gone: Gone, call: Call | None) -> WorkerLostError:
    """The error for the call that a worker ran when it ended, or for the end of an idle one."""
    station = carrier.station
    error = WorkerLostError(
        "",
        call=call.name if call is not None else None,
        worker=carrier.name,
        pid=carrier.pid,
        host=station.host,
        exitcode=gone.exitcode,
        signal=gone.signal if station.lost_because is None else None,  # else it was sent by us, who leave the machine
        running_for=(gone.running or {}).get(call.seq) if call is not None else None,
        max_rss=gone.max_rss,
        out_of_memory=gone.out_of_memory,
        last_output=carrier.output.last,
        stack=gone.stack,
    )
    error.__cause__ = station.lost_because
    if call is None and carrier.start_failure:
        error.args = (f"{carrier.name} could not be set up:\n{carrier.start_failure.rstrip()}",)
        error.signal = None  # if it had to be killed for that, it was by us
    return error
