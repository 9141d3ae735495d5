"""Shutting down: signals, deadlines, and hosts that do not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from aioparallel import CallCancelledError, CoroutineExecutor, RemoteExecutor
from aioparallel._executors import pool as pools
from aioparallel._workers import channel
from aioparallel.testing import SshHost, ssh_host
from tests.faults.programs import marked, start, wait_until_none
from tests.sshhosts import serve, write_hosts
from tests.tools import until, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

WAITS_FOR_THREADS = sys.version_info >= (3, 13)
"""Whether Python insists on waiting for threads at its end."""

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

STUBBORN = """
import asyncio, os, sys, threading, time
os.environ["MARK"] = sys.argv[1]
from aioparallel import CoroutineExecutor, ProcessExecutor, RemoteExecutor, ThreadExecutor, load_hosts

def never():
    threading.Event().wait()

async def unwilling():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

def open_pool():
    if sys.argv[2] == "remote":
        return RemoteExecutor(load_hosts(sys.argv[3]), grace=60)
    kinds = {"process": ProcessExecutor, "thread": ThreadExecutor, "coroutine": CoroutineExecutor}
    return kinds[sys.argv[2]](1, grace=60)

async def main():
    async with open_pool() as pool:
        call = pool.submit(unwilling if sys.argv[2] == "coroutine" else never)
        while call.info.state != "running":
            await asyncio.sleep(0.01)
        print("running", flush=True)
        await call

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


@pytest.mark.parametrize("kind", ["process", "thread", "coroutine"])
def test_second_ctrl_c(kind: str, tmp_path: Path) -> None:
    """The first Ctrl-C cancels and waits; the second ends what will not stop, at once, with one traceback."""
    mark = uuid.uuid4().hex
    with _start_stubborn(tmp_path, mark, kind) as process:
        frozen = [pid for pid in marked(mark) if pid != process.pid]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)  # so that nothing can be confirmed
        third = kind == "thread" and WAITS_FOR_THREADS
        said = _interrupt_twice(process, third=third)
    assert not wait_until_none(mark, 2.0)
    if kind == "thread":
        assert "its thread 'aioparallel thread 0' is still in never, which began" in said
        assert ("after one more Ctrl-C" if WAITS_FOR_THREADS else "Python exits without it") in said
    if third:  # Python prints a traceback of its own
        said = said[: said.rindex("Traceback")].partition("Exception ignored")[0]
    _expect_one_traceback(said, process.returncode)


def test_second_ctrl_c_with_a_frozen_host(tmp_path: Path) -> None:
    """The second Ctrl-C cuts off a host that does not answer; its calls end there when it wakes up."""
    with serve(1, slots=1) as [host]:
        with _start_stubborn(tmp_path, uuid.uuid4().hex, "remote", write_hosts([host], tmp_path)) as process:
            commands = host.commands
            for pid in commands:
                os.kill(pid, signal.SIGSTOP)
            said = _interrupt_twice(process)
        _expect_one_traceback(said, process.returncode)
        assert commands
        for pid in commands:
            wait_for(lambda pid=pid: not _resume(pid))  # type: ignore[misc]


def _start_stubborn(folder: Path, mark: str, *arguments: str) -> subprocess.Popen[str]:
    program = folder / "program.py"
    program.write_text(STUBBORN)
    process = start(program, mark, *arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def _interrupt_twice(process: subprocess.Popen[str], *, third: bool = False) -> str:
    """Press Ctrl-C twice; returns what the program, which would otherwise wait for a minute, says."""
    try:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGINT)
        if third:
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(timeout=2)
            process.send_signal(signal.SIGINT)
        return process.communicate(timeout=20)[1]
    finally:
        process.kill()


def _expect_one_traceback(said: str, status: int) -> None:
    assert said.splitlines().count("KeyboardInterrupt") == 1, said
    assert said.count("Traceback") == 1, said
    assert said.endswith("KeyboardInterrupt\n"), said
    assert status == -signal.SIGINT


async def test_to_cancel_twice_shuts_nothing_down() -> None:
    """A task that is cancelled twice leaves its work behind, but on a loop that goes on that work stops in peace."""
    may_go, has_gone = asyncio.Event(), asyncio.Event()

    async def careful() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await may_go.wait()
            has_gone.set()

    async def use(pool: CoroutineExecutor) -> None:
        await pool.submit(careful)

    async with CoroutineExecutor(1, grace=60) as pool:
        task = asyncio.ensure_future(use(pool))
        await until(lambda: pool.status().running)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        assert not has_gone.is_set()
        may_go.set()
    assert has_gone.is_set()


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(SshHost.stall, id="silent"),
        pytest.param(SshHost.cut, id="cut"),
        pytest.param(lambda host: [os.kill(pid, signal.SIGSTOP) for pid in host.commands], id="frozen"),
    ],
)
async def test_pools_end_whatever_their_hosts_do(
    harm: Callable[[SshHost], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool whose host does not answer any more is closed a little after its grace, and its calls are settled."""
    monkeypatch.setattr(channel, "END_SECONDS", 0.3)
    monkeypatch.setattr(pools, "SLOW_CLOSE", 1.0)
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
