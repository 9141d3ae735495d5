"""A worker's connection, as the executor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child import wire
from aioparallel._child.wire import FRAME
from aioparallel._workers import link
from aioparallel._workers.frames import RECEIVE
from aioparallel._workers.link import PARTS, TOKEN, Link, Listener
from tests.tools import no_descriptors, until

SECRET = b"s" * TOKEN


class Ends:
    """A link, the socket at its other end, and what came of it.

    Attributes:
        frames: The frames that arrived: kind, and the body as it was then.
        views: The bodies themselves.
        lost: How often the link was said to be lost, and how many frames had arrived by then.
    """

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        self.other.settimeout(20)
        self.frames: list[tuple[int, bytes]] = []
        self.views: list[memoryview] = []
        self.lost: list[int] = []
        self.tokens: list[bytes] = []
        self.callback: Callable[[], None] = lambda: None
        self.link = Link(asyncio.get_running_loop(), ours, self._on_token)

    def _on_token(self, token: bytes, link: Link) -> Callable[[int, memoryview], None] | None:
        self.tokens.append(token)
        link.on_lost = lambda: self.lost.append(len(self.frames))
        return self._on_frame if token == SECRET else None

    def _on_frame(self, kind: int, body: memoryview) -> None:
        self.frames.append((kind, bytes(body)))
        self.views.append(body)
        self.callback()

    async def arrived(self, count: int) -> list[tuple[int, bytes]]:
        await until(lambda: len(self.frames) >= count)
        assert len(self.frames) == count
        return self.frames

    async def push(self, data: bytes) -> None:
        """Send to the link, while it reads."""
        self.other.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(self.other, data)

    async def pull(self, length: int) -> bytes:
        """Receive from the link, while it sends."""
        self.other.setblocking(False)
        found = bytearray()
        while len(found) < length:
            found += await asyncio.get_running_loop().sock_recv(self.other, length - len(found))
        return bytes(found)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    found = Ends()
    yield found
    found.link.close()
    found.other.close()


@pytest.fixture
async def known(ends: Ends) -> Ends:
    """The worker has said who it is."""
    ends.other.sendall(SECRET)
    await until(lambda: ends.tokens)
    return ends


def frame(kind: int, body: bytes) -> bytes:
    return FRAME.pack(len(body), kind) + body


# Who is there


async def test_tokens_come_in_pieces(ends: Ends) -> None:
    """The first bytes of a connection are its token, in however many pieces, and frames may follow at once."""
    for byte in SECRET:
        ends.other.send(bytes([byte]))
        await asyncio.sleep(0)
    ends.other.sendall(frame(5, b"hi"))
    assert await ends.arrived(1) == [(5, b"hi")]
    assert ends.tokens == [SECRET]


async def test_token_and_frames_at_once(ends: Ends) -> None:
    """A token and what follows may arrive together."""
    ends.other.sendall(SECRET + frame(5, b"hi") + frame(6, b""))
    assert await ends.arrived(2) == [(5, b"hi"), (6, b"")]


async def test_strangers_are_refused(ends: Ends) -> None:
    """A connection with a token that nobody knows is closed, and its frames are not read."""
    ends.other.sendall(b"x" * TOKEN + frame(5, b"hi"))
    await until(lambda: ends.tokens)
    with contextlib.suppress(ConnectionResetError):  # which is another word for closed
        assert ends.other.recv(1) == b""
    assert (ends.frames, ends.lost) == ([], [])


# Frames in


@pytest.mark.parametrize("size", [0, 1, 1000, wire.OUT_OF_BAND, wire.OUT_OF_BAND + 1, RECEIVE - 9, RECEIVE, 3_000_000])
async def test_frames_of_any_size(known: Ends, size: int) -> None:
    """Frames of every size arrive whole and in order."""
    bodies = [bytes([number]) * size for number in (1, 2, 3)]
    await known.push(b"".join(frame(number, body) for number, body in enumerate(bodies)))
    assert await known.arrived(3) == list(enumerate(bodies))


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_frames_in_pieces(known: Ends, piece: int) -> None:
    """Frames may arrive in any pieces."""
    data = frame(1, b"first") + frame(2, b"x" * 2000) + frame(3, b"")
    for start in range(0, len(data), piece):
        known.other.send(data[start : start + piece])
        await asyncio.sleep(0)
    assert [kind for kind, _ in await known.arrived(3)] == [1, 2, 3]


async def test_many_small_frames(known: Ends) -> None:
    """More frames than fit the buffer arrive in order."""
    await known.push(b"".join(frame(number % 200, b"x" * (number % 300)) for number in range(5000)))
    found = await known.arrived(5000)
    assert [(kind, len(body)) for kind, body in found] == [(number % 200, number % 300) for number in range(5000)]


@pytest.mark.parametrize("size", [wire.OUT_OF_BAND + 1, 100_000, RECEIVE - 20, RECEIVE + 20])
async def test_arrays_in_frames_live_on(known: Ends, size: int) -> None:
    """The body of a frame that may hold arrays does not change when the next ones arrive, and can be written to."""
    for number in range(5):
        await known.push(frame(number, bytes([number]) * size))
    await known.arrived(5)
    assert [bytes(view[-3:]) for view in known.views] == [bytes([number]) * 3 for number in range(5)]
    assert not any(view.readonly for view in known.views)


async def test_waiting_frames_can_be_drained(known: Ends) -> None:
    """What has been sent by now can be read at once, without a turn of the loop."""
    known.other.sendall(frame(1, b"a") + frame(2, b"b" * 100_000))
    known.link.drain()
    assert [kind for kind, _ in known.frames] == [1, 2]


# Frames out


@pytest.mark.parametrize("count", [2, PARTS - 1, PARTS, 10 * PARTS])
async def test_sent_frames_of_many_parts(known: Ends, count: int) -> None:
    """A frame is sent whole and in order, into however many parts it is divided, empty ones included."""
    parts = [bytes([number % 256]) * (5000 * (number % 3)) for number in range(count)]
    known.link.send(7, list(parts))
    known.link.send(8, [b"next"])
    expected = frame(7, b"".join(parts)) + frame(8, b"next")
    assert await known.pull(len(expected)) == expected


@pytest.mark.parametrize("size", [0, 10, 65535, 65536, 5_000_000])
async def test_sent_frames_of_any_size(known: Ends, size: int) -> None:
    """Frames of every size are sent whole and in order, whatever the socket takes at a time."""
    bodies = [bytes([number]) * size for number in (1, 2, 3)]
    for number, body in enumerate(bodies):
        known.link.send(number, [body])
    expected = b"".join(frame(number, body) for number, body in enumerate(bodies))
    assert await known.pull(len(expected)) == expected


async def test_parts_are_not_copied(known: Ends) -> None:
    """What does not fit into the socket is sent from where it lies."""
    array = bytearray(8_000_000)
    known.link.send(1, [memoryview(array)])
    array[-1] = 7
    assert (await known.pull(len(array) + FRAME.size))[-1] == 7


async def test_many_frames_while_the_worker_does_not_read(known: Ends) -> None:
    """Frames wait in order while the worker does not read."""
    big = b"x" * 3_000_000
    known.link.send(1, [big])
    for number in range(300):
        known.link.send(2, [number.to_bytes(4, "little")])
    expected = frame(1, big) + b"".join(frame(2, number.to_bytes(4, "little")) for number in range(300))
    assert await known.pull(len(expected)) == expected


# Ends


async def test_lost(known: Ends) -> None:
    """A connection is lost once, after everything that the worker sent has been read."""
    known.other.sendall(frame(1, b"a") + frame(2, b"b"))
    known.other.close()
    await until(lambda: known.lost)
    known.link.close()
    known.link.send(1, [b"nobody listens"])
    assert known.lost == [2]


@pytest.mark.parametrize("size", [10, RECEIVE * 2])
async def test_cut_frames(known: Ends, size: int) -> None:
    """A frame that was cut is no frame."""
    await known.push(frame(1, b"whole") + frame(2, b"x" * size)[:-1])
    known.other.close()
    await until(lambda: known.lost)
    assert known.frames == [(1, b"whole")]


async def test_answers_are_read_after_a_broken_send(known: Ends) -> None:
    """What the worker sent before it went away is read, although sending to it fails by then."""
    known.other.sendall(frame(1, b"last words"))
    known.other.close()
    known.link.send(1, [b"too late"])
    await until(lambda: known.lost)
    assert known.frames == [(1, b"last words")]


async def test_closing(known: Ends) -> None:
    """A connection that the executor closes is not lost, and reads nothing more."""
    known.other.sendall(frame(1, b"a"))
    known.link.close()
    with contextlib.suppress(ConnectionResetError):  # as Linux has it when something was not read
        assert known.other.recv(1) == b""
    assert (known.frames, known.lost) == ([], [])


async def test_closing_in_the_middle(known: Ends) -> None:
    """No frame is delivered after the connection was closed from within the one before."""
    known.callback = known.link.close
    known.other.sendall(frame(1, b"a") + frame(2, b"b"))
    await known.arrived(1)
    assert known.other.recv(1) == b""


async def test_lengths_that_lie(known: Ends) -> None:
    """A frame that says it is longer than any frame can be ends the connection."""
    known.other.sendall(frame(1, b"fine") + FRAME.pack(wire.MAX_FRAME + 1, 2))
    await until(lambda: known.lost)
    assert known.frames == [(1, b"fine")]


@pytest.mark.parametrize("error", [wire.ProtocolError("nonsense"), OSError("gone")])
async def test_refused_frames(known: Ends, error: Exception) -> None:
    """A frame that its receiver does not believe ends the connection."""

    def refuse() -> None:
        raise error

    known.callback = refuse
    known.other.sendall(frame(1, b"a") + frame(2, b"b"))
    await until(lambda: known.lost)
    assert len(known.frames) == 1


async def test_receivers_that_fail(known: Ends) -> None:
    """When a frame's receiver fails, the loop is told, and the connection is lost instead of stuck."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))

    def fail() -> None:
        raise KeyError("a bug")

    known.callback = fail
    known.other.sendall(frame(1, b"a") + frame(2, b"b"))
    await until(lambda: known.lost)
    assert [type(error) for error in told] == [KeyError]


