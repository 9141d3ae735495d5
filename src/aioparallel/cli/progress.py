"""How far a command has come, on standard error: standard output belongs to its results."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from time import monotonic
from typing import Self, TextIO

__all__ = ["Progress"]


class Progress:
    """Tells of one stage: on a terminal by one line that is written over, elsewhere by a line now and then.

    Work does not end because nobody can be told of it: a standard error that is closed, full or broken is no error.

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
        self._stream = stream or sys.stderr or io.StringIO()  # a program may be started without a standard error
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
            self._write("\n")

    def _tell(self) -> None:
        self._told = self._done
        line = f"{self._doing}: {self._done} of {self._total} files"
        # A line that is longer than the terminal is wide could not be written over.
        self._write(f"\r{line[: _width() - 1]}\x1b[K" if self._is_terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._stream, self._is_terminal = io.StringIO(), False


def _width() -> int:
    return shutil.get_terminal_size().columns
