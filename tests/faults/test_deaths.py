"""A worker that dies fails the call that it was running, which says why, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aioparallel import (
    PoisonTaskError,
    ProcessExecutor,
    Retry,
    TaskTimeoutError,
    WorkerLostError,
    WorkerStartError,
    wait_all,
)
from aioparallel._child.folders import private_folder, remove_folder
from aioparallel._workers import agents
from tests.faults.deadly import (
    begin_and_die,
    big_result,
    close_everything,
    die_once,
    exit_hard,
    kill_self,
    say_and_die,
    segfault,
    tick,
    tick_and_die,
)
from tests.tools import Gate, Log, hold, is_alive, until

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


DEATHS = {
    "SIGKILL": (lambda: kill_self(signal.SIGKILL), {"signal": "SIGKILL", "exitcode": None}),
    "SIGTERM": (lambda: kill_self(signal.SIGTERM), {"signal": "SIGTERM", "exitcode": None}),
    "segfault": (segfault, {"signal": "SIGSEGV", "exitcode": None}),
    "abort": (os.abort, {"signal": "SIGABRT", "exitcode": None}),
    "os._exit": (lambda: exit_hard(7), {"signal": None, "exitcode": 7}),
    "os._exit(0)": (lambda: exit_hard(0), {"signal": None, "exitcode": 0}),
}


@pytest.mark.parametrize("how", DEATHS)
async def test_ten_deaths_in_a_row(opened: Any, how: str) -> None:
    """A pool of one worker survives ten deaths of it, each of which fails one call and says what happened."""
    die, said = DEATHS[how]
    pool = await opened(1)
    for _ in range(10):
        doomed = pool.submit(die)
        neighbours = [pool.submit(abs, -n) for n in range(5)]
        with pytest.raises(WorkerLostError) as caught:
            await doomed
        assert {name: getattr(caught.value, name) for name in said} == said
        assert await wait_all(neighbours) == [0, 1, 2, 3, 4]
    status = pool.status()
    assert (status.deaths, status.failed, status.done) == (10, 10, 50)


async def test_fields(opened: Any) -> None:
    """The error of a lost call says which call, worker, process and signal it was, how long it ran, and its memory."""
    pool = await opened(1, name="crunchers")
    pid = await pool.submit(os.getpid)
    call = pool.submit(kill_self, signal.SIGKILL)
    with pytest.raises(WorkerLostError) as caught:
        await call
    error = caught.value
    assert (error.call, error.worker, error.pid, error.host) == ("kill_self", "crunchers-0", pid, None)
    assert error.running_for is not None
    assert 0 <= error.running_for < 30
    assert error.max_rss is not None
    assert 2**20 < error.max_rss < 2**34
    text = str(error)
    assert f"crunchers-0 (pid {pid}) was killed by SIGKILL while running kill_self" in text
    assert "out-of-memory killer" in text, "a kill that we did not send is explained"
    assert call.info.state == "failed"


async def test_last_output(opened: Any) -> None:
    """The last lines that a worker wrote are in the error, the unfinished one too."""
    pool = await opened(1)
    with pytest.raises(WorkerLostError) as caught:
        await pool.submit(say_and_die, [f"line {n}" for n in range(100)])
    assert "line 99" in caught.value.last_output
    assert "the last word, without an end" in caught.value.last_output
    assert "line 0\n" not in caught.value.last_output
    assert "line 99" in str(caught.value)


async def test_idle_worker_that_is_killed(opened: Any) -> None:
    """A worker that is killed while it has nothing to do is replaced, and no call notices."""
    pool = await opened(2)
    for _ in range(5):
        os.kill(await pool.submit(os.getpid), signal.SIGKILL)
        assert await wait_all([pool.submit(abs, -n) for n in range(20)]) == list(range(20))
    await until(lambda: pool.status().deaths >= 4, "a death that was in time to hit an idle worker counts")


async def test_kill_from_outside(opened: Any, gate: Gate, tmp_path: Path) -> None:
    """Whoever kills a worker from outside fails its call only."""
    pool = await opened(2)
    other = Gate(str(tmp_path / "other"))
    doomed, kept = pool.submit(hold, gate), pool.submit(hold, other, "kept")
    await until(lambda: gate.entered and other.entered)
    os.kill(gate.entered[0], signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        await doomed
    other.open()
    assert await kept == "kept"


async def test_connection_that_is_cut(opened: Any) -> None:
    """A call that closes the worker's connection is lost with its worker, and the pool goes on."""
    pool = await opened(1)
    with pytest.raises(WorkerLostError):
        await pool.submit(close_everything)
    assert await pool.submit(abs, -1) == 1


async def test_stopped_worker_and_timeout(opened: Any, gate: Gate) -> None:
    """A call in a worker that somebody has stopped (SIGSTOP) is overdue as any other."""
    pool = await opened(1)
    call = pool.options(timeout=0.5).submit(hold, gate)
    await until(lambda: gate.entered)
    os.kill(gate.entered[0], signal.SIGSTOP)
    with pytest.raises(TaskTimeoutError):
        await call
    assert not is_alive(gate.entered[0])
    assert await pool.submit(abs, -1) == 1


