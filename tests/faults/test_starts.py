"""When no worker can be started there is one clear error, soon; when only some cannot, the others work."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from aioparallel import (
    ExecutorClosedError,
    PicklingError,
    ProcessExecutor,
    WorkerLostError,
    WorkerStartError,
    wait_all,
)
from aioparallel._workers import agents, link, station
from tests.faults.programs import run
from tests.tools import Gate, Log, hold, is_alive, no_descriptors, until, wait_for


def fail_to_start() -> None:
    raise LookupError("the model is not there")


def exit_at_start(code: int) -> None:
    print("about to give up", flush=True)
    os._exit(code)


def leave_at_start() -> None:
    sys.exit(" ".join(["no", "licence"]))


def hang_at_start(log: Log) -> None:
    log.write(os.getpid())
    time.sleep(1000)


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "failing initializer": ({"initializer": fail_to_start}, "LookupError: the model is not there"),
    "initializer that exits": ({"initializer": lambda: exit_at_start(5)}, "exited with code 5"),
    "initializer that calls sys.exit": ({"initializer": leave_at_start}, "no licence"),
    "module that is missing": ({"preload": ["no_such_module"]}, "No module named 'no_such_module'"),
    "module that raises": ({"preload": ["broken_module"]}, "RuntimeError: this module is broken"),
    "module that exits": ({"preload": ["exiting_module"]}, "exited with code 9"),
}


@pytest.fixture
def broken_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('this module is broken')\n")
    (tmp_path / "exiting_module.py").write_text("import os; os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("broken_modules")
@pytest.mark.parametrize("what", FAILURES)
async def test_workers_that_all_die_at_start(what: str) -> None:
    """When every new worker dies at its start, opening the pool ends with one error that holds the reason."""
    options, reason = FAILURES[what]
    pool = ProcessExecutor(2, engine="resident", **options)
    began = time.monotonic()
    with pytest.raises(WorkerStartError) as caught:
        await pool.start()
    assert time.monotonic() - began < 15
    assert reason in str(caught.value)
    assert str(caught.value).count(reason) == 1, "once is enough"
    assert "closed" in repr(pool)


@pytest.mark.usefixtures("broken_modules")
async def test_pool_can_be_mended() -> None:
    """A pool that could not be started can be started when the fault is gone."""
    pool = ProcessExecutor(1, engine="resident", preload=["broken_module"])
    with pytest.raises(WorkerStartError):
        await pool.start()
    pool.preload = ()
    async with pool:
        assert await pool.submit(abs, -1) == 1


@pytest.mark.parametrize("engine", ["resident", "anyio"])
async def test_initializer_that_cannot_travel(engine: str) -> None:
    """An initializer that cannot be pickled fails the start, and leaves nothing behind."""
    lock = threading.Lock()
    with pytest.raises(PicklingError, match="lock"):
        await ProcessExecutor(1, engine=engine, initializer=lambda: lock).start()


async def test_environment_that_cannot_be_made() -> None:
    """What an ``env`` function raises is the reason why no worker can be started."""

    def env(index: int) -> dict[str, str]:
        raise LookupError(f"no device for worker {index}")

    with pytest.raises(WorkerStartError, match="LookupError: no device for worker 0") as caught:
        await ProcessExecutor(1, engine="resident", env=env).start()
    assert isinstance(caught.value.__cause__.__cause__, LookupError)


async def test_environment_that_cannot_be_made_again(tmp_path: Path) -> None:
    """When an ``env`` function raises for a replacement, calls fail with the reason, as after any failed start."""
    fault = tmp_path / "fault"

    def env(index: int) -> dict[str, str]:
        if fault.exists():
            raise LookupError("no device")
        return {"DEVICE": str(index)}

    async with ProcessExecutor(1, engine="resident", env=env) as pool:
        assert await pool.submit(os.getenv, "DEVICE") == "0"
        fault.touch()
        with pytest.raises(WorkerLostError):
            await pool.submit(os._exit, 1)
        with pytest.raises(WorkerStartError, match="no device"):
            await asyncio.wait_for(pool.submit(abs, -1), 20)


def fail_in_the_second_process(log: Log) -> None:
    log.write(os.getpid())
    if len(log.lines) > 1:
        raise LookupError("only one licence")


async def test_some_workers_cannot_start(log: Log) -> None:
    """When one worker has started and others cannot, that one does all the work."""
    async with ProcessExecutor(3, engine="resident", initializer=lambda: fail_in_the_second_process(log)) as pool:
        await until(lambda: len(log.lines) >= 3)
        assert await wait_all([pool.submit(abs, -n) for n in range(100)]) == list(range(100))


async def test_replacements_cannot_start(tmp_path: Path) -> None:
    """When a worker dies and no replacement can be started, queued and later calls fail with the reason, soon."""
    fault = tmp_path / "fault"

    def initialize() -> None:
        if fault.exists():
            raise LookupError("the licence has expired")

    async with ProcessExecutor(1, engine="resident", initializer=initialize) as pool:
        assert await pool.submit(abs, -1) == 1
        fault.touch()
        doomed = pool.submit(os._exit, 1)
        queued = [pool.submit(abs, -n) for n in range(10)]
        with pytest.raises(WorkerLostError):
            await doomed
        for call in [*queued, pool.submit(abs, -1)]:
            with pytest.raises(WorkerStartError, match="the licence has expired"):
                await asyncio.wait_for(call, 20)
        assert pool.task_count == 0
        assert pool.status().failed == 12


async def test_start_that_hangs_can_be_cancelled(log: Log) -> None:
    """A start whose initializer never returns can be given up, which kills the workers that it has begun."""
    pool = ProcessExecutor(2, engine="resident", initializer=lambda: hang_at_start(log))
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: len(log.lines) == 2)
    starting.cancel()
    await asyncio.wait([starting], timeout=4)
    assert starting.cancelled()
    assert not any(is_alive(int(pid)) for pid in log.lines)


async def test_start_that_hangs_can_be_closed(log: Log) -> None:
    """``aclose(drain=False)`` gives a hanging start up; whoever waits for it is told that the pool is closed."""
    pool = ProcessExecutor(1, engine="resident", initializer=lambda: hang_at_start(log))
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: log.lines)
    early = pool.submit(abs, -1)
    await asyncio.wait_for(pool.aclose(drain=False), 4)
    await asyncio.wait([starting])
    assert type(starting.exception()).__name__ == "ExecutorClosedError"
    assert early.cancelled()


async def test_start_that_hangs_and_is_closed_in_peace(log: Log) -> None:
    """``aclose()`` waits no longer than ``grace`` for a pool that is still being opened, and to which nothing came."""
    pool = ProcessExecutor(1, engine="resident", initializer=lambda: hang_at_start(log), grace=0.2)
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: log.lines)
    await asyncio.wait_for(pool.aclose(), 10)
    await asyncio.wait([starting])
    assert isinstance(starting.exception(), ExecutorClosedError)
    assert not is_alive(int(log.lines[0]))


async def test_slow_start_with_calls_that_is_closed_in_peace(tmp_path: Path) -> None:
    """``aclose()`` waits for what was submitted, however long the workers take to start; and then for nothing else."""
    gate = Gate(str(tmp_path / "gate"))
    pool = ProcessExecutor(1, engine="resident", initializer=lambda: hold(gate), grace=0.01)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    early = pool.submit(abs, -1)
    await until(lambda: gate.entered)
    closing = asyncio.ensure_future(pool.aclose())
    assert not (await asyncio.wait([closing], timeout=0.5))[0]
    gate.open()
    assert await asyncio.wait_for(early, 10) == 1
    await asyncio.wait_for(closing, 10)
    await starting


async def test_hanging_start_whose_calls_are_cancelled(log: Log) -> None:
    """A pool that hangs in its start is closed as soon as nothing waits for it any more."""
    pool = ProcessExecutor(1, engine="resident", initializer=lambda: hang_at_start(log), grace=0.01)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    early = pool.submit(abs, -1)
    await until(lambda: log.lines)
    closing = asyncio.ensure_future(pool.aclose())
    assert not (await asyncio.wait([closing], timeout=0.5))[0]
    early.cancel()
    await asyncio.wait_for(closing, 10)
    await asyncio.wait([starting])
    assert isinstance(starting.exception(), ExecutorClosedError)


def hang_in_the_second_process(log: Log) -> None:
    log.write(os.getpid())
    if len(log.lines) > 1:
        time.sleep(1000)


async def test_worker_that_hangs_beside_others(log: Log) -> None:
    """A worker that hangs in its initializer keeps neither calls from running nor the pool from closing."""
    initializer = functools.partial(hang_in_the_second_process, log)
    async with ProcessExecutor(2, engine="resident", initializer=initializer, grace=0.2) as pool:
        await until(lambda: len(log.lines) == 2)
        assert await pool.map(abs, range(-100, 0)) == list(range(100, 0, -1))
        states = {worker.state: worker for worker in pool.status(per_worker=True).per_worker}
        assert states["ready"].starting_since is None
        assert 0 <= time.time() - states["starting"].starting_since < 60
        hanging = states["starting"].pid
    assert not is_alive(hanging)


@pytest.mark.parametrize("replaced", [False, True])
async def test_workers_that_hang_are_told_of(
    replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells, again and again, of a worker that takes long to start, and where it is; also of a replacement."""
    monkeypatch.setattr(station, "LATE_SECONDS", 0.1)
    fault, log = tmp_path / "fault", Log(str(tmp_path / "log"))

    def initialize() -> None:
        if fault.exists():
            hang_at_start(log)

    pool = ProcessExecutor(1, engine="resident", initializer=initialize, name="cpu")
    if replaced:
        await pool.start()
        fault.touch()
        with pytest.raises(WorkerLostError):
            await pool.submit(os._exit, 1)
        waiting = pool.submit(abs, -1)
    else:
        fault.touch()
        waiting = asyncio.ensure_future(pool.start())
    await until(lambda: len([record for record in caplog.messages if "hang_at_start" in record]) >= 2)
    told = caplog.messages[-1]
    assert told.startswith(f"cpu-0 (pid {log.lines[-1]}) takes no calls yet, ")
    assert " s after its start: it imports what is to be preloaded, or is in its initializer\n" in told
    assert "worker.py" not in told
    assert is_alive(int(log.lines[-1])), "to look at it does it no harm"
    await pool.aclose(drain=False)
    await asyncio.wait([asyncio.ensure_future(wait_all([waiting], timeout=10))])


