"""How far a command has come, on standard error: standard output belongs to its results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Self, TextIO

__all__ = ["Progress"]


class Progress:
    """Tells of one stage: on a terminal by one line that is written over, elsewhere by a line now and then.

    Args:
        doing: What is done, for instance ``"Reading"``.
        total: Of how many files.
        stream: Where it is told; standard error by default.
        clock: Gives the time in seconds.
    """

    def __init__(
        self, doing: str, total: int, stream: TextIO | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._doing = doing
        self._total = total
        self._done = 0
        self._told = -1
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._is_terminal = self._stream.isatty()
        self._interval = 0.1 if self._is_terminal else 5.0
        self._next = clock() + self._interval

    def advance(self, files: int) -> None:
        """Count some files more, and tell of it when it is time to."""
        self._done += files
        now = self._clock()
        if now >= self._next:
            self._next = now + self._interval
            self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Tell how far it came, and leave the line to others."""
        if self._told != self._done:
            self._tell()
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _tell(self) -> None:
        self._told = self._done
        line = f"{self._doing}: {self._done} of {self._total} files"
        self._stream.write(f"\r{line}\x1b[K" if self._is_terminal else f"{line}\n")
        self._stream.flush()
