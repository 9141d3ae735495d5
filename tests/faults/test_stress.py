"""Many calls, and everything that can happen to calls, at once: the rules hold for each of them.

The seed is printed, and can be given again: ``AIOPARALLEL_STRESS_SEED=7``. The normal run is short;
``AIOPARALLEL_STRESS_CALLS=50000`` is the long one.
"""

from __future__ import annotations

import asyncio
import collections
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from aioparallel import (
    CallCancelledError,
    CallExitedError,
    PicklingError,
    ProcessExecutor,
    TaskTimeoutError,
    WorkerLostError,
    wait_any,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

CALLS = int(os.environ.get("AIOPARALLEL_STRESS_CALLS", "4000"))
SEED = int(os.environ.get("AIOPARALLEL_STRESS_SEED", "20261121"))

EXPECTED = {
    "ok": (),
    "raise": (KeyError,),
    "exit": (CallExitedError,),
    "unpicklable": (PicklingError,),
    "die": (WorkerLostError,),
    "kill": (WorkerLostError,),
    "freeze": (TaskTimeoutError,),
    "late": (TaskTimeoutError,),
    "cancel": (CallCancelledError,),
}
"""What each kind of call may end with, beside its result where it may be too quick for that."""

WEIGHTS = {
    "ok": 900,
    "raise": 20,
    "exit": 10,
    "unpicklable": 20,
    "die": 5,
    "kill": 5,
    "freeze": 2,
    "late": 8,
    "cancel": 30,
}


def work(folder: str, number: int, fate: str, seconds: float) -> object:
    """Note that the call began, in a file of its own, and meet the fate."""
    with open(f"{folder}/{number}", "a", encoding="ascii") as file:
        file.write("x")
    if fate in {"late", "freeze"}:
        os.kill(os.getpid(), signal.SIGSTOP) if fate == "freeze" else time.sleep(60)
    time.sleep(seconds)
    if fate == "raise":
        raise KeyError(number)
    if fate == "exit":
        sys.exit(number)
    if fate == "die":
        os._exit(number % 100)
    if fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return threading.Lock() if fate == "unpicklable" else number


def _begun(folder: Path) -> dict[int, int]:
    return {int(file.name): file.stat().st_size for file in folder.iterdir()}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(600 + CALLS // 20)
async def test_every_call_meets_its_own_fate_and_no_other(tmp_path: Path) -> None:
    """Whatever happens to some calls, every call ends as it should, begins at most once, and nothing is left."""
    chance = random.Random(SEED)
    fates = chance.choices(list(WEIGHTS), WEIGHTS.values(), k=CALLS)
    before = _descriptors()
    async with ProcessExecutor(4, name="stress") as pool:
        futures = {}
        for number, fate in enumerate(fates):
            view = pool.options(timeout=0.3) if fate in {"late", "freeze"} else pool
            seconds = chance.choice([0, 0, 0, 0.0005, 0.002]) if chance.random() < 0.98 else chance.random() * 0.05
            futures[view.submit(work, str(tmp_path), number, fate, seconds)] = number
            if chance.random() < 0.01:
                await asyncio.sleep(chance.random() * 0.02)  # part of the load: calls come in bursts
            if fate == "cancel":
                asyncio.get_running_loop().call_later(chance.random() * 0.2, list(futures)[-1].cancel)
        seen: collections.Counter[str] = collections.Counter()
        async for future in wait_any(futures):
            number = futures.pop(future)
            fate, error = fates[number], future.exception()
            if error is None:
                assert future.result() == number
                assert fate in {"ok", "cancel"}, f"call {number} ({fate}, seed {SEED}) returned"
            else:
                assert isinstance(error, EXPECTED[fate]), f"call {number} ({fate}, seed {SEED}) ended by {error!r}"
            seen[fate] += 1
        assert not futures
        assert pool._run is not None
        pool._run.ledger.check()
        assert pool.task_count == 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = _begun(tmp_path)
    assert set(begun.values()) <= {1}, f"begun more than once (seed {SEED}): {[n for n, c in begun.items() if c > 1]}"
    never = {fates[number] for number in range(CALLS) if number not in begun}
    # A call that is overdue may have been stopped before its first statement, on a machine as busy as this one.
    assert never <= {"cancel", "late", "freeze"}, f"never begun (seed {SEED}): {never}"
    assert _descriptors() <= before + 2
    assert peak < 1 << 20, f"{peak} KiB"
