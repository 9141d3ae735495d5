"""A worker's connection, as the executor sees it: frames out, frames in, never blocking.

It works on the socket itself, because a transport copies what it cannot send at once, and
calls travel with their arrays uncopied.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from .._child import descriptors, wire
from .._child.wire import FRAME
from .frames import Frames, OnFrame

__all__ = ["Link", "Listener"]

TURN = 4 * 1024 * 1024
"""Bytes that may be moved before other things get a turn on the loop."""
PARTS = 64
"""So many are given to the kernel at once."""
TOKEN = 32
FULL_SECONDS = 2.0
"""So long a worker may wait for a descriptor."""
COPIED = 65536
"""Bytes up to which a frame is copied behind its header, because that is cheaper than sending two parts."""

Part = bytes | memoryview


class Link:
    """One connection.

    Args:
        loop: The loop that watches the socket.
        connection: A connected socket.
        on_token: Gets the worker's first bytes, and says who takes its frames, or ``None`` to refuse it.

    Attributes:
        on_lost: Called once, when the other side is gone and everything that it sent has been read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_token: Callable[[bytes, Link], OnFrame | None],
    ) -> None:
        self.on_lost: Callable[[], None] | None = None
        self._loop = loop
        self._socket = connection
        self._on_token = on_token
        self._token = b""
        self._frames: Frames | None = None
        self._unsent: deque[memoryview] = deque()
        self._closed = False
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wire.SOCKET_BUFFER)
        loop.add_reader(connection.fileno(), self._readable)

    def send(self, kind: int, parts: list[Part], first: int = 0) -> None:
        """Send one frame; what does not fit into the socket now is sent later, uncopied."""
        if self._closed:
            return
        head = FRAME.pack(sum(map(len, parts)), kind)
        parts = [head + parts[0]] if len(parts) == 1 and len(parts[0]) < COPIED else [head, *parts]
        if self._unsent:
            self._unsent.extend(map(memoryview, parts))
            return
        try:
            sent = self._socket.send(parts[0]) if len(parts) == 1 else self._socket.sendmsg(parts[:PARTS])
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
                sent = self._socket.sendmsg([*islice(self._unsent, PARTS)])
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
            if self._frames is None:
                self._identify()
            else:
                self._read(self._frames)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, wire.ProtocolError, struct.error):
            self._lost()  # gone, or not to be believed any further
        except BaseException:
            self._lost()  # a frame was taken that nobody could use: its call must not wait for another one
            raise
        return True

    def _identify(self) -> None:
        received = self._socket.recv(TOKEN - len(self._token))
        self._token += received
        if not received:
            self._lost()
        elif len(self._token) == TOKEN:
            on_frame = self._on_token(self._token, self)
            if on_frame is None:
                self.close()
            else:
                self._frames = Frames(on_frame)

    def _read(self, frames: Frames) -> None:
        turn = 0
        while True:
            received = self._socket.recv_into(frames.space())
            if not received:
                self._lost()  # a frame that was cut is no frame
                return
            turn += received
            frames.received(received)
            if self._closed or not frames.in_big or turn >= TURN:
                return

    def _lost(self) -> None:
        if self._closed:
            return
        self._closed = True
        descriptor = self._socket.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._socket.close()
        self._unsent.clear()
        if self._frames is not None:
            self._frames.stop()
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()


class Listener:
    """Where workers connect: a Unix socket in the pool's private folder.

    Args:
        loop: The loop that watches it.
        path: Of the socket, which is made.
        on_token: For each :class:`Link`.
        on_full: Told, from time to time, that for long no connection could be taken, as there is no descriptor left.

    Raises:
        OSError: There is none for the socket itself, or no room for it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        on_token: Callable[[bytes, Link], OnFrame | None],
        on_full: Callable[[OSError], None],
    ) -> None:
        self.path = path
        self._loop = loop
        self._on_token = on_token
        self._on_full = on_full
        self._full_since = 0.0
        self._failures = 0
        """How often in a row there was no descriptor."""
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(path)
            os.chmod(path, 0o600)
        except OSError:
            self._socket.close()
            raise
        self._socket.listen(512)
        self._socket.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take no further connections."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if descriptors.are_used_up(error):
                self._pause(error)
            return
        self._failures = 0
        Link(self._loop, connection, self._on_token)

    def _listen(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _pause(self, error: OSError) -> None:
        """Whoever waits at the door goes on waiting there; look again in a while."""
        now = time.monotonic()
        if not self._failures:
            self._full_since = now
        self._failures += 1
        self._loop.remove_reader(self._socket.fileno())
        self._timer = self._loop.call_later(descriptors.pause(self._failures), self._listen)
        if now - self._full_since >= FULL_SECONDS:
            self._on_full(error)
