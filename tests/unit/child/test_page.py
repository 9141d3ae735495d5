"""The page that a worker shares with its agent and its executor."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._child import page, wire
from aioparallel._child.page import (
    BOX_AT,
    FLAGS,
    FLAGS_AT,
    FORGIVEN,
    HEADER,
    MAX_THREADS,
    OUTBOX,
    PICKLES,
    TAKEN_BACK,
    Notes,
    Page,
)


@pytest.fixture
def other(page_path: str) -> Iterator[Page]:
    """The other side's view of the page."""
    view = Page(page_path)
    yield view
    view.close()


def test_layout(shared: Page, page_path: str) -> None:
    """Everything lies where the table says."""
    shared.commit(5)
    shared.begin(7, 1.5)
    shared.begin(9, 2.5, thread=3)
    shared.flag(FLAGS + 2, TAKEN_BACK)
    shared.box[:2] = b"hi"
    raw = Path(page_path).read_bytes()
    assert struct.unpack_from("<Q", raw, 0) == (5,)
    assert struct.unpack_from("<dQ", raw, 64) == (1.5, 7)
    assert struct.unpack_from("<dQ", raw, 64 + 3 * 16) == (2.5, 9)
    assert raw[FLAGS_AT : FLAGS_AT + 4] == b"\0\0\1\0"
    assert raw[BOX_AT : BOX_AT + 2] == b"hi"
    assert (BOX_AT, HEADER, len(shared.box)) == (4160, wire.FRAME.size, OUTBOX)


def test_files_are_private_and_complete(page_path: str) -> None:
    """The file of a page is readable by nobody else, and takes its room on the disk at once."""
    found = os.stat(page_path)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == page.SIZE
    assert found.st_blocks * 512 >= page.SIZE


def test_files_are_made_once(page_path: str) -> None:
    """A page is not made over an existing file."""
    with pytest.raises(FileExistsError):
        page.create(page_path)


def test_full_disks(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that the disk has no room for is refused when it is made, not when it is written."""

    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        page.create(f"{folder}/p2")


def test_disks_that_cannot_reserve(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where room cannot be taken in advance, a page is made all the same."""

    def unable(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    page.create(f"{folder}/p2")
    assert os.stat(f"{folder}/p2").st_size == page.SIZE


def test_both_sides_see_what_runs(shared: Page, other: Page) -> None:
    """The other side sees at once which call runs, since when, and that none does."""
    assert other.running() == (0, 0.0)
    shared.begin(41, 12.25)
    assert other.running() == (41, 12.25)
    shared.end()
    assert other.running()[0] == 0


def test_threads_have_slots_of_their_own(shared: Page, other: Page) -> None:
    """Each thread of a worker says for itself what it runs."""
    for thread in range(MAX_THREADS):
        shared.begin(1000 + thread, float(thread), thread)
    shared.end(5)
    assert other.running(MAX_THREADS - 1) == (1000 + MAX_THREADS - 1, MAX_THREADS - 1.0)
    running = other.all_running(MAX_THREADS)
    assert running == {1000 + thread: float(thread) for thread in range(MAX_THREADS) if thread != 5}
    assert other.all_running(2) == {1000: 0.0, 1001: 1.0}
    assert not any(other.flags)


def test_flags(shared: Page, other: Page) -> None:
    """A call that was asked back is told so when it begins, and no other is."""
    other.flag(3, TAKEN_BACK)
    assert shared.begin(3, 1.0) is True
    assert shared.begin(4, 1.0) is False
    other.flag(3, 0)
    assert shared.begin(3, 1.0) is False


def test_flags_are_used_again() -> None:
    """Calls share a flag only when they are further apart than a worker can hold."""
    from aioparallel._policy.batching import MAX_CALLS
    from aioparallel._policy.roster import MAX_HELD

    assert FLAGS >= MAX_HELD + MAX_CALLS


@given(st.binary(min_size=1, max_size=200))
def test_outbox(page_bytes: bytes) -> None:
    """What was committed is found by the other side, and nothing else."""
    path = f"/tmp/aioparallel-page-{os.getpid()}"
    page.create(path)
    shared, other = Page(path), Page(path)
    try:
        shared.box[: len(page_bytes)] = page_bytes
        assert other.unsent() == b""
        shared.commit(len(page_bytes))
        assert other.unsent() == page_bytes
        shared.commit(0)
        assert other.unsent() == b""
    finally:
        shared.close()
        other.close()
        os.unlink(path)


def test_committed_nonsense_is_bounded(shared: Page, other: Page) -> None:
    """A worker that says its outbox is longer than it can be is not believed."""
    shared.commit(2**60)
    assert len(other.unsent()) == OUTBOX


def test_frame_header_lies_before_the_outbox(shared: Page) -> None:
    """A header can be written right before the outbox, which then is a frame as it lies."""
    shared.box[:4] = b"body"
    wire.FRAME.pack_into(shared.framed_box, 0, 4, wire.ANSWERS)
    assert bytes(shared.framed_box[:13]) == wire.FRAME.pack(4, wire.ANSWERS) + b"body"
    assert shared.flags[-1] == 0


def test_closed_pages_let_go(page_path: str) -> None:
    """A page that was closed holds no memory, and cannot be used by mistake."""
    view = Page(page_path)
    view.close()
    with pytest.raises(ValueError, match="released"):
        view.begin(1, 1.0)


def test_notes(shared: Page, other: Page) -> None:
    """The other side reads what items returned: numbers, nothing, pickles and failures, up to the first gap."""
    notes = shared.notes
    notes.ints[0], notes.tags[0] = -5, Notes.INT
    notes.floats[1], notes.tags[1] = 2.5, Notes.FLOAT
    notes.tags[2] = Notes.NONE
    assert notes.keep(3, b"pickle", failed=False)
    assert notes.keep(4, b"failure", failed=True)
    notes.tags[6] = Notes.NONE
    assert other.notes.read() == [
        (Notes.INT, -5),
        (Notes.FLOAT, 2.5),
        (Notes.NONE, None),
        (Notes.PICKLED, b"pickle"),
        (Notes.FAILED, b"failure"),
    ]
    shared.notes.clear()
    assert other.notes.read() == []


def test_notes_have_an_end(shared: Page) -> None:
    """A note for which there is no room is refused, and disturbs no other."""
    assert shared.notes.keep(0, b"a" * (PICKLES - 1), failed=False)
    assert not shared.notes.keep(1, b"bb", failed=False)
    assert shared.notes.keep(1, b"b", failed=False)
    assert [value for _, value in shared.notes.read()] == [b"a" * (PICKLES - 1), b"b"]


def test_time_that_is_not_the_calls_own(shared: Page, other: Page) -> None:
    """What a call waits for imports does not make it older, unless they take so long that they must hang."""
    shared.begin(1, 100.0)
    assert shared.pause(101.0)
    assert not shared.pause(102.0), "it is so already"
    assert other.age(1, 150.0) == 1.0
    shared.resume(150.0)
    assert other.age(1, 151.0) == 2.0
    shared.pause(151.0)
    assert other.age(1, 151.0 + FORGIVEN + 5) == 2.0 + 5
    assert other.age(2, 151.0) == 0.0, "it does not run"
