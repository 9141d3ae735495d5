from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from aioparallel import ProcessExecutor
from aioparallel.cli import main
from aioparallel.cli.demo import _all
from aioparallel.cli.files import Failure
from aioparallel.cli.progress import Progress

SIMPLE = "def simple():\n    return 1\n"
COMPLEX = "def complex(a, b):\n    if a and b:\n        return 1\n    return 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files and a bad one."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "simple.py").write_text(SIMPLE)
    (tmp_path / "inner" / "complex.py").write_text(COMPLEX)
    (tmp_path / "bad.py").write_text("def f(:\n")
    return tmp_path


def test_json_is_all_that_standard_output_gets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, standard output is one JSON document, while progress goes to standard error."""
    assert main(["demo", str(folder), "--json", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["folder"] == str(folder)
    assert record["totals"]["files"] == 2
    assert record["totals"]["functions"] == 2
    assert [one["name"] for one in record["most_complex"]] == ["complex", "simple"]
    assert record["failures"] == [{"path": "bad.py", "reason": "line 1: invalid syntax"}]
    assert record["serial_run_agrees"] is True
    assert record["timings"]["processes"] == 1
    assert "Reading: 3 of 3 files\nMeasuring: 3 of 3 files\nOnce more, serially: 3 of 3 files\n" in err


def test_watched_and_traced(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --watch there is a board in place of the progress, and with --trace a trace of both executors."""
    trace = tmp_path / "demo.json"
    assert main(["demo", str(folder), "--watch", "--trace", str(trace), "--workers", "1"]) == 0
    err = capsys.readouterr().err
    assert "thread: " in err
    assert "process: " in err
    assert "Reading:" not in err
    names = {event["name"] for event in json.loads(trace.read_text()) if event["ph"] == "X"}
    assert names == {"read_files", "measure_sources"}
    assert main(["demo", str(folder), "--trace", str(folder)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_times_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage took some time, the whole took no less than its stages, and the speed-up is what follows from them."""
    main(["demo", str(folder), "--json"])
    timings = json.loads(capsys.readouterr().out)["timings"]
    assert min(timings[name] for name in ("read", "measure", "serial")) > 0
    assert timings["parallel"] >= timings["read"] + timings["measure"]
    assert timings["speedup"] == pytest.approx(timings["serial"] / timings["parallel"])


def test_the_report_for_readers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a readable report is printed, in which each ranking shows as many as are asked for."""
    assert main(["demo", str(folder), "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 Python files" in out
    assert f"{os.path.join('inner', 'complex.py')}:1  complex" in out
    assert "2.  " not in out.partition("Time")[0]
    assert "bad.py: line 1: invalid syntax" in out
    assert "found the same" in out


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("missing", "does not exist"), ("bad.py", "is not a folder"), ("empty", "there are no Python files in")],
)
def test_a_folder_that_cannot_be_measured(
    folder: Path, name: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is missing, or none, or without Python files is named in one line, and the exit code is 2."""
    (folder / "empty").mkdir()
    assert main(["demo", str(folder / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert str(folder / name) in err
    assert err.count("\n") == 1


def test_a_folder_that_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When no file can be reached because a folder is closed, that is said, and why."""

    def closed(path: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", closed)  # root may look everywhere
    assert main(["demo", str(folder)]) == 2
    assert "(.: Permission denied)" in capsys.readouterr().err


def test_standard_error_is_closed(folder: Path) -> None:
    """Without a standard error, the report is printed all the same."""
    command = 'exec "$0" -m aioparallel demo "$1" --json 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(folder)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["totals"]["files"] == 2


@pytest.mark.parametrize("option", ["--workers", "--top"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_numbers_are_checked(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of workers or ranks that is not positive is refused, and named."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: expected a number from 1 on, got '{value}'" in capsys.readouterr().err


async def test_a_lost_worker_costs_its_files_only() -> None:
    """When a worker dies, the files of its call become failures that say so, and the other calls are not concerned."""
    async with ProcessExecutor(max_workers=1) as pool:
        calls = {pool.submit(os._exit, 3): ["a.py", "b.py"], pool.submit(list, [1, 2]): ["c.py"]}
        with Progress("Measuring", 3, io.StringIO()) as progress:
            results = await _all(calls, progress)
    assert [1, 2] in results
    (lost,) = (result for result in results if result != [1, 2])
    assert [failure.path for failure in lost] == ["a.py", "b.py"]
    assert all(isinstance(failure, Failure) and "exited with code 3" in failure.reason for failure in lost)


def test_python_m(folder: Path) -> None:
    """The package can be run as a program."""
    command = [sys.executable, "-m", "aioparallel", "demo", str(folder), "--json", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["totals"]["files"] == 2


def test_on_a_remote_host(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --remote the files are measured on a host that needs no set-up, with the same result."""
    assert main(["demo", str(folder), "--json", "--remote", "--workers", "2"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["totals"]["files"] == 2
    assert record["serial_run_agrees"] is True
    assert record["timings"]["processes"] == 2
