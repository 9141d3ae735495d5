from __future__ import annotations

import random

import pytest

from aioparallel._child import wire
from aioparallel._child.wire import FRAME, ProtocolError
from aioparallel._workers.frames import RECEIVE, Frames

BODIES = [b"", b"x", b"y" * 1000, b"z" * wire.OUT_OF_BAND, b"a" * (RECEIVE - FRAME.size), b"b" * (3 * RECEIVE), b"end"]


def stream(bodies: list[bytes] = BODIES) -> bytes:
    return b"".join(FRAME.pack(len(body), kind) + body for kind, body in enumerate(bodies))


@pytest.fixture
def got() -> list[tuple[int, bytes]]:
    """The frames that have come."""
    return []


@pytest.fixture
def frames(got: list[tuple[int, bytes]]) -> Frames:
    return Frames(lambda kind, body: got.append((kind, bytes(body))))


@pytest.mark.parametrize("piece", [7, 1000, RECEIVE, 10 * RECEIVE])
def test_fed_in_pieces(frames: Frames, got: list[tuple[int, bytes]], piece: int) -> None:
    """However a stream is cut, it is cut into the same frames again."""
    data = memoryview(stream())
    for start in range(0, len(data), piece):
        frames.feed(data[start : start + piece])
    assert got == list(enumerate(BODIES))


def test_read_into_its_space(frames: Frames, got: list[tuple[int, bytes]]) -> None:
    """The same when the bytes are read into its own memory, as much at a time as there happens to be."""
    chance = random.Random(5)
    data = memoryview(stream() * 3)
    while data:
        space = frames.space()
        assert len(space)
        count = min(len(space), len(data), chance.randrange(1, 2 * RECEIVE))
        space[:count] = data[:count]
        data = data[count:]
        frames.received(count)
    assert got == list(enumerate(BODIES)) * 3


def test_both_ways_by_turns(frames: Frames, got: list[tuple[int, bytes]]) -> None:
    """What was begun in one way goes on in the other."""
    data = stream([b"q" * 500] * 3)
    frames.feed(memoryview(data)[:600])
    space = frames.space()
    space[:400] = data[600:1000]
    frames.received(400)
    frames.feed(memoryview(data)[1000:])
    assert got == [(kind, b"q" * 500) for kind in range(3)]


def test_arrays_may_live_in_a_large_body() -> None:
    """A body that holds arrays stays what it is when the memory for the next bytes is used again."""
    kept: list[memoryview] = []
    frames = Frames(lambda kind, body: kept.append(body))
    for letter in (b"1", b"2"):
        body = letter * (wire.OUT_OF_BAND + 1)
        frames.feed(memoryview(bytearray(FRAME.pack(len(body), 0) + body)))
    assert [bytes(body[:1]) for body in kept] == [b"1", b"2"]


def test_a_large_frame_is_known_early(frames: Frames, got: list[tuple[int, bytes]]) -> None:
    """Once its head is there, a frame that does not fit the buffer has memory of its own."""
    frames.feed(memoryview(FRAME.pack(2 * RECEIVE, 4)))
    assert frames.in_big
    frames.feed(memoryview(bytes(2 * RECEIVE)))
    assert not frames.in_big
    assert got == [(4, bytes(2 * RECEIVE))]


def test_what_cannot_be_a_frame(frames: Frames) -> None:
    """A length that nobody would send is not believed, and no memory is taken for it."""
    with pytest.raises(ProtocolError, match="bytes"):
        frames.feed(memoryview(FRAME.pack(wire.MAX_FRAME + 1, 0)))


def test_stopped(got: list[tuple[int, bytes]]) -> None:
    """Once it is stopped, nothing is passed on, not even what has come already."""

    def take(kind: int, body: memoryview) -> None:
        got.append((kind, bytes(body)))
        frames.stop()

    frames = Frames(take)
    frames.feed(memoryview(stream([b"a", b"b"])))
    frames.feed(memoryview(stream([b"c"])))
    assert got == [(0, b"a")]
