"""A station: a host agent, and the workers that it has forked, as an executor deals with them.

The life of a worker here::

    forked --HELLO--> set up --READY--> takes calls --BYE or kill or its own--> gone
       `-----------------`--UNREADY-------------------------------------------->'

Nothing ends a worker that takes long to be set up, for who knows how long its imports and its initializer may take:
but its owner is told of it, again and again, and where in Python it is.

A worker is gone, and its owner is told so once, when two things have arrived in whatever order: the agent's word on
how its process ended, and the end of its link, up to which everything that it sent has been read. A link that does not
end soon after its process has (somebody else holds it) is read as far as there is something, and closed; a process
that does not end soon after its link is killed.

When the agent is lost, so are all its workers: the kernel kills them (Linux), or we do.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from .._child import descriptors, wire
from .._child.folders import private_folder, remove_folder
from .._child.page import MAX_THREADS, Notes, Page
from .._model.errors import WorkerStartError
from .agents import Agent, Channel, Part
from .ferry import Ferry, FerryLink
from .frames import OnFrame
from .link import Link, Listener
from .output import Output

__all__ = ["Carrier", "Gone", "LocalStation", "Owner", "RemoteStation", "Station"]

EOF_SECONDS = 1.0
LATE_SECONDS = 30.0
"""A worker is late that takes no calls so long after it was asked for."""
BEATS = 5
"""So many times in the time of a lease each side says that it lives."""


class AnyLink(Protocol):
    """A worker's link, whatever it goes through."""

    def send(self, kind: int, parts: list[Part], first: int = 0) -> None:
        """Send a frame, with this call as its first, if it has any; never waits."""

    def drain(self) -> None:
        """Read whatever has been sent by now."""

    def close(self) -> None:
        """Close it."""


class Gone:
    """What is known of a worker's end.

    Attributes:
        signal: The name of the signal that killed it.
        exitcode: What it exited with, if it did.
        max_rss: Its peak memory, in bytes.
        stack: Where it was in Python, if it was killed by us and that was asked for.
        out_of_memory: Evidence that there was no more memory.
        running: The calls that it ran, by number, and for how many seconds; ``None`` when nobody can tell.
        unsent_from: From this call on, none was sent to it; ``None`` when all were, or that does not matter.

    Args:
        message: What the agent said; ``None`` if there is no agent any more.
    """

    def __init__(self, message: dict[str, Any] | None) -> None:
        known = message is not None
        message = message or {}
        self.signal: str | None = message.get("signal")
        self.exitcode: int | None = message.get("exitcode")
        self.max_rss: int | None = message.get("max_rss")
        self.stack: str = message.get("stack") or ""
        self.out_of_memory: str | None = message.get("oom")
        pairs = (entry.split(":") for entry in str(message.get("running") or "").split())
        running = {int(number): int(micros) * 1e-6 for number, micros in pairs}
        self.running: dict[int, float] | None = running if known else None
        self.unsent_from: int | None = None


class Carrier:
    """A worker process and all that is known of it.

    Attributes:
        seat: The ledger's, which the station never looks at.
        known: Numbers of the functions that it was taught.
        asked_at: When it was asked for (``time.time``).
        is_ready: Whether it has come to take calls.
        memory: What it held, in bytes, when the agent of its host said so last; of workers here nobody says.
        lesson: A function that it loads before it takes calls, as it is likely to be asked for it.
        fronts: The calls that it can be in, and since when, by their numbers (``time.time``).
        answered: How often it has answered.
        halting: Calls that are to be stopped, by their numbers.
        ask_again: When to have it looked at again (``time.monotonic``), if it has not answered by then ...
        ask_interval: ... and how long to wait after that.
    """

    def __init__(self, station: Station, seat: Any, serial: int, index: int, name: str) -> None:
        self.station = station
        self.seat = seat
        self.serial = serial
        self.index = index
        self.name = name
        self.token = os.urandom(32)
        self.output = Output(name)
        self.lesson: bytes | None = None
        self.pid: int | None = None
        self.memory: int | None = None
        self.link: AnyLink | None = None
        self.gone: Gone | None = None
        self.notes: Notes | None = None
        self.link_lost = False
        self.finished = False
        self.start_failure = ""
        self.asked_at = time.time()
        self.is_ready = False
        self.timers: list[TimerHandle] = []
        self.known: set[int] = set()
        self.fronts: dict[int, float] = {}
        self.answered = 0
        self.halting: dict[int, Any] = {}
        self.ask_again = 0.0
        self.ask_interval = station.patience

    def __str__(self) -> str:
        return self.name

    def send(self, kind: int, parts: list[Part], first: int = 0) -> None:
        """Send a frame, with this call as its first, if it has any; nothing happens once the worker is gone."""
        if self.link is not None:
            self.link.send(kind, parts, first)


