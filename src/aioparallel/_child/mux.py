"""What an executor and a host agent say to each other, over one stream of bytes each way.

The stream is a row of frames: u32 length of the body, a letter that says what it is, u32 serial number of the worker
that it is about (0: none), body.

==========  =================================================================================
``MESSAGE``  a message of the agent's own protocol (see :mod:`.messages`)
``OUT``      what a worker wrote to its standard output ...
``ERR``      ... and to its standard error
``LINK``     bytes of a worker's link (see :mod:`.wire`), where the agent carries them
``VOICE``    a whole frame of a worker's link, its kind and its body, that the agent says in the worker's place
``PIECE``    a piece of an archive (see :mod:`.archives`): digest, offset, bytes
==========  =================================================================================
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = Struct("<IcI")
MESSAGE, OUT, ERR, LINK, VOICE, PIECE = b"M", b"O", b"E", b"L", b"V", b"P"
KINDS = frozenset({MESSAGE, OUT, ERR, LINK, VOICE, PIECE})
OF_ARCHIVE = Struct("<32sQ")
"""Before a piece of an archive: its digest, and where in it the piece belongs."""
TURN = 256 * 1024
"""Bytes of a link that travel in one frame at most, so that others have their turn."""
LONGEST = 1 << 24
"""Bytes. A longer body is not believed."""


class MuxError(ValueError):
    """What arrived is no row of frames."""


def head(kind: bytes, serial: int, length: int) -> bytes:
    """What comes before a body of so many bytes."""
    return HEAD.pack(length, kind, serial)


class Splitter:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, received: bytes) -> Iterator[tuple[bytes, int, memoryview]]:
        """The frames that are complete now: kind, serial number, body; to be used up before the next call.

        Raises:
            MuxError: There is something that is none.
        """
        if self._rest:
            self._rest += received
            view = memoryview(self._rest)
        else:
            view = memoryview(received)
        position, size = 0, len(view)
        while size - position >= HEAD.size:
            length, kind, serial = HEAD.unpack_from(view, position)
            if length > LONGEST or kind not in KINDS:
                raise MuxError(f"a frame of kind {kind!r} and {length} bytes")
            start = position + HEAD.size
            if size - start < length:
                break
            position = start + length
            yield kind, serial, view[start:position]
        if position or not self._rest:
            self._rest = bytearray(view[position:])
