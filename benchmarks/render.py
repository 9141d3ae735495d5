"""Writes the tables of ``benchmarks/results/*.json`` into ``docs/performance.md``: ``python -m benchmarks.render``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import headline
from benchmarks.record import CaseResult, Run
from benchmarks.report import as_markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["latest", "main", "put_between", "render"]

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
NOTHING = "No results have been published yet."


def render(runs: Sequence[Run]) -> str:
    """The results section: each case once, from the last run that has it."""
    parts: list[str] = []
    shown = None
    for run, result in latest(runs):
        if run is not shown:
            parts.append(_origin(run))
            shown = run
        parts.append(as_markdown(result))
    return "\n\n".join(parts) or NOTHING


def latest(runs: Sequence[Run]) -> list[tuple[Run, CaseResult]]:
    """Each case once, from the last run that has it."""
    return list({result.name: (run, result) for run in runs for result in run.cases}.values())


def _origin(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.machine["versions"].items())
    return f"*{run.machine['date']}: {headline(run.machine)}. {versions}.*"


def put_between(page: str, text: str) -> str:
    """``page`` with ``text`` in the place of what was between the two markers.

    Raises:
        ValueError: The page lacks a marker.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page must hold {BEGIN} and after it {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(argv: Sequence[str]) -> None:
    """Render the named JSON files, or all published ones in the order of their names."""
    files = [Path(name) for name in argv] or sorted(RESULTS.glob("*.json"))
    text = render([Run.load(file) for file in files])
    PAGE.write_text(put_between(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