async def test_import_that_hangs_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells which import it is that a worker hangs in."""
    monkeypatch.setattr(station, "LATE_SECONDS", 0.1)
    (tmp_path / "hanging_module.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    starting = asyncio.ensure_future(ProcessExecutor(1, engine="resident", preload=["hanging_module"]).start())
    await until(lambda: any("hanging_module.py" in record for record in caplog.messages))
    starting.cancel()
    await asyncio.wait([starting])


# Too few descriptors


SCARCE = """
import asyncio, logging, resource, sys
from aioparallel import ProcessExecutor, WorkerStartError

async def main():
    async with ProcessExecutor(20, engine="resident") as pool:
        print(await pool.map(abs, range(-10, 0)))
        while not complaints:
            await asyncio.sleep(0.01)
    print(complaints[0].getMessage())

complaints = []
logger = logging.getLogger("aioparallel")
logger.addFilter(complaints.append)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
try:
    asyncio.run(main())
except WorkerStartError as error:
    print(error)
"""
ADVICE = "and needs some for each worker: raise `ulimit -n`, or use fewer workers"


def test_descriptors_for_some_workers() -> None:
    """When there are descriptors for some workers only, those do all the work, and the log says what to do about it."""
    results, *told = run("-c", SCARCE, "44").splitlines()
    assert results == str(list(range(10, 0, -1)))
    assert told[0].startswith("process: a worker cannot be started; it is tried again.")
    assert (
        f"the host agent cannot start a worker: [Errno 24] Too many open files. It may have 44 files open, {ADVICE}"
        in ("\n".join(told))
    )


def test_descriptors_for_no_worker() -> None:
    """When there are too few descriptors for a single worker, the start fails, and says what to do about it."""
    told = run("-c", SCARCE, "32")
    assert told.startswith("no worker can be started: ")
    assert f"Too many open files. It may have 32 files open, {ADVICE}" in told


async def test_no_descriptors_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this process has no descriptor left for its workers, the start fails, and says what to do about it."""
    monkeypatch.setattr(link, "FULL_SECONDS", 0.1)
    with ExitStack() as stack:

        def env(index: int) -> dict[str, str]:
            if not taken:
                taken.append(stack.enter_context(no_descriptors()))
            return {}

        taken: list[None] = []
        with pytest.raises(WorkerStartError) as caught:
            await ProcessExecutor(1, engine="resident", env=env).start()
    assert "it cannot connect to this process: [Errno 24] Too many open files. This process may" in str(caught.value)
    assert ADVICE in str(caught.value)


