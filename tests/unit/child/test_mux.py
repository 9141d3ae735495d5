"""The row of frames between an executor and an agent."""

from __future__ import annotations

import pytest

from aioparallel._child import mux
from aioparallel._child.mux import HEAD, LONGEST, MuxError, Splitter, head

ROW = [(mux.MESSAGE, 0, b"hello"), (mux.LINK, 7, b""), (mux.OUT, 2**32 - 1, b"x" * 1000)]
BYTES = b"".join(head(kind, serial, len(body)) + body for kind, serial, body in ROW)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 14, 15, 500, len(BYTES), 10 * len(BYTES)])
def test_pieces(size: int) -> None:
    """Frames arrive whole and in order, however the stream is cut."""
    splitter, stream, found = Splitter(), BYTES * 5, []
    for start in range(0, len(stream), size):
        for kind, serial, body in splitter.feed(stream[start : start + size]):
            found.append((kind, serial, bytes(body)))
    assert found == ROW * 5


def test_bodies_may_be_kept() -> None:
    """What was passed on does not change when more arrives."""
    splitter = Splitter()
    kept = [body for piece in (BYTES[:-1], BYTES[-1:] + BYTES) for _, _, body in splitter.feed(piece)]
    assert [bytes(body) for body in kept] == [body for _, _, body in ROW * 2]


@pytest.mark.parametrize("nonsense", [HEAD.pack(LONGEST + 1, mux.MESSAGE, 0), HEAD.pack(1, b"?", 0) + b"x"])
def test_nonsense(nonsense: bytes) -> None:
    """A frame that is too long, or of no known kind, is refused, after those before it."""
    splitter, found = Splitter(), []
    with pytest.raises(MuxError):
        for kind, _, _ in splitter.feed(BYTES + nonsense):
            found.append(kind)
    assert found == [kind for kind, _, _ in ROW]