# Listening


def unexpected(error: OSError) -> None:
    raise error


async def test_listener() -> None:
    """Workers connect at a socket that only this user can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/s"
        frames: list[tuple[int, bytes]] = []
        links: list[Link] = []

        def on_token(token: bytes, link: Link) -> Callable[[int, memoryview], None]:
            links.append(link)
            return lambda kind, body: frames.append((kind, bytes(body)))

        listener = Listener(asyncio.get_running_loop(), path, on_token, on_full=unexpected)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        workers = [socket.socket(socket.AF_UNIX) for _ in range(5)]
        for number, worker in enumerate(workers):
            worker.connect(path)
            worker.sendall(SECRET + frame(number, b"hello"))
        await until(lambda: len(frames) == 5)
        assert sorted(frames) == [(number, b"hello") for number in range(5)]
        listener.close()
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(path)
        for link, worker in zip(links, workers, strict=True):
            link.close()
            worker.close()
        assert Path(path).exists(), "whoever made the folder removes it"


async def test_listening_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor the loop is not kept busy, it is told after a while, and a worker that waits gets in."""
    monkeypatch.setattr(link, "FULL_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    told: list[OSError] = []
    links: list[Link] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as worker:
        listener = Listener(loop, f"{folder}/s", lambda token, link: links.append(link), told.append)
        worker.connect(listener.path)
        worker.sendall(SECRET)
        with no_descriptors():
            await until(lambda: listener._failures == 2)
            assert not told
            assert not loop.remove_reader(listener._socket.fileno()), "it is not looked at until the pause is over"
            await until(lambda: told)
            assert told[0].errno == errno.EMFILE
        await until(lambda: links)
        assert not listener._failures
        listener.close()
