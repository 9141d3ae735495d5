"""The fixtures, as a user's own test suite has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
from __future__ import annotations
import pytest
from aioparallel import *

@parallelize(method="process")
def crunch(a: int, b: int) -> int:
    return a**b

@parallelize(method="process")
def leak():
    return (n for n in [1])

async def powers(base):
    return await wait_all([crunch(base, n) for n in range(3)])

async def test_serial(serial_executors):
    assert await powers(2) == [1, 2, 4]

async def test_serial_pickles(serial_executors):
    with pytest.raises(Exception, match="generator"):
        await leak()

async def test_fake(fake_executor):
    future = fake_executor.submit(pow, 2, 10)
    fake_executor.calls[0].succeed("anything")
    assert await future == "anything"

async def test_fake_that_nobody_ends(fake_executor):
    fake_executor.submit(pow, 2, 10)

async def test_clock(manual_clock, fake_executor):
    future = fake_executor.options(timeout=600).submit(pow, 2, 10)
    await manual_clock.advance(601)
    with pytest.raises(TaskTimeoutError):
        await future

async def test_killed(faults):
    async with ProcessExecutor(1) as pool:
        await pool.submit(pow, 2, 10)
        faults.kill_worker(pool)
        assert await pool.options(idempotent=True).submit(pow, 2, 10) == 1024

async def test_dropped(two_ssh_hosts, faults):
    faults.drop_host(two_ssh_hosts[0])
    async with RemoteExecutor(two_ssh_hosts) as pool:
        assert await pool.submit(pow, 2, 10) == 1024
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_suite_of_a_user(mode: str, tmp_path: Path) -> None:
    """One line in conftest.py gets all fixtures, in both modes of pytest-asyncio."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aioparallel.testing.fixtures"]\n')
    marks = "" if mode == "auto" else "\nimport pytest\npytestmark = pytest.mark.asyncio\n"
    (tmp_path / "test_user.py").write_text(SUITE + marks)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
