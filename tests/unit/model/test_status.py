"""What can be known of an executor: frozen records, which cost nothing before somebody asks for them."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import pytest

from aioparallel import PoolStatus, RunningCall, WorkerStatus

RUNNING = RunningCall(7, "f", 1, 2.0)
WORKER = WorkerStatus("cpu-0", None, 0, 4711, "ready", running=(RUNNING,))
RECORDS = [RUNNING, WORKER, PoolStatus("cpu", "process", 1, 2, 3, 4, 5, 6, p50=0.1, per_worker=(WORKER,))]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record: RunningCall | WorkerStatus | PoolStatus) -> None:
    """A record cannot be changed, and travels."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "g"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_status_is_shown_without_its_workers() -> None:
    """A status is as long with a thousand workers as with one, when it is printed."""
    assert "cpu-0" not in repr(RECORDS[-1])


def test_programs_that_do_not_ask_do_not_pay() -> None:
    """A program that runs calls on processes imports neither these records nor the options of maps."""
    code = (
        "import asyncio, sys; from aioparallel import ProcessExecutor\n"
        "async def main():\n"
        "    async with ProcessExecutor(1) as pool:\n"
        "        await pool.submit(pow, 2, 2)\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.endswith(('_model.status', '_model.outcome', 'mapoptions'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
