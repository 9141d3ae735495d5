"""What is done again and again leaves nothing behind: no descriptor, no process, no task, no memory."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioparallel import CoroutineExecutor, ProcessExecutor, ThreadExecutor, wait_all
from tests.contract import jobs
from tests.tools import Gate, hold, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

MEGABYTE = 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory(pid: int | str = "self") -> int:
    """Bytes of memory that are a process's own."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


async def growth(rounds: int, one_round: Callable[[], Any]) -> tuple[int, int]:
    """How many descriptors and bytes more there are after so many rounds than after a fifth as many."""
    for _ in range(rounds // 5):
        await one_round()
    gc.collect()
    before = descriptors(), memory()
    for _ in range(rounds):
        await one_round()
    gc.collect()
    return descriptors() - before[0], memory() - before[1]


async def test_opening_and_closing_processes() -> None:
    """A process pool that is opened and closed 40 times leaves no descriptor, no thread and no memory behind."""
    pool = ProcessExecutor(2, engine="resident")

    async def use() -> None:
        async with pool:
            assert await pool.submit(abs, -1) == 1

    threads = threading.active_count()
    more_descriptors, more_memory = await growth(40, use)
    assert more_descriptors <= 0
    assert more_memory < 2 * MEGABYTE
    await until(lambda: threading.active_count() <= threads)


@pytest.mark.parametrize("kind", [ThreadExecutor, CoroutineExecutor])
async def test_opening_and_closing(kind: Callable[..., Any]) -> None:
    """An executor that is opened and closed 200 times leaves nothing behind."""
    fn = jobs.add_async if kind is CoroutineExecutor else jobs.add

    async def use() -> None:
        async with kind(2) as pool:
            assert await pool.submit(fn, 1, 2) == 3

    more_descriptors, more_memory = await growth(200, use)
    assert more_descriptors <= 0
    assert more_memory < 4 * MEGABYTE
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_starts_that_fail() -> None:
    """A pool that cannot be started, tried again and again, leaves nothing behind."""
    pool = ProcessExecutor(1, engine="resident", preload=["no_such_module"])

    async def use() -> None:
        with pytest.raises(Exception, match="no_such_module"):
            await pool.start()

    more_descriptors, _ = await growth(5, use)
    assert more_descriptors <= 0


async def test_calls(opened: Any) -> None:
    """Twenty thousand calls leave nothing behind, in the program or in the workers."""
    pool = await opened(2)
    pids = set(await wait_all([pool.submit(os.getpid) for _ in range(200)]))

    async def use() -> None:
        calls = [pool.submit(jobs.add, n, 1) if n % 50 else pool.submit(jobs.fail) for n in range(1000)]
        await asyncio.wait(calls)
        assert sum(call.exception() is not None for call in calls) == 20

    for _ in range(4):
        await use()
    worker_memory = sum(map(memory, pids))
    more_descriptors, more_memory = await growth(16, use)
    assert more_descriptors <= 0
    assert more_memory < 4 * MEGABYTE
    assert sum(map(memory, pids)) - worker_memory < 4 * MEGABYTE


async def test_new_functions(opened: Any) -> None:
    """Workers do not keep every function that they were ever sent."""
    pool = await opened(1)
    pid = await pool.submit(os.getpid)

    async def use() -> None:
        await wait_all([pool.submit(_tagged(n), "x") for n in range(500)])

    for _ in range(4):
        await use()
    before = memory(pid)
    more_descriptors, more_memory = await growth(10, use)
    assert more_descriptors <= 0
    assert more_memory < 8 * MEGABYTE
    assert memory(pid) - before < 8 * MEGABYTE


_count = 0


def _tagged(n: int) -> Callable[[str], str]:
    """A function that no other call has."""
    global _count
    _count += 1
    tag = f"{_count} {n} " + "y" * 1000
    return lambda text: text + tag


async def test_results(opened: Any) -> None:
    """Results that nobody keeps are not kept, however large."""
    pool = await opened(1)

    async def use() -> None:
        assert len(await pool.submit(bytearray, 10 * MEGABYTE)) == 10 * MEGABYTE

    _, more_memory = await growth(20, use)
    assert more_memory < 15 * MEGABYTE


async def test_deaths_and_cancellations(opened: Any, tmp_path: Path) -> None:
    """Workers that are replaced again and again leave no descriptor behind."""
    pool = await opened(2)

    async def both_are_there() -> None:
        gate = Gate(str(tmp_path / f"gate{len(os.listdir(tmp_path))}"))
        calls = [pool.submit(hold, gate) for _ in range(2)]
        await until(lambda: len(set(gate.entered)) == 2)
        gate.open()
        await wait_all(calls)

    async def use() -> None:
        calls = [pool.submit(os._exit, 1), pool.submit(time.sleep, 1000), pool.submit(abs, -1)]
        await until(lambda: calls[1].info.state == "running")
        calls[1].cancel()
        await asyncio.wait(calls)
        await both_are_there()

    more_descriptors, _ = await growth(20, use)
    assert more_descriptors <= 0


async def test_many_workers(opened: Any) -> None:
    """A pool may have many workers; all of them are used, and all end."""
    pool = await opened(24)
    await until(lambda: pool._run.ledger._roster.ready == 24)
    assert await wait_all([pool.submit(abs, -n) for n in range(1000)]) == list(range(1000))
