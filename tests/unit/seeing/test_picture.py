"""What a board shows, from pools that really work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from aioparallel import (
    CoroutineExecutor,
    Limit,
    PoolStatus,
    ProcessExecutor,
    RunningCall,
    ThreadExecutor,
    WorkerLostError,
    WorkerStatus,
    wait_all,
)
from aioparallel._policy.latency import Latencies
from aioparallel._seeing.picture import Line, histogram, picture, summary
from aioparallel._seeing.tally import Tally
from aioparallel.events import WorkerEnded
from tests.tools import Gate, hold, hold_async, until
from tests.unit.seeing.test_tally import ended


def shot(
    pool: Any, tally: Tally, *, elapsed: float = 10.0, ahead: float = 0.0, rows: int = 20, **room: int
) -> list[Line]:
    """What is shown of a pool, now or some time ahead."""
    return picture(pool, tally, elapsed=elapsed, now=time.time() + ahead, rows=rows, **room)


def texts(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it survived")


async def test_what_runs_and_since_when(tmp_path: object) -> None:
    """A running call is shown with its name, its age, its worker and process; an idle worker as idle."""
    gate = Gate(f"{tmp_path}/gate")
    tally = Tally()
    async with ProcessExecutor(2, name="cpu") as pool:
        await until(lambda: pool.status().workers == 2)
        with pool.observe(tally):
            call = pool.options(name="crunch").submit(hold, gate)
            await until(lambda: gate.entered)
            lines = shot(pool, tally, ahead=5.2)
        (row,) = [line.text.split() for line in lines if "crunch" in line.text]
        assert row[:4] == [call.info.worker, str(gate.entered[0]), "running", "crunch"]
        assert row[5] == "s"
        assert 5.0 <= float(row[4]) < 15
        assert [line.style for line in lines if " idle " in line.text] == ["dim"]
        assert "queued 0 · running 1 · done 0" in lines[0].text
        gate.open()


async def test_what_is_starting_and_since_when(tmp_path: object) -> None:
    """A worker that takes no calls yet is shown as starting, with the time that it has taken for that."""
    gate = Gate(f"{tmp_path}/gate")
    pool = ProcessExecutor(1, name="cpu", initializer=lambda: hold(gate))
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: gate.entered)
    (line,) = [line for line in shot(pool, Tally(), elapsed=0.0, ahead=65.0) if " starting " in line.text]
    assert line.text.split()[:3] == ["cpu-0", str(gate.entered[0]), "starting"]
    assert " 1 min " in line.text
    gate.open()
    await starting
    assert " starting " not in texts(shot(pool, Tally()))
    await pool.aclose()


async def test_what_is_slow(tmp_path: object) -> None:
    """A call that runs far longer than the others did is said to be slow."""
    gate = Gate(f"{tmp_path}/gate")
    tally = Tally()
    async with ThreadExecutor(1) as pool:
        with pool.observe(tally):
            await wait_all([pool.submit(pow, 2, n) for n in range(20)])
            waiting = pool.submit(hold, gate)
            await until(lambda: gate.entered)
            (quick,) = [line for line in shot(pool, tally) if "hold" in line.text]
            slow, _ = [line for line in shot(pool, tally, ahead=3) if "hold" in line.text]
            stuck, _ = [line for line in shot(pool, tally, ahead=5000, width=79) if "hold" in line.text]
        assert (quick.text.split()[1], quick.style) == ("running", "")
        assert (slow.text.split()[1], slow.style) == ("slow", "warn")
        assert stuck.text.split()[1:6] == ["slow", "hold", "1", "h", "23"]
        gate.open()
        await waiting


async def test_why_it_is_slow() -> None:
    """Of a slow call it is said against what it is slow, and what its process does."""
    tally = Tally()
    async with ProcessExecutor(1, name="cpu") as pool:
        with pool.observe(tally):
            await wait_all([pool.submit(pow, 2, n) for n in range(20)])
            waiting = pool.submit(time.sleep, 600)
            await until(lambda: pool.status().running == 1)
            (line,) = [line for line in shot(pool, tally, ahead=60) if line.text.startswith("  slow: ")]
            waiting.cancel()
    assert line.style == "warn"
    assert "slow: sleep on cpu-0 for 1 min" in line.text
    assert "while 95 in 100 calls took " in line.text
    if os.path.exists("/proc/self/task"):
        assert line.text.rpartition("its process ")[2] in {"waits, and computes nothing", "computes"}


async def test_what_waits_for_no_worker(tmp_path: object) -> None:
    """It is said how many calls wait for a limit or their arguments, though workers are free."""
    gate = Gate(f"{tmp_path}/gate")
    async with ThreadExecutor(4) as pool:
        limited = pool.options(limit=Limit(concurrency=1))
        calls = [limited.submit(hold, gate) for _ in range(3)]
        calls.append(pool.submit(str, calls[0]))
        await until(lambda: gate.entered)
        assert Line("  3 of the queued wait for their arguments, or for a limit", "dim") in shot(pool, Tally())
        gate.open()
        await wait_all(calls)
        assert "of the queued" not in texts(shot(pool, Tally()))


async def test_what_failed_and_why() -> None:
    """Failures are shown with their number and error, deaths with their reason."""
    tally = Tally()
    async with ProcessExecutor(1, name="cpu") as pool:
        with pool.observe(tally):
            for n in range(3):
                with pytest.raises(ZeroDivisionError):
                    await pool.submit(divmod, n, 0)
            with pytest.raises(WorkerLostError):
                await pool.submit(die)
            lines = shot(pool, tally)
    bad = [line.text for line in lines if line.style == "bad"]
    assert any("cpu-0 (pid " in text and "died: killed by SIGKILL in die" in text for text in bad)
    assert any("failed 3 x  divmod: ZeroDivisionError" in text for text in bad)
    assert "failed 4 " in lines[0].text
    assert "deaths 1" in lines[0].text


async def test_top_rows(tmp_path: object) -> None:
    """Of many workers those are shown whose calls have run longest, and of the others how many there are."""
    gate = Gate(f"{tmp_path}/gate")
    tally = Tally()
    async with CoroutineExecutor(50) as pool:
        calls = [pool.options(name=f"call{n}").submit(hold_async, gate) for n in range(30)]
        await until(lambda: len(gate.entered) == 30)
        lines = shot(pool, tally, rows=5)
        gate.open()
        await wait_all(calls)
    assert sum("call" in line.text and "running" in line.text for line in lines[2:]) == 4
    assert "and 26 more: 26 running, none for longer than" in texts(lines)


def status_of(*workers: WorkerStatus, **fields: Any) -> Any:
    """A pool with such a status."""
    status = PoolStatus("cpu", "process", len(workers), 12_345, 1, 0, 0, 0, per_worker=workers, **fields)
    return SimpleNamespace(status=lambda per_worker: status, name="cpu")


def worker(number: int, *running: RunningCall, name: str = "cpu") -> WorkerStatus:
    """One of many."""
    return WorkerStatus(f"{name}-{number}", None, number, 4000 + number, "ready", 1, running, 0, 0, 52_000_000)


def troubled() -> Tally:
    """What happened where much went wrong."""
    tally = Tally()
    for n in range(9):
        tally(ended(at=float(n), name="bad", outcome="failed", error=ValueError(f"no {n % 4}")))
        tally(WorkerEnded(float(n), f"cpu-{n}", None, n, n, False, f"killed by SIGKILL in die{n}", n, None))
    return tally


@pytest.mark.parametrize("width", [39, 59, 79, 119, 199])
def test_narrow_terminals(width: int) -> None:
    """However narrow the terminal, it shows what runs where and since when, whole; and what there is room for."""
    now = time.time()
    calls = [RunningCall(1, "crunch", 1, now - 59.0 * 60, False), RunningCall(2, "other", 1, now - 12.3, False)]
    pool = status_of(worker(0, calls[0]), worker(1, calls[1]), worker(2))
    lines = shot(pool, troubled(), width=width)
    assert max(len(line.text) for line in lines) <= width
    rows = " ".join(texts(lines).split())
    assert "slow crunch 59 min 0 s" in rows
    assert "slow other 12.3 s" in rows
    head = " ".join(line.text.strip() for line in lines if line.style == "head")
    assert ("failed 9" in head, "deaths 9" in head) == (True, True)
    (columns,) = [line.text.split() for line in lines if line.text.split()[0] == "worker"]
    assert [name for name in ("busy", "memory", "pid") if name in columns] == {
        39: [],
        59: ["busy"],
        79: ["busy"],
        119: ["busy", "memory", "pid"],
        199: ["busy", "memory", "pid"],
    }[width]


def test_low_terminals() -> None:
    """Many workers leave room for what failed and why, also on a low terminal."""
    lines = shot(status_of(*map(worker, range(30))), troubled(), width=79, height=22)
    assert len(lines) == 22
    assert "and " in texts(lines)
    assert "killed by SIGKILL in die8" in texts(lines)
    assert "failed 3 x  bad: ValueError: no 0" in texts(lines)


def test_long_names() -> None:
    """Names of workers on hosts are shown up to the name of the host where there is room, and else leave room for age."""
    call = RunningCall(1, "crunch", 1, time.time() - 12.3, False)
    pool = status_of(worker(0, call, name="farm@node17.cluster.example.com"))
    wide, narrow = (shot(pool, Tally(), width=width)[-1].text for width in (119, 79))
    assert "farm@node17.cluster.example.com-0 " in wide
    assert "farm@node17.cluster" in narrow
    assert "12.3 s" in narrow


def test_many_hosts() -> None:
    """Of many hosts those in trouble are shown, and of the others how many there are, and how they stand."""
    hosts = [
        SimpleNamespace(
            name=f"node{n}",
            state="waiting" if n == 77 else "up",
            slots=8,
            running=0 if n == 77 else 3,
            held=9,
            trip=None,
            losses=0,
            error=OSError("no route") if n == 77 else None,
        )
        for n in range(100)
    ]
    pool = status_of(worker(0))
    pool.hosts = hosts
    lines = shot(pool, Tally(), width=79, height=22)
    assert len(lines) <= 22
    assert "  node77: waiting · no route" in texts(lines)
    assert "more hosts: 9" in texts(lines)
    assert "slots busy" in texts(lines)
    assert "cpu-0 " in lines[-1].text


async def test_closed_pool() -> None:
    """A pool that is not open has no workers, and is no error."""
    assert "0 workers" in texts(shot(ThreadExecutor(1), Tally()))


async def test_how_busy(tmp_path: object) -> None:
    """How well the workers are used is the share of time that they spent in calls, those that run included."""
    gate = Gate(f"{tmp_path}/gate")
    tally = Tally()
    async with ThreadExecutor(2) as pool:
        with pool.observe(tally):
            call = pool.submit(hold, gate)
            await until(lambda: gate.entered)
            lines = shot(pool, tally, elapsed=10.0, ahead=10.0)
        gate.open()
        await call
    assert "2 workers 50% busy" in lines[0].text


def test_backups() -> None:
    """Backup copies are shown as won and lost."""
    status = PoolStatus("far", "remote", 2, 0, 0, 9, 0, 0, backups=5, backups_won=2)
    assert "backups 5 won 2 lost 3" in summary(status, Tally(), 1.0, None)


@pytest.mark.parametrize(
    ("state", "style"), [("up", ""), ("waiting", "bad"), ("failed", "bad"), ("connecting", "warn"), ("closed", "dim")]
)
def test_hosts(state: str, style: str) -> None:
    """Each host is shown with its state, what it runs, how far it is, and why it cannot be used."""
    error = OSError("no route\nto it")
    host = SimpleNamespace(name="node1", state=state, slots=8, running=3, held=9, trip=0.0003, losses=2, error=error)
    status = PoolStatus("far", "remote", 0, 4, 0, 0, 0, 0)
    pool: Any = SimpleNamespace(status=lambda per_worker: status, hosts=(host,), name="far")
    lines = shot(pool, Tally())
    assert lines[1] == Line(
        f"  node1: {state} · 3 of 8 slots busy · 9 sent there · 300 us away · lost 2 x · no route", style
    )
    assert lines[2] == Line("  nothing runs: 4 calls wait for a worker to start", "warn")


def test_histogram() -> None:
    """The histogram has a line for each range, as wide as its share, and counts everything."""
    latencies = Latencies()
    latencies.extend([0.001] * 90 + [0.1] * 9 + [10.0])
    lines = histogram(latencies)
    counts = [int(line.text.rpartition(" ")[2]) for line in lines]
    assert sum(counts) == 100
    assert (counts[0], counts[-1]) == (90, 1)
    assert lines[0].text.count("█") == 40
    assert len(lines) <= 13


@pytest.mark.parametrize("durations", [[0.5], [0.5] * 100, [0.0]])
def test_histogram_of_little(durations: list[float]) -> None:
    """One duration, however often, is one line."""
    latencies = Latencies()
    latencies.extend(durations)
    (line,) = histogram(latencies)
    assert line.text.endswith(str(len(durations)))


def test_histogram_of_nothing() -> None:
    """Without any call there is nothing to be shown."""
    assert histogram(Latencies()) == [Line("no call has ended", "dim")]
