"""Where a board is drawn: over and over on a terminal or in a notebook, now and then where there is neither."""

from __future__ import annotations

import contextlib
import html
import importlib
import os
import shutil
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TextIO

from .picture import Line

__all__ = ["Cell", "Plain", "Screen", "Terminal", "screen_for"]

STYLES = {"head": "1", "bad": "31", "warn": "33", "dim": "2"}
LINE_SECONDS = 5.0
PLAIN = str.maketrans("·…▏▎▍▌▋▊▉█", "|.   #####")
"""What is written where only the letters of some language can be."""


class Screen(ABC):
    """Where a board is drawn.

    Attributes:
        interval: Seconds between two drawings.
        is_whole: Whether all of the board is drawn; otherwise only a line for each pool.
    """

    interval = 0.25
    is_whole = True

    def room(self) -> tuple[int | None, int | None]:
        """So many characters fit into a line, and so many lines; ``None`` for any number."""
        return None, None

    @abstractmethod
    def draw(self, lines: list[Line]) -> None:
        """Show these lines in place of those that were shown before."""

    @abstractmethod
    def finish(self, lines: list[Line]) -> None:
        """Show these lines, which stay."""


def screen_for(stream: TextIO | None = None) -> Screen:
    """The best that there is here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if stream is None and getattr(shell, "kernel", None) is not None:
        return Cell()
    try:
        is_terminal = (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # there is none, or it was closed
        is_terminal = False
    return Terminal(stream) if is_terminal else Plain(stream)


class _Written(Screen):
    """Writes to a stream; one that is closed, full or broken is no reason for anything to fail."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        if stream is not None:
            with contextlib.suppress(OSError, ValueError, LookupError):
                encoding = getattr(stream, "encoding", None)
                if encoding and not encoding.lower().startswith("utf"):  # a replacement must not be any wider
                    text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
                stream.write(text)
                stream.flush()


class Terminal(_Written):
    """Draws below whatever the program prints, which is not touched.

    Between two drawings the cursor rests on an empty line above the board. So a line that the program prints meanwhile
    stays, and the board moves down at the next drawing. (Of several lines at once, all but the first are printed over
    the board, and may keep the ends of its lines.)
    """

    def __init__(
        self, stream: TextIO | None = None, size: Callable[[], os.terminal_size] = shutil.get_terminal_size
    ) -> None:
        super().__init__(stream)
        self._size = size
        self._is_plain = bool(os.environ.get("NO_COLOR"))

    def room(self) -> tuple[int, int]:
        """What the terminal has, but for the line where the cursor rests, and the last column and line."""
        columns, lines = self._size()
        return columns - 1, max(1, lines - 2)

    def draw(self, lines: list[Line]) -> None:
        """Draw, and go back to where that began."""
        shown = lines[: self.room()[1]]
        self._write(f"\x1b[K\n{self._frame(shown)}\x1b[{len(shown) + 1}A")

    def finish(self, lines: list[Line]) -> None:
        """Draw, and stay below it."""
        self._write(f"\x1b[K{self._frame(lines)}")

    def _frame(self, lines: list[Line]) -> str:
        width = self._size().columns - 1
        return "".join(f"\r{self._styled(line, width)}\x1b[K\n" for line in lines) + "\x1b[J"

    def _styled(self, line: Line, width: int) -> str:
        text = _cut(_clean(line.text), width)
        return text if self._is_plain or not line.style else f"\x1b[{STYLES[line.style]}m{text}\x1b[0m"


class Plain(_Written):
    """Few lines, as they end up in a log, and only those that are new."""

    interval = LINE_SECONDS
    is_whole = False

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._last: set[str] = set()

    def draw(self, lines: list[Line]) -> None:
        """Write what was not written the last time."""
        texts = [_clean(line.text) for line in lines]
        self._write("".join(f"{text}\n" for text in texts if text not in self._last))
        self._last = set(texts)

    def finish(self, lines: list[Line]) -> None:
        """Write it all."""
        self._last = set()
        self.draw(lines)


def _clean(text: str) -> str:
    """A text that moves no cursor: what calls fail with may come from anywhere."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _cut(text: str, width: int) -> str:
    """What of a text fits into so many places, of which some letters take two, and some none."""
    if text.isascii():
        return text[:width]
    for place, char in enumerate(text):
        width -= 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width < 0:
            return text[:place]
    return text


class Cell(Screen):
    """Draws among the output of a notebook's cell. It needs no widgets."""

    def __init__(self) -> None:
        display: Any = importlib.import_module("IPython.display")
        self._handle = display.display(_page([]), raw=True, display_id=True)

    def draw(self, lines: list[Line]) -> None:
        """Show this in the cell in which the board was opened."""
        self._handle.update(_page(lines), raw=True)

    def finish(self, lines: list[Line]) -> None:
        """The same."""
        self.draw(lines)


CELL_STYLES = {"head": "font-weight:bold", "bad": "color:#c22", "warn": "color:#a60", "dim": "opacity:.6"}


def _page(lines: list[Line]) -> dict[str, str]:
    spans = (f'<span style="{CELL_STYLES.get(line.style, "")}">{html.escape(line.text)}</span>' for line in lines)
    page = f'<pre style="line-height:1.2;font-size:12px">{chr(10).join(spans)}</pre>'
    return {"text/plain": "\n".join(line.text for line in lines), "text/html": page}
