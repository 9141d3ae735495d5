"""Process pools: what their options do. What is true of every executor is in the contract; of deaths, in the faults."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aioparallel import (
    CallCancelledError,
    ProcessExecutor,
    TaskTimeoutError,
    WorkerLostError,
    WorkerStartError,
    check_cancelled,
    current_call,
    wait_all,
)
from aioparallel._child.cpus import available_cpus
from aioparallel._executors import workers
from aioparallel._executors.environment import BLAS_VARIABLES
from tests.tools import Gate, hold, is_alive, until

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 2**20

# AnyIO keeps its processes, and the task that ends them, for as long as the loop's root task runs.
ANYIO = pytest.param("anyio", marks=pytest.mark.leak_check(tasks=False, processes=False, fds=False))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(str(tmp_path / "gate"))
    yield gate
    gate.open()


def where() -> tuple[int, int]:
    return os.getpid(), current_call().worker_index


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"max_workers": 0}, ValueError, "max_workers=0"),
        ({"max_workers": True}, ValueError, "max_workers=True"),
        ({"max_workers": 1.5}, ValueError, "max_workers=1.5"),
        ({"engine": "fast"}, ValueError, "engine='fast': expected 'resident', 'anyio'"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker=0"),
        ({"threads_per_worker": 10**6}, ValueError, "at most"),
        ({"min_workers": -1}, ValueError, "min_workers=-1"),
        ({"max_workers": 2, "min_workers": 3}, ValueError, "from 0 to max_workers"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout=0"),
        ({"initializer": 5}, TypeError, "initializer=5"),
        ({"max_tasks_per_worker": 0}, ValueError, "max_tasks_per_worker=0"),
        ({"max_tasks_per_worker": "many"}, ValueError, "max_tasks_per_worker='many'"),
        ({"max_rss_per_worker": 0}, ValueError, "max_rss_per_worker=0"),
        ({"env": 5}, TypeError, "env=5"),
        ({"env": {"A=B": "x"}}, ValueError, "A=B='x'"),
        ({"env": {"A": "x\0y"}}, ValueError, "cannot be an environment variable"),
        ({"preload": "numpy"}, TypeError, "preload='numpy'"),
        ({"engine": "anyio", "threads_per_worker": 2}, ValueError, "use engine='resident'"),
        ({"engine": "anyio", "max_tasks_per_worker": 2}, ValueError, "use engine='resident'"),
        ({"engine": "anyio", "max_rss_per_worker": 10**9}, ValueError, "use engine='resident'"),
        ({"max_pending": 0}, ValueError, "max_pending=0"),
        ({"grace": -1}, ValueError, "grace=-1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_nonsense_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    """A wrong option is refused when the pool is made, by name, with what was expected."""
    with pytest.raises(error, match=said):
        ProcessExecutor(**options)


def test_as_many_workers_as_cpus() -> None:
    """Without ``max_workers`` there are as many as CPUs that this process may use."""
    assert ProcessExecutor().max_workers == available_cpus()


async def test_generators_need_workers_that_stay() -> None:
    """With the anyio engine a generator function is refused, with what to do instead."""
    async with ProcessExecutor(1, engine="anyio") as pool:
        with pytest.raises(TypeError, match="engine='resident', or collect the items in a list"):
            pool._stream(iter, (), {}, None)  # type: ignore[arg-type]


# What workers find


class Weight:
    """Something that a function holds, of which workers count what they have."""

    held: ClassVar[weakref.WeakSet[Weight]] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        self.held.add(self)


def weighing(number: int) -> Callable[[], int]:
    weight = Weight(number)
    return lambda: len(weight.held)


@pytest.mark.parametrize("threads", [1, 3])
async def test_functions_are_forgotten(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker does not keep every function that it has ever been sent, whether it runs one call at a time or more."""
    monkeypatch.setattr(workers, "MAX_KNOWN", 5)
    async with ProcessExecutor(1, threads_per_worker=threads) as pool:
        one_by_one = [await pool.submit(weighing(n)) for n in range(30)]
        at_once = await wait_all([pool.submit(weighing(n)) for n in range(30, 60)])
    assert max(one_by_one + at_once) <= 5 + 2 * threads


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


async def test_env_of_all_workers() -> None:
    """``env`` is added to the environment that workers inherit."""
    async with ProcessExecutor(1, env={"MINE": "yes"}) as pool:
        assert await pool.submit(variables, "MINE", "HOME") == ["yes", os.environ.get("HOME")]


