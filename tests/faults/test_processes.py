"""What calls start ends with them; signals, forks and children stay on their side."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from aioparallel import TaskTimeoutError, WorkerLostError, wait_all
from tests.tools import Gate, Log, hold, is_alive, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


def start_children(log: Log) -> None:
    """Start a child, one in a session of its own, and one that was orphaned there; then wait."""
    for how in ({}, {"start_new_session": True}):
        log.write(subprocess.Popen(SLEEP, **how).pid)
    orphan = "from subprocess import *; import sys; p = Popen(sys.argv[1:], start_new_session=True, stdout=DEVNULL); print(p.pid)"
    said = subprocess.run([sys.executable, "-c", orphan, *SLEEP], stdout=subprocess.PIPE, check=True).stdout
    log.write(int(said.split()[0]))
    time.sleep(1000)


def children(log: Log) -> list[int]:
    return [int(line) for line in log.lines]


@pytest.mark.parametrize("how", ["cancel", "timeout", "kill", "close"])
async def test_grandchildren(opened: Any, log: Log, how: str) -> None:
    """Processes that a call has started end with it, also in sessions of their own and when they were orphaned."""
    pool = await opened(1)
    call = pool.options(timeout=1.5 if how == "timeout" else None).submit(start_children, log)
    await until(lambda: len(children(log)) == 3 or call.done())  # on a busy machine time may be up before
    assert call.done() or all(map(is_alive, children(log)))
    if how == "cancel":
        call.cancel()
        await asyncio.wait([call])
        assert not any(map(is_alive, children(log))), "the future is done when all is gone"
    elif how == "timeout":
        with pytest.raises(TaskTimeoutError):
            await call
    elif how == "kill":
        os.kill(children(log)[0], signal.SIGKILL)  # the child alone
        (carrier,) = pool._workers.station.carriers.values()
        os.kill(carrier.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            await call
    else:
        await pool.aclose(drain=False)
    await until(lambda: not any(map(is_alive, children(log))), seconds=5)
    await pool.start()
    assert await pool.submit(abs, -1) == 1


def fork_and_leave() -> int:
    """Fork a child which does what careful programs do: it leaves by ``os._exit``."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


async def test_fork_in_a_call(opened: Any) -> None:
    """A call may fork."""
    pool = await opened(1)
    assert await wait_all([pool.submit(fork_and_leave) for _ in range(5)]) == [0] * 5
    assert pool.status().deaths == 0


def fork_and_return(log: Log) -> str:
    """Fork a child which, by mistake, returns as its parent does."""
    log.write(os.getpid())
    pid = os.fork()
    log.write(os.getpid())
    if pid:
        os.waitpid(pid, 0)
    return "child" if not pid else "parent"


@pytest.mark.parametrize("threads", [1, 2])
async def test_fork_that_returns_twice(opened: Any, log: Log, capsys: pytest.CaptureFixture[str], threads: int) -> None:
    """A forked child that comes back from the call is ended: it neither speaks for the worker nor takes its calls."""
    pool = await opened(1, threads_per_worker=threads)
    assert await asyncio.wait_for(pool.submit(fork_and_return, log), 20) == "parent"
    await until(lambda: "use os._exit" in capsys.readouterr().err)
    assert await asyncio.wait_for(wait_all([pool.submit(abs, -n) for n in range(50)]), 20) == list(range(50))
    assert not is_alive(int(log.lines[-1])) or log.lines[-1] == log.lines[0]


def use_multiprocessing() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


async def test_multiprocessing_in_a_call(opened: Any) -> None:
    """A call may use ``multiprocessing``: workers are no daemons."""
    pool = await opened(1)
    assert await pool.submit(use_multiprocessing) == [1, 2, 3]


async def test_own_signal_handlers(opened: Any, gate: Gate) -> None:
    """A SIGTERM to a worker does not reach the handler that the program gave its own loop."""
    pool = await opened(1)
    loop = asyncio.get_running_loop()
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        loop.add_signal_handler(number, received.append, number)
    try:
        call = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        os.kill(gate.entered[0], signal.SIGTERM)
        with pytest.raises(WorkerLostError, match="SIGTERM"):
            await call
        os.kill(pool._workers.station.agent.pid, signal.SIGHUP)
        assert await pool.submit(abs, -1) == 1
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: received == [signal.SIGTERM], "the program's own signals still reach it")
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(number)


async def test_interrupt(opened: Any, gate: Gate) -> None:
    """Ctrl-C goes to a terminal's whole process group; workers leave it to the program to decide."""
    pool = await opened(1)
    call = pool.submit(hold, gate, "uninterrupted")
    await until(lambda: gate.entered)
    os.kill(gate.entered[0], signal.SIGINT)
    os.kill(pool._workers.station.agent.pid, signal.SIGINT)
    os.kill(pool._workers.station.agent.pid, signal.SIGTERM)
    gate.open()
    assert await call == "uninterrupted"
    assert pool.status().deaths == 0


def ignore_sigterm(gate: Gate) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hold(gate)


async def test_call_that_ignores_signals(opened: Any, gate: Gate) -> None:
    """A call that ignores every signal it can is stopped all the same."""
    pool = await opened(1)
    call = pool.submit(ignore_sigterm, gate)
    await until(lambda: gate.entered)
    call.cancel()
    await until(call.done, seconds=5)
    assert call.cancelled()
    assert not is_alive(gate.entered[0])


def open_descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # the descriptor of this very listing
    return found


async def test_descriptors_of_the_program(opened: Any, tmp_path: Any) -> None:
    """Workers have none of the program's open files, sockets and pipes."""
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        pool = await opened(2)
        found = await pool.submit(open_descriptors)
    assert str(tmp_path / "secret") not in found
    assert sum("socket" in each for each in found) == 1, "its own connection"


async def test_environment(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have the program's environment at the start, with their own on top, by index, before anything is imported."""
    monkeypatch.setenv("COLOUR", "red")
    monkeypatch.setenv("SHAPE", "round")
    pool = await opened(2, env=lambda index: {"DEVICE": str(index), "SHAPE": f"square {index}"})
    calls = [pool.submit(os.getenv, name) for name in ("COLOUR", "DEVICE", "SHAPE") for _ in range(20)]
    values = await wait_all(calls)
    assert set(values[:20]) == {"red"}
    assert set(values[20:40]) <= {"0", "1"}
    assert set(values[40:]) <= {"square 0", "square 1"}
