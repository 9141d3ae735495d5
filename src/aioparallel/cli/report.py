"""``aioparallel report``: a page of HTML made of a trace."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .._seeing.page import page
from .._seeing.runs import Run, read_run
from . import CommandError, show

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "trace", help="what `pool.trace(path)` has written; one that has no end is read as far as it goes"
    )
    parser.add_argument("-o", "--output", help="where the page goes, or - (default: beside the trace, ending in .html)")


def run(options: argparse.Namespace) -> int:
    """Read the trace, write the page, and say where."""
    trace = Path(options.trace)
    text = page(_read(trace), trace.name)
    if options.output == "-":
        show(text)
        return 0
    target = Path(options.output) if options.output else trace.with_name(_stem(trace) + ".html")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None
    print(f"{target}: open it in a browser", file=sys.stderr)
    return 0


def _read(trace: Path) -> Run:
    try:
        return read_run(trace)
    except OSError as error:
        raise CommandError(f"{trace} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(str(error)) from None


def _stem(trace: Path) -> str:
    return trace.name.removesuffix(".gz").removesuffix(".json")
