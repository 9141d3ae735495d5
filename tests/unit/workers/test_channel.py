"""The channel to a host agent: bytes in order, never waiting, and its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from aioparallel import HostError
from aioparallel._workers import channel as channels
from aioparallel._workers.channel import HIGH_WATER, LAST_WORDS, LOW_WATER, PIECE, TURN, SshChannel
from aioparallel._workers.ssh import Connection, Connections
from aioparallel.testing import SshHost
from tests.tools import until

KINDS = {90: "open", 94: "data", 98: "request"}
"""Of ssh's messages."""


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.told: list[str] = []
        self.error: HostError | None = None

    def received(self, data: bytes) -> None:
        self.data += data

    def writable(self) -> None:
        self.told.append("writable")

    def lost(self, error: HostError) -> None:
        self.told.append("lost")
        self.error = error


class Opened:
    """Channels to commands of one host."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def make(self) -> SshChannel:
        return SshChannel(str(self.connection), self.connection.line, Listener())

    async def open(self, command: str, channel: SshChannel | None = None) -> SshChannel:
        found = channel or self.make()
        await self.connection.open_session(command, lambda: found)
        return found


def listener(channel: SshChannel) -> Listener:
    found = channel.listener
    assert isinstance(found, Listener)
    return found


@pytest.fixture
async def opened(connections: Connections, host: SshHost) -> Opened:
    return Opened(await connections.connect(host))


@pytest.fixture
async def echo(opened: Opened) -> AsyncIterator[SshChannel]:
    found = await opened.open("exec cat")
    yield found
    await found.aclose()


# Both ways


async def test_small_pieces(echo: SshChannel) -> None:
    """What is written arrives as it was written, in order, and so does what comes back."""
    wanted = b""
    for n in range(200):
        echo.write([b"%d," % n, memoryview(b"x"), b""])
        wanted += b"%d,x" % n
    await until(lambda: len(listener(echo).data) == len(wanted))
    assert listener(echo).data == wanted
    assert listener(echo).told == []


async def test_writing_to_what_was_just_closed(echo: SshChannel) -> None:
    """What is written after the other side has closed, and before that is told, is dropped; the end is told as ever."""
    echo._channel.close()
    echo.write([b"too late"])
    echo.write([bytes(2 * PIECE)])
    await until(lambda: listener(echo).error)
    assert listener(echo).told == ["lost"]


async def test_large_pieces(echo: SshChannel) -> None:
    """Parts of any size are taken apart and put together in order, small ones among large ones."""
    parts = [os.urandom(size) for size in (1, PIECE, 3, PIECE + 1, 5 * PIECE, 0, 7, 7, PIECE - 1, 2, 3_000_001)]
    echo.write(parts)
    echo.write([b"behind"])
    wanted = b"".join(parts) + b"behind"
    await until(lambda: len(listener(echo).data) == len(wanted))
    assert listener(echo).data == wanted


async def test_a_little_is_no_congestion(opened: Opened) -> None:
    """Who is not told to wait is not told to go on."""
    found = opened.make()
    found.write([b"early"])
    await opened.open("exec cat", found)
    await until(lambda: listener(found).data == b"early")
    assert listener(found).told == []
    await found.aclose()


async def test_congestion(opened: Opened) -> None:
    """A channel says when more waits than is useful, and tells once when there is little left."""
    found = await opened.open("head -c 4000000 | wc -c")
    found.write([bytes(HIGH_WATER)])
    assert not found.congested
    found.write([bytes(4_000_000 - HIGH_WATER)])
    assert found.congested
    await until(lambda: listener(found).told)
    assert listener(found).told == ["writable"]
    assert found._size <= LOW_WATER
    assert not found.congested
    await until(lambda: listener(found).data)
    assert listener(found).data.strip() == b"4000000"


@pytest.mark.usefixtures("killed_at_once")
async def test_who_does_not_read_holds_up(opened: Opened) -> None:
    """What the other side does not take stays here, by reference, and only a bounded part of it is given to asyncssh."""
    found = await opened.open("exec sleep 300")
    data = bytes(64_000_000)
    found.write([data])
    await until(lambda: found._held_up)
    assert found.congested
    assert all(part.obj is data for part in found._unsent)
    assert found._size > 64_000_000 - (16 << 20) - 2 * PIECE
    assert found._channel.get_write_buffer_size() <= PIECE
    found.write([b"more"])
    found.abort()


async def test_channels_beside_each_other(opened: Opened) -> None:
    """Several channels of one connection send as much as they like, and the end of one stops no other."""
    found = [await opened.open("cat >/dev/null; echo done") for _ in range(3)]
    for each in found:
        each.write([bytes(20_000_000)])
    found[0].abort()
    await found[0].ended.wait()
    for each in found[1:]:
        await until(lambda each=each: not each._size)
        each._channel.write_eof()
        await each.ended.wait()
        assert listener(each).data == b"done\n"


async def test_others_have_turns(echo: SshChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending something large leaves the event loop to others after every megabyte, at the latest."""
    turns: list[int] = []
    send = echo._send

    def counted(data: bytes | memoryview) -> None:
        turns[-1] += len(data)
        send(data)

    turn = echo._turn

    def one_turn() -> None:
        turns.append(0)
        turn()

    monkeypatch.setattr(echo, "_send", counted)
    monkeypatch.setattr(echo, "_turn", one_turn)
    echo.write([bytes(8_000_000)])
    await until(lambda: len(listener(echo).data) == 8_000_000)
    assert sum(turns) == 8_000_000
    assert max(turns) <= TURN + PIECE


