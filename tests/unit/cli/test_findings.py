from __future__ import annotations

import json
from dataclasses import replace

import pytest

from aioparallel.cli.analysis import FileMeasure, FunctionMeasure
from aioparallel.cli.files import Failure
from aioparallel.cli.findings import Report, Timings, as_json, as_text

TIMINGS = Timings(read=0.25, measure=2.5, parallel=3.0, serial=5.4, threads=4, processes=2)


def function(name: str, lines: int, complexity: int, nesting: int, path: str = "a.py") -> FunctionMeasure:
    return FunctionMeasure(path, 7, name, lines, complexity, nesting)


@pytest.fixture
def report() -> Report:
    return Report(
        folder="/srv/code",
        files=[
            FileMeasure(
                "a.py", 1_500_000, 1200, 2, 11, (function("long", 90, 1, 0), function("Class.complex", 20, 10, 1))
            ),
            FileMeasure("b/c.py", 500_000, 34, 1, 5, (function("nested", 20, 5, 4, "b/c.py"),)),
        ],
        failures=[Failure("bad.py", "line 3: invalid syntax")],
        timings=TIMINGS,
        top=2,
        agreed=True,
    )


def test_the_text_for_readers(report: Report) -> None:
    """The text ranks functions and files, names what could not be measured, and compares the times."""
    assert as_text(report) == (
        """\
/srv/code
2 Python files, 2.0 MB: 1,234 lines and 3 functions, of complexity 5.3 on average

Most complex functions (ways through them)
   1.      10  a.py:7    Class.complex
   2.       5  b/c.py:7  nested

Longest functions (lines)
   1.      90  a.py:7  long
   2.      20  a.py:7  Class.complex

Most nested functions (blocks in blocks)
   1.       4  b/c.py:7  nested
   2.       1  a.py:7    Class.complex

Biggest files (lines)
   1.   1,200  a.py
   2.      34  b/c.py

Could not be measured (1)
      bad.py: line 3: invalid syntax

Time (seconds)
         0.25  reading, in 4 threads
         2.50  measuring, in 2 processes
         3.00  all of it, with starting and ending these
         5.40  the same work, one file after another

1.80 times as fast as the serial run, which found the same"""
    )


def test_the_record_for_programs(report: Report) -> None:
    """The record for programs survives JSON, and holds numbers under names, unrounded."""
    record = json.loads(json.dumps(as_json(report)))
    assert list(record) == [
        "folder",
        "totals",
        "most_complex",
        "longest",
        "most_nested",
        "biggest_files",
        "failures",
        "timings",
        "serial_run_agrees",
    ]
    assert record["totals"] == {
        "files": 2,
        "failures": 1,
        "size": 2_000_000,
        "lines": 1234,
        "functions": 3,
        "complexity": 16,
    }
    assert record["longest"][0] == {
        "path": "a.py",
        "line": 7,
        "name": "long",
        "lines": 90,
        "complexity": 1,
        "nesting": 0,
    }
    assert [one["name"] for one in record["most_complex"]] == ["Class.complex", "nested"]
    assert record["biggest_files"][0] == {
        "path": "a.py",
        "size": 1_500_000,
        "lines": 1200,
        "functions": 2,
        "complexity": 11,
    }
    assert record["failures"] == [{"path": "bad.py", "reason": "line 3: invalid syntax"}]
    assert record["timings"]["speedup"] == pytest.approx(1.8)
    assert record["timings"]["processes"] == 2
    assert record["serial_run_agrees"] is True


def test_equals_are_ranked_by_their_place(report: Report) -> None:
    """Functions of the same rank stand in the order of their files and lines, whoever ended first."""
    twins = [function("later", 5, 5, 5, "z.py"), function("sooner", 5, 5, 5, "a.py")]
    files = [FileMeasure(one.path, 1, 1, 1, 5, (one,)) for one in twins]
    record = as_json(replace(report, files=files))
    for ranking in ("most_complex", "longest", "most_nested"):
        assert [one["name"] for one in record[ranking]] == ["sooner", "later"]
    assert [one["path"] for one in record["biggest_files"]] == ["a.py", "z.py"]


def test_nothing_but_failures(report: Report) -> None:
    """A report about files of which none could be measured has no rankings, and is still a report."""
    text = as_text(replace(report, files=[]))
    assert "0 Python files, 0.0 MB: 0 lines and 0 functions, of complexity 0.0 on average" in text
    assert "Longest" not in text
    assert "Biggest" not in text
    assert "bad.py" in text


def test_nothing_but_good_files(report: Report) -> None:
    """Where all could be measured, nothing is said about failures."""
    assert "Could not" not in as_text(replace(report, failures=[]))


def test_many_failures_are_cut_short(report: Report) -> None:
    """Twenty failures are shown; how many more there are is said."""
    text = as_text(replace(report, failures=[Failure(f"{number}.py", "no") for number in range(25)]))
    assert "Could not be measured (25)" in text
    assert "      19.py: no\n      and 5 more, which --json lists\n" in text


def test_runs_that_disagree_are_told_of(report: Report) -> None:
    """When the two runs did not find the same, the reader is told."""
    assert as_text(replace(report, agreed=False)).endswith("did not find the same: did the files change meanwhile?")


def test_too_little_work(report: Report) -> None:
    """When the parallel run was the slower one, the reader is told why, and no factor below one."""
    text = as_text(replace(report, timings=replace(TIMINGS, serial=0.01)))
    assert text.endswith("so little work is not worth the start of processes; it found the same")
    assert "times as fast" not in text


def test_one_is_singular(report: Report) -> None:
    """One thread and one process are not called threads and processes."""
    text = as_text(replace(report, timings=replace(TIMINGS, threads=1, processes=1)))
    assert "in 1 thread\n" in text
    assert "in 1 process\n" in text