@pytest.mark.leak_check(tasks=False, processes=False, fds=False)
async def test_env_of_another_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the anyio engine pools share processes, but not their environments."""
    monkeypatch.setenv("SHARED", "mine")
    async with ProcessExecutor(1, engine="anyio", env={"GPU": "1", "SHARED": "theirs"}) as pool:
        pid = await pool.submit(os.getpid)
        assert await pool.submit(variables, "GPU", "SHARED") == ["1", "theirs"]
    async with ProcessExecutor(1, engine="anyio") as pool:
        assert await pool.submit(os.getpid) == pid
        assert await pool.submit(variables, "GPU", "SHARED") == [None, "mine"]


@pytest.mark.parametrize("engine", ["resident", ANYIO])
async def test_env_with_numbers(engine: str) -> None:
    """Numbers become text, as in ``{"CUDA_VISIBLE_DEVICES": 0}``."""
    async with ProcessExecutor(1, engine=engine, env=lambda index: {"GPU": index}) as pool:
        assert await pool.submit(variables, "GPU") == ["0"]


@pytest.mark.parametrize("engine", ["resident", ANYIO])
async def test_env_that_is_none(engine: str) -> None:
    """An ``env`` function that returns something else is the reason why the pool cannot be opened."""
    with pytest.raises(Exception, match="expected a dict of environment variables, got 5"):
        await ProcessExecutor(1, engine=engine, env=lambda index: 5).start()  # type: ignore[arg-type, return-value]


async def test_env_of_each_worker(gate: Gate) -> None:
    """``env`` may be a function of the worker's index, which is the one that calls see; a replacement gets the same."""
    async with ProcessExecutor(2, env=lambda index: {"GPU": str(index)}) as pool:

        def look() -> tuple[int, str]:
            hold(gate)
            return where()[1], os.environ["GPU"]

        calls = [pool.submit(look) for _ in range(2)]
        await until(lambda: len(gate.entered) == 2)
        gate.open()
        assert sorted(await wait_all(calls)) == [(0, "0"), (1, "1")]
        for _ in range(4):
            with pytest.raises(WorkerLostError):
                await pool.submit(os._exit, 1)
            index, gpu = await pool.submit(look)
            assert str(index) == gpu


