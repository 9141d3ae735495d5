"""The line: what stands between the event loop's transport and an ssh connection.

asyncssh lets others make the connection that it speaks on (its ``tunnel``), so ours goes through a line, which is the
transport that asyncssh sees, and the protocol that the event loop sees. It adds what asyncssh does not have:

* **corking.** asyncssh sends each packet by itself, and each costs a system call. What is written between
  :meth:`Line.cork` and :meth:`Line.uncork` goes out in one.
* **small bites.** asyncssh copies what is left of its input for each packet that it takes from it; much at a time costs
  a fifth more than little.
* **back-pressure.** asyncssh ignores a transport that asks it to pause. :attr:`Line.congested` says so, and those in
  :attr:`Line.writers` are called when there is room.
* **the first words.** What a server said before it was understood, for error messages: an HTTP server's answer, or
  an ssh server's "Exceeded MaxStartups". And :attr:`Line.greeted`, by which a silent peer is told from a slow login.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncssh

__all__ = ["Line"]

HIGH_WATER = 512 * 1024
"""Bytes that the event loop's transport may hold before writers are asked to wait."""
FIRST_WORDS = 256
BITE = 64 * 1024


class Line(asyncio.Protocol):
    """One connection, by TCP or through a channel of a jump host's connection.

    Args:
        connection: The ssh connection that speaks on it.
        below: The line of the jump host's connection, if it goes through one.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, below: Line | None = None) -> None:
        self.connection = connection
        self.congested = False
        self.greeted = asyncio.Event()
        """Set when the other side has said something, or is gone."""
        self.first_words = b""
        self.writers: set[Callable[[], None]] = set()
        """Who is called when it is congested no more."""
        self._below = below
        self._transport: Any = None
        self._corked = False
        self._held: list[bytes] = []

    def cork(self) -> None:
        """Hold back what is written from now on ..."""
        self._corked = True
        if self._below is not None:
            self._below.cork()

    def uncork(self) -> None:
        """... and send it at once, in one piece."""
        self._corked = False
        held = self._held
        if held:
            self._held = []
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
        if self._below is not None:
            self._below.uncork()

    def give_up(self, error: Exception) -> None:
        """End the connection with this error."""
        self.connection.connection_lost(error)

    # The transport that asyncssh sees

    def write(self, data: bytes) -> None:
        """Send, or hold back."""
        if self._corked:
            self._held.append(data)
        else:
            self._transport.write(data)

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def close(self) -> None:
        """Close when everything has been sent."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return bool(self._transport.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows of itself."""
        return self._transport.get_extra_info(name, default)

    # The protocol that the event loop sees, or the session that a jump host's connection sees

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.connection.connection_made(self)  # type: ignore[arg-type]

    def session_started(self) -> None:
        """Nothing to do: asyncssh tells its sessions."""

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if len(self.first_words) < FIRST_WORDS:
            self.first_words += data[: FIRST_WORDS - len(self.first_words)]
            self.greeted.set()
        if len(data) <= BITE:
            self.connection.data_received(data)
            return
        for start in range(0, len(data), BITE):
            self.connection.data_received(data[start : start + BITE])

    def eof_received(self) -> None:
        self.connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.greeted.set()
        self.connection.connection_lost(exc)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        for tell in list(self.writers):
            tell()
