"""The resident engine: workers that stay, forked by a host agent, each with a socket of its own.

This module carries out what the ledger decides, and tells it what workers say. For a
worker's end it waits until both have arrived: the end of its socket (everything that it
sent has been read) and the agent's word on how it died.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from .._child import chunks, wire
from .._child import page as pages
from .._child.page import Page
from .._child.wire import ANSWER, CALL
from .._model.call import Call, Ending, Phase, Stop
from .._model.errors import WorkerLostError, WorkerStartError
from .._policy.ledger import Halt, Place, Retire, Seat, Spawn, Standing, WorkerEnd
from .._workers import logs
from .._workers.agents import Agent, private_folder, remove_folder
from .._workers.link import Link, Listener
from .._workers.output import Output
from .._workers.returning import cannot_be_rebuilt, unpack_failure

if TYPE_CHECKING:
    from .pool import Run
    from .process import ProcessExecutor

LOOK_SECONDS = 0.002
"""How often workers are looked at while a call is being stopped, or one waits behind another ..."""
MAX_LOOK_SECONDS = 0.05
"""... and how often when nothing has changed for a while."""
PATIENCE = 0.005
"""A call that runs so long lets nothing wait behind it."""
MAX_KNOWN = 1000
"""So many functions a worker keeps, before it forgets them all and learns anew what it needs."""
EOF_SECONDS = 1.0
MAX_AGENT_DEATHS = 3
HARD_CAP = 2
"""So many times its limit may a worker have while it runs a call."""
MEMORY_SECONDS = 0.1


class Carrier:
    """A worker process and all that is known of it."""

    def __init__(self, seat: Seat, serial: int, name: str) -> None:
        self.seat = seat
        self.serial = serial
        self.name = name
        self.token = os.urandom(32)
        self.output = Output(name)
        self.pid: int | None = None
        self.link: Link | None = None
        self.page: Page | None = None
        self.end: dict[str, Any] | None = None
        self.link_lost = False
        self.finished = False
        self.start_failure = ""
        self.known: set[int] = set()
        self.flagged: set[int] = set()
        self.halting: set[Call] = set()
        self.asked: set[int] = set()
        """Calls whose kill the agent was asked for."""
        self.timers: list[TimerHandle] = []
        self.last_look = 0
        self.last_item = -1
        self.split = 0
        self.too_large: str | None = None

    def __str__(self) -> str:
        return self.name

    def running(self) -> tuple[int, float]:
        """The number of the call it runs (0: none), and when that began (``time.monotonic``)."""
        return (0, 0.0) if self.page is None else self.page.running()


class Resident:
    """The workers of one run of a process pool."""

    def __init__(self, pool: ProcessExecutor, run: Run) -> None:
        self.pool = pool
        self.run = run
        self._setup = pickle.dumps(pool._setup())
        self.folder = private_folder()
        self.carriers: dict[int, Carrier] = {}
        self._by_token: dict[bytes, Carrier] = {}
        self._timers: dict[Call, Any] = {}
        self._agent: Agent | None = None
        self._agent_deaths = 0
        self._listener = self._listen()
        self._changed = anyio.Event()
        self._looking = False
        self._interval = LOOK_SECONDS
        self._last_running: list[int] = []
        self._serial = 0
        self._unforked: list[Seat] = []
        """Seats whose workers can be started when there is an agent again."""

    # Life

    async def start(self) -> None:
        """Start the agent.

        Raises:
            WorkerStartError: It cannot be started on this machine.
        """
        await self._start_agent()
        group = self.run.supervisor.group
        assert group is not None, "the pool's group is open as long as its supervisor's body runs"
        group.start_soon(self._keep_agent)

    async def populate(self) -> None:
        """Start the workers; return when one is ready.

        Raises:
            WorkerStartError: None can be.
        """
        ledger = self.run.ledger
        for seat in self.pool._seats()[: self.pool.first_workers]:
            self.pool._carry_out(self.run, ledger.add(seat))
        await self._until(lambda: ledger.start_error is not None or ledger.is_up)
        if ledger.start_error is not None:
            raise ledger.start_error
        if self.pool.min_workers is not None:
            self._shrink()
        self._check_memory()

    def _check_memory(self) -> None:
        """Kill the one call that makes its worker far larger than it may be."""
        limit = self.pool.max_rss_per_worker
        if limit is None or self.run.closing:
            return
        for carrier in self.carriers.values():
            number, _ = carrier.running()
            used = memory_of(carrier.pid) if number else 0
            if used > HARD_CAP * limit and number not in carrier.asked:
                carrier.asked.add(number)
                carrier.too_large = (
                    f"it used {used / 2**20:.0f} MiB, and was killed by aioparallel, because that is more than "
                    f"{HARD_CAP} times max_rss_per_worker ({limit / 2**20:.0f} MiB)"
                )
                self._kill(carrier, number)
        self.run.loop.call_later(MEMORY_SECONDS, self._check_memory)

    def _shrink(self) -> None:
        """From time to time, let workers end that have nothing to do."""
        pool = self.pool
        if not self.run.closing and pool.min_workers is not None:
            pool._carry_out(self.run, self.run.ledger.shrink(time.time(), pool.idle_timeout, pool.min_workers))
            self.run.loop.call_later(pool.idle_timeout / 4, self._shrink)

    async def close(self) -> None:
        """End every worker, politely first; leave no process and no file."""
        for carrier in list(self.carriers.values()):
            self._bid_farewell(carrier)
        with anyio.move_on_after(self.pool.grace):
            await self._until(lambda: not self.carriers)
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.start_over.wait()  # it may be the second one, just starting
            await agent.aclose()
        for carrier in list(self.carriers.values()):
            self._finish(carrier)
        self._listener.close()
        remove_folder(self.folder)

    async def _start_agent(self) -> None:
        agent = self._agent = Agent(self.folder, self._on_event, self._on_output)
        try:
            await agent.start()
        except BaseException:
            self._agent = None
            with anyio.CancelScope(shield=True):
                await agent.aclose()
            raise

    async def _keep_agent(self) -> None:
        """An agent that ends unasked takes every worker with it; then another is started."""
        while (agent := self._agent) is not None:
            await agent.ended.wait()
            if agent is self._agent:
                self._on_agent_end()
                await agent.aclose()
                await self._replace_agent()

    def _on_agent_end(self) -> None:
        self._agent = None
        self._agent_deaths += 1
        for carrier in list(self.carriers.values()):
            _kill_group(carrier.pid)  # on Linux the kernel has done so
            self._on_end(carrier, {"signal": None, "exitcode": None, "max_rss": None, "oom": None})

    async def _replace_agent(self) -> None:
        if self.run.ledger.closing:
            return
        try:
            if self._agent_deaths > MAX_AGENT_DEATHS:
                raise WorkerStartError(f"the host agent ended unasked {self._agent_deaths} times in a row")
            await self._start_agent()
        except WorkerStartError as error:
            self.pool._carry_out(self.run, self.run.ledger.fail_all(error))
            self._changed.set()
        unforked, self._unforked = self._unforked, []
        for seat in unforked:
            self._fork(seat)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed = anyio.Event()
            await self._changed.wait()

    # Starting a worker

    def spawn(self, step: Spawn) -> None:
        """Ask the agent for a worker; after failures, a little later."""
        if step.failures:
            self.run.loop.call_later(0.05 * 2**step.failures, self._fork, step.seat)
        else:
            self._fork(step.seat)

    def _fork(self, seat: Seat) -> None:
        if self._agent is None or self._agent.pid is None:
            self._unforked.append(seat)
            return
        if not os.path.exists(self._listener.path):
            self._move(self._agent)
        try:
            env = self.pool._environment(seat.index)
        except Exception as error:  # of the user's own function
            self._cannot_fork(seat, error)
            return
        self._serial += 1
        carrier = Carrier(seat, self._serial, f"{self.pool.name}-{seat.index}")
        seat.carrier = carrier
        self.carriers[carrier.serial] = carrier
        self._by_token[carrier.token] = carrier
        packed = "\0".join(f"{name}={value}" for name, value in env.items())
        self._agent.say(op="fork", serial=carrier.serial, index=seat.index, token=carrier.token.hex(), env=packed)

    def _cannot_fork(self, seat: Seat, error: Exception) -> None:
        """As if the worker had died at its start: there may be others, and the next attempt may do better."""
        reason = f"{type(error).__name__}: {error}"
        lost = WorkerLostError(f"the environment of worker {seat.index} cannot be made: {reason}")
        lost.__cause__ = error
        self.pool._carry_out(self.run, self.run.ledger.gone(seat, (), lambda _: lost, time.time()))
        self._changed.set()

    def _move(self, agent: Agent) -> None:
        """Somebody has tidied our folder away: the workers to come get a new one."""
        self._listener.close()
        self.folder = private_folder()
        self._listener = self._listen()
        agent.say(op="open", folder=self.folder)

    def _listen(self) -> Listener:
        return Listener(self.run.loop, os.path.join(self.folder, "s"), self._on_token)

    def _on_token(self, token: bytes, link: Link) -> Callable[[int, memoryview], None] | None:
        carrier = self._by_token.pop(token, None)
        if carrier is None:
            return None
        try:
            carrier.page = Page(self._page_path(carrier))
        except OSError:  # somebody removed it
            return None
        carrier.link = link
        link.on_lost = lambda: self._on_link_lost(carrier)
        return lambda kind, body: self._on_frame(carrier, kind, body)

    def _page_path(self, carrier: Carrier) -> str:
        return os.path.join(self.folder, f"p{carrier.serial}")

    # What workers say

    def _on_frame(self, carrier: Carrier, kind: int, body: memoryview) -> None:
        if kind == wire.ANSWERS:
            self.pool._answered(self.run, carrier.seat, self._read_answers(carrier, body))
        elif kind == wire.HELLO:
            assert carrier.link is not None, "it is how this frame came"
            carrier.link.send(wire.SETUP, [self._setup])
        elif kind == wire.READY:
            self._agent_deaths = 0
            self.run.ledger.ready(carrier.seat)
            self._changed.set()
            self.pool._pump(self.run)
            self.run.quiet.set()  # there may be room in the queue
        elif kind == wire.LOG:
            logs.handle(body, carrier.name)
        elif kind == wire.FULL:
            self.pool._carry_out(self.run, self.run.ledger.wear_out(carrier.seat))
        elif kind == wire.UNREADY:
            carrier.start_failure = str(body, "utf-8", "replace")
        else:
            raise wire.ProtocolError(f"a frame of kind {kind}")

    def _read_answers(self, carrier: Carrier, body: memoryview) -> list[WorkerEnd]:
        held = carrier.seat.held
        ends: list[WorkerEnd] = []
        position, end, size = 0, len(body), ANSWER.size
        plain = not (self._timers or carrier.flagged)
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
            if carrier.flagged and number in carrier.flagged:
                self._unflag(carrier, number)
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
            return Ending.RAISED, self._read_failure(carrier, call, payload)
        return Ending.WITHDRAWN, None

    def _read_failure(self, carrier: Carrier, call: Call, packed: Any) -> BaseException:
        where = f"{carrier.name} (pid {carrier.pid}), attempt {call.attempts}"
        return unpack_failure(packed, call.name, where)

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
        return items, ended, None if packed is None else self._read_failure(carrier, call, packed)

    def _read_chunk(self, carrier: Carrier, call: Call, ended: Any) -> Any:
        values, failed = ended
        counts = self.run.ledger.counts  # which has one for the chunk as a whole
        counts.done += len(values) - len(failed) - 1
        counts.failed += len(failed)
        return values, {index: self._read_failure(carrier, call, packed) for index, packed in failed.items()}

    def _close_stream(self, step: Call) -> None:
        """A step failed, or was cancelled too late: nobody knows of the generator any more."""
        if self.run.closing:
            return
        opened = step.future.id if step.kind == wire.STREAM_OPEN else step.args[0]
        self.pool._submit(step.fn, (opened,), {}, step.options, verb=wire.STREAM_CLOSE, pin=step.worker)

    # Sending calls

    def place(self, step: Place) -> None:
        """Send calls to their worker."""
        carrier: Carrier = step.seat.carrier
        assert carrier.link is not None, "only a worker that is ready is given calls"
        frame: list[bytes] = []
        for call in step.calls:
            function = call.function
            if function.number not in carrier.known:
                self._teach(carrier, function)
            payload, buffers = call.payload
            head = CALL.pack(
                call.seq, call.future.id, function.number, call.attempts, call.kind, len(buffers), len(payload)
            )
            if buffers:
                self._send(carrier, frame)
                frame = []
                carrier.link.send(wire.CALLS, wire.with_buffers(head, payload, buffers))
            else:
                frame.append(head)
                frame.append(payload)
            if call.options.timeout is not None:
                self._set_timer(call, call.options.timeout)
        self._send(carrier, frame)
        if len(step.seat.held) > 1 or step.calls[0].give_back is not None:
            self._watch()

    def _send(self, carrier: Carrier, frame: list[bytes]) -> None:
        if frame and carrier.link is not None:
            carrier.link.send(wire.CALLS, [b"".join(frame)])

    def _teach(self, carrier: Carrier, function: Any) -> None:
        name = function.name.encode()
        head = wire.FUNCTION.pack(function.number, len(name))
        assert carrier.link is not None, "only a worker that is ready is given calls"
        if len(carrier.known) >= MAX_KNOWN and not carrier.seat.pins and self.pool.threads_per_worker == 1:
            carrier.link.send(wire.FORGET, [b""])
            carrier.known.clear()
        carrier.link.send(wire.FUNCTIONS, [head + name + function.packed])
        carrier.known.add(function.number)

    # Stopping calls

    def halt(self, step: Halt) -> None:
        """Take a call back if it has not begun; kill it if it has; look again until one is true."""
        carrier: Carrier = step.seat.carrier
        self._flag(carrier, step.call.seq)
        carrier.halting.add(step.call)
        self._interval = LOOK_SECONDS
        self._look_at(carrier)
        self._watch()

    def _flag(self, carrier: Carrier, number: int) -> None:
        if carrier.page is not None:
            carrier.page.withdraw(number)
            carrier.flagged.add(number)

    def _unflag(self, carrier: Carrier, number: int) -> None:
        if carrier.page is not None:
            carrier.page.forget(number)
        carrier.flagged.discard(number)

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

    def began(self, call: Call) -> float | None:
        """When a call began (``time.time``), or ``None`` if it waits."""
        carrier = call.worker.carrier if call.worker is not None else None
        if carrier is None or carrier.page is None:
            return None
        began = carrier.page.all_running(self.pool.threads_per_worker).get(call.seq)
        return None if began is None else time.time() - (time.monotonic() - began)

    # Looking at workers

    def _watch(self) -> None:
        """Look at the workers soon, if there is a reason to."""
        if not self._looking and any(map(_is_worth_a_look, self.carriers.values())):
            self._looking = True
            self.run.loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        """Look at the workers; while nothing changes, less and less often."""
        self._looking = False
        before = self._last_running
        for carrier in list(self.carriers.values()):
            if not carrier.finished and _is_worth_a_look(carrier):
                self._look_at(carrier)
        self._last_running = [carrier.last_look for carrier in self.carriers.values()]
        unchanged = before == self._last_running
        self._interval = min(2 * self._interval, MAX_LOOK_SECONDS) if unchanged else LOOK_SECONDS
        self._watch()

    def _look_at(self, carrier: Carrier) -> None:
        if carrier.page is None:
            return
        number, began = carrier.running()
        self._kill_what_runs(carrier, number)
        if number and number == carrier.last_look and time.monotonic() - began > PATIENCE:
            self._free_what_waits(carrier, number)
        self._split_chunk(carrier, number)
        carrier.last_look = number

    def _kill_what_runs(self, carrier: Carrier, number: int) -> None:
        carrier.halting = {call for call in carrier.halting if carrier.seat.held.get(call.seq) is call}
        for call in carrier.halting:
            if self.pool.threads_per_worker > 1:
                self._halt_thread(carrier, call)
            elif call.seq == number and number not in carrier.asked:
                carrier.asked.add(number)
                self._kill(carrier, number, stack=call.stop is Stop.TIMEOUT)

    def _halt_thread(self, carrier: Carrier, call: Call) -> None:
        """A thread cannot be killed alone: a cancelled call is asked, an overdue one takes the worker along."""
        if call.stop is Stop.TIMEOUT and call.seq not in carrier.asked and self.began(call) is not None:
            carrier.asked.add(call.seq)
            self._kill(carrier, None, stack=True)

    def _kill(self, carrier: Carrier, number: int | None, *, stack: bool = False) -> None:
        """Have the agent kill a worker: at any rate, or only while it runs this call."""
        if self._agent is not None:
            self._agent.say(op="kill", serial=carrier.serial, call=number, stack=stack)

    def _free_what_waits(self, carrier: Carrier, number: int) -> None:
        """The worker is in a long call: fetch the answers before it, and let the calls behind it go elsewhere.

        Both are sure although the worker goes on: it was in the same call at the last look, and
        still is after this one, so it touched neither its outbox nor a flag in between.
        """
        page, seat = carrier.page, carrier.seat
        if page is None or len(seat.held) < 2 or self.pool.threads_per_worker > 1:
            return
        behind = [seq for seq in seat.held if seq > number]
        sure = [seq for seq in behind if seq in carrier.flagged]
        unsent = page.unsent()
        for seq in behind:
            self._flag(carrier, seq)
        if page.running()[0] != number:
            return
        ends = self._read_answers(carrier, memoryview(unsent)) if unsent else []
        ends += [(seq, Ending.WITHDRAWN, None, 0.0) for seq in sure]
        if ends:
            self.pool._answered(self.run, seat, ends)

    def _split_chunk(self, carrier: Carrier, number: int) -> None:
        """If the worker is stuck in an item of a chunk, let the items behind that one go elsewhere."""
        page, call = carrier.page, carrier.seat.held.get(number)
        if page is None or call is None or call.give_back is None or number != carrier.last_look:
            carrier.last_item = -1
            return
        item = page.notes.count(pages.NOTES)
        if item == carrier.last_item and page.running()[0] == number:
            if number not in carrier.flagged:
                self._flag(carrier, number)
            elif carrier.split != number:
                carrier.split = number
                call.give_back(item + 1)  # it was asked back a look ago, so the worker ends it after this item
        carrier.last_item = item

    # The end of a worker

    def retire(self, step: Retire) -> None:
        """Let an idle worker end."""
        carrier: Carrier = step.seat.carrier
        self._bid_farewell(carrier)
        self._later(carrier, self.pool.grace, self._insist)

    def _later(self, carrier: Carrier, seconds: float, fn: Callable[[Carrier], None]) -> None:
        """Look after a worker's end in a while, unless it has come by then."""
        carrier.timers.append(self.run.loop.call_later(seconds, fn, carrier))

    def _bid_farewell(self, carrier: Carrier) -> None:
        may_wait = self.run.drain or carrier.seat.standing is not Standing.STARTING
        if may_wait and carrier.link is not None and carrier.page is not None:
            carrier.link.send(wire.BYE, [b""])
        else:
            self._insist(carrier)

    def _insist(self, carrier: Carrier) -> None:
        if not carrier.finished and carrier.end is None:
            self._kill(carrier, None)

    def _on_event(self, message: dict[str, Any]) -> None:
        carrier = self.carriers.get(message["serial"])
        if carrier is None:
            return
        if message["ev"] == "forked":
            carrier.pid = message["pid"]
        elif message["ev"] == "spared":
            carrier.asked.discard(message["call"])
            self._watch()
        elif message["ev"] == "gone":
            self._on_end(carrier, message)

    def _on_end(self, carrier: Carrier, end: dict[str, Any]) -> None:
        """The process is gone; what it sent may still be on its way."""
        if carrier.end is None:
            carrier.end = end
            carrier.output.close()
            if carrier.link is None or carrier.link_lost:
                self._finish(carrier)
            else:
                self._later(carrier, EOF_SECONDS, self._finish)

    def _on_output(self, serial: int, stream: int, written: bytes) -> None:
        carrier = self.carriers.get(serial)
        if carrier is not None:
            carrier.output.write(stream, written)

    def _on_link_lost(self, carrier: Carrier) -> None:
        carrier.link_lost = True
        if carrier.end is not None:
            self._finish(carrier)
        else:
            self._later(carrier, EOF_SECONDS, self._insist)

    def _recover(self, carrier: Carrier, number: int) -> Any:
        """What the items of a chunk returned before the one that the worker died in."""
        call = carrier.seat.held.get(number)
        if call is None or call.give_back is None or carrier.page is None:
            return None
        self.run.ledger.counts.done += 1  # its one is counted as a failure
        return self._read_chunk(carrier, call, chunks.recover(carrier.page, pages.NOTES))

    def _finish(self, carrier: Carrier) -> None:
        """The worker is gone, and all that it sent has been read: settle what it leaves behind."""
        if carrier.finished:
            return
        carrier.finished = True
        for timer in carrier.timers:  # each would keep the carrier and its buffers for a while
            timer.cancel()
        if carrier.link is not None:
            carrier.link.drain()
        self.carriers.pop(carrier.serial, None)
        self._by_token.pop(carrier.token, None)
        running: dict[int, float] = {}
        ended: dict[int, Any] = {}
        if carrier.page is not None:
            unsent = carrier.page.unsent()
            if unsent:
                self.pool._answered(self.run, carrier.seat, self._read_answers(carrier, memoryview(unsent)))
            running = carrier.page.all_running(self.pool.threads_per_worker)
            ended = {number: self._recover(carrier, number) for number in running}
            carrier.page.close()
            carrier.page = None
        if carrier.link is not None:
            carrier.link.close()
        _remove(self._page_path(carrier))
        now = time.monotonic()

        def lost(call: Call | None) -> WorkerLostError:
            began = running.get(call.seq) if call is not None else None
            error = _lost_error(carrier, call, None if began is None else now - began)
            error.ended = ended.get(call.seq) if call is not None else None
            return error

        self.pool._carry_out(self.run, self.run.ledger.gone(carrier.seat, running, lost, time.time()))
        self._changed.set()
        self.pool._pump(self.run)


