"""What workers write."""

from __future__ import annotations

import io
import sys

import pytest

from aioparallel._workers.output import KEPT_LINES, LONGEST_LINE, Output


@pytest.fixture
def output() -> Output:
    return Output("cpu-0")


def test_lines_are_tagged(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is shown with the worker's name, on the stream that it was written to."""
    output.write(1, b"one\ntwo\n")
    output.write(2, b"oops\n")
    assert capsys.readouterr() == ("[cpu-0] one\n[cpu-0] two\n", "[cpu-0] oops\n")


def test_lines_come_in_pieces(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is shown when it is complete, and lines of different streams do not mix."""
    output.write(1, b"he")
    output.write(2, b"oo")
    output.write(1, b"llo\nnext")
    assert capsys.readouterr() == ("[cpu-0] hello\n", "")
    output.write(2, b"ps\n")
    assert capsys.readouterr() == ("", "[cpu-0] oops\n")


def test_characters_come_in_pieces(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """A character may be cut between two pieces; bytes that are none are replaced."""
    for byte in "ü\n".encode():
        output.write(1, bytes([byte]))
    output.write(1, b"\xff\n")
    assert capsys.readouterr().out == "[cpu-0] ü\n[cpu-0] \ufffd\n"


def test_the_end(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written without a line's end is shown in the end, once."""
    output.write(1, b"no end")
    output.close()
    output.close()
    assert capsys.readouterr().out == "[cpu-0] no end\n"
    assert output.last == "no end"


def test_last_lines(output: Output) -> None:
    """The last lines of both streams are kept, with the unfinished ones."""
    output.write(1, b"".join(b"%d\n" % number for number in range(100)))
    output.write(2, b"oops\nun")
    output.write(1, b"finished")
    *kept, out, err = output.last.split("\n")
    assert kept == [*map(str, range(101 - KEPT_LINES, 100)), "oops"]
    assert {out, err} == {"finished", "un"}


def test_endless_lines(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that does not end is cut, and not kept in memory without bound."""
    for _ in range(100):
        output.write(1, b"x" * 1000)
    shown = capsys.readouterr().out.splitlines()
    assert [len(line) for line in shown] == [LONGEST_LINE + 1000 + len("[cpu-0] ")] * 9
    assert len(output._rest[1]) <= LONGEST_LINE


@pytest.mark.parametrize("stream", [None, "closed", "broken"])
def test_programs_without_output(output: Output, stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has closed its own output, or has none, is not disturbed."""
    target = None if stream is None else io.StringIO()
    if stream == "closed":
        assert target is not None
        target.close()
    elif target is not None:
        monkeypatch.setattr(target, "write", lambda text: (_ for _ in ()).throw(BrokenPipeError()))
    monkeypatch.setattr(sys, "stdout", target)
    output.write(1, b"line\n")
    assert output.last == "line"
