"""How workers stand, as programs can ask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from aioparallel import ProcessExecutor, ThreadExecutor
from aioparallel._seeing.workers import doing_of, memory_of
from tests.tools import Gate, hold, until, wait_for


def test_memory() -> None:
    """The memory of a process that is there is known where /proc tells; that of others is none."""
    ours = memory_of(os.getpid())
    assert ours is None or ours > 1_000_000
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert memory_of(done.pid) is None
    assert memory_of(None) is None


async def test_processes(tmp_path: object) -> None:
    """Each worker process is told of with its process and its memory."""
    async with ProcessExecutor(2, name="cpu") as pool:
        await until(lambda: all(each.pid for each in pool.status(per_worker=True).per_worker))
        workers = pool.status(per_worker=True).per_worker
        assert [worker.name for worker in workers] == ["cpu-0", "cpu-1"]
        assert len({worker.pid for worker in workers}) == 2
        assert all(worker.memory is None or worker.memory > 1_000_000 for worker in workers)
    assert pool.status(per_worker=True).per_worker == ()


async def test_not_asked_for() -> None:
    """Without being asked, the status says nothing of single workers."""
    async with ThreadExecutor(1) as pool:
        assert pool.status().per_worker == ()


async def test_oldest_first(tmp_path: object) -> None:
    """Of what a wide worker runs, what began first comes first, and what waits there is counted."""
    gate = Gate(f"{tmp_path}/gate")
    async with ThreadExecutor(2, name="io") as pool:
        calls = [pool.options(name=name).submit(hold, gate) for name in ("a", "b", "c")]
        await until(lambda: len(gate.entered) == 2)
        (worker,) = pool.status(per_worker=True).per_worker
        assert [call.id for call in worker.running] == [call.id for call in calls[:2]]
        assert (worker.name, worker.width, worker.waiting, worker.pid) == ("io", 2, 1, None)
        gate.open()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_what_a_process_does() -> None:
    """It is seen whether a process computes, waits, or was stopped; of one that is not there, nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()\nwhile True: pass"], stdin=subprocess.PIPE) as process:
        try:
            wait_for(lambda: doing_of(process.pid) == "waits, and computes nothing")
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
            wait_for(lambda: doing_of(process.pid) == "computes")
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: doing_of(process.pid) == "was stopped")
        finally:
            process.kill()
    assert doing_of(process.pid) is None
    assert doing_of(None) is None