def _is_worth_a_look(carrier: Carrier) -> bool:
    held = carrier.seat.held
    return bool(carrier.halting) or len(held) > 1 or any(call.give_back is not None for call in held.values())


def _lost_error(carrier: Carrier, call: Call | None, running_for: float | None) -> WorkerLostError:
    end = carrier.end or {}
    error = WorkerLostError(
        "",
        call=call.name if call is not None else None,
        worker=carrier.name,
        pid=carrier.pid,
        host=None,
        exitcode=end.get("exitcode"),
        signal=end.get("signal"),
        running_for=running_for,
        max_rss=end.get("max_rss"),
        out_of_memory=carrier.too_large or end.get("oom"),
        last_output=carrier.output.last,
        stack=end.get("stack", ""),
    )
    if call is None and carrier.start_failure:
        error.args = (f"{carrier.name} could not be set up:\n{carrier.start_failure.rstrip()}",)
    return error


def memory_of(pid: int | None) -> int:
    """The memory that a process has now, in bytes; 0 where that cannot be told."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _kill_group(pid: int | None) -> None:
    try:
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def default_setup() -> dict[str, Any]:
    """What a worker is told of this process before anything else."""
    path = [entry or os.getcwd() for entry in sys.path]
    return {"path": path, "argv": list(sys.argv), "host": None, "levels": logs.levels()}
