"""The page: memory that a worker shares with its agent and its executor.

It answers, without a system call and whatever happened to the worker, what the worker is
doing::

       0  u64   bytes in the outbox that count
       8  f64   since when the call of the first thread waits for what is not its own: imports (0: it does not)
      64  per thread of the worker: f64 time its call began, less what was not its own, u64 number of that call, with
          the highest bit set as soon as it has ended
    2048  one flag per call in flight (number modulo 2048): asks the worker to give it back, or says it is cancelled
    4151  9 bytes of room for a frame header, so that the outbox is sent as it lies
    4160  the outbox: answers that were not sent yet
  266304  notes: what the items of the chunk that runs have returned (see :mod:`.chunks`)

The worker writes the number of a call *before* it looks at the flag, and who sets a
flag does so before looking at the number. When a call has ended, the worker takes its
flag down. It commits an answer to the outbox before the next call's number, so when it
is killed, every answer before the running call is in the outbox or was sent, and the
number names the one call to blame.
"""

from __future__ import annotations

import errno
import mmap
import os

OUTBOX = 256 * 1024
HEADER = 9
BOX_AT = 4160
NOTES_AT = BOX_AT + OUTBOX
NOTES = 4096
"""Items that can be noted."""
PICKLES = 64 * 1024
"""Bytes for those that are noted as pickles."""
SIZE = NOTES_AT + NOTES + 8 * NOTES + PICKLES
FLAGS_AT = 2048
FLAGS = 2048
MAX_THREADS = 100

TAKEN_BACK = 1
"""A flag: somebody else will run the call, unless it has begun."""
CANCELLED = 2
"""A flag: nobody wants the call's result any more."""

FORGIVEN = 60.0
"""Seconds that an import may take, which do not count; what takes longer hangs."""
_ENDED = 1 << 63
_PAUSED = 1
_FIRST = 8
"""Thread slots begin at byte 64; each has 16 bytes."""


def create(path: str) -> None:
    """Make the file of a page."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _reserve(descriptor)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _reserve(descriptor: int) -> None:
    """Take the room now: whoever writes to memory for which the disk has no room later dies by SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, SIZE)
    except (AttributeError, OSError) as error:  # not every system and file system can
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        os.ftruncate(descriptor, SIZE)


class Notes:
    """What the items of a chunk returned, in their order: a tag for each, and a number or a pickle."""

    INT, FLOAT, NONE, PICKLED, FAILED = 1, 2, 3, 4, 5

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.tags = memory[:NOTES]
        numbers = memory[NOTES : 9 * NOTES]
        self.ints = numbers.cast("q")
        self.floats = numbers.cast("d")
        self._pickles = memory[9 * NOTES :]
        self._end = 0

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self.tags, self.ints, self.floats, self._pickles, self._memory):
            view.release()

    def raw(self) -> bytes:
        """All notes as they lie here, for another :class:`Notes` to be made of a copy."""
        return bytes(self._memory)

    def clear(self) -> None:
        """A chunk begins."""
        self.tags[:] = bytes(NOTES)
        self._end = 0

    def keep(self, index: int, pickled: bytes, *, failed: bool) -> bool:
        """Note a pickle, whose place and length go where a number would; returns whether there was room."""
        start, end = self._end, self._end + len(pickled)
        if end > PICKLES:
            return False
        self._pickles[start:end] = pickled
        self.ints[index] = start << 32 | len(pickled)
        self.tags[index] = self.FAILED if failed else self.PICKLED
        self._end = end
        return True

    def count(self) -> int:
        """How many items are noted."""
        found = bytes(self.tags).find(0)
        return NOTES if found < 0 else found

    def read(self) -> list[tuple[int, object]]:
        """The tag, and the number or pickle, of each item that is noted."""
        return [(self.tags[index], self._value(index)) for index in range(self.count())]

    def _value(self, index: int) -> object:
        tag = self.tags[index]
        if tag == self.INT:
            return self.ints[index]
        if tag == self.FLOAT:
            return self.floats[index]
        if tag == self.NONE:
            return None
        start, length = divmod(self.ints[index], 1 << 32)
        return bytes(self._pickles[start : start + length])


class Page:
    """One side's view of a page."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:FLAGS_AT].cast("Q")
        self._times = self._bytes[:FLAGS_AT].cast("d")
        self.flags = self._bytes[FLAGS_AT : FLAGS_AT + FLAGS]
        self.box = self._bytes[BOX_AT:NOTES_AT]
        self.framed_box = self._bytes[BOX_AT - HEADER : NOTES_AT]
        self.notes = Notes(self._bytes[NOTES_AT:])

    def close(self) -> None:
        """Let go of the memory; the page may not be used again."""
        self.notes.close()
        for view in (self._words, self._times, self.flags, self.box, self.framed_box, self._bytes):
            view.release()
        self._map.close()

    # The worker writes

    def begin(self, number: int, now: float, thread: int = 0) -> bool:
        """Say that a call begins. Returns whether it was asked back instead."""
        slot = _FIRST + 2 * thread
        self._times[slot] = now
        self._words[slot + 1] = number
        return self.flags[number % FLAGS] != 0

    def pause(self, now: float) -> bool:
        """From now on, time is not the call's own. Returns false if that is so already."""
        if self._times[_PAUSED]:
            return False
        self._times[_PAUSED] = now
        return True

    def resume(self, now: float) -> None:
        """The call goes on, as if it had begun so much later."""
        self._times[_FIRST] += min(now - self._times[_PAUSED], FORGIVEN)
        self._times[_PAUSED] = 0.0

    def end(self, thread: int = 0) -> None:
        """Say that no call runs."""
        self._words[_FIRST + 2 * thread + 1] |= _ENDED

    def commit(self, length: int) -> None:
        """So many bytes of the outbox count from now on."""
        self._words[0] = length

    # The others read

    def running(self, thread: int = 0) -> tuple[int, float]:
        """The number of the call that runs (0: none), and when it began (``time.monotonic``)."""
        slot = _FIRST + 2 * thread
        number = self._words[slot + 1]
        return 0 if number & _ENDED else number, self._times[slot]

    def all_running(self, threads: int) -> dict[int, float]:
        """The numbers of all calls that run, and when each began."""
        running = (self.running(thread) for thread in range(threads))
        return {number: began for number, began in running if number}

    def age(self, number: int, now: float) -> float:
        """For how long a call has been running in the first thread, in seconds of its own; 0 if it is not."""
        running, began = self.running()
        paused = self._times[_PAUSED]
        if paused:
            now = max(paused, now - FORGIVEN)
        return now - began if running == number else 0.0

    def latest(self) -> int:
        """The number of the call that began last, whether it has ended or not (0: none has)."""
        return self._words[_FIRST + 1] & ~_ENDED

    def flag(self, number: int, value: int) -> None:
        """Set the flag of a call, or take it down (0)."""
        self.flags[number % FLAGS] = value

    def unsent(self) -> bytes:
        """The answers in the outbox. Only sure while the worker is stopped, or stays in one call."""
        return bytes(self.box[: min(self._words[0], OUTBOX)])
