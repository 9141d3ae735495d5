"""Stations on other machines: what an executor says to an agent, what it hears, and what becomes of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aioparallel._child import messages, mux, wire
from aioparallel._child.carrying import CREDIT
from aioparallel._workers import station
from aioparallel._workers.agents import Agent, Part
from aioparallel._workers.station import Carrier, Gone, RemoteStation
from tests.tools import until


class Wire:
    """A channel that keeps what is written to it."""

    congested = False

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.written += part

    async def aclose(self) -> object:
        return None

    @property
    def said(self) -> list[dict[str, Any]]:
        """The messages that were written."""
        frames = mux.Splitter().feed(bytes(self.written))
        return [messages.loads(bytes(body)) for kind, _, body in frames if kind == mux.MESSAGE]

    @property
    def frames(self) -> bytes:
        """What was written to workers."""
        return b"".join(bytes(body) for kind, _, body in mux.Splitter().feed(bytes(self.written)) if kind == mux.LINK)


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gone: list[Gone] = []

    def worker_ready(self, carrier: Carrier) -> None:
        self.told.append("ready")

    def worker_late(self, carrier: Carrier, stack: str) -> None:
        self.told.append(f"late {stack!r}")

    def worker_answered(self, carrier: Carrier, body: memoryview) -> None:
        self.told.append(f"answered {bytes(body)!r}")

    def worker_logged(self, carrier: Carrier, body: memoryview) -> None:
        self.told.append("logged")

    def worker_full(self, carrier: Carrier) -> None:
        self.told.append("full")

    def worker_split(self, carrier: Carrier, number: int, item: int) -> None:
        self.told.append(f"split {number} at {item}")

    def worker_spared(self, carrier: Carrier, number: int, ran: float) -> None:
        self.told.append(f"spared {number} after {ran}")

    def worker_gone(self, carrier: Carrier, gone: Gone) -> None:
        self.told.append("gone")
        self.gone.append(gone)


class Place:
    """A station, and all around it."""

    def __init__(self, lease: float = 60.0) -> None:
        self.owner, self.wire = Owner(), Wire()
        self.asked: list[tuple[str, bool]] = []
        loop = asyncio.get_running_loop()
        self.station = RemoteStation(
            loop, self.owner, b"the setup", 1.0, "node1", lease, lambda name, send: self.asked.append((name, send))
        )
        self.agent = Agent(self.station)
        self.agent.channel = self.wire
        self.agent.heard_at = loop.time()
        self.station.begin(self.agent, self.wire)
        self.carrier = self.station.fork("a seat", 3, "far-3", {"GPU": "1"})

    def say(self, **message: Any) -> None:
        """The agent says something."""
        text = messages.dumps(message)
        self.agent.received(mux.head(mux.MESSAGE, 0, len(text)) + text)

    def hear(self, kind: int, body: bytes) -> None:
        """The worker sends a frame."""
        frame = wire.FRAME.pack(len(body), kind) + body
        self.agent.received(mux.head(mux.LINK, self.carrier.serial, len(frame)) + frame)

    def end(self) -> None:
        self.station.agent_lost()


@pytest.fixture
async def place() -> Any:
    found = Place()
    yield found
    found.end()


async def test_the_life_of_a_worker(place: Place) -> None:
    """A worker is forked, gets its setup when it has connected, takes calls, and ends once, when the agent says so."""
    fork = place.wire.said[-1]
    assert (fork["op"], fork["index"], fork["env"], len(fork["token"])) == ("fork", 3, "GPU=1", 64)
    place.say(ev="forked", serial=place.carrier.serial, pid=77)
    assert place.carrier.pid == 77
    place.carrier.send(wire.CALLS, [b"too early"])
    place.hear(wire.HELLO, b"")
    assert place.wire.frames == wire.FRAME.pack(9, wire.SETUP) + b"the setup", "what came before it would be lost"
    place.hear(wire.READY, b"")
    place.hear(wire.ANSWERS, b"an answer")
    gone = {"signal": "SIGKILL", "exitcode": None, "max_rss": 5, "stack": None, "oom": None, "running": "9:1500000"}
    for _ in range(2):
        place.say(ev="gone", serial=place.carrier.serial, pid=77, **gone)
    assert place.owner.told == ["ready", "answered b'an answer'", "gone"]
    (end,) = place.owner.gone
    assert (end.signal, end.max_rss, end.running, end.unsent_from) == ("SIGKILL", 5, {9: 1.5}, None)


async def test_workers_that_are_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a worker that takes no calls for long it is told where it is, until it takes some."""
    monkeypatch.setattr(station, "LATE_SECONDS", 0.01)
    place = Place()
    await until(lambda: place.owner.told)
    assert place.owner.told == ["late ''"], "it has no process that could be asked"
    place.say(ev="forked", serial=place.carrier.serial, pid=77)
    await until(lambda: place.wire.said[-1]["op"] == "stack")
    place.say(ev="stack", serial=place.carrier.serial, stack="in its initializer")
    place.hear(wire.HELLO, b"")
    place.hear(wire.READY, b"")
    place.say(ev="stack", serial=place.carrier.serial, stack="taken too late")
    place.station._look_at_start(place.carrier)
    assert place.owner.told == ["late ''", "late 'in its initializer'", "ready"]
    asked = sum(message["op"] == "stack" for message in place.wire.said)
    place.station._look_at_start(place.carrier)
    assert sum(message["op"] == "stack" for message in place.wire.said) == asked
    place.end()


