"""`aioparallel report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioparallel import SerialExecutor
from aioparallel.cli import main


@pytest.fixture
async def trace(tmp_path: Path) -> Path:
    path = tmp_path / "run.json.gz"
    async with SerialExecutor() as pool:
        pool.trace(path)
        await pool.submit(pow, 2, 10)
    return path


def test_beside_the_trace(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page goes beside the trace, and the command says where."""
    assert main(["report", str(trace)]) == 0
    target = trace.with_name("run.html")
    assert "pow" in target.read_text(encoding="utf-8")
    assert str(target) in capsys.readouterr().err


@pytest.mark.parametrize("output", ["-", "other.html"])
def test_elsewhere(trace: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The page goes where it is wanted, also to standard output."""
    target = output if output == "-" else str(trace.with_name(output))
    assert main(["report", str(trace), "-o", target]) == 0
    text = capsys.readouterr().out if output == "-" else Path(target).read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")


def test_what_cannot_be_done(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, is no trace, or cannot be written is said in a line."""
    assert main(["report", str(trace.with_name("missing"))]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    bad = trace.with_name("bad.json")
    bad.write_text("no")
    assert main(["report", str(bad)]) == 2
    assert "is no trace" in capsys.readouterr().err
    assert main(["report", str(trace), "-o", str(trace / "x.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