async def test_env_is_there_before_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is set before anything is imported, as libraries for GPUs want it; ``preload`` imports it then."""
    (tmp_path / "wants_gpu.py").write_text("import os\nfound = os.environ.get('GPU')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported() -> Any:
        module = sys.modules.get("wants_gpu")
        return module and module.found

    async with ProcessExecutor(1, env={"GPU": "3"}, preload=["wants_gpu"]) as pool:
        assert await pool.submit(imported) == "3"
    assert "wants_gpu" not in sys.modules, "it is not imported here"


async def test_preload_that_fails() -> None:
    """A module that cannot be imported is the reason why the pool cannot be opened."""
    with pytest.raises(WorkerStartError, match="No module named 'no_such_module'"):
        await ProcessExecutor(1, preload=["no_such_module"]).start()


async def test_threads_of_numeric_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share the CPUs: their numeric libraries get a part of them each, unless you have said otherwise."""
    for name in BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    share = str(max(1, available_cpus() // 2))
    async with ProcessExecutor(2, env={"OPENBLAS_NUM_THREADS": "5"}) as pool:
        found = await pool.submit(variables, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert found == [share, "7", "5"]


# How many there are, and for how long


async def test_worker_is_replaced_after_so_many_calls() -> None:
    """With ``max_tasks_per_worker`` no process runs more calls, none is lost, and no replacement counts as a death."""
    async with ProcessExecutor(2, max_tasks_per_worker=5) as pool:
        pids = await wait_all([pool.submit(os.getpid) for _ in range(50)])
        assert max(map(pids.count, pids)) <= 5
        assert pool.status().deaths == 0
        assert pool.status().done == 50


async def test_workers_are_started_as_calls_come(gate: Gate) -> None:
    """With ``min_workers`` so many are started, the others when calls wait for one."""
    async with ProcessExecutor(3, min_workers=1) as pool:
        assert pool.status().workers == 1
        calls = [pool.submit(hold, gate) for _ in range(3)]
        await until(lambda: len(set(gate.entered)) == 3)
        assert pool.status().workers == 3
        gate.open()
        await wait_all(calls)


async def test_idle_workers_end(gate: Gate) -> None:
    """Those that have nothing to do for ``idle_timeout`` end, down to ``min_workers``, and are no deaths."""
    async with ProcessExecutor(3, min_workers=1, idle_timeout=0.2) as pool:
        calls = [pool.submit(hold, gate) for _ in range(3)]
        await until(lambda: len(set(gate.entered)) == 3)
        gate.open()
        await wait_all(calls)
        await until(lambda: sum(map(is_alive, gate.entered)) == 1, "two of them have ended")
        assert pool.status().deaths == 0
        assert await wait_all([pool.submit(abs, -n) for n in range(20)]) == list(range(20))


# How large they may be


kept: list[bytes] = []


def grow(megabytes: int) -> int:
    kept.append(os.urandom(megabytes * MEGABYTE))
    return os.getpid()


def grow_and_wait(megabytes: int, gate: Gate) -> None:
    grow(megabytes)
    hold(gate)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_worker_that_has_grown_is_replaced() -> None:
    """A worker whose memory is larger than ``max_rss_per_worker`` after a call is replaced; the call is not concerned."""
    async with ProcessExecutor(1, max_rss_per_worker=150 * MEGABYTE) as pool:
        first = await pool.submit(grow, 1)
        assert await pool.submit(grow, 160) == first
        await until(lambda: not is_alive(first))
        assert await pool.submit(os.getpid) != first
        assert pool.status().deaths == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_call_that_grows_far_too_large_is_killed(gate: Gate) -> None:
    """A call that makes its worker twice as large as it may be is killed, and the error says by whom and why."""
    async with ProcessExecutor(2, max_rss_per_worker=100 * MEGABYTE) as pool:
        other = pool.submit(hold, gate, "kept")
        with pytest.raises(WorkerLostError) as caught:
            await pool.submit(grow_and_wait, 250, Gate(f"{gate.path}-never"))
        assert "killed by aioparallel" in str(caught.value.out_of_memory)
        assert "max_rss_per_worker (100 MiB)" in str(caught.value)
        gate.open()
        assert await other == "kept"


# Threads in workers


async def test_threads_of_a_worker(gate: Gate) -> None:
    """``threads_per_worker`` calls run at a time in one process."""
    async with ProcessExecutor(1, threads_per_worker=3) as pool:
        calls = [pool.submit(hold, gate) for _ in range(3)]
        await until(lambda: len(gate.entered) == 3)
        assert len(set(gate.entered)) == 1
        gate.open()
        await wait_all(calls)


def until_cancelled(gate: Gate) -> None:
    gate.enter()
    while True:
        check_cancelled()
        threading.Event().wait(0.002)


async def test_cancelled_thread_of_a_worker(gate: Gate, tmp_path: Path) -> None:
    """One of several calls in a process cannot be killed: it is asked to stop, and its neighbours go on."""
    asked = Gate(str(tmp_path / "asked"))
    async with ProcessExecutor(1, threads_per_worker=2) as pool:
        neighbour = pool.submit(hold, gate, "kept")
        call = pool.submit(until_cancelled, asked)
        await until(lambda: gate.entered and asked.entered)
        call.cancel()
        await asyncio.wait([call], timeout=20)
        with pytest.raises(CallCancelledError):
            await call
        gate.open()
        assert await neighbour == "kept"
        assert pool.status().deaths == 0


async def test_overdue_thread_of_a_worker(gate: Gate) -> None:
    """A call that is overdue takes its worker along: the others in it are reported as lost, those behind run."""
    async with ProcessExecutor(1, threads_per_worker=2) as pool:
        neighbour = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        overdue = pool.options(timeout=0.1).submit(hold, Gate(f"{gate.path}-never"))
        behind = pool.submit(abs, -1)
        with pytest.raises(TaskTimeoutError):
            await overdue
        with pytest.raises(WorkerLostError, match="killed for hold, which ran longer than its timeout") as caught:
            await neighbour
        assert "Nothing in aioparallel sent that signal" not in str(caught.value)
        assert await behind == 1


async def test_overdue_threads_do_not_poison_their_neighbours(gate: Gate) -> None:
    """A call that may be repeated is, whatever was overdue beside it, and however often: it has killed no worker."""
    async with ProcessExecutor(1, threads_per_worker=2) as pool:
        neighbour = pool.options(idempotent=True).submit(hold, gate, "kept")
        for number in range(4):
            await until(lambda number=number: len(gate.entered) > number)
            with pytest.raises(TaskTimeoutError):
                await pool.options(timeout=0.05).submit(hold, Gate(f"{gate.path}-never"))
        gate.open()
        assert await neighbour == "kept"
        assert neighbour.info.attempts == 5
        assert pool.status().deaths == 0


async def test_replacement_is_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that replaces one which was killed for a cancelled call imports what that had, before it takes calls."""
    (tmp_path / "imported_late.py").write_text(
        "import os, time\n"
        "LOG = os.path.join(os.path.dirname(__file__), 'log')\n"
        "with open(LOG, 'a') as log: log.write(f'{os.getpid()}\\n')\n"
        "def work(seconds):\n"
        "    if seconds: open(LOG + '-begun', 'w').close()\n"
        "    time.sleep(seconds)\n"
        "    return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import imported_late

    log = tmp_path / "log"
    async with ProcessExecutor(1) as pool:
        first = await pool.submit(imported_late.work, 0)
        call = pool.submit(imported_late.work, 600)
        await until((tmp_path / "log-begun").exists)
        call.cancel()
        await until(lambda: len(log.read_text().split()) == 3)
        second = int(log.read_text().split()[2])
        assert second != first
        assert await pool.submit(imported_late.work, 0) == second
        assert len(log.read_text().split()) == 3


async def test_timeouts_of_lost_calls_are_forgotten() -> None:
    """Nothing waits for the time of a call whose worker has died."""
    async with ProcessExecutor(1, engine="resident") as pool:
        patient = pool.options(timeout=600)
        with pytest.raises(WorkerLostError):
            await patient.submit(os._exit, 3)
        assert await patient.submit(abs, -1) == 1
        assert pool._hands._timers == {}  # type: ignore[attr-defined]