class Owner(Protocol):
    """Whom a station works for."""

    def worker_ready(self, carrier: Carrier) -> None:
        """A worker has started, and takes calls."""

    def worker_late(self, carrier: Carrier, stack: str) -> None:
        """A worker still takes no calls; this is where it is in Python, as far as that can be seen."""

    def worker_answered(self, carrier: Carrier, body: memoryview) -> None:
        """Answers have come."""

    def worker_logged(self, carrier: Carrier, body: memoryview) -> None:
        """A log record has come."""

    def worker_full(self, carrier: Carrier) -> None:
        """A worker has become too large."""

    def worker_split(self, carrier: Carrier, number: int, item: int) -> None:
        """In this chunk, the items from this one on will not run."""

    def worker_spared(self, carrier: Carrier, number: int, ran: float) -> None:
        """This call has not run so long yet as it may, but for so many seconds."""

    def worker_gone(self, carrier: Carrier, gone: Gone) -> None:
        """A worker's process has ended, and all that it sent has been heard."""


class Station(ABC):
    """Workers on one machine.

    Attributes:
        patience: How long an answer may take to come from there before it is worth asking why, in seconds.

    Args:
        loop: The loop that everything here belongs to.
        owner: Whom it works for.
        setup: What every worker is sent first, packed.
        grace: Seconds that an idle worker has to end when it is told to.
    """

    patience = 0.01

    def __init__(self, loop: AbstractEventLoop, owner: Owner, setup: bytes, grace: float) -> None:
        self.loop = loop
        self.carriers: dict[int, Carrier] = {}
        self.agent: Agent | None = None
        """Who is told what to do; none before it listens, and after it was lost."""
        self.host: str | None = None
        """The name of the machine, if it is another one."""
        self.lost_because: Exception | None = None
        """Why the machine was lost, once it is."""
        self._owner = owner
        self._setup = setup
        self._grace = grace
        self._serial = 0

    # Workers

    def fork(self, seat: Any, index: int, name: str, env: dict[str, str]) -> Carrier:
        """Have a worker forked."""
        self._serial += 1
        carrier = Carrier(self, seat, self._serial, index, name)
        self.carriers[carrier.serial] = carrier
        self._expect(carrier)
        packed = "\0".join(f"{name}={value}" for name, value in env.items())
        self.say(op="fork", serial=carrier.serial, index=index, token=carrier.token.hex(), env=packed)
        self._later(carrier, LATE_SECONDS, self._look_at_start)
        return carrier

    def say(self, **message: Any) -> None:
        """Tell the agent something, if there is one."""
        if self.agent is not None:
            self.agent.say(**message)

    def halt(self, carrier: Carrier, number: int, *, stack: bool, after: float | None = None) -> None:
        """Have a call taken back if it has not begun, and its worker killed if it has, for so many seconds at least."""
        micros = None if after is None else int(after * 1e6)
        self.say(op="halt", serial=carrier.serial, call=number, stack=stack, after=micros)

    def kill(self, carrier: Carrier, *, stack: bool = False) -> None:
        """Have a worker killed."""
        self.say(op="kill", serial=carrier.serial, stack=stack)

    def bid_farewell(self, carrier: Carrier, *, politely: bool) -> None:
        """Let a worker end that has nothing to do; kill it if it does not come to that."""
        if politely and carrier.link is not None:
            carrier.send(wire.BYE, [b""])
            self._later(carrier, self._grace, self._insist)
        else:
            self._insist(carrier)

    def agent_lost(self) -> None:
        """The agent is gone, and its workers with it."""
        self.agent = None
        for carrier in list(self.carriers.values()):
            self.kill_from_here(carrier)
            self._on_gone(carrier, Gone(None))

    def give_up(self) -> None:
        """Take the agent for lost, and have it told to whoever waits for it."""
        if self.agent is not None:
            self.agent.lost()

    def end_all(self) -> None:
        """Nobody waits any longer for what is left."""
        self.agent = None
        for carrier in list(self.carriers.values()):
            carrier.gone = carrier.gone or Gone(None)
            self._finish(carrier)

    @abstractmethod
    def _expect(self, carrier: Carrier) -> None:
        """Have a link for a worker that is about to come."""

    def kill_from_here(self, carrier: Carrier) -> None:
        """Kill a worker's processes without the agent, if that can be done."""

    def _look_at_start(self, carrier: Carrier) -> None:
        """It should take calls by now: have it told where it is, and look again when it has taken twice as long."""
        if carrier.is_ready or carrier.gone is not None:
            return
        if carrier.pid is None:
            self._owner.worker_late(carrier, "")
        else:
            self.say(op="stack", serial=carrier.serial)
        self._later(carrier, time.time() - carrier.asked_at, self._look_at_start)

    def _insist(self, carrier: Carrier) -> None:
        if not carrier.finished and carrier.gone is None:
            self.kill(carrier)

    def _later(self, carrier: Carrier, seconds: float, fn: Callable[[Carrier], None]) -> None:
        """Look after a worker in a while, unless it is gone by then."""
        carrier.timers.append(self.loop.call_later(seconds, fn, carrier))

    # What is heard

    def on_event(self, message: dict[str, Any]) -> None:
        """The agent says something (see :mod:`aioparallel._child.agent`)."""
        carrier = self.carriers.get(message["serial"])
        if carrier is None:
            return
        if message["ev"] == "forked":
            carrier.pid = message["pid"]
        elif message["ev"] == "stack":
            if not carrier.is_ready:
                self._owner.worker_late(carrier, message["stack"])
        elif message["ev"] == "split":
            self._owner.worker_split(carrier, message["call"], message["item"])
        elif message["ev"] == "spared":
            self._owner.worker_spared(carrier, message["call"], message["ran"] * 1e-6)
        elif message["ev"] == "gone":
            self._on_gone(carrier, Gone(message))

    def on_output(self, serial: int, stream: int, written: bytes) -> None:
        """A worker wrote something."""
        carrier = self.carriers.get(serial)
        if carrier is not None:
            carrier.output.write(stream, written)

    def on_link(self, serial: int, received: memoryview) -> None:
        """Nothing comes this way on the same machine."""

    def on_voice(self, serial: int, kind: int, body: memoryview) -> None:
        """The agent says a frame in a worker's place: what the worker had no time to send, or need not say itself."""
        carrier = self.carriers.get(serial)
        if carrier is None:
            return
        if kind == wire.NOTES:
            carrier.notes = Notes(body)
        else:
            self._on_frame(carrier, kind, body)

    def _on_frame(self, carrier: Carrier, kind: int, body: memoryview) -> None:
        if kind == wire.ANSWERS:
            self._owner.worker_answered(carrier, body)
        elif kind == wire.HELLO:
            if carrier.lesson is not None:
                carrier.send(wire.FUNCTIONS, [carrier.lesson])
            carrier.send(wire.SETUP, [self._setup])
        elif kind == wire.READY:
            carrier.is_ready = True
            self._owner.worker_ready(carrier)
        elif kind == wire.LOG:
            self._owner.worker_logged(carrier, body)
        elif kind == wire.FULL:
            self._owner.worker_full(carrier)
        elif kind == wire.UNREADY:
            carrier.start_failure = str(body, "utf-8", "replace")
        else:
            raise wire.ProtocolError(f"a frame of kind {kind}")

    # The end of a worker

    def _on_gone(self, carrier: Carrier, gone: Gone) -> None:
        """The process is gone; what it sent may still be on its way."""
        if carrier.gone is None:
            carrier.gone = gone
            carrier.output.close()
            if carrier.link is None or carrier.link_lost:
                self._finish(carrier)
            else:
                self._later(carrier, EOF_SECONDS, self._finish)

    def _on_link_lost(self, carrier: Carrier) -> None:
        carrier.link_lost = True
        if carrier.gone is not None:
            self._finish(carrier)
        else:
            self._later(carrier, EOF_SECONDS, self._insist)

    def _finish(self, carrier: Carrier) -> None:
        """The worker is gone, and all that it sent has been read."""
        if carrier.finished:
            return
        carrier.finished = True
        for timer in carrier.timers:  # each would keep the carrier and its buffers for a while
            timer.cancel()
        if carrier.link is not None:
            carrier.link.drain()
        del self.carriers[carrier.serial]
        assert carrier.gone is not None, "whoever finishes a worker says how it ended"
        self._put_away(carrier, carrier.gone)
        if carrier.link is not None:
            carrier.link.close()
            carrier.link = None
        self._owner.worker_gone(carrier, carrier.gone)

    def _put_away(self, carrier: Carrier, gone: Gone) -> None:
        """Remove what was kept for a worker, after a last look at it."""


