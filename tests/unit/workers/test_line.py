"""The line between the event loop's transport and an ssh connection."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioparallel._workers.line import BITE, FIRST_WORDS, HIGH_WATER, Line
from tests.tools import until


class Ssh:
    """What a line sees of an ssh connection: it keeps what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.sizes: list[int] = []
        self.ends: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.sizes.append(len(data))

    def eof_received(self) -> None:
        self.ends.append(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.ends.append(error)


class Both:
    """A line, and the socket at its other end."""

    def __init__(self, line: Line, ssh: Ssh, far: socket.socket) -> None:
        self.line, self.ssh, self.far = line, ssh, far

    def hear(self) -> list[bytes]:
        """What has arrived there, as it was sent."""
        pieces = []
        while True:
            try:
                pieces.append(self.far.recv(1 << 20))
            except BlockingIOError:
                return pieces


@asynccontextmanager
async def connected(kind: int) -> AsyncIterator[Both]:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    near.setblocking(False)
    far.setblocking(False)
    ssh = Ssh()
    line = Line(ssh)  # type: ignore[arg-type]
    transport = asyncio.get_running_loop()._make_socket_transport(near, line)  # type: ignore[attr-defined]
    await until(lambda: ssh.transport)
    yield Both(line, ssh, far)
    transport.abort()
    far.close()
    await asyncio.sleep(0)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    """Packets keep their borders, so that it is seen what went out in one piece."""
    async with connected(socket.SOCK_SEQPACKET) as found:
        yield found


async def test_it_passes_on(both: Both) -> None:
    """What is written goes out at once, and what arrives is handed on."""
    both.ssh.transport.write(b"one")
    both.ssh.transport.write(b"two")
    assert both.hear() == [b"one", b"two"]
    both.far.send(b"three")
    await until(lambda: both.ssh.received == b"three")
    assert both.ssh.transport.get_extra_info("socket") is not None
    assert not both.ssh.transport.is_closing()


async def test_corking(both: Both) -> None:
    """What is written between cork and uncork goes out in one piece, in order; a cork without anything does nothing."""
    both.line.cork()
    both.ssh.transport.write(b"one")
    both.ssh.transport.write(b"two")
    assert both.hear() == []
    both.line.uncork()
    both.ssh.transport.write(b"three")
    both.line.cork()
    both.line.uncork()
    both.line.cork()
    both.ssh.transport.write(b"four")
    both.line.uncork()
    assert both.hear() == [b"onetwo", b"three", b"four"]


async def test_corking_below(both: Both) -> None:
    """A line that goes through another one corks that too."""
    upper = Line(Ssh(), both.line)  # type: ignore[arg-type]
    upper.cork()
    both.ssh.transport.write(b"one")
    assert both.hear() == []
    both.ssh.transport.write(b"two")
    upper.uncork()
    assert both.hear() == [b"onetwo"]


async def test_congestion() -> None:
    """A line is congested while its transport holds too much, and tells when there is room."""
    async with connected(socket.SOCK_STREAM) as both:
        told: list[bool] = []
        both.line.writers.add(lambda: told.append(both.line.congested))
        while not both.line.congested:
            both.ssh.transport.write(bytes(10_000))
        assert not told
        assert both.line._transport.get_write_buffer_size() <= HIGH_WATER + 10_000
        await until(lambda: both.hear() is None or told)
        assert told == [False]


async def test_small_bites(both: Both) -> None:
    """What arrives in large pieces is handed on in smaller ones, in order."""
    data = os.urandom(2 * BITE + 10)
    both.line.data_received(data)
    assert both.ssh.sizes == [BITE, BITE, 10]
    assert both.ssh.received == data


async def test_the_first_words(both: Both) -> None:
    """The first words of the other side are kept, and that it has said any."""
    assert not both.line.greeted.is_set()
    both.far.send(b"Exceeded ")
    await both.line.greeted.wait()
    both.far.send(b"MaxStartups" + bytes(1000))
    await until(lambda: len(both.ssh.received) == 1020)
    assert both.line.first_words == (b"Exceeded MaxStartups" + bytes(1000))[:FIRST_WORDS]


async def test_giving_up(both: Both) -> None:
    """Whoever gives a line up says why."""
    error = TimeoutError()
    both.line.give_up(error)
    assert both.ssh.ends == [error]


async def test_ends(both: Both) -> None:
    """The end of the connection is handed on, wakes who waits for first words, and nobody waits for room any more."""
    told: list[None] = []
    both.line.writers.add(lambda: told.append(None))
    both.far.shutdown(socket.SHUT_WR)
    await until(lambda: both.ssh.ends)
    both.ssh.transport.abort()
    await until(lambda: told)
    assert both.ssh.ends == [None, None]
    assert both.line.greeted.is_set()
    assert both.ssh.transport.is_closing()


async def test_closing(both: Both) -> None:
    """Closing sends what is left first."""
    both.ssh.transport.write(b"last")
    both.ssh.transport.close()
    assert both.hear() == [b"last"]
    both.line.session_started()
