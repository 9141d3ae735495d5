"""A TCP relay that can be told to misbehave as networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Self, cast

from .._futures.supervisor import Supervisor

__all__ = ["Relay"]

HELD = 1 << 20
"""Bytes that are held on one way before whoever sends has to wait."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay:
    """Listens on a port of this machine, and passes on what it hears, there and back.

    All its faults may be switched on and off at any time, from the event loop's thread. It does what it is told to
    the connections that there are as well as to new ones.

    Args:
        host: Where it leads to.
        port: The port there.

    Example:
        ::

            async with Relay("127.0.0.1", 22) as relay:
                relay.delay(0.025)  # 50 ms there and back, for what connects to relay.port
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        """Where it listens; known when it has been started."""
        self.accepted = 0
        """How many connections were accepted so far."""
        self._listener: socket.socket | None = None
        self._sides: set[_Side] = set()
        self._seconds = 0.0
        self._stalled = False
        self._closing = asyncio.Event()
        self._supervisor: Supervisor | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to listen."""
        self._supervisor = Supervisor(self._supervise, "aioparallel relay")
        await self._supervisor.wait_ready()

    async def aclose(self) -> None:
        """Stop listening, and reset every connection."""
        self._closing.set()
        if self._supervisor is not None:
            await self._supervisor.wait_done()

    # Faults

    def refuse(self) -> None:
        """Refuse new connections: nothing listens on the port."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()

    def stall(self) -> None:
        """Pass nothing on any more. Connections stay open, and new ones are accepted, but nobody says anything."""
        self._stalled = True

    def cut(self) -> None:
        """Reset all connections, as a host does that has been restarted."""
        for side in list(self._sides):
            side.reset()

    def delay(self, seconds: float) -> None:
        """Let everything take so long on each way."""
        if not seconds >= 0:
            raise ValueError(f"delay({seconds!r}): expected seconds, 0 or more")
        self._seconds = seconds

    def heal(self) -> None:
        """Be a good relay again, and deliver what was held; what was reset stays so."""
        self._seconds, self._stalled = 0.0, False
        if self._listener is None and not self._closing.is_set():
            self._listen()
        for side in list(self._sides):
            side.deliver()

    # How it works

    async def _supervise(self, supervisor: Supervisor) -> None:
        try:
            self._listen()
            supervisor.set_ready()
            await self._closing.wait()
        finally:
            self.refuse()
            self.cut()

    def _listen(self) -> None:
        self._listener = listener = socket.socket(proto=socket.IPPROTO_TCP)  # said, so that asyncio sends at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # whoever it was has given up already
            return
        self.accepted += 1
        assert self._supervisor is not None, "it is what listens"
        group = self._supervisor.group
        if group is None:
            connection.close()
        else:
            group.start_soon(self._join, connection)

    async def _join(self, connection: socket.socket) -> None:
        """Connect what was accepted with where it leads to."""
        loop = asyncio.get_running_loop()
        near, far = _Side(self), _Side(self)
        try:
            await loop.connect_accepted_socket(lambda: near, connection)
            await loop.create_connection(lambda: far, *self.target)
        except OSError:
            pass  # nobody is there, as whoever connected here now finds out
        finally:
            near.join(far)


class _Side(asyncio.Protocol):
    """One of the two connections of a pair: what is received here is sent on at the other."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._peer: _Side | None = None
        self._transport: asyncio.Transport | None = None
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._ended = False
        """Whether the end of what it receives has been passed on."""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, peer: _Side) -> None:
        """Be a pair from now on; when one of the two is not connected, neither is the other."""
        self._peer, peer._peer = peer, self
        if self._transport is None or peer._transport is None:
            self.reset()
            peer.reset()
        self.deliver()
        peer.deliver()

    def reset(self) -> None:
        """Close so that the other end gets a reset instead of an end."""
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()

    def deliver(self) -> None:
        """Send on what is due."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._held and self._can_pass and self._held[0][0] <= now:
            self._pass(self._held.popleft()[1])
        if self._held and self._can_pass:
            self._timer = asyncio.get_running_loop().call_at(self._held[0][0], self.deliver)
        if self._held_bytes <= HELD and self._transport is not None:
            self._transport.resume_reading()

    @property
    def _can_pass(self) -> bool:
        return self._peer is not None and not self._relay._stalled

    def _hold(self, data: bytes) -> None:
        due = asyncio.get_running_loop().time() + self._relay._seconds
        if self._held:
            due = max(due, self._held[-1][0])
        self._held.append((due, data))
        self._held_bytes += len(data)
        if self._held_bytes > HELD and self._transport is not None:
            self._transport.pause_reading()
        if self._timer is None:
            self.deliver()

    def _pass(self, data: bytes) -> None:
        self._held_bytes -= len(data)
        assert self._peer is not None, "that was asked before"
        other = self._peer._transport
        if other is None or other.is_closing():
            return
        if data:
            other.write(data)
            return
        self._ended = True
        try:
            other.write_eof()
        except OSError:  # it has been reset, of which the loop will hear in a moment
            other.abort()
        if self._peer._ended and self._transport is not None:
            self._transport.close()
            other.close()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._relay._sides.add(self)

    def data_received(self, data: bytes) -> None:
        self._hold(data)

    def eof_received(self) -> bool:
        self._hold(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay._sides.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._peer is not None:
            self._peer.reset()

    def pause_writing(self) -> None:
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.resume_reading()
