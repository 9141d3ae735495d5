from __future__ import annotations

import io

import pytest

from aioparallel.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(stream: io.StringIO, clock: Clock, step: float) -> str:
    with Progress("Reading", 40, stream, clock) as progress:
        for _ in range(4):
            clock.now += step
            progress.advance(10)
    return stream.getvalue()


def test_on_a_terminal_one_line_is_written_over(clock: Clock) -> None:
    """On a terminal each message replaces the one before, and the last one ends its line."""
    said = run(Terminal(), clock, step=0.06)
    assert said == "\rReading: 20 of 40 files\x1b[K\rReading: 40 of 40 files\x1b[K\n"


def test_elsewhere_lines_are_few(clock: Clock) -> None:
    """Where there is no terminal, a plain line is written every five seconds and at the end."""
    said = run(io.StringIO(), clock, step=4)
    assert said == "Reading: 20 of 40 files\nReading: 40 of 40 files\n"


def test_quick_work_is_told_once(clock: Clock) -> None:
    """Work that is over before the first message was due is told of when it ends."""
    assert run(io.StringIO(), clock, step=0) == "Reading: 40 of 40 files\n"


def test_an_error_leaves_the_line_behind(clock: Clock) -> None:
    """When the work fails, the line is ended, and says how far it came."""
    terminal = Terminal()

    def fail() -> None:
        with Progress("Reading", 40, terminal, clock) as progress:
            progress.advance(7)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert terminal.getvalue() == "\rReading: 7 of 40 files\x1b[K\n"


def test_a_narrow_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message is longer than the terminal is wide: it could not be written over."""
    monkeypatch.setenv("COLUMNS", "12")
    said = run(Terminal(), clock, step=0)
    assert said == "\rReading: 40\x1b[K\n"


class Full(Terminal):
    """What is written to it does not arrive."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_nobody_can_be_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work goes on when standard error is full or broken, and when there is none."""
    run(Full(), clock, step=4)
    monkeypatch.setattr("sys.stderr", None)
    with Progress("Reading", 1, clock=clock) as progress:
        progress.advance(1)


def test_it_goes_to_standard_error(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is told on standard error, and never on standard output."""
    with Progress("Reading", 1, clock=clock):
        pass
    assert capsys.readouterr() == ("", "Reading: 0 of 1 files\n")
