"""What workers write arrives in the program's own output, line by line and tagged, and delays nothing."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aioparallel import wait_all
from tests.tools import Gate, until


class Capture:
    """What has been written to the program's standard output or error."""

    def __init__(self, capsys: pytest.CaptureFixture[str], stream: int) -> None:
        self._capsys = capsys
        self._stream = stream
        self._text = ""

    @property
    def lines(self) -> list[str]:
        self._text += self._capsys.readouterr()[self._stream]
        return self._text.splitlines()


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Capture:
    return Capture(capsys, 0)


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Capture:
    return Capture(capsys, 1)


def shout(text: str) -> None:
    print(text)
    print(text.upper(), file=sys.stderr)


def write_below(text: str) -> None:
    """Write as C code and subprocesses do."""
    os.write(1, f"os.write {text}\n".encode())
    libc = ctypes.CDLL(None)
    libc.puts(f"puts {text}".encode())
    libc.fflush(None)
    subprocess.run(["echo", "echo", text], check=True)


def write_in_parts(gate: Gate) -> None:
    os.write(1, b"first ")
    gate.enter()
    while not gate.is_open:
        time.sleep(0.002)
    os.write(1, b"second\nunfinished")


def flood(lines: int) -> str:
    for n in range(lines):
        sys.stdout.write(f"line {n} {'x' * 80}\n")
    return "done"


def write_odd() -> None:
    os.write(1, b"\xff\xfe not text \x00\n")
    print("ümläut ☃ \udcff")


def close_output() -> str:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    return "closed"


async def test_prints(opened: Any, out: Capture) -> None:
    """Prints appear in the program's ``sys.stdout``, tagged with the worker."""
    pool = await opened(1, name="shouters")
    await pool.submit(shout, "hello")
    await until(lambda: out.lines)
    assert out.lines == ["[shouters-0] hello"]


async def test_errors(opened: Any, err: Capture) -> None:
    """What workers write to standard error appears in the program's ``sys.stderr``."""
    pool = await opened(1, name="shouters")
    await pool.submit(shout, "hello")
    await until(lambda: err.lines)
    assert err.lines == ["[shouters-0] HELLO"]


async def test_writes_below_python(opened: Any, out: Capture) -> None:
    """What C code and subprocesses write arrives as well."""
    pool = await opened(1)
    await pool.submit(write_below, "hello")
    await until(lambda: len(out.lines) == 3)
    assert out.lines == ["[process-0] os.write hello", "[process-0] puts hello", "[process-0] echo hello"]


async def test_partial_lines(opened: Any, out: Capture, gate: Gate) -> None:
    """A line appears when it is complete, and an unfinished one when its worker ends."""
    pool = await opened(1)
    call = pool.submit(write_in_parts, gate)
    await until(lambda: gate.entered)
    assert out.lines == []
    gate.open()
    await call
    await until(lambda: out.lines)
    assert out.lines == ["[process-0] first second"]
    await pool.aclose()
    assert out.lines == ["[process-0] first second", "[process-0] unfinished"]


async def test_output_of_workers_does_not_mix(opened: Any, out: Capture) -> None:
    """Lines of several workers may alternate, and are never torn."""
    pool = await opened(3)
    await wait_all([pool.submit(flood, 50) for _ in range(9)])
    await until(lambda: len(out.lines) == 450)
    assert all(line.startswith("[process-") and line.endswith("x" * 80) for line in out.lines)


async def test_flood(opened: Any, out: Capture) -> None:
    """A flood of output delays neither results nor cancellation, and nothing of it is lost."""
    pool = await opened(2)
    floods = [pool.submit(flood, 50_000)]
    began = time.monotonic()
    assert await wait_all([pool.submit(abs, -n) for n in range(100)]) == list(range(100))
    assert await floods[0] == "done"
    assert time.monotonic() - began < 30
    await pool.aclose()
    assert len(out.lines) == 50_000
    assert out.lines[-1].startswith("[process-")
    assert f" line 49999 {'x' * 80}" in out.lines[-1]


async def test_flood_that_is_cancelled(opened: Any, out: Capture) -> None:
    """A call that writes without end can be cancelled."""
    pool = await opened(1)
    call = pool.submit(flood, 10**9)
    await until(lambda: len(out.lines) > 1000)
    call.cancel()
    await until(call.done, seconds=10)
    assert call.cancelled()
    assert await pool.submit(abs, -1) == 1


async def test_odd_output(opened: Any, out: Capture) -> None:
    """Bytes that are no text, and characters that are no bytes, are shown somehow."""
    pool = await opened(1)
    await pool.submit(write_odd)
    await until(lambda: len(out.lines) == 2)
    assert "not text" in out.lines[0]
    assert "ümläut ☃" in out.lines[1]


async def test_long_line(opened: Any, out: Capture) -> None:
    """A line without end is shown in pieces, so that it does not fill the memory."""
    pool = await opened(1)
    assert await pool.submit(os.write, 1, b"x" * 50_000) == 50_000
    await until(lambda: sum(line.count("x") for line in out.lines) > 40_000)


async def test_closed_output(opened: Any) -> None:
    """A call that closes its standard streams does not harm the worker."""
    pool = await opened(1)
    pid = await pool.submit(os.getpid)
    assert await pool.submit(close_output) == "closed"
    assert await wait_all([pool.submit(abs, -n) for n in range(10)]) == list(range(10))
    assert await pool.submit(os.getpid) == pid
    with pytest.raises((ValueError, OSError)):
        await pool.submit(print, "nobody hears that", flush=True)


async def test_program_without_output(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program whose own output is gone, workers may print, and calls are not disturbed."""
    pool = await opened(1)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", open(os.devnull))  # noqa: SIM115
    await pool.submit(shout, "hello")
    assert await pool.submit(abs, -1) == 1
    sys.stderr.close()
    await pool.submit(shout, "hello")
    assert await pool.submit(abs, -1) == 1


async def test_input(opened: Any) -> None:
    """A call that reads standard input finds it empty: the program's own is not touched."""
    pool = await opened(1)
    assert await pool.submit(eval, "__import__('sys').stdin.read()") == ""


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the program's logger "app" is told."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def log_something() -> None:
    logging.getLogger("app.worker").debug("nobody wants that")
    logging.getLogger("app.worker").info("half of %d", 10)
    try:
        raise LookupError("no luck")
    except LookupError:
        logging.getLogger("app.worker").exception("failed")


async def test_logging(opened: Any, records: list[logging.LogRecord]) -> None:
    """Log records go to the program's loggers, filtered by their levels, with the worker's traceback."""
    pool = await opened(1)
    await pool.submit(log_something)
    await until(lambda: len(records) == 2)
    assert [record.getMessage() for record in records] == ["half of 10", "failed"]
    assert records[0].name == "app.worker"
    assert "LookupError: no luck" in str(records[1].exc_text)
