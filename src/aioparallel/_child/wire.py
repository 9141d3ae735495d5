"""Frames: how calls and answers look between an executor and a worker.

A frame is a length, a kind and a body; several records may share one body::

    frame    u64 length of the body | u8 kind | body
    CALLS    record* ;  record = CALL header | payload
    ANSWERS  record* ;  record = ANSWER header | payload

A record with out-of-band buffers travels alone in its frame, and after its payload come
the buffers' lengths (u64 each), then the buffers, each at a multiple of 64 bytes from the
beginning of the body, so that arrays are aligned where they arrive.
"""

from __future__ import annotations

from struct import Struct

FRAME = Struct("<QB")
CALL = Struct("<QQIIBIQ")
"""Number on this worker, id of the call, function, attempt, verb, buffers, payload length."""
ANSWER = Struct("<QQBIQ")
"""Number on this worker, microseconds, ending, buffers, payload length."""
FUNCTION = Struct("<IH")
"""Number of the function, length of its name; then the name, then what :mod:`.packing` made of it."""

MAX_FRAME = 1 << 40
"""Bytes. A longer frame is not believed."""

SOCKET_BUFFER = 1 << 20
"""Bytes that a socket is asked to take at once: large arrays need fewer turns of the event loop."""

ALIGN = 64
OUT_OF_BAND = 64 * 1024
"""Buffers of at least so many bytes are not copied into the pickle."""

# Kinds of frames, to a worker ...
SETUP, FUNCTIONS, CALLS, BYE, FORGET = 1, 2, 3, 4, 5
# ... and from it
HELLO, READY, UNREADY, ANSWERS, LOG, FULL, NOTES = 11, 12, 13, 14, 15, 16, 17

# Verbs of a call
RUN, STREAM_OPEN, STREAM_NEXT, STREAM_CLOSE, CHUNK, CHUNK_TO_FAILURE = 0, 1, 2, 3, 4, 5

# Endings of a call
OK, RAISED, WITHDRAWN = 0, 1, 2


class ProtocolError(Exception):
    """The other side sent what no worker or executor of ours sends."""


def padding(position: int) -> int:
    """How many bytes lead from here to the next multiple of ``ALIGN``."""
    return -position % ALIGN


def with_buffers(head: bytes, payload: bytes, buffers: list[memoryview]) -> list[bytes | memoryview]:
    """The parts of the body of a record that has buffers."""
    lengths = b"".join(len(buffer).to_bytes(8, "little") for buffer in buffers)
    start = head + payload + lengths
    parts: list[bytes | memoryview] = [start]
    position = len(start)
    for buffer in buffers:
        gap = padding(position)
        if gap:
            parts.append(bytes(gap))
        parts.append(buffer)
        position += gap + len(buffer)
    return parts


def read_buffers(body: memoryview, position: int, count: int) -> list[memoryview]:
    """The buffers that follow a payload; *body* is kept alive by them, and nothing is copied."""
    lengths = [int.from_bytes(body[position + 8 * i : position + 8 * i + 8], "little") for i in range(count)]
    position += 8 * count
    buffers = []
    for length in lengths:
        position += padding(position)
        if position + length > len(body):
            raise ProtocolError("a buffer is longer than its frame")
        buffers.append(body[position : position + length])
        position += length
    return buffers