class LocalStation(Station):
    """Workers on this machine, which connect to a socket of ours."""

    def __init__(self, loop: AbstractEventLoop, owner: Owner, setup: bytes, grace: float) -> None:
        super().__init__(loop, owner, setup, grace)
        self._by_token: dict[bytes, Carrier] = {}
        self.folder = _new_folder()
        self._former: list[str] = []
        """Folders that were tidied away, perhaps not wholly: pages and constants that are left there are in use."""
        try:
            self._listener = self._listen()
        except OSError as error:
            with suppress(OSError):  # if it cannot be removed now, the next pool does it
                remove_folder(self.folder)
            raise WorkerStartError(f"workers cannot connect to this process: {_told(error)}") from error

    def fork(self, seat: Any, index: int, name: str, env: dict[str, str]) -> Carrier:
        """Have a worker forked."""
        if not os.path.exists(self._listener.path):
            self._move()
        return super().fork(seat, index, name, env)

    def close(self) -> None:
        """Take no further connections, and leave no file."""
        self._listener.close()
        for folder in (*self._former, self.folder):
            remove_folder(folder)

    def _move(self) -> None:
        """Somebody has tidied our folder away: the workers to come get a new one."""
        self._listener.close()
        self._former.append(self.folder)
        self.folder = _new_folder()
        self._listener = self._listen()
        self.say(op="move", folder=self.folder)

    def _listen(self) -> Listener:
        return Listener(self.loop, os.path.join(self.folder, "s"), self._on_token, self._refuse_all)

    def _expect(self, carrier: Carrier) -> None:
        self._by_token[carrier.token] = carrier

    def _on_token(self, token: bytes, link: Link) -> OnFrame | None:
        carrier = self._by_token.pop(token, None)
        if carrier is None:
            return None
        carrier.link = link
        link.on_lost = lambda: self._on_link_lost(carrier)
        return lambda kind, body: self._on_frame(carrier, kind, body)

    def _refuse_all(self, error: OSError) -> None:
        """Workers cannot connect: better there are none than some that wait for ever."""
        for carrier in self._by_token.values():
            carrier.start_failure = f"it cannot connect to this process: {_told(error)}"
            self.kill(carrier)

    def kill_from_here(self, carrier: Carrier) -> None:
        try:
            if carrier.pid is not None and carrier.gone is None:
                os.killpg(carrier.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _put_away(self, carrier: Carrier, gone: Gone) -> None:
        self._by_token.pop(carrier.token, None)
        path = os.path.join(self.folder, f"p{carrier.serial}")
        try:
            if gone.running is None:
                self._read_page(carrier, gone, path)
            os.unlink(path)
        except FileNotFoundError:
            pass

    def _read_page(self, carrier: Carrier, gone: Gone, path: str) -> None:
        """The agent died before it could tell what the worker left on its page; but the page is still there."""
        page = Page(path)
        unsent, notes = page.unsent(), page.notes.raw()
        now = time.monotonic()
        gone.running = {number: now - began for number, began in page.all_running(MAX_THREADS).items()}
        page.close()
        carrier.notes = Notes(memoryview(bytearray(notes)))
        if unsent:
            self._owner.worker_answered(carrier, memoryview(unsent))


def _new_folder() -> str:
    try:
        return private_folder()
    except OSError as error:
        raise WorkerStartError(f"there is no place for the pool's sockets: {_told(error)}") from error


def _told(error: OSError) -> str:
    """What went wrong, and what to do about it if that is known."""
    return f"{error}. {descriptors.advice('This process')}" if descriptors.are_used_up(error) else str(error)


class RemoteStation(Station):
    """Workers on another machine, whose links its agent carries.

    Args:
        loop: The loop that everything here belongs to.
        owner: Whom it works for.
        setup: What every worker is sent first, packed.
        grace: Seconds that an idle worker has to end when it is told to.
        host: The machine's name.
        lease: Seconds without a word from us after which the agent ends everything; and from it, after which we give it
            up.
        on_ask: Told that a worker imports a module that it does not know: its name, and whether it must be sent.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        owner: Owner,
        setup: bytes,
        grace: float,
        host: str,
        lease: float,
        on_ask: Callable[[str, bool], None],
    ) -> None:
        super().__init__(loop, owner, setup, grace)
        self.host = host
        self.on_ask = on_ask
        self.is_silent = False
        """Whether nothing has been heard from the agent for too long."""
        self.trip = 0.0
        """Seconds that a message takes to get there, and its answer to come back, as measured last."""
        self._lease = lease
        self._ferry: Ferry | None = None
        self._links: dict[int, FerryLink] = {}
        self._beats = 0
        self._sent_at = 0.0
        self._timer: TimerHandle | None = None

    def begin(self, agent: Agent, channel: Channel) -> None:
        """The agent listens: from now on it is told what to do, and that we live."""
        self.agent = agent
        self._ferry = Ferry(channel)
        agent.on_room = self._ferry.go_on
        self._beat()

    def agent_lost(self) -> None:
        """The agent is gone, or cannot be reached any more, and its workers with it."""
        super().agent_lost()
        if self._timer is not None:
            self._timer.cancel()

    def on_event(self, message: dict[str, Any]) -> None:
        """The agent says something."""
        if message["ev"] == "beat":
            if message["number"] == self._beats:
                self.trip = time.monotonic() - self._sent_at
                self.patience = max(type(self).patience, 2 * self.trip)
        elif message["ev"] == "memory":
            for entry in str(message["sizes"]).split():
                serial, size = map(int, entry.split(":"))
                if serial in self.carriers:
                    self.carriers[serial].memory = size or None
        elif message["ev"] == "taken":
            link = self._links.get(message["serial"])
            if link is not None:
                link.taken(message["bytes"])
        elif message["ev"] == "ask":
            self.on_ask(message["name"], bool(message["send"]))
        else:
            super().on_event(message)

    def on_link(self, serial: int, received: memoryview) -> None:
        """Bytes have come from a worker."""
        link = self._links.get(serial)
        if link is not None:
            link.feed(received)

    def _on_frame(self, carrier: Carrier, kind: int, body: memoryview) -> None:
        if kind == wire.HELLO:  # what is sent to a worker before it has connected would be lost
            carrier.link = self._links.get(carrier.serial)
        super()._on_frame(carrier, kind, body)

    def post(self, archive: str, pieces: Iterator[tuple[int, memoryview]]) -> None:
        """Send the agent an archive that was announced to it."""
        if self._ferry is not None and self.agent is not None:
            self._ferry.post(archive, pieces)

    def _beat(self) -> None:
        """Say that we live, and look whether the agent does."""
        if self.agent is None:
            return
        self._beats += 1
        self._sent_at = time.monotonic()
        self.say(op="beat", number=self._beats)
        self._timer = self.loop.call_later(self._lease / BEATS, self._look_at_agent)

    def _look_at_agent(self) -> None:
        if self.agent is not None and time.monotonic() - self.agent.heard_at > self._lease:
            self.is_silent = True
            self.agent.lost()
        else:
            self._beat()

    def _expect(self, carrier: Carrier) -> None:
        assert self._ferry is not None, "workers are forked by an agent that listens"
        link = self._ferry.link(carrier.serial, lambda kind, body: self._on_frame(carrier, kind, body))
        self._links[carrier.serial] = link
        carrier.link_lost = True  # what the agent says comes in order: its word on the end is the last

    def _put_away(self, carrier: Carrier, gone: Gone) -> None:
        """Calls that have not even been sent have certainly not begun."""
        link = self._links.pop(carrier.serial)
        if gone.running is None:
            gone.unsent_from = link.unsent_from()
        link.close()
