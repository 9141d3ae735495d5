"""How calls and answers look on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._child import wire
from aioparallel._child.wire import ALIGN, ANSWER, CALL, FRAME, ProtocolError

payloads = st.binary(max_size=300)
several = st.lists(st.binary(max_size=300), min_size=1, max_size=5)


def body_of(head: bytes, payload: bytes, buffers: list[bytes]) -> bytes:
    return b"".join(wire.with_buffers(head, payload, [memoryview(buffer) for buffer in buffers]))


@given(payloads, payloads, several)
def test_buffers_arrive(head: bytes, payload: bytes, buffers: list[bytes]) -> None:
    """Buffers come out as they went in, after the header and the payload."""
    body = body_of(head, payload, buffers)
    assert body.startswith(head + payload)
    found = wire.read_buffers(memoryview(body), len(head) + len(payload), len(buffers))
    assert [bytes(view) for view in found] == buffers


@given(payloads, payloads, several)
def test_buffers_are_aligned_and_not_copied(head: bytes, payload: bytes, buffers: list[bytes]) -> None:
    """Each buffer begins at a multiple of 64 bytes of the body, and is a view into it."""
    body = bytearray(body_of(head, payload, buffers))
    found = wire.read_buffers(memoryview(body), len(head) + len(payload), len(buffers))
    start = len(head) + len(payload) + 8 * len(buffers)
    for view in found:
        assert view.obj is body
        start += -start % ALIGN
        if len(view):
            body[start] ^= 255
            assert view[0] == body[start]
        start += len(view)


def test_sent_buffers_are_not_copied() -> None:
    """What is sent are the buffers themselves."""
    array = bytearray(1000)
    parts = wire.with_buffers(b"head", b"payload", [memoryview(array)])
    array[0] = 7
    assert isinstance(parts[-1], memoryview)
    assert parts[-1][0] == 7


@given(payloads, several, st.data())
def test_cut_bodies_are_refused(payload: bytes, buffers: list[bytes], data: st.DataObject) -> None:
    """A body that ends before its last buffer does is not believed."""
    body = body_of(b"", payload, [*buffers, b"last"])
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ProtocolError):
        wire.read_buffers(memoryview(body)[:cut], len(payload), len(buffers) + 1)


@given(st.integers(0, 2**63))
def test_lengths_that_lie_are_refused(length: int) -> None:
    """A buffer that says it is longer than its frame is not believed."""
    body = length.to_bytes(8, "little") + bytes(56)
    if length:
        with pytest.raises(ProtocolError):
            wire.read_buffers(memoryview(body), 0, 1)
    else:
        assert [len(view) for view in wire.read_buffers(memoryview(body), 0, 1)] == [0]


def test_long_lives_fit() -> None:
    """The headers hold a call of a year, a hundred thousand attempts and as many buffers."""
    year, many = 366 * 86400 * 10**6, 100_000
    assert ANSWER.unpack(ANSWER.pack(2**40, year, wire.RAISED, many, 2**40)) == (2**40, year, wire.RAISED, many, 2**40)
    fields = (2**40, 2**40, 2**31, many, wire.STREAM_CLOSE, many, 2**40)
    assert CALL.unpack(CALL.pack(*fields)) == fields
    assert FRAME.unpack(FRAME.pack(wire.MAX_FRAME, wire.ANSWERS)) == (wire.MAX_FRAME, wire.ANSWERS)


@given(st.integers(0, 10**12))
def test_padding(position: int) -> None:
    """Padding leads to the next multiple, and is nothing at one."""
    assert 0 <= wire.padding(position) < ALIGN
    assert (position + wire.padding(position)) % ALIGN == 0


def test_names_of_one_kind_differ() -> None:
    """No two kinds of frames, no two verbs and no two endings share a number."""
    to_worker = [wire.SETUP, wire.FUNCTIONS, wire.CALLS, wire.BYE, wire.FORGET]
    from_worker = [wire.HELLO, wire.READY, wire.UNREADY, wire.ANSWERS, wire.LOG, wire.FULL]
    verbs = [wire.RUN, wire.STREAM_OPEN, wire.STREAM_NEXT, wire.STREAM_CLOSE, wire.CHUNK, wire.CHUNK_TO_FAILURE]
    for numbers in (to_worker + from_worker, verbs, [wire.OK, wire.RAISED, wire.WITHDRAWN]):
        assert len(set(numbers)) == len(numbers)