async def test_stopped_worker_and_cancellation(opened: Any, gate: Gate) -> None:
    """A call in a worker that somebody has stopped can be cancelled."""
    pool = await opened(1)
    call = pool.submit(hold, gate)
    await until(lambda: gate.entered)
    os.kill(gate.entered[0], signal.SIGSTOP)
    call.cancel()
    await asyncio.wait([call], timeout=20)
    assert call.cancelled()
    assert not is_alive(gate.entered[0])


async def test_stopped_worker_and_closing(gate_free: Gate) -> None:
    """A pool with a stopped worker can be closed; it does not wait longer than its grace."""
    pool = await ProcessExecutor(1, grace=0.2).start()
    pid = await pool.submit(os.getpid)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await pool.aclose()
    assert time.monotonic() - began < 10
    assert not is_alive(pid)


@pytest.fixture
def gate_free(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "free"))


async def test_killed_while_sending_a_large_result(opened: Any, log: Log) -> None:
    """A worker that is killed in the middle of a result of 100 MB fails that call only, and half a result is none."""
    pool = await opened(1)
    await pool.submit(abs, -1)
    size = 100 * 2**20
    call = pool.submit(big_result, log, size)
    behind = [pool.submit(abs, -n) for n in range(20)]
    # While this does not await, nobody reads: the worker is stuck with most of its result unsent.
    deadline = time.monotonic() + 20
    while not _is_sending(log) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int(log.lines[0]), signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        await call
    assert await wait_all(behind) == list(range(20))
    assert len(await pool.submit(big_result, log, size)) == size


def _is_sending(log: Log) -> bool:
    """Whether the worker sleeps in the call that sends its result."""
    return bool(log.lines) and "unix_stream" in Path(f"/proc/{log.lines[0]}/wchan").read_text().replace(
        "sock_", "unix_stream"
    )


# Retries and blame


async def test_lost_call_is_not_repeated(opened: Any, log: Log) -> None:
    """A call that was lost may have had its effects, so it is not begun again, whatever ``Retry`` says of exceptions."""
    pool = await opened(2)
    with pytest.raises(WorkerLostError):
        await pool.options(retry=Retry(5, backoff=0)).submit(begin_and_die, log)
    assert len(log.lines) == 1


@pytest.mark.parametrize(
    "options", [{"idempotent": True}, {"retry": Retry(5, worker_lost=True)}], ids=["idempotent", "worker_lost"]
)
async def test_poison(opened: Any, log: Log, options: dict[str, Any]) -> None:
    """A call that may be repeated, and kills three workers, is poison: the error has the history of them all."""
    pool = await opened(1)
    call = pool.options(**options).submit(begin_and_die, log)
    behind = pool.submit(abs, -1)
    with pytest.raises(PoisonTaskError) as caught:
        await call
    assert len(log.lines) == 3
    assert len(caught.value.history) == 3
    assert all(f"pid {pid}" in line for pid, line in zip(log.lines, caught.value.history, strict=True))
    assert isinstance(caught.value, WorkerLostError)
    assert caught.value.exitcode == 1
    assert await behind == 1


async def test_idempotent_call_is_repeated(opened: Any, log: Log) -> None:
    """A call whose caller says that it may happen twice is begun again when its worker is lost."""
    pool = await opened(2)
    call = pool.options(idempotent=True).submit(die_once, log)
    assert await call == 2
    assert call.info.attempts == 2


async def test_full_queue_survives_deaths(opened: Any, log: Log) -> None:
    """Of ten thousand queued calls ten kill their workers: those ten fail, every other is run exactly once."""
    pool = await opened(2)
    doomed = set(range(500, 10_000, 1000))
    calls = [pool.submit(tick_and_die if n in doomed else tick, log, n) for n in range(10_000)]
    await asyncio.wait(calls)
    for n, call in enumerate(calls):
        if n in doomed:
            assert isinstance(call.exception(), WorkerLostError), n
        else:
            assert call.result() == n
    assert sorted(map(int, log.lines)) == list(range(10_000)), "each was begun once"
    assert pool.status().deaths == 10


async def test_blame_within_a_frame(opened: Any, log: Log) -> None:
    """When short calls travel together and one kills the worker, those before it keep their results."""
    pool = await opened(1)
    await wait_all([pool.submit(tick, log, -1) for _ in range(300)])  # now they are known to be short
    for _ in range(5):
        calls = [pool.submit(os._exit if n == 150 else abs, n) for n in range(300)]
        await asyncio.wait(calls)
        assert isinstance(calls[150].exception(), WorkerLostError)
        assert [call.result() for n, call in enumerate(calls) if n != 150] == [n for n in range(300) if n != 150]


# The host agent


