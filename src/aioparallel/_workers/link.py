"""A worker's connection, as the executor sees it: frames out, frames in, never blocking.

It works on the socket itself, because a transport copies what it cannot send at once, and
calls travel with their arrays uncopied.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from .._child import wire
from .._child.memory import room
from .._child.wire import FRAME

__all__ = ["Link", "Listener"]

RECEIVE = 256 * 1024
TURN = 4 * 1024 * 1024
"""Bytes that may be moved before other things get a turn on the loop."""
TOKEN = 32
COPIED = 65536
"""Bytes up to which a frame is copied behind its header, because that is cheaper than sending two parts."""

Part = bytes | memoryview


class Link:
    """One connection.

    Args:
        loop: The loop that watches the socket.
        connection: A connected socket.
        on_token: Gets the worker's first bytes, and says who takes its frames, or ``None`` to refuse it.
        on_lost: Called once, when the other side is gone and everything that it sent has been read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_token: Callable[[bytes, Link], Callable[[int, memoryview], None] | None],
    ) -> None:
        self.on_lost: Callable[[], None] | None = None
        self._loop = loop
        self._socket = connection
        self._on_token = on_token
        self._on_frame: Callable[[int, memoryview], None] | None = None
        self._buffer = bytearray(RECEIVE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._big: memoryview | None = None
        self._big_kind = self._big_have = 0
        self._unsent: deque[memoryview] = deque()
        self._closed = False
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wire.SOCKET_BUFFER)
        loop.add_reader(connection.fileno(), self._readable)

    def send(self, kind: int, parts: list[Part]) -> None:
        """Send one frame; what does not fit into the socket now is sent later, uncopied."""
        if self._closed:
            return
        head = FRAME.pack(sum(map(len, parts)), kind)
        parts = [head + parts[0]] if len(parts) == 1 and len(parts[0]) < COPIED else [head, *parts]
        if self._unsent:
            self._unsent.extend(map(memoryview, parts))
            return
        try:
            sent = self._socket.send(parts[0]) if len(parts) == 1 else self._socket.sendmsg(parts[:16])
        except BlockingIOError:
            sent = 0
        except OSError:  # nobody listens any more; what was said before that is still to be read
            return
        if sent < sum(map(len, parts)):
            self._unsent.extend(map(memoryview, parts))
            self._drop(sent)
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def close(self) -> None:
        """Close the connection now; ``on_lost`` is not called."""
        self.on_lost = None
        self._lost()

    def _drop(self, sent: int) -> None:
        unsent = self._unsent
        while sent:
            first = unsent[0]
            if sent < len(first):
                unsent[0] = first[sent:]
                return
            sent -= len(first)
            unsent.popleft()
        while unsent and not len(unsent[0]):
            unsent.popleft()

    def _writable(self) -> None:
        turn = 0
        try:
            while self._unsent and turn < TURN:
                sent = self._socket.sendmsg([*self._unsent][:16] if len(self._unsent) < 64 else [self._unsent[0]])
                self._drop(sent)
                turn += sent
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())

    def drain(self) -> None:
        """Read whatever has been sent by now."""
        while not self._closed and self._readable():
            pass

    def _readable(self) -> bool:
        """Read some; returns whether there was anything."""
        try:
            if self._big is not None:
                self._read_big(self._big)
            else:
                self._read_small()
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, wire.ProtocolError, struct.error):
            self._lost()  # gone, or not to be believed any further
        except BaseException:
            self._lost()  # a frame was taken that nobody could use: its call must not wait for another one
            raise
        return True

    def _read_small(self) -> None:
        received = self._socket.recv_into(self._view[self._end :])
        if not received:
            self._lost()
            return
        self._end += received
        self._parse()

    def _parse(self) -> None:
        if self._on_frame is None and not self._identify():
            return
        while self._end - self._start >= FRAME.size and self._on_frame is not None:
            length, kind = FRAME.unpack_from(self._buffer, self._start)
            if length > wire.MAX_FRAME:
                raise wire.ProtocolError(f"a frame of {length} bytes")
            body = self._start + FRAME.size
            if length + FRAME.size > RECEIVE:
                self._begin_big(kind, length, body)
                return
            if self._end - body < length:
                break
            self._start = body + length
            frame = self._view[body : body + length]
            # A value may be made of arrays that lie in the frame, and live on when the buffer is used again.
            self._on_frame(kind, memoryview(bytearray(frame)) if length > wire.OUT_OF_BAND else frame)
        self._make_room()

    def _make_room(self) -> None:
        """Move an incomplete frame to the front."""
        rest = self._end - self._start
        if self._start and (not rest or self._start > RECEIVE // 2 or self._end == RECEIVE):
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest

    def _identify(self) -> bool:
        if self._end < TOKEN:
            return False
        self._on_frame = self._on_token(bytes(self._buffer[:TOKEN]), self)
        self._start = TOKEN
        if self._on_frame is None:
            self.close()
            return False
        return True

    def _begin_big(self, kind: int, length: int, start: int) -> None:
        """A frame that does not fit the buffer gets memory of its own, which its arrays then share."""
        self._big = room(length)
        have = self._end - start
        self._big[:have] = self._view[start : self._end]
        self._big_kind, self._big_have = kind, have
        self._start = self._end = 0

    def _read_big(self, big: memoryview) -> None:
        turn = 0
        while self._big_have < len(big) and turn < TURN:
            received = self._socket.recv_into(big[self._big_have :])
            if not received:
                self._lost()  # a frame that was cut is no frame
                return
            self._big_have += received
            turn += received
        if self._big_have == len(big):
            self._big = None
            if self._on_frame is not None:
                self._on_frame(self._big_kind, big)

    def _lost(self) -> None:
        if self._closed:
            return
        self._closed = True
        descriptor = self._socket.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._socket.close()
        self._unsent.clear()
        on_lost, self.on_lost, self._on_frame = self.on_lost, None, None
        if on_lost is not None:
            on_lost()


class Listener:
    """Where workers connect: a Unix socket in the pool's private folder."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        on_token: Callable[[bytes, Link], Callable[[int, memoryview], None] | None],
    ) -> None:
        self.path = path
        self._loop = loop
        self._on_token = on_token
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen(512)
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Take no further connections."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        Link(self._loop, connection, self._on_token)
