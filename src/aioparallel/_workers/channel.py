"""The channel: one session of an ssh connection, through which an executor and a host agent talk.

States::

    OPENING   the session is asked for; what is written waits
    OPEN      bytes go both ways
    CLOSING   the lifeline has been closed from this side; the agent cleans up and ends
    LOST      the session has ended, however that came

Guarantees:

* What is received is handed on at once, complete and in order: first to whoever starts the agent, then to the listener.
  The end is told once, after the last byte, and not at all if it was asked for.
* Writing never waits and never fails. What cannot be sent yet is kept by reference, and moved to asyncssh in pieces of
  256 KiB: it copies and encrypts what it gets at once, and keeps the event loop busy meanwhile. After 1 MiB others
  have a turn on the loop.
* No more than one piece waits inside asyncssh, and no more than half a megabyte in the transport: the rest is here,
  where ``congested`` says so. So memory is bounded by what was given to :meth:`SshChannel.write`, and not copied.
* What is written before the session is open goes out right behind the request for it, in the same round trip.

Importing this module imports asyncssh.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio
import asyncssh

from .._model.contracts import ChannelListener
from .._model.errors import HostError
from .._model.hosts import Hello
from .hosterrors import explain_loss
from .line import Line
from .savings import save_on_channel

__all__ = ["SshChannel"]

PIECE = 256 * 1024
TURN = 1024 * 1024
HIGH_WATER = 256 * 1024
"""Bytes that wait to be sent, beyond which whoever can wait should ..."""
LOW_WATER = 64 * 1024
"""... until there are fewer than that."""
LAST_WORDS = 16 * 1024
END_SECONDS = 3.0
ABORT_SECONDS = 1.0


class SshChannel(asyncssh.SSHClientSession[bytes]):
    """A session that runs a host agent: an :class:`~aioparallel._model.contracts.AgentChannel`.

    Args:
        name: The host's.
        line: What its connection is spoken on, if that is ours.
        listener: Who is told what happens.
    """

    hello: Hello
    """What the agent said of itself; set when it has been started."""

    def __init__(self, name: str, line: Line | None, listener: ChannelListener) -> None:
        self.name = name
        self.listener = listener
        self.ended = asyncio.Event()
        """Set when it is lost or closed."""
        self.end = ""
        """How the agent ended, if the host has said so."""
        self.error: HostError | None = None
        """Why it is lost."""
        self._line = line
        self._channel: Any = None
        self._open = False
        self._closing = False
        self._held_up = False
        """Whether asyncssh has enough for the time being."""
        self._unsent: deque[memoryview] = deque()
        self._size = 0
        self._was_congested = False
        self._in_turn = False
        self._last_words = bytearray()

    @property
    def congested(self) -> bool:
        """Whether more waits to be sent than is useful."""
        return self._size > HIGH_WATER

    @property
    def last_words(self) -> str:
        """The end of what the agent, or what came before it, has written to its standard error."""
        return self._last_words.decode("utf-8", "replace")

    # Sending

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send, now or as soon as that is possible."""
        if self._closing or self.ended.is_set():
            return
        size = sum(map(len, parts))
        if self._open and not self._size and size <= PIECE and self._can_send:
            self._send(parts[0] if len(parts) == 1 else b"".join(parts))
            return
        self._unsent.extend(memoryview(part) for part in parts if part)
        self._size += size
        self._was_congested = self._was_congested or self.congested
        self._take_turns()

    @property
    def _can_send(self) -> bool:
        return self._open and not self._held_up and (self._line is None or not self._line.congested)

    def _take_turns(self) -> None:
        if self._can_send and self._size and not self._in_turn:
            self._in_turn = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Send some of what waits."""
        self._in_turn = False
        sent = 0
        while self._size and sent < TURN and self._can_send:
            piece = self._next_piece()
            self._size -= len(piece)
            sent += len(piece)
            self._send(piece)
        if self._was_congested and self._size <= LOW_WATER:
            self._was_congested = False
            self.listener.writable()
        self._take_turns()

    def _next_piece(self) -> bytes | memoryview:
        first = self._unsent[0]
        if len(first) > PIECE:
            self._unsent[0] = first[PIECE:]
            return first[:PIECE]
        pieces, size = [], 0
        while self._unsent and size + len(self._unsent[0]) <= PIECE:
            pieces.append(self._unsent.popleft())
            size += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _send(self, data: bytes | memoryview) -> None:
        line = self._line
        if line is not None:
            line.cork()
        try:
            self._channel.write(data)
        except BrokenPipeError:
            self._open = False  # the other side has closed it, and we are told why in a moment
        finally:
            if line is not None:
                line.uncork()

    # What asyncssh tells

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        save_on_channel(chan)
        if self._closing:
            chan.abort()
            return
        self._open = True
        if self._line is not None:
            self._line.writers.add(self._take_turns)
        self._take_turns()  # the next turn comes when asyncssh has sent the request, and waits for the answer

    def pause_writing(self) -> None:
        self._held_up = True

    def resume_writing(self) -> None:
        self._held_up = False
        self._take_turns()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self.listener.received(data)
        else:
            self._last_words += data
            del self._last_words[:-LAST_WORDS]

    def exit_status_received(self, status: int) -> None:
        self.end = f"exit status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.end = f"killed by SIG{signal}"

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        self._unsent.clear()
        self._size = 0
        if self._line is not None:
            self._line.writers.discard(self._take_turns)
        if exc is not None or not self.end:
            self.error = explain_loss(exc, self.name)
        else:
            self.error = HostError(f"{self.name}: the host agent ended ({self.end}).{self._said()}", host=self.name)
        self.ended.set()
        if not self._closing:
            self.listener.lost(self.error)

    def _said(self) -> str:
        said = self.last_words.strip()
        return f" It said last:\n{said}" if said else ""

    # The end

    async def aclose(self) -> bool:
        """Close the agent's lifeline, and wait until it has ended; in the end, do not wait any longer."""
        self._closing = True
        self._unsent.clear()
        self._size = 0
        if self._channel is None or self.ended.is_set():
            return bool(self.end)
        self._channel.write_eof()
        try:
            with anyio.move_on_after(END_SECONDS):
                await self.ended.wait()
        finally:
            if not self.ended.is_set():
                self._channel.abort()
        with anyio.move_on_after(ABORT_SECONDS):
            await self.ended.wait()
        return bool(self.end)

    def abort(self) -> None:
        """Close it now, without a word to the listener."""
        self._closing = True
        if self._channel is not None:
            self._channel.abort()
