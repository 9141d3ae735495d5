"""What a worker sends, cut into frames again."""

from __future__ import annotations

from collections.abc import Callable

from .._child import wire
from .._child.memory import room
from .._child.wire import FRAME

__all__ = ["RECEIVE", "Frames", "OnFrame"]

RECEIVE = 256 * 1024

OnFrame = Callable[[int, memoryview], None]
"""Gets the kind and body of a frame. A body is only good until that returns, unless arrays may live in it."""


class Frames:
    """Receives bytes, and passes frames on.

    Whoever reads from a socket does so into :meth:`space`, and says how much has come; what comes as ``bytes`` is fed.
    """

    def __init__(self, on_frame: OnFrame) -> None:
        self._on_frame = on_frame
        self._buffer = bytearray(RECEIVE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._big: memoryview | None = None
        self._big_kind = self._big_have = 0

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._view[self._end :] if self._big is None else self._big[self._big_have :]

    def received(self, count: int) -> None:
        """So many bytes have come there.

        Raises:
            ProtocolError: They are no frames.
        """
        if self._big is not None:
            self._big_have += count
            self._end_big(self._big)
            return
        self._end += count
        while (found := self._next(self._view, self._start, self._end)) is not None:
            kind, body, self._start = found
            self._on_frame(kind, body)
        if self._big is not None:
            self._start = self._end = 0
        else:
            self._make_room()

    def feed(self, view: memoryview) -> None:
        """The next bytes, as they came.

        Raises:
            ProtocolError: They are no frames.
        """
        for start in range(0, len(view), RECEIVE):  # no large frame ends in the piece that it begins in
            self._feed(view[start : start + RECEIVE])

    def _feed(self, view: memoryview) -> None:
        position, end = 0, len(view)
        if self._big is None and self._start == self._end:  # nothing is incomplete, so nothing need be copied
            while (found := self._next(view, position, end)) is not None:
                kind, body, position = found
                self._on_frame(kind, body)
            if self._big is not None:
                return
        while position < end:
            space = self.space()
            count = min(len(space), end - position)
            space[:count] = view[position : position + count]
            position += count
            self.received(count)

    def stop(self) -> None:
        """Pass on nothing more, not even what has been received already."""
        self._on_frame = _ignore

    @property
    def in_big(self) -> bool:
        """Whether more is known to come than the buffer holds."""
        return self._big is not None

    def _next(self, view: memoryview, start: int, end: int) -> tuple[int, memoryview, int] | None:
        """The frame that begins at ``start``, if it is complete, and where the next one begins."""
        if end - start < FRAME.size:
            return None
        length, kind = FRAME.unpack_from(view, start)
        if length > wire.MAX_FRAME:
            raise wire.ProtocolError(f"a frame of {length} bytes")
        start += FRAME.size
        if length + FRAME.size > RECEIVE:
            self._begin_big(kind, length, view[start:end])
            return None
        if end - start < length:
            return None
        body = view[start : start + length]
        # A value may be made of arrays that lie in the frame, and live on when the buffer is used again.
        return kind, memoryview(bytearray(body)) if length > wire.OUT_OF_BAND else body, start + length

    def _begin_big(self, kind: int, length: int, have: memoryview) -> None:
        """A frame that does not fit the buffer gets memory of its own, which its arrays then share."""
        self._big = room(length)
        self._big[: len(have)] = have
        self._big_kind, self._big_have = kind, len(have)

    def _end_big(self, big: memoryview) -> None:
        if self._big_have == len(big):
            self._big = None
            self._on_frame(self._big_kind, big)

    def _make_room(self) -> None:
        """Move an incomplete frame to the front."""
        rest = self._end - self._start
        if self._start and (not rest or self._start > RECEIVE // 2 or self._end == RECEIVE):
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest


def _ignore(kind: int, body: memoryview) -> None:
    pass
