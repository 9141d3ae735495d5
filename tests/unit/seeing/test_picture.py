"""What a board shows, from pools that really work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from aioparallel import CoroutineExecutor, PoolStatus, ProcessExecutor, ThreadExecutor, WorkerLostError, wait_all
from aioparallel._policy.latency import Latencies
from aioparallel._seeing.picture import Line, histogram, picture, summary
from aioparallel._seeing.tally import Tally
from tests.tools import Gate, hold, hold_async, until


def shot(pool: Any, tally: Tally, *, elapsed: float = 10.0, ahead: float = 0.0, rows: int = 20) -> list[Line]:
    """What is shown of a pool, now or some time ahead."""
    return picture(pool, tally, elapsed=elapsed, now=time.time() + ahead, rows=rows)


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
            (quick,) = [line for line in shot(pool, tally) if " running " in line.text and "hold" in line.text]
            (slow,) = [line for line in shot(pool, tally, ahead=3) if " running " in line.text and "hold" in line.text]
        assert ("slow" in quick.text, quick.style) == (False, "")
        assert ("slow" in slow.text, slow.style) == (True, "warn")
        gate.open()
        await waiting


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
    assert sum("call" in line.text and "running" in line.text for line in lines[2:]) == 5
    assert "and 25 more: 25 running, none for longer than" in texts(lines)


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
