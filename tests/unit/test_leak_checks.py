"""The checks of tests/conftest.py, tried on tests that leave something behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PLANTED = """\
from __future__ import annotations

import asyncio, os, socket, subprocess, sys, threading

import pytest
import tests.conftest

tests.conftest.SETTLE = 0.1
kept = []


def start(*command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def leave_a_thread():
    never = threading.Event()
    threading.Thread(target=never.wait, name="aioparallel-worker", daemon=True).start()


async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))


def test_thread():
    leave_a_thread()


def test_child():
    kept.append(start("sleep", "60"))


def test_orphan():
    code = "import subprocess; subprocess.Popen(['sleep', '61'], start_new_session=True).returncode = 0"
    assert start(sys.executable, "-c", code).wait() == 0


def test_zombie():
    kept.append(start("true"))


def test_sockets():
    kept.append(socket.socketpair())


@pytest.mark.leak_check(threads=False)
def test_marked():
    leave_a_thread()


def test_slow_to_end():
    tests.conftest.SETTLE = 20
    threading.Thread(target=start("sleep", "0.2").wait).start()


def test_clean():
    pass


async def test_clean_on_a_loop():
    await asyncio.sleep(0)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of the planted tests, under the checks."""
    planted = tmp_path_factory.mktemp("planted") / "test_planted.py"
    planted.write_text(PLANTED)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir", ".", "-q"]
    command = [sys.executable, "-m", "pytest", *options, str(planted)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("test_task", r"<Task pending name='forgotten'"),
        ("test_thread", r"thread 'aioparallel-worker'$"),
        ("test_child", r"process \d+ \(sleep 60\)$"),
        ("test_orphan", r"process \d+ \(sleep 61\)$"),
        ("test_zombie", r"process \d+ \(defunct"),
        ("test_sockets", r"open socket:\[\d+\] \(descriptor \d+\), open socket:"),
    ],
)
def test_a_leak_is_named(said: str, test: str, name: str) -> None:
    """A test that leaves something of ours behind fails, and the message names just what it left."""
    assert re.search(rf"ERROR at teardown of {test} _+\nstill there after the test: {name}", said, re.MULTILINE), said


def test_what_is_no_leak_passes(said: str) -> None:
    """A test that leaves nothing, or only what ends by itself or what its mark allows, passes."""
    assert "10 passed, 6 errors" in said, said
