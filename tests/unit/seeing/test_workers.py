"""How workers stand, as programs can ask."""

from __future__ import annotations

import os
import subprocess
import sys

from aioparallel import ProcessExecutor, ThreadExecutor
from aioparallel._seeing.workers import memory_of
from tests.tools import Gate, hold, until


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
