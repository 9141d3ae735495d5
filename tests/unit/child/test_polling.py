"""Waiting for descriptors, and sending without blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from aioparallel._child.polling import BROKEN, IN, WRITE_PARTS, Outlet, Poll


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


# Waiting


def test_handlers_are_called(pipe: tuple[int, int]) -> None:
    """A handler is called when something happens to its descriptor, and not when nothing does."""
    poll, seen = Poll(), []
    poll.watch(pipe[0], IN, seen.append)
    poll.wait(0)
    assert seen == []
    os.write(pipe[1], b"x")
    poll.wait(1000)
    assert seen == [IN]


def test_what_is_ignored_is_not_told(pipe: tuple[int, int]) -> None:
    """What is ignored is not told any more; to ignore it twice is fine."""
    poll, seen = Poll(), []
    poll.watch(pipe[0], IN, seen.append)
    poll.ignore(pipe[0])
    poll.ignore(pipe[0])
    os.write(pipe[1], b"x")
    poll.wait(0)
    assert seen == []


def test_breaks_are_always_told(pipe: tuple[int, int]) -> None:
    """That a descriptor has broken is told even if nothing else is wanted of it."""
    poll, seen = Poll(), []
    poll.watch(pipe[0], 0, seen.append)
    os.close(pipe[1])
    poll.wait(1000)
    assert seen[0] & BROKEN


def test_numbers_that_are_used_again() -> None:
    """What has happened to a descriptor is not told to whoever gets its number in the same turn."""
    poll, seen = Poll(), []
    one, two = os.pipe(), os.pipe()
    os.write(one[1], b"x")
    os.write(two[1], b"x")

    def replace(first: int, second: int) -> None:
        """Close the other one, and open something that gets its number."""
        poll.ignore(second)
        os.dup2(quiet[0], second)
        poll.watch(second, IN, lambda event: seen.append("stale"))

    quiet = os.pipe()
    poll.watch(one[0], IN, lambda event: replace(one[0], two[0]))
    poll.watch(two[0], IN, lambda event: replace(two[0], one[0]))
    poll.wait(1000)
    assert seen == []
    for descriptor in (*one, *two, *quiet):
        os.close(descriptor)


# Sending


def drained(poll: Poll, outlet: Outlet, reader: int, length: int) -> bytes:
    found = b""
    while len(found) < length:
        found += os.read(reader, 1 << 20)
        poll.wait(0)
    assert outlet.waiting == 0
    return found


def test_little_goes_at_once(pipe: tuple[int, int]) -> None:
    """What fits goes at once, in one piece with the parts in their order."""
    poll = Poll()
    outlet = Outlet(poll, pipe[1], lambda: None)
    outlet.write(b"one", b"", memoryview(b"two"))
    assert os.read(pipe[0], 100) == b"onetwo"
    assert (outlet.waiting, outlet.sent) == (0, 6)


def test_much_goes_as_there_is_room(pipe: tuple[int, int]) -> None:
    """What does not fit goes later, in order, and whoever waits for room is told."""
    poll, told = Poll(), []
    outlet = Outlet(poll, pipe[1], lambda: None)
    outlet.on_room = lambda: told.append(outlet.waiting)
    parts = [bytes([n]) * 50_000 for n in range(2 * WRITE_PARTS)]
    outlet.write(*parts)
    outlet.write(b"last")
    assert outlet.waiting > 0
    assert drained(poll, outlet, pipe[0], 100_000 * WRITE_PARTS + 4) == b"".join(parts) + b"last"
    assert told == sorted(told, reverse=True)
    assert told[-1] == 0
    assert outlet.sent == 100_000 * WRITE_PARTS + 4


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """When nobody will ever read, that is told, and nothing waits any more."""
    poll, told = Poll(), []
    outlet = Outlet(poll, pipe[1], lambda: told.append(True))
    outlet.write(b"x" * 1_000_000)
    os.close(pipe[0])
    poll.wait(1000)
    assert told == [True]
    assert outlet.waiting == 0
    outlet.write(b"x")
    assert told == [True, True]


def test_forgetting(pipe: tuple[int, int]) -> None:
    """What has not been sent can be forgotten."""
    poll = Poll()
    outlet = Outlet(poll, pipe[1], lambda: None)
    outlet.write(b"x" * 1_000_000)
    outlet.clear()
    os.set_blocking(pipe[0], False)
    while True:
        try:
            os.read(pipe[0], 1 << 20)
        except BlockingIOError:
            break
    poll.wait(0)
    assert outlet.waiting == 0
