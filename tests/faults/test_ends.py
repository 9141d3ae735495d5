"""However the program ends, its workers end with it."""

from __future__ import annotations

import signal
import sys
import uuid
from pathlib import Path

import pytest

from tests.faults.programs import marked, start, wait_until_none

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

PROGRAM = """
import asyncio, ctypes, os, sys, time
os.environ["MARK"] = sys.argv[1]
from aioparallel import ProcessExecutor

BUSY = {
    "sleep": lambda: time.sleep(60),
    "spin": lambda: sum(iter(int, 1)),
    "hold": lambda: ctypes.PyDLL(None).sleep(60),  # C code that never lets go of the interpreter lock
}

async def main():
    async with ProcessExecutor(2) as pool:
        calls = [pool.submit(BUSY[sys.argv[2]]) for _ in range(4)]
        while sum(call.info.state == "running" for call in calls) < 2:
            await asyncio.sleep(0.01)
        print("running", flush=True)
        if sys.argv[3] == "raise":
            raise LookupError("the body failed")
        await asyncio.sleep(60)

if sys.argv[3] == "drain":
    async def stop_on_sigterm():
        import signal
        task = asyncio.ensure_future(main())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await task
    asyncio.run(stop_on_sigterm())
else:
    asyncio.run(main())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("busy", ["sleep", "spin", "hold"])
@pytest.mark.parametrize(
    ("how", "number"),
    [("kill", signal.SIGKILL), ("interrupt", signal.SIGINT), ("terminate", signal.SIGTERM), ("drain", signal.SIGTERM)],
)
def test_no_worker_outlives_a_signal_to_its_program(program: Path, busy: str, how: str, number: int) -> None:
    """Within a second after its program was killed, interrupted or terminated, no worker is left, whatever it does."""
    mark = uuid.uuid4().hex
    with start(program, mark, busy, how) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        assert len(marked(mark)) >= 3, "an agent and two workers"
        process.send_signal(number)
        left = wait_until_none(mark, 1.0)
        process.kill()
    assert not left


@pytest.mark.parametrize("busy", ["sleep", "hold"])
def test_no_worker_outlives_an_exception_in_the_body(program: Path, busy: str) -> None:
    """An exception in the body of ``async with`` ends the running calls, and is what the program sees."""
    mark = uuid.uuid4().hex
    with start(program, mark, busy, "raise") as process:
        _, said = process.communicate(timeout=20)
    assert "LookupError: the body failed" in said
    assert not wait_until_none(mark, 1.0)


def test_ctrl_c_prints_one_traceback(program: Path) -> None:
    """Ctrl-C ends the program with one KeyboardInterrupt, and no word from the workers."""
    with start(program, uuid.uuid4().hex, "sleep", "interrupt") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=20)
    assert printed == ""
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.splitlines().count("KeyboardInterrupt") == 1
