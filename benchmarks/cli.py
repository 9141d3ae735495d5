"""The command line: ``python -m benchmarks [CASE ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.harness import run_case
from benchmarks.record import Run
from benchmarks.report import as_text
from benchmarks.suite import Case, load_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases that the command line names, all of them by default, and print their tables."""
    cases = load_cases()
    options = parse(argv, cases)
    if options.list:
        for case in cases.values():
            print(f"{case.name:12} {case.title.format(size='N')}")
        return 0
    run = Run(machine.describe())
    print(machine.headline(run.machine))
    if warning := machine.load_warning(run.machine):
        print(warning)
    for name in options.cases or cases:
        result = run_case(cases[name], rounds=options.rounds, quick=options.quick, only=options.only, tell=_progress)
        _progress("")
        print(f"\n{as_text(result)}", flush=True)
        run.cases.append(result)
        if options.json:
            run.save(options.json)
    return 0


def parse(argv: Sequence[str] | None, cases: dict[str, Case]) -> argparse.Namespace:
    """Read the command line; an unknown case is a usage error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="aioparallel beside its rivals.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which cases to run; all by default")
    parser.add_argument("--rounds", type=_positive, help="how often each contestant is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, after each case")
    parser.add_argument("--list", action="store_true", help="show the cases and stop")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: to see whether it works")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="contestants with TEXT in the name")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.cases if name not in cases]:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(cases)}")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _progress(line: str) -> None:
    """Show what is being measured, on a terminal only, on one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
