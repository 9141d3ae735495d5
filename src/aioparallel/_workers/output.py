"""What workers write: cut into lines, tagged, and shown where the executor's own prints go."""

from __future__ import annotations

import sys
from collections import deque

__all__ = ["Output"]

KEPT_LINES = 20
LONGEST_LINE = 10_000


class Output:
    """The output of one worker.

    Args:
        tag: Stands before each line, so that readers see who wrote it.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._rest = {1: b"", 2: b""}
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def last(self) -> str:
        """The last lines that the worker wrote, on either stream."""
        rest = [text.decode(errors="replace") for text in self._rest.values() if text]
        return "\n".join([*self._last, *rest])

    def write(self, stream: int, written: bytes) -> None:
        """Take what the worker wrote to standard output (1) or error (2)."""
        *lines, rest = (self._rest[stream] + written).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[stream] = rest
        for line in lines:
            self._show(stream, line)

    def close(self) -> None:
        """Show what was written without a line's end."""
        for stream, rest in self._rest.items():
            if rest:
                self._show(stream, rest)
                self._rest[stream] = b""

    def _show(self, stream: int, line: bytes) -> None:
        text = line.decode(errors="replace")
        self._last.append(text)
        target = sys.stdout if stream == 1 else sys.stderr
        try:
            target.write(f"[{self._tag}] {text}\n")
            target.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the program has closed its own output; the worker's last lines are kept all the same