def agent_of(pool: ProcessExecutor) -> int:
    """The process id of a pool's host agent."""
    pid = pool._workers.station.agent.pid  # type: ignore[union-attr]
    assert pid is not None
    return pid


@linux
async def test_agent_is_killed(opened: Any, gate: Gate, log: Log) -> None:
    """When the host agent is killed, the running calls are reported lost, queued ones run, and the pool heals."""
    pool = await opened(2)
    for round_ in range(3):
        gate_here = Gate(f"{gate.path}{round_}")
        running = [pool.submit(hold, gate_here) for _ in range(2)]
        await until(lambda gate=gate_here: len(gate.entered) == 2)
        queued = [pool.submit(tick, log, n) for n in range(50)]
        os.kill(agent_of(pool), signal.SIGKILL)
        for call in running:
            with pytest.raises(WorkerLostError):
                await call
        assert await wait_all(queued) == list(range(50))
        assert not any(map(is_alive, gate_here.entered))
    assert sorted(map(int, log.lines)) == sorted(list(range(50)) * 3)


@linux
async def test_agent_is_killed_while_idle(opened: Any) -> None:
    """A pool that was idle when its host agent was killed works when it is used again."""
    pool = await opened(2)
    pids = {await pool.submit(os.getpid) for _ in range(10)}
    os.kill(agent_of(pool), signal.SIGKILL)
    await until(lambda: not any(map(is_alive, pids)))
    assert await wait_all([pool.submit(abs, -n) for n in range(50)]) == list(range(50))


@linux
async def test_agent_that_cannot_be_replaced(opened: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the host agent is killed and no other can be started, calls fail with one error that says so, soon."""
    pool = await opened(1)
    running = pool.submit(hold, gate)
    queued = pool.submit(abs, -1)
    await until(lambda: gate.entered)
    monkeypatch.setattr(agents, "_command", lambda: [sys.executable, "-c", "raise SystemExit(1)"])
    os.kill(agent_of(pool), signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        await running
    for call in (queued, pool.submit(abs, -1)):
        with pytest.raises(WorkerStartError, match="host agent"):
            await asyncio.wait_for(call, 20)
    assert pool.task_count == 0


@linux
async def test_agent_is_killed_during_closing(gate_free: Gate) -> None:
    """A pool whose host agent is killed while it closes is closed all the same."""
    pool = await ProcessExecutor(2).start()
    call = pool.submit(hold, gate_free)
    await until(lambda: gate_free.entered)
    agent = agent_of(pool)
    closing = asyncio.ensure_future(pool.aclose())
    await asyncio.sleep(0)
    os.kill(agent, signal.SIGKILL)
    await asyncio.wait([closing], timeout=20)
    assert closing.done()
    assert isinstance(call.exception(), WorkerLostError)
    assert not is_alive(gate_free.entered[0])


@linux
async def test_folder_is_deleted(opened: Any, gate: Gate) -> None:
    """A pool whose private folder was tidied away keeps its workers, and new ones get a new folder."""
    pool = await opened(2)
    folder = Path(pool._workers.folder)
    await until(lambda: pool._run.ledger._roster.ready == 2)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert await wait_all([pool.submit(abs, -n) for n in range(50)]) == list(range(50))
    running = pool.submit(hold, gate, "kept")
    await until(lambda: gate.entered)
    for _ in range(3):
        with pytest.raises(WorkerLostError):
            await pool.submit(os._exit, 1)
        assert await asyncio.wait_for(pool.submit(abs, -1), 20) == 1
    gate.open()
    assert await running == "kept"


@linux
async def test_socket_is_deleted(opened: Any) -> None:
    """A pool whose socket alone was tidied away keeps the rest of its folder, which is in use, until it is closed."""
    pool = await opened(1)
    folder = Path(pool._workers.folder)
    await until(lambda: pool._run.ledger._roster.ready == 1)
    (folder / "s").unlink()
    kept = set(folder.iterdir()) - set(folder.glob("p*"))  # a worker's page goes with the worker
    with pytest.raises(WorkerLostError):
        await pool.submit(os._exit, 1)
    assert await pool.submit(abs, -1) == 1
    assert Path(pool._workers.folder) != folder
    remove_folder(private_folder())  # whoever makes a folder removes what is left over
    assert kept <= set(folder.iterdir())
    await pool.aclose()
    assert not folder.exists()


async def test_cancelled_calls_that_were_sent_never_begin(opened: Any, gate: Gate, log: Log) -> None:
    """Calls that wait in a worker behind a long one, and are cancelled, never begin, also when the long one has ended."""
    pool = await opened(1)
    await wait_all([pool.submit(tick, log, -1) for _ in range(300)])  # now they are known to be short, and sent ahead
    long = pool.submit(hold, gate)
    sent = [pool.submit(tick, log, n) for n in range(200)]
    await until(lambda: gate.entered)
    for call in sent:
        call.cancel()
    await asyncio.wait(sent)
    gate.open()
    await long
    assert await pool.submit(tick, log, "after") == "after"
    assert set(log.lines) == {"-1", "after"}
