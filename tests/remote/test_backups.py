"""Backup copies on real hosts: stragglers, losers that are killed, and hosts that freeze."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from aioparallel import Backups, CallCancelledError, RemoteExecutor, SmartFuture, wait_any
from aioparallel._seeing.runs import read_run
from aioparallel.events import CallEnded, Event, WorkerEnded
from aioparallel.testing import SshHost, ssh_hosts
from tests.remote.netlab import netlab
from tests.remote.openssh import World
from tests.tools import Log, is_alive, until

SOON = Backups(after=1.5, interval=0.02, max_extra=10, max_copies=1)


@pytest.fixture
async def hosts() -> AsyncIterator[list[SshHost]]:
    """Three hosts with a slot each."""
    async with ssh_hosts(3, slots=1) as found:
        yield found


def straggle(log: Log, times: int = 1) -> int:
    """Hang as long as fewer have begun; says who it is."""
    log.write(os.getpid())
    if len(log.lines) <= times:
        time.sleep(600)
    return os.getpid()


def nap(seconds: float) -> None:
    time.sleep(seconds)


def begun(log: Log, count: int) -> bool:
    return len(log.lines) >= count


def pids(log: Log) -> list[int]:
    return [int(line) for line in log.lines]


async def test_straggler(hosts: list[SshHost], tmp_path: Path) -> None:
    """A copy on another host gives the result of a call that hangs, and the straggler is killed."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        await until(lambda: all(host.state == "up" for host in pool.hosts))
        call = pool.options(idempotent=True).submit(straggle, log)
        winner = await call
        straggler, copy = pids(log)
        assert winner == copy
        assert (call.info.copies, call.info.attempts, call.info.state) == (1, 1, "done")
        assert call.info.host in {host.name for host in hosts}
        await until(lambda: not is_alive(straggler))
        await until(lambda: not pool.task_count)
        status = pool.status()
        assert (status.backups, status.backups_won, status.done, status.cancelled) == (1, 1, 1, 0)
        assert (status.deaths, status.failed) == (0, 0)
        assert status.backup_seconds > 0


@pytest.mark.parametrize("late", [False, True])
async def test_seen(late: bool, hosts: list[SshHost], tmp_path: Path) -> None:
    """A trace and an observer see the straggler, its copy and the kill, also if they come while both run."""
    log, path, events = Log(str(tmp_path / "log")), tmp_path / "run.json", list[Event]()
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        await until(lambda: all(host.state == "up" for host in pool.hosts))
        if not late:
            pool.trace(path)
            pool.observe(events.append)
        call = pool.options(idempotent=True).submit(straggle_until, log, str(tmp_path / "open"))
        await until(lambda: begun(log, 2))
        await until(lambda: sum(len(worker.running) for worker in pool.status(per_worker=True).per_worker) == 2)
        if late:
            pool.trace(path)
            pool.observe(events.append)
        (tmp_path / "open").touch()
        await call
        await until(lambda: any(isinstance(event, WorkerEnded) for event in events))
        assert [host.losses for host in pool.hosts] == [0, 0, 0]
    (ended,) = [event for event in events if isinstance(event, CallEnded)]
    assert (ended.outcome, ended.copies) == ("done", 1)
    killed = next(event for event in events if isinstance(event, WorkerEnded))
    assert (killed.asked, killed.reason) == (True, "killed by SIGKILL to cancel straggle_until")
    assert killed.worker != ended.worker
    run = read_run(path)
    lanes = {run.lanes[found.lane]: found.args["outcome"] for found in run.calls}
    assert lanes == {killed.worker: "lost the race", ended.worker: "done"}
    assert min(found.begun_at for found in run.calls) >= 0
    assert max(found.duration for found in run.calls) < run.seconds


def straggle_until(log: Log, path: str) -> int:
    """The first to begin hangs, most often the call and not its copy; the second one as long as there is no such file."""
    log.write(os.getpid())
    first = len(log.lines) == 1
    while first or not os.path.exists(path):
        time.sleep(0.01)
    return os.getpid()


