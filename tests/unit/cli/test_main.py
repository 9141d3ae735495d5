from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from aioparallel import cli
from aioparallel.cli import CommandError, main

Run = Callable[[argparse.Namespace], int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Adds a command "fake", which takes one number and does what it is told."""

    def add(run: Run) -> None:
        module = ModuleType("aioparallel.cli.fake")
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int)  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "fake", "do as it is told")

    return add


def test_a_command_gets_its_options_and_gives_the_exit_code(command: Callable[[Run], None]) -> None:
    """A command is run with the options of its own module, and what it returns is the exit code."""
    command(lambda options: options.number)
    assert main(["fake", "--number", "7"]) == 7


def test_a_command_that_cannot_be_done_is_explained(
    command: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that cannot be done ends with 2, one line on standard error, and no traceback."""

    def refuse(options: argparse.Namespace) -> int:
        raise CommandError("there is nothing to do")

    command(refuse)
    assert main(["fake"]) == 2
    assert capsys.readouterr() == ("", "aioparallel fake: there is nothing to do\n")


def test_an_interrupt_ends_quietly(command: Callable[[Run], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupting a command ends it with 130, as shells expect, and no traceback."""

    def interrupt(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    command(interrupt)
    assert main(["fake"]) == 130
    assert capsys.readouterr() == ("", "Interrupted.\n")


@pytest.mark.parametrize("words", [[], ["unknown"], ["--unknown"], ["fake", "--unknown"], ["fake", "--number", "x"]])
def test_wrong_usage_ends_with_2(
    words: list[str], command: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command line that makes no sense is answered with the usage, and ends with 2."""
    command(lambda options: 0)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: aioparallel" in capsys.readouterr().err


def test_help_names_the_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Help names every command with what it does, and the exit codes."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {does}" in said for name, does in cli.COMMANDS.items())
    assert cli.EPILOG in said


def test_every_command_has_a_module() -> None:
    """Help can be asked of every command in the table."""
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0


def test_help_imports_no_command() -> None:
    """What a command needs is imported only when it is called."""
    code = (
        "import sys; from aioparallel.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "argparse" in done.stdout.split()
    assert not {"aioparallel.cli.demo", "asyncio", "anyio"} & set(done.stdout.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is told, or that the package is not installed."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("aioparallel ")


def test_words_come_from_the_command_line_by_default(
    command: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without words of its own, the program takes those it was called with."""
    command(lambda options: options.number)
    monkeypatch.setattr(sys, "argv", ["aioparallel", "fake", "--number", "3"])
    assert main() == 3


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """A pipe that is closed at its other end is no error for whoever prints a result."""
    code = (
        "import sys; from aioparallel.cli import show\n"
        "sys.stdin.readline(); show('x' * 1_000_000); show('more'); print('and more')"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.close()
        _, err = program.communicate(b"go on\n")
    assert (program.returncode, err) == (0, b"")
