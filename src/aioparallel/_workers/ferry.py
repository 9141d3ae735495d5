"""Workers' links through an agent's channel: many links share one stream, and none keeps the others waiting.

Each link may have ``CREDIT`` bytes under way that its worker has not taken; the agent tells when some have been. What
is small goes at once. What is large, or comes when the channel is congested, waits here, uncopied, and goes in pieces,
those of one link after those of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from .._child import mux
from .._child.carrying import CREDIT
from .._child.wire import FRAME
from .agents import Channel, Part
from .frames import Frames, OnFrame

__all__ = ["Ferry", "FerryLink"]


class Sender(Protocol):
    """Has more to send than goes at once."""

    def send_piece(self) -> bool:
        """Send a piece of what waits; returns whether more could go after others had their turn."""
        ...


class Ferry:
    """A channel that links share.

    Whoever makes it calls :meth:`go_on` when the channel is no longer congested.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._waiting: dict[Sender, None] = {}

    def link(self, serial: int, on_frame: OnFrame) -> FerryLink:
        """A link to the worker of this serial number."""
        return FerryLink(self, serial, on_frame)

    def post(self, archive: str, pieces: Iterator[tuple[int, memoryview]]) -> None:
        """Send an archive: its pieces, and where in it they belong."""
        self.wait(_Parcel(self.channel, archive.encode("ascii"), pieces))

    def wait(self, sender: Sender) -> None:
        """Somebody has something to send."""
        self._waiting[sender] = None
        self.go_on()

    def leave(self, sender: Sender) -> None:
        """Somebody has nothing to send any more."""
        self._waiting.pop(sender, None)

    def go_on(self) -> None:
        """Send pieces of those who wait, in turn, as long as there is room."""
        waiting = self._waiting
        while waiting and not self.channel.congested:
            sender = next(iter(waiting))
            del waiting[sender]
            if sender.send_piece():
                waiting[sender] = None  # it goes to the end


class _Parcel:
    """An archive on its way to the agent."""

    def __init__(self, channel: Channel, archive: bytes, pieces: Iterator[tuple[int, memoryview]]) -> None:
        self._channel = channel
        self._archive = archive
        self._pieces = pieces

    def send_piece(self) -> bool:
        """Send the next piece."""
        offset, piece = next(self._pieces, (0, None))
        if piece is None:
            return False
        place = mux.OF_ARCHIVE.pack(self._archive, offset)
        self._channel.write([mux.head(mux.PIECE, 0, len(place) + len(piece)) + place, piece])
        return True


class FerryLink:
    """One worker's link."""

    def __init__(self, ferry: Ferry, serial: int, on_frame: OnFrame) -> None:
        self._ferry = ferry
        self._channel = ferry.channel
        self._serial = serial
        self._frames = Frames(on_frame)
        self._credit = CREDIT
        self._unsent: deque[memoryview] = deque()
        self._length = 0
        """Of what waits, in bytes."""
        self._starts: deque[tuple[int, int]] = deque()
        """Each frame of calls that had to wait: where in all that ever waited it begins, and its first call."""
        self._total = 0
        """How many bytes that had to wait have been sent."""
        self._closed = False

    def send(self, kind: int, parts: list[Part], first: int = 0) -> None:
        """Send one frame: now, or as soon as it may go."""
        if self._closed:
            return
        length = FRAME.size + sum(map(len, parts))
        head = FRAME.pack(length - FRAME.size, kind)
        if not self._unsent and length <= min(self._credit, mux.TURN) and not self._channel.congested:
            self._credit -= length
            self._channel.write([mux.head(mux.LINK, self._serial, length) + head, *parts])
            return
        self._unsent.extend(memoryview(part) for part in (head, *parts) if len(part))
        if first:
            self._starts.append((self._total + self._length, first))
        self._length += length
        self._ferry.wait(self)

    def taken(self, count: int) -> None:
        """The worker has taken so many bytes."""
        self._credit += count
        if self._unsent:
            self._ferry.wait(self)

    def send_piece(self) -> bool:
        """Send a piece of what waits; returns whether more could go after others had their turn."""
        size = min(mux.TURN, self._credit, self._length)
        if not size:
            return False
        while self._starts and self._starts[0][0] < self._total:
            self._starts.popleft()
        self._channel.write([mux.head(mux.LINK, self._serial, size), *self._take(size)])
        self._credit -= size
        self._length -= size
        self._total += size
        return bool(self._length and self._credit)

    def unsent_from(self) -> int | None:
        """The first of the calls of which not even the beginning was sent; those after it were not, either."""
        return next((first for start, first in self._starts if start >= self._total), None)

    def feed(self, received: memoryview) -> None:
        """Bytes have come from the worker.

        Raises:
            ProtocolError: They are none that a worker of ours sends.
        """
        self._frames.feed(received)

    def drain(self) -> None:
        """Nothing is left to be read: what the agent says comes in order."""

    def close(self) -> None:
        """The worker is gone: neither send nor take anything more."""
        self._closed = True
        self._frames.stop()
        self._unsent.clear()
        self._ferry.leave(self)

    def _take(self, size: int) -> list[memoryview]:
        taken: list[memoryview] = []
        while size:
            first = self._unsent[0]
            if len(first) > size:
                self._unsent[0] = first[size:]
                first = first[:size]
            else:
                self._unsent.popleft()
            taken.append(first)
            size -= len(first)
        return taken