@pytest.mark.parametrize("engine", ["resident", None])
async def test_no_descriptors_at_all(engine: str | None) -> None:
    """When this process has no descriptor left to start anything, the start fails, and says what to do about it."""
    async with ProcessExecutor(1, engine="resident"):
        pass  # so that all is imported
    with no_descriptors(), pytest.raises(WorkerStartError, match=ADVICE):
        await ProcessExecutor(1, engine=engine).start()


# Other things that fail


def test_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the host agent cannot be started, ``engine="resident"`` says so, and no engine means the other one."""
    monkeypatch.setattr(agents, "_command", lambda: ["/nonexistent/python"])

    async def use(engine: str | None) -> Any:
        async with ProcessExecutor(1, engine=engine) as pool:
            return await pool.submit(abs, -1)

    with pytest.raises(WorkerStartError, match="host agent"):
        asyncio.run(use("resident"))
    assert asyncio.run(use(None)) == 1
    assert any("anyio.to_process" in record.getMessage() for record in caplog.records)


async def test_no_private_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder can be written, the error says what to set."""
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(WorkerStartError, match="TMPDIR"):
        await ProcessExecutor(1, engine="resident").start()


async def test_calls_submitted_while_it_starts(log: Log) -> None:
    """Calls that are submitted before the workers are ready run, each with its own function."""
    pool = ProcessExecutor(1, engine="resident")
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    early = pool.submit(lambda: "early")
    await starting
    late = pool.submit(lambda: "late")
    assert (await early, await late) == ("early", "late")
    await pool.aclose()


async def test_calls_submitted_while_it_fails_to_start() -> None:
    """Calls that are submitted to a pool which then cannot be started fail with the reason."""
    pool = ProcessExecutor(1, engine="resident", initializer=fail_to_start)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    early = [pool.submit(abs, -n) for n in range(3)]
    for call in early:
        with pytest.raises(WorkerStartError, match="the model is not there"):
            await asyncio.wait_for(call, 20)
    await asyncio.wait([starting])
    assert isinstance(starting.exception(), WorkerStartError)


def start_and_stop(log: Log) -> None:
    log.write(os.getpid())


async def test_initializer_runs_once_in_each_worker(log: Log) -> None:
    """The initializer runs once in each worker, replacements included, before its first call."""
    async with ProcessExecutor(2, engine="resident", initializer=lambda: start_and_stop(log)) as pool:
        await until(lambda: len(log.lines) == 2)
        pids = {str(await pool.submit(os.getpid)) for _ in range(10)}
        assert pids <= set(log.lines)
        with pytest.raises(WorkerLostError):
            await pool.submit(os._exit, 1)
        await until(lambda: len(log.lines) == 3)
    assert len(set(log.lines)) == 3
    wait_for(lambda: not any(is_alive(int(pid)) for pid in log.lines))
