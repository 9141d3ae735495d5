"""Shutting down: signals, deadlines, and hosts that do not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from aioparallel import CallCancelledError, RemoteExecutor
from aioparallel.testing import SshHost, ssh_host
from tests.faults.programs import marked, start, wait_until_none
from tests.tools import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

DRAINING = """
import asyncio, os, signal, sys, time
os.environ["MARK"] = sys.argv[1]
from aioparallel import ProcessExecutor

async def main():
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    pool = await ProcessExecutor(2).start()
    quick = [pool.submit(time.sleep, 0.2) for _ in range(3)]
    slow = pool.submit(time.sleep, 600)
    while slow.info.state != "running":
        await asyncio.sleep(0.01)
    more = [pool.submit(time.sleep, 0.01) for _ in range(3)]
    print("running", flush=True)
    await asked.wait()
    try:
        async with asyncio.timeout(1.5):
            await pool.aclose()
    except TimeoutError:
        print(slow.info.state, {call.info.state for call in quick + more})

asyncio.run(main())
"""

STOPPING = """
import asyncio, os, sys, time
os.environ["MARK"] = sys.argv[1]
from aioparallel import ProcessExecutor

async def main():
    async with ProcessExecutor(1, grace=1) as pool:
        call = pool.submit(time.sleep, 600)
        while call.info.state != "running":
            await asyncio.sleep(0.01)
        print("running", flush=True)
        try:
            await call
        finally:
            print("closing", flush=True)

asyncio.run(main())
"""


def test_drain_with_a_deadline(tmp_path: Path) -> None:
    """On SIGTERM a service gives its calls some time; those that need more are cancelled, and it ends in peace."""
    program = tmp_path / "program.py"
    program.write_text(DRAINING)
    mark = uuid.uuid4().hex
    with start(program, mark) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        printed, said = process.communicate(timeout=20)
    assert (printed, said, process.returncode) == ("cancelled {'done'}\n", "", 0)
    assert not wait_until_none(mark, 1.0)


def test_second_ctrl_c(tmp_path: Path) -> None:
    """The first Ctrl-C cancels and waits for confirmation; after the second the program ends soon, with one traceback."""
    program = tmp_path / "program.py"
    program.write_text(STOPPING)
    mark = uuid.uuid4().hex
    with start(program, mark) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        agent = next(pid for pid in marked(mark) if _parent(pid) == process.pid)
        os.kill(agent, signal.SIGSTOP)  # so that nothing can be confirmed
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=15)
        finally:
            _resume(agent)
            process.kill()
    assert said.splitlines().count("KeyboardInterrupt") == 1, said
    assert not wait_until_none(mark, 2.0)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(SshHost.stall, id="silent"),
        pytest.param(SshHost.cut, id="cut"),
        pytest.param(lambda host: [os.kill(pid, signal.SIGSTOP) for pid in host.commands], id="frozen"),
    ],
)
async def test_pools_end_whatever_their_hosts_do(harm: Callable[[SshHost], object]) -> None:
    """A pool whose host does not answer any more is closed a little after its grace, and its calls are settled."""
    async with ssh_host(slots=2) as host:
        pool = await RemoteExecutor([host], grace=0.5, lease=60).start()
        calls = [pool.submit(time.sleep, 600) for _ in range(3)]
        await until(lambda: calls[0].info.state == "running")
        commands = host.commands
        harm(host)
        async with asyncio.timeout(10):
            await pool.aclose(drain=False)
        for call in calls:
            with pytest.raises((CallCancelledError, Exception)):
                await call
        host.heal()
        for pid in commands:
            await until(lambda pid=pid: not _resume(pid))  # type: ignore[misc]


def _resume(pid: int) -> bool:
    """Whether a process that may have been stopped is still there."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True
