"""Screens: a terminal is drawn over without touching what the program prints, a log gets few lines."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest

from aioparallel._seeing.picture import Line
from aioparallel._seeing.screens import Cell, Plain, Terminal, screen_for


class Tty(io.StringIO):
    """A terminal, as far as programs ask."""

    def isatty(self) -> bool:
        return True


class Glass:
    """What a terminal shows: just enough of one to interpret what is written to it."""

    def __init__(self) -> None:
        self.rows: list[str] = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        while text:
            if text.startswith("\x1b["):
                end = next(place for place, char in enumerate(text) if char.isalpha())
                self._escape(text[2:end], text[end])
                text = text[end + 1 :]
            else:
                self._put(text[0])
                text = text[1:]

    def _escape(self, number: str, letter: str) -> None:
        if letter == "A":
            self.row -= int(number)
        elif letter == "K":
            self.rows[self.row] = self.rows[self.row][: self.column]
        elif letter == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
        else:
            assert letter == "m"

    def _put(self, char: str) -> None:
        if char == "\n":
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        elif char == "\r":
            self.column = 0
        else:
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1


def terminal(stream: io.StringIO, columns: int = 80, lines: int = 24) -> Terminal:
    return Terminal(stream, lambda: os.terminal_size((columns, lines)))


def board(*texts: str) -> list[Line]:
    return [Line(text) for text in texts]


def test_drawn_over() -> None:
    """Each drawing takes the place of the one before, also of a longer one."""
    stream, glass = Tty(), Glass()
    screen = terminal(stream)
    screen.draw(board("one long line", "two", "three"))
    screen.draw(board("uno", "due"))
    glass.feed(stream.getvalue())
    assert [row for row in glass.rows if row] == ["uno", "due"]


def test_what_the_program_prints_stays() -> None:
    """A line that the program prints between two drawings stays above the board."""
    stream, glass = Tty(), Glass()
    screen = terminal(stream)
    screen.draw(board("head", "row"))
    stream.write("printed by the program\n")
    screen.draw(board("head 2", "row 2"))
    stream.write("more\n")
    screen.finish(board("the end", "row 3"))
    stream.write("after that\n")
    glass.feed(stream.getvalue())
    assert [row for row in glass.rows if row] == [
        "printed by the program",
        "more",
        "the end",
        "row 3",
        "after that",
    ]


def test_no_wider_and_higher_than_the_terminal() -> None:
    """Lines are cut at the terminal's edge, and there are no more of them than fit: otherwise going back would fail."""
    stream, glass = Tty(), Glass()
    screen = terminal(stream, columns=10, lines=5)
    for _ in range(3):
        screen.draw(board(*(f"a long line {n}" for n in range(20))))
    glass.feed(stream.getvalue())
    assert glass.rows[1:4] == ["a long li"] * 3
    assert glass.row == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("計算計算計算", "計算計算"),  # two places each
        ("e\u0301" * 12, "e\u0301" * 9),  # an accent takes none
        ("ab\rcd\x1b[2Jef", "ab cd [2J"),
    ],
)
def test_letters_that_are_no_place_wide(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide letters are counted as the terminal does, and what would move its cursor is a space."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Tty()
    terminal(stream, columns=10).draw(board(text))
    assert f"\r{shown}\x1b[K\n" in stream.getvalue()


@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_a_terminal_without_all_letters(errors: str) -> None:
    """Where not every letter can be written, another one of the same width is."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors=errors)
    Plain(stream).draw(board("cpu · é █"))
    assert raw.getvalue() == b"cpu | ? #\n"


def test_room() -> None:
    """A terminal has room for its own width and height, less what drawing needs; a log has any."""
    assert terminal(Tty(), columns=80, lines=24).room() == (79, 22)
    assert Plain().room() == (None, None)


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines have colours, unless NO_COLOR says otherwise."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Tty(), Tty()
    terminal(coloured).draw([Line("bad", "bad")])
    monkeypatch.setenv("NO_COLOR", "1")
    terminal(plain).draw([Line("bad", "bad")])
    assert "\x1b[31mbad\x1b[0m" in coloured.getvalue()
    assert "\x1b[31m" not in plain.getvalue()


def test_plain_lines_are_sparse() -> None:
    """In a log, what has not changed is not written again, there are no escapes, and at the end all is."""
    stream = io.StringIO()
    screen = Plain(stream)
    screen.draw([Line("cpu: 1", "head"), Line("a death", "bad")])
    screen.draw([Line("cpu: 2", "head"), Line("a death", "bad")])
    screen.finish([Line("cpu: 2", "head"), Line("a death", "bad")])
    assert stream.getvalue() == "cpu: 1\na death\ncpu: 2\ncpu: 2\na death\n"


@pytest.mark.parametrize("kind", [Plain, Terminal])
def test_broken_stream(kind: Any) -> None:
    """A stream that is closed, or none at all, is no error."""
    stream = io.StringIO()
    stream.close()
    kind(stream).draw(board("x"))


def test_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a standard error shows nothing, and goes on."""
    monkeypatch.setattr(sys, "stderr", None)
    screen = screen_for()
    assert isinstance(screen, Plain)
    screen.draw(board("x"))


def test_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the board, unless it is dumb; anything else gets lines."""
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(screen_for(Tty()), Terminal)
    assert isinstance(screen_for(io.StringIO()), Plain)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screen_for(Tty()), Plain)


def test_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the board is one output, which is updated, and escapes what it shows."""
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, page: dict[str, str], raw: bool) -> None:
            assert raw
            shown.append(page)

    def display(page: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        return Handle()

    class Shell:
        kernel = object()

    modules = {
        "IPython": type("IPython", (), {"get_ipython": staticmethod(Shell)}),
        "IPython.display": type("display", (), {"display": staticmethod(display)}),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    screen = screen_for()
    assert isinstance(screen, Cell)
    screen.finish([Line("a < b", "bad")])
    assert shown[-1]["text/plain"] == "a < b"
    assert "a &lt; b" in shown[-1]["text/html"]
