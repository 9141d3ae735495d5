"""A short campaign belongs to the tests; the long ones are run with ``make chaos``."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from aioparallel import ProcessExecutor, WorkerLostError
from tests.chaos import jobs
from tests.chaos.rules import Checker


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.timeout(170)
@pytest.mark.parametrize("where", ["--local", ""])
def test_short_campaign(where: str) -> None:
    """Whatever is killed, stopped and cut meanwhile: each call ends once, and nothing is left."""
    goals = ["--seconds", "3", "--calls", "300", "--faults", "5", "--clients", "12", "--seed", "7"]
    command = [sys.executable, "-m", "tests.chaos", *goals, *where.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=160, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for title, least in (("ends", 300), ("faults", 5)):
        counted = re.search(rf"{title} +(\d+):", done.stdout)
        assert counted
        assert int(counted[1]) >= least


def test_checker_notices(tmp_path: object) -> None:
    """A call that is begun too often or too late, delivered twice, or succeeds without having run, breaks a rule."""
    checker = Checker(str(tmp_path))
    often, twice, never, late = (checker.new(1) for _ in range(4))
    for _ in range(2):
        jobs.begin(checker.folder, often)
        checker._ended(twice)
    checker.returned(never, "work", 1, 2)
    checker._ended(late, is_near=True)
    jobs.begin(checker.folder, late)
    checker.raised(late, "die on local", WorkerLostError(), (WorkerLostError,))
    checker.check_blame("local", 1)
    checker.check_blame("local", 0)
    assert checker.check_begun() == 3
    assert [each.partition(",")[0] for each in checker.violations] == [
        f"call {twice} was delivered twice",
        f"work {never} gave 1 instead of 2",
        "local lost 1 calls with 0 workers",
        f"call {often} was begun 2 times",
        f"call {never} has succeeded",
        f"call {late} was begun 1 times",
    ]


async def test_checker_reads_the_books() -> None:
    """A ledger that has miscounted breaks a rule, while it does."""
    checker = Checker("")
    async with ProcessExecutor(1) as pool:
        checker.check_books(pool)
        assert not checker.violations
        assert pool._run is not None
        pool._run.ledger.queued += 1
        checker.check_books(pool)
        pool._run.ledger.queued -= 1
    assert checker.violations == ["process: queued is miscounted"]