async def test_items_of_maps(hosts: list[SshHost], tmp_path: Path) -> None:
    """An item of a map that hangs gets a copy, and holds nobody up."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        results = await pool.map(straggle_at_three, range(8), args=(log,), idempotent=True)
        assert results == list(range(8))
        assert pool.status().backups_won >= 1


def straggle_at_three(item: int, log: Log) -> int:
    if item == 3:
        straggle(log)
    return item


async def test_only_idempotent_calls(hosts: list[SshHost], tmp_path: Path) -> None:
    """A call without ``idempotent=True`` is never copied, however late it is."""
    async with RemoteExecutor(hosts, backups=Backups(after=0.01, interval=0.01, max_extra=10)) as pool:
        await until(lambda: all(host.state == "up" for host in pool.hosts))
        unsafe = pool.submit(nap, 0.5)
        safe = pool.options(idempotent=True).submit(nap, 0.5)
        await unsafe
        await safe
        assert unsafe.info.copies == 0
        assert safe.info.copies == pool.status().backups > 0


async def test_slots_of_losers_are_free_again(hosts: list[SshHost], tmp_path: Path) -> None:
    """After stragglers were killed, each slot takes calls again."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=replace(SOON, max_copies=2)) as pool:
        await pool.options(idempotent=True).submit(straggle, log, 2)
        calls = [pool.submit(os.getpid) for _ in range(30)]
        assert not set(pids(log)[:2]) & {await call for call in calls}
        await until(lambda: all(host.state == "up" for host in pool.hosts))


async def copied(pool: RemoteExecutor, log: Log) -> SmartFuture[int]:
    """A call that hangs, as does its copy."""
    call = pool.options(idempotent=True).submit(straggle, log, 100)
    await until(lambda: begun(log, 2))
    return call


async def test_cancelling_stops_all_copies(hosts: list[SshHost], tmp_path: Path) -> None:
    """When a cancelled call is done, neither it nor any copy of it runs."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        call = await copied(pool, log)
        call.cancel()
        with pytest.raises(CallCancelledError):
            await call
        assert not [pid for pid in pids(log) if is_alive(pid)]
        status = pool.status()
        assert (status.cancelled, status.done, status.deaths) == (1, 0, 0)


async def test_leaving_wait_any_early_stops_all_copies(hosts: list[SshHost], tmp_path: Path) -> None:
    """Leaving ``wait_any`` early with ``cancel_pending`` waits until all copies of what is left are killed."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        call = await copied(pool, log)
        async with wait_any([call, pool.submit(os.getpid)], cancel_pending=True) as finished:
            async for _ in finished:
                break
        assert call.cancelled()
        assert not [pid for pid in pids(log) if is_alive(pid)]


async def test_leaving_the_pool_stops_all_copies(hosts: list[SshHost], tmp_path: Path) -> None:
    """A pool that is left by an exception leaves no copy behind."""
    log = Log(str(tmp_path / "log"))
    with pytest.raises(LookupError):
        async with RemoteExecutor(hosts, backups=SOON) as pool:
            call = await copied(pool, log)
            raise LookupError
    assert call.cancelled()
    assert not [pid for pid in pids(log) if is_alive(pid)]


async def test_leaving_the_pool_waits_for_losers(hosts: list[SshHost], tmp_path: Path) -> None:
    """A pool that is left while a loser is being killed ends when it is dead."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        await pool.options(idempotent=True).submit(straggle, log)
    assert not [pid for pid in pids(log) if is_alive(pid)]


async def test_copies_while_the_pool_ends(hosts: list[SshHost], tmp_path: Path) -> None:
    """A straggler that a pool waits for at its end gets a copy like any other."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=SOON) as pool:
        call = pool.options(idempotent=True).submit(straggle, log)
    assert (call.info.state, call.info.copies) == ("done", 1)
    assert not [pid for pid in pids(log) if is_alive(pid)]


async def test_copies_have_their_own_time(hosts: list[SshHost], tmp_path: Path) -> None:
    """With a ``timeout``, the copy may finish after the time of the straggler is up."""
    log = Log(str(tmp_path / "log"))
    async with RemoteExecutor(hosts, backups=Backups(after=0.3, interval=0.02, max_extra=10)) as pool:
        call = pool.options(idempotent=True, timeout=0.5).submit(straggle_then_nap, log, 0.4)
        assert await call >= 2
        assert call.info.attempts == 1


def straggle_then_nap(log: Log, seconds: float) -> int:
    log.write(os.getpid())
    count = len(log.lines)
    time.sleep(600 if count == 1 else seconds)
    return count


@pytest.mark.sshd
async def test_frozen_host(world: World, tmp_path: Path) -> None:
    """When a host freezes, its calls finish elsewhere long before it is given up, those that wait there included."""
    with netlab(world, 3) as machines:
        hosts = [machine.sshd.host(slots=1) for machine in machines]
        async with RemoteExecutor(hosts, backups=Backups(after=0.2, interval=0.05, max_extra=10), lease=60) as pool:
            await until(lambda: all(host.state == "up" for host in pool.hosts))
            calls = [pool.options(idempotent=True).submit(time.sleep, 0.1) for _ in range(12)]
            await until(lambda: any(call.done() for call in calls))
            machines[0].freeze()
            for call in calls:
                await call
            assert pool.status().backups > 0
            assert {call.info.state for call in calls} == {"done"}
            machines[0].heal()
            await until(lambda: not pool.task_count)
