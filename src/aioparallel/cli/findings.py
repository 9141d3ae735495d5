"""What the demo found, for readers and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from .analysis import FileMeasure, FunctionMeasure, by_complexity, by_length, by_nesting
from .files import Failure

__all__ = ["Report", "Timings", "as_json", "as_text"]

SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Timings:
    """How long it took, in seconds, and with how many workers.

    Attributes:
        read: The first stage, in threads.
        measure: The second stage, in processes.
        parallel: Both, with starting and ending the workers.
        serial: The same work, by one process and one file after another.
        threads: How many threads read.
        processes: How many processes measured.
    """

    read: float
    measure: float
    parallel: float
    serial: float
    threads: int
    processes: int

    @property
    def speedup(self) -> float:
        """How many times faster the parallel run was, as a whole."""
        return self.serial / self.parallel


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a folder.

    Attributes:
        folder: The folder.
        files: The files that could be measured.
        failures: Those that could not.
        timings: How long it took.
        top: How many each ranking shows.
        agreed: Whether the serial run found the very same.
    """

    folder: str
    files: Sequence[FileMeasure]
    failures: Sequence[Failure]
    timings: Timings
    top: int
    agreed: bool

    def foremost(self, key: Callable[[FunctionMeasure], Any]) -> list[FunctionMeasure]:
        """The functions that come first in one order."""
        return nsmallest(self.top, (function for file in self.files for function in file.foremost), key=key)

    def biggest(self) -> list[FileMeasure]:
        """The files with the most lines."""
        return nsmallest(self.top, self.files, key=lambda file: (-file.lines, file.path))

    def totals(self) -> dict[str, int]:
        """Sums over all files that could be measured."""
        return {name: sum(getattr(file, name) for file in self.files) for name in SUMMED}


SUMMED = ("size", "lines", "functions", "complexity")


def as_json(report: Report) -> dict[str, Any]:
    """A report for programs."""
    return {
        "folder": report.folder,
        "totals": {"files": len(report.files), "failures": len(report.failures), **report.totals()},
        "most_complex": _records(report.foremost(by_complexity)),
        "longest": _records(report.foremost(by_length)),
        "most_nested": _records(report.foremost(by_nesting)),
        "biggest_files": [_file_record(file) for file in report.biggest()],
        "failures": _records(report.failures),
        "timings": {**asdict(report.timings), "speedup": report.timings.speedup},
        "serial_run_agrees": report.agreed,
    }


def _records(items: Iterable[FunctionMeasure | Failure]) -> list[dict[str, Any]]:
    return [asdict(item) for item in items]


def _file_record(file: FileMeasure) -> dict[str, Any]:
    return {"path": file.path, **{name: getattr(file, name) for name in SUMMED}}


def as_text(report: Report) -> str:
    """A report for readers."""
    paragraphs = [
        [_headline(report)],
        _functions("Most complex functions (ways through them)", report.foremost(by_complexity), "complexity"),
        _functions("Longest functions (lines)", report.foremost(by_length), "lines"),
        _functions("Most nested functions (blocks in blocks)", report.foremost(by_nesting), "nesting"),
        _files("Biggest files (lines)", report.biggest()),
        _failures(report.failures),
        _timings(report.timings),
        [_verdict(report)],
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def _headline(report: Report) -> str:
    totals = report.totals()
    files = f"{_count(len(report.files), 'Python file')}, {totals['size'] / 1e6:,.1f} MB"
    lines, functions = _count(totals["lines"], "line"), _count(totals["functions"], "function")
    return f"{report.folder}\n{files}: {lines} and {functions}, of complexity {_mean(totals):.1f} on average"


def _mean(totals: dict[str, int]) -> float:
    return totals["complexity"] / max(1, totals["functions"])


def _count(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def _functions(title: str, functions: list[FunctionMeasure], field: str) -> list[str]:
    rows = ((getattr(one, field), f"{one.path}:{one.line}", one.name) for one in functions)
    return [title, *_ranked(rows)] if functions else []


def _files(title: str, files: list[FileMeasure]) -> list[str]:
    return [title, *_ranked((file.lines, file.path, "") for file in files)] if files else []


def _ranked(rows: Iterable[tuple[int, str, str]]) -> list[str]:
    """A table of a number, a place and a name."""
    found = list(rows)
    width = max((len(place) for _, place, _ in found), default=0)
    return [
        f"{rank:>4}. {number:>7,}  {place:<{width}}  {name}".rstrip()
        for rank, (number, place, name) in enumerate(found, start=1)
    ]


def _failures(failures: Sequence[Failure]) -> list[str]:
    if not failures:
        return []
    lines = [f"      {failure.path}: {failure.reason}" for failure in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"      and {len(failures) - SHOWN_FAILURES:,} more, which --json lists")
    return [f"Could not be measured ({len(failures):,})", *lines]


def _timings(timings: Timings) -> list[str]:
    rows = [
        (f"reading, in {_count(timings.threads, 'thread')}", timings.read),
        (f"measuring, in {_count(timings.processes, 'process', 'es')}", timings.measure),
        ("all of it, with starting and ending these", timings.parallel),
        ("the same work, one file after another", timings.serial),
    ]
    return ["Time (seconds)", *(f"{seconds:>13.2f}  {what}" for what, seconds in rows)]


def _verdict(report: Report) -> str:
    found = "found the same" if report.agreed else "did not find the same: did the files change meanwhile?"
    speedup = report.timings.speedup
    if speedup < 1:
        return f"Slower than the serial run, as so little work is not worth the start of processes; it {found}"
    return f"{speedup:.2f} times as fast as the serial run, which {found}"
