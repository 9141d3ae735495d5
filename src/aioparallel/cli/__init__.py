"""The command ``aioparallel``: one module for each of its commands, imported when it is called for.

A command's module has ``add_arguments(parser)``, and ``run(options)`` which returns the exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["CommandError", "main", "show"]

COMMANDS = {
    "demo": "measure the Python files of a folder with all CPUs, and compare with one",
    "doctor": "check remote hosts, each phase of each, and say how to mend what fails",
    "hosts": "list the hosts that a file names",
    "report": "make a page of HTML of what pool.trace() has written",
}

EPILOG = "exit codes: 0 done, 1 a host cannot be used (doctor), 2 wrong arguments, 130 interrupted"


class CommandError(Exception):
    """What was asked for cannot be done. The message says why to whoever typed it; a traceback would not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after the program's name; those of this process by default.

    Returns:
        The exit code.

    Raises:
        SystemExit: With 2 for unknown commands and options, and with 0 after ``--help``: what :mod:`argparse` does.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser(words).parse_args(words)
    try:
        return int(options.run(options))
    except CommandError as error:
        print(f"aioparallel {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def show(text: str) -> None:
    """Print a result on standard output. A reader that has seen enough (``| head``) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """A parser that knows all commands, but the arguments of the one that is called only."""
    import argparse
    from importlib import import_module

    parser = argparse.ArgumentParser(prog="aioparallel", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    parsers = {name: subparsers.add_parser(name, help=does, epilog=EPILOG) for name, does in COMMANDS.items()}
    called = next((word for word in words if not word.startswith("-")), None)
    if called in parsers:
        module = import_module(f".{called}", __name__)
        module.add_arguments(parsers[called])
        parsers[called].set_defaults(run=module.run)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("aioparallel")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