async def test_what_is_written_early_goes_with_the_request(opened: Opened, host: SshHost) -> None:
    """What is written before the session is open is sent behind the request for it, without waiting for the answer."""
    found = opened.make()
    found.write([b"early", bytes(600_000)])
    found.write([b"late"])
    sent: list[str] = []
    send = opened.connection.ssh.send_packet

    def seen(kind: int, *parts: bytes, **others: object) -> None:
        if kind in KINDS:
            sent.append(KINDS[kind])
        send(kind, *parts, **others)

    opened.connection.ssh.send_packet = seen
    opening = asyncio.ensure_future(opened.open("exec cat", found))
    await until(lambda: "data" in sent)
    assert sent[:3] == ["open", "request", "data"]
    assert not opening.done()
    await opening
    await until(lambda: len(listener(found).data) == 600_009)
    assert listener(found).told == ["writable"]
    assert listener(found).data.startswith(b"early")
    assert listener(found).data.endswith(b"late")
    await found.aclose()


async def test_standard_error_is_kept(opened: Opened) -> None:
    """The end of what is written to standard error is kept, and is not mixed with what is received."""
    found = await opened.open("head -c 100000 /dev/zero >&2; echo last >&2; echo out")
    await found.ended.wait()
    assert found.last_words.endswith("last\n")
    assert len(found.last_words) == LAST_WORDS
    assert listener(found).data == b"out\n"


# The end


@pytest.mark.parametrize(
    ("command", "end"), [("exit 3", "exit status 3"), ("kill -KILL $$", "killed by SIGKILL"), ("true", "exit status 0")]
)
async def test_the_other_side_ends(opened: Opened, command: str, end: str) -> None:
    """When the agent ends, that is told once, with how it ended and its last words."""
    found = await opened.open(f"echo trouble >&2; echo out; {command}")
    await found.ended.wait()
    assert found.end == end
    assert listener(found).told == ["lost"]
    assert listener(found).data == b"out\n"
    assert str(found.error) == f"{found.name}: the host agent ended ({end}). It said last:\ntrouble"
    assert found.error is listener(found).error
    found.write([b"too late"])
    assert await found.aclose()


async def test_the_connection_is_lost(opened: Opened, host: SshHost) -> None:
    """When the connection is lost, that is told once, as what it is."""
    found = await opened.open("exec cat")
    found.write([bytes(3_000_000)])
    host.cut()
    await found.ended.wait()
    assert listener(found).told[-1] == "lost"
    assert listener(found).told.count("lost") == 1
    assert "the connection was lost: it was reset" in str(found.error)
    assert found.end == ""
    assert not await found.aclose()


async def test_closing(opened: Opened, host: SshHost) -> None:
    """Closing ends the command's input, waits for its end, confirms it, and does not tell the listener."""
    found = await opened.open("cat >/dev/null; exit 7")
    assert await found.aclose()
    assert found.end == "exit status 7"
    assert listener(found).told == []
    assert await found.aclose()
    await until(lambda: not host.commands)
    assert opened.connection.lost is None


async def test_closing_does_not_send_what_waits(opened: Opened) -> None:
    """What has not been sent yet when a channel is closed is dropped."""
    found = await opened.open("wc -c")
    found.write([bytes(100_000_000)])
    assert await found.aclose()
    assert int(listener(found).data) < 100_000_000


@pytest.mark.usefixtures("killed_at_once")
async def test_closing_what_does_not_end(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that does not end when its input does is left after a while, unconfirmed."""
    monkeypatch.setattr(channels, "END_SECONDS", 0.05)
    found = await opened.open("exec sleep 300")
    assert not await found.aclose()
    await until(found.ended.is_set)


@pytest.mark.usefixtures("killed_at_once")
async def test_cancelling_the_closing(opened: Opened) -> None:
    """Closing that is cancelled closes the channel at once."""
    found = await opened.open("exec sleep 300")
    closing = asyncio.ensure_future(found.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(found.ended.is_set)


async def test_closing_before_it_is_open(opened: Opened) -> None:
    """A channel that was closed before it was open sends nothing, and is not opened any more."""
    found = opened.make()
    found.write([b"x"])
    assert not await found.aclose()
    found.abort()
    found.write([b"x"])
    with pytest.raises(HostError):
        await opened.open("cat", found)
    assert not found._size
    assert listener(found).told == []


async def test_aborting(opened: Opened, host: SshHost) -> None:
    """Aborting closes the channel at once, and tells nobody."""
    found = await opened.open("exec cat")
    found.abort()
    await found.ended.wait()
    assert listener(found).told == []


async def test_a_listener_that_fails(opened: Opened) -> None:
    """A listener that raises loses the connection, and is told so: nothing hangs."""
    found = await opened.open("exec cat")

    def fail(data: bytes) -> None:
        raise ZeroDivisionError("a bug of the listener")

    listener(found).received = fail  # type: ignore[method-assign]
    found.write([b"x"])
    await found.ended.wait()
    assert "the connection was lost: a bug of the listener" in str(listener(found).error)


async def test_without_a_line(opened: Opened) -> None:
    """Where the connection was made by the user's proxy command there is no line, and it works all the same."""
    found = SshChannel("node1", None, Listener())
    await opened.open("exec cat", found)
    found.write([b"x", bytes(1_000_000)])
    await until(lambda: len(listener(found).data) == 1_000_001)
    assert await found.aclose()
