"""Workers and their host agent are killed and stopped from outside at random, while calls of every sort go on.

``test_stress`` has calls harm themselves. The seed is in every message, and can be given again:
``AIOPARALLEL_STRESS_SEED=7``; ``AIOPARALLEL_STRESS_CALLS=50000`` makes the run longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from aioparallel import CallCancelledError, ProcessExecutor, Retry, SmartFuture, WorkerLostError
from tests.tools import Log

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

CALLS = int(os.environ.get("AIOPARALLEL_STRESS_CALLS", "4000"))
SEED = int(os.environ.get("AIOPARALLEL_STRESS_SEED", "20261121"))
BEGUN_AT_MOST = {"once": 1, "idempotent": 3, "retry": 2, "cancelled": 1}
"""By sort of call: three deaths make a call poison, whatever it is allowed."""


def work(log: Log, number: int, seconds: float) -> int:
    """Write down that the call has begun."""
    log.write(number)
    time.sleep(seconds)
    return number


class Chaos:
    """Does harm to a pool's processes, from a thread, until it is told to stop."""

    def __init__(self, pool: ProcessExecutor, seed: int) -> None:
        self._pool = pool
        self._chance = random.Random(seed)
        self._stopping = threading.Event()
        self.done: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.random() * 0.1):
            pids = [carrier.pid for carrier in list(self._pool._workers.carriers.values())]  # type: ignore[union-attr]
            pid = self._chance.choice(pids) if pids else None
            how = self._chance.choices(["kill", "stop", "agent"], [20, 20, 1])[0]
            if pid is not None:
                self._harm(how, pid)

    def _harm(self, how: str, pid: int) -> None:
        try:
            if how == "kill":
                os.kill(pid, self._chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
            elif how == "stop":
                os.kill(pid, signal.SIGSTOP)
                self._stopping.wait(self._chance.random() * 0.05)
                os.kill(pid, signal.SIGCONT)
            else:
                os.kill(self._pool._workers._agent.pid, signal.SIGKILL)  # type: ignore[union-attr]
        except (ProcessLookupError, AttributeError, TypeError):
            return  # it was gone already
        self.done[how] += 1


@pytest.mark.timeout(600)
async def test_chaos(log: Log) -> None:
    """Whoever is killed when, each call ends with its own result or a reason, and is begun no oftener than it may be."""
    chance = random.Random(SEED)
    futures: list[SmartFuture[Any]] = []
    sorts: list[str] = []
    async with ProcessExecutor(4, name="chaos") as pool:
        views = {
            "once": pool.options(),
            "idempotent": pool.options(idempotent=True, priority=1),
            "retry": pool.options(retry=Retry(2, backoff=0, worker_lost=True)),
            "cancelled": pool.options(),
        }
        with Chaos(pool, SEED) as chaos:
            for number in range(CALLS):
                sort = chance.choices(list(views), [10, 4, 4, 1])[0]
                seconds = chance.choice([0, 0, 0.0005, 0.002]) if chance.random() < 0.97 else chance.random() * 0.05
                futures.append(views[sort].submit(work, log, number, seconds))
                sorts.append(sort)
                if sort == "cancelled":
                    asyncio.get_running_loop().call_later(chance.random() * 0.1, futures[-1].cancel)
                if chance.random() < 0.01:
                    await asyncio.sleep(chance.random() * 0.02)  # part of the load: calls come in bursts
            await asyncio.wait(futures)
        pool._run.ledger.check()  # type: ignore[union-attr]
        assert pool.task_count == 0
        assert await asyncio.wait_for(pool.submit(work, log, -1, 0), 20) == -1, f"the pool lives (seed {SEED})"
    for number, (future, sort) in enumerate(zip(futures, sorts, strict=True)):
        error = future.exception()
        if error is None:
            assert future.result() == number
        elif sort == "cancelled":
            assert isinstance(error, (CallCancelledError, WorkerLostError)), f"call {number}, seed {SEED}: {error!r}"
        else:
            assert isinstance(error, WorkerLostError), f"call {number} ({sort}), seed {SEED}: {error!r}"
    begun = Counter(map(int, log.lines))
    too_often = {n: begun[n] for n, sort in enumerate(sorts) if begun[n] > BEGUN_AT_MOST[sort]}
    assert not too_often, f"begun too often (seed {SEED}): {too_often}"
    unbegun = [n for n, future in enumerate(futures) if not begun[n] and future.exception() is None]
    assert not unbegun, f"a result without a beginning (seed {SEED}): {unbegun}"
    lost = sum(isinstance(future.exception(), WorkerLostError) for future in futures)
    assert lost <= 4 * chaos.done.total(), f"{lost} calls lost by {chaos.done} (seed {SEED})"
