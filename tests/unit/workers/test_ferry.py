from __future__ import annotations

from collections.abc import Sequence

import pytest

from aioparallel._child import mux
from aioparallel._child.carrying import CREDIT
from aioparallel._child.wire import FRAME, ProtocolError
from aioparallel._workers.agents import Part
from aioparallel._workers.ferry import Ferry, FerryLink


class Wire:
    """A channel that keeps what is written to it."""

    def __init__(self) -> None:
        self.congested = False
        self.written = bytearray()

    def write(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.written += part

    async def aclose(self) -> object:
        return None

    def take(self) -> list[tuple[int, int]]:
        """Whose frames were written since the last time, and how long each is."""
        found = [(serial, len(body)) for kind, serial, body in mux.Splitter().feed(bytes(self.written)) if kind == b"L"]
        self.written.clear()
        return found


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def ferry(wire: Wire) -> Ferry:
    return Ferry(wire)


def link(ferry: Ferry, serial: int = 1) -> FerryLink:
    return ferry.link(serial, lambda kind, body: None)


def test_small_frames_go_at_once(ferry: Ferry, wire: Wire) -> None:
    """A small frame is written when it is sent, as it is."""
    link(ferry, 7).send(3, [b"hello"])
    (frame,) = mux.Splitter().feed(bytes(wire.written))
    kind, serial, body = frame
    assert (kind, serial, bytes(body)) == (mux.LINK, 7, FRAME.pack(5, 3) + b"hello")


def test_links_take_turns(ferry: Ferry, wire: Wire) -> None:
    """Large frames of several links go in pieces, by turns, and small ones of others are not kept waiting by them."""
    wire.congested = True
    one, two = link(ferry, 1), link(ferry, 2)
    for each in (one, two):
        each.send(1, [bytes(2 * mux.TURN)])
    assert wire.take() == []
    wire.congested = False
    ferry.go_on()
    serials = [serial for serial, _ in wire.take()]
    assert serials == [1, 2, 1, 2, 1, 2]


def test_no_more_than_the_worker_takes(ferry: Ferry, wire: Wire) -> None:
    """A link sends as much as its credit, and goes on when the worker has taken some; others do not wait for it."""
    one, two = link(ferry, 1), link(ferry, 2)
    one.send(1, [bytes(CREDIT + 1000)])
    assert sum(length for _, length in wire.take()) == CREDIT
    one.send(1, [b"small"])
    two.send(1, [b"small"])
    assert [serial for serial, _ in wire.take()] == [2]
    one.taken(500)
    assert wire.take() == [(1, 500)]
    one.taken(CREDIT)
    assert sum(length for _, length in wire.take()) == 500 + FRAME.size + FRAME.size + 5


def test_a_stream_is_whole(ferry: Ferry, wire: Wire) -> None:
    """However it is cut into pieces, a link's stream is what was sent, in order."""
    one = link(ferry)
    bodies = [bytes([n]) * (n * 70_000) for n in range(1, 9)]
    one.send(1, [bodies[0]])
    wire.congested = True
    for body in bodies[1:]:
        one.send(1, [body[: len(body) // 2], body[len(body) // 2 :]])
    wire.congested = False
    ferry.go_on()
    one.taken(CREDIT)
    sent = b"".join(bytes(body) for _, _, body in mux.Splitter().feed(bytes(wire.written)))
    assert sent == b"".join(FRAME.pack(len(body), 1) + body for body in bodies)


def test_which_calls_were_not_sent(ferry: Ferry, wire: Wire) -> None:
    """The first call of which nothing was sent is known, and so are those behind it; one that was begun counts as sent."""
    one = link(ferry)
    one.send(1, [b"sent"], 10)
    assert one.unsent_from() is None
    wire.congested = True
    one.send(1, [bytes(mux.TURN)], 11)
    one.send(1, [b"later"], 12)
    one.send(1, [b"latest"], 13)
    assert one.unsent_from() == 11
    wire.congested = False
    one.send_piece()
    assert one.unsent_from() == 12
    ferry.go_on()
    assert one.unsent_from() is None


def test_an_archive_among_links(ferry: Ferry, wire: Wire) -> None:
    """An archive goes in pieces as well, between those of links, each with its place."""
    wire.congested = True
    digest = "ab" * 16
    pieces = [(0, memoryview(b"first")), (5, memoryview(b"second"))]
    ferry.post(digest, iter(pieces))
    link(ferry).send(1, [bytes(mux.TURN)])
    wire.congested = False
    ferry.go_on()
    frames = [(kind, bytes(body)) for kind, _, body in mux.Splitter().feed(bytes(wire.written))]
    assert [kind for kind, _ in frames] == [mux.PIECE, mux.LINK, mux.PIECE, mux.LINK]
    places = [mux.OF_ARCHIVE.unpack_from(body) for kind, body in frames if kind == mux.PIECE]
    assert places == [(digest.encode(), 0), (digest.encode(), 5)]


def test_closed(ferry: Ferry, wire: Wire) -> None:
    """A link that was closed sends nothing more, not even what waited, and hears nothing more."""
    heard: list[int] = []
    one = ferry.link(1, lambda kind, body: heard.append(kind))
    wire.congested = True
    one.send(1, [bytes(mux.TURN)])
    one.close()
    wire.congested = False
    ferry.go_on()
    one.send(1, [b"more"])
    one.feed(memoryview(FRAME.pack(0, 5)))
    assert (bytes(wire.written), heard) == (b"", [])


def test_nonsense_from_a_worker(ferry: Ferry) -> None:
    """What no worker of ours sends is refused."""
    with pytest.raises(ProtocolError):
        link(ferry).feed(memoryview(b"\xff" * 64))