async def test_what_workers_say(place: Place) -> None:
    """Each thing that is heard of a worker is told to whom it belongs; what is unknown is refused."""
    for kind in (wire.LOG, wire.FULL):
        place.hear(kind, b"")
    place.say(ev="split", serial=place.carrier.serial, call=4, item=2)
    place.say(ev="spared", serial=place.carrier.serial, call=4, ran=2_000_000)
    place.say(ev="split", serial=999, call=4, item=2)
    assert place.owner.told == ["logged", "full", "split 4 at 2", "spared 4 after 2.0"]
    place.say(ev="ask", name="bakery", send=True)
    assert place.asked == [("bakery", True)]
    with pytest.raises(wire.ProtocolError, match="99"):
        place.hear(99, b"")


async def test_which_calls_were_never_sent(place: Place) -> None:
    """When the agent is lost, calls that had not been sent are known: they have not run, whatever became of the others."""
    place.hear(wire.HELLO, b"")
    place.carrier.send(wire.CALLS, [bytes(CREDIT)], 1)
    place.carrier.send(wire.CALLS, [b"small"], 2)
    place.station.agent_lost()
    (end,) = place.owner.gone
    assert (end.running, end.unsent_from) == (None, 2)
    place.carrier.send(wire.CALLS, [b"late"], 3)
    place.station.say(op="look", serial=1)


async def test_the_trip_is_measured(place: Place) -> None:
    """The time of a message there and back is measured; a late answer to an older one does not count."""
    place.say(ev="beat", number=99)
    assert place.station.trip == 0
    place.say(ev="beat", number=1)
    assert 0 < place.station.trip < 60
    assert place.station.patience >= RemoteStation.patience


async def test_memory_of_workers(place: Place) -> None:
    """What the agent says that its workers hold is known of each; nothing, and a worker that is gone, do no harm."""
    assert place.carrier.memory is None
    place.say(ev="memory", sizes=f"{place.carrier.serial}:123456789 999:5")
    assert place.carrier.memory == 123456789
    place.say(ev="memory", sizes=f"{place.carrier.serial}:0")
    assert place.carrier.memory is None


async def test_an_agent_that_says_nothing() -> None:
    """An agent that is not heard of for as long as its lease is given up, once it has been asked several times."""
    place = Place(lease=0.2)
    await until(place.agent.ended.is_set)
    assert place.station.is_silent
    assert [message["number"] for message in place.wire.said if message["op"] == "beat"][:3] == [1, 2, 3]
    place.end()
    assert place.owner.told == ["gone"]


async def test_goodbye(place: Place) -> None:
    """A worker that idles is told to end; one that has no link yet, or is not asked politely, is killed."""
    place.station.bid_farewell(place.carrier, politely=True)
    assert place.wire.said[-1]["op"] == "kill"
    place.hear(wire.HELLO, b"")
    place.station.bid_farewell(place.carrier, politely=True)
    assert place.wire.frames.endswith(wire.FRAME.pack(0, wire.BYE))
    place.station.bid_farewell(place.carrier, politely=False)
    assert place.wire.said[-1]["op"] == "kill"


async def test_stopping_a_call(place: Place) -> None:
    """A call is stopped by its number, and only after it has run for as long as it may."""
    place.station.halt(place.carrier, 12, stack=True, after=1.5)
    said = place.wire.said[-1]
    assert (said["op"], said["call"], said["after"], said["stack"]) == ("halt", 12, 1_500_000, True)
