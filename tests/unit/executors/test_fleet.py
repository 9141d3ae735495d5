"""The hosts of a pool: lost, waited for, found again, added and removed. (On real servers: ``tests/remote``.)"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from aioparallel import (
    Host,
    HostError,
    HostStatus,
    PoolFullError,
    RemoteExecutor,
    SshSettings,
    StatefulPool,
    WorkerLostError,
    wait_all,
)
from aioparallel._executors import fleet, remote
from aioparallel._workers import bootstrap
from aioparallel._workers.agents import Agent
from aioparallel._workers.dialing import Dialer
from aioparallel._workers.modules import Modules
from aioparallel._workers.ssh import Connection, Connections
from aioparallel.events import HostLost
from aioparallel.testing import SshHost, ssh_hosts
from tests.tools import PATIENCE, Gate, hold, is_alive, until
from tests.unit.workers.projects import project_at


@pytest.fixture
async def hosts() -> AsyncIterator[list[SshHost]]:
    """Two hosts of one slot."""
    async with ssh_hosts(2, slots=1) as found:
        yield found


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


def status_of(pool: RemoteExecutor, host: SshHost) -> HostStatus:
    return next(status for status in pool.hosts if status.name == host.name)


async def until_up(pool: RemoteExecutor, *hosts: SshHost) -> None:
    await until(lambda: all(status_of(pool, host).state == "up" for host in hosts))


async def test_a_host_that_is_cut_off_and_comes_back(
    hosts: list[SshHost], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that may have run is reported with the reason, one that waited runs elsewhere, and the host comes back."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        running = pool.submit(hold, gate)
        waiting = pool.submit(os.getpid)
        (worker,) = await until(lambda: gate.entered)
        pool.add_host(second)
        await until_up(pool, second)
        with caplog.at_level(logging.WARNING, "aioparallel"):
            first.cut()
            with pytest.raises(WorkerLostError, match="It may have run, or not") as caught:
                await running
        assert caught.value.host == first.name
        assert isinstance(caught.value.__cause__, HostError)
        assert await waiting not in {worker, os.getpid()}
        await until(lambda: not is_alive(worker))
        await until_up(pool, first)
        assert (status_of(pool, first).losses, status_of(pool, first).error) == (1, None)
    assert any(first.name in record.getMessage() for record in caplog.records)


async def test_a_host_that_falls_silent(hosts: list[SshHost], gate: Gate) -> None:
    """A host that says nothing for as long as its lease is given up; what runs there ends by itself."""
    first, second = hosts
    async with RemoteExecutor(hosts, lease=1.0) as pool:
        await until_up(pool, first, second)
        held = [pool.options(idempotent=True).submit(hold, gate, n) for n in range(2)]
        workers = await until(lambda: len(gate.entered) == 2 and gate.entered)
        first.stall()
        await until(lambda: status_of(pool, first).state == "waiting")
        assert "nothing was heard of it for 1 s" in str(status_of(pool, first).error)
        await until(lambda: sum(map(is_alive, workers)) == 1)
        gate.open()
        assert await wait_all(held) == [0, 1]
        first.heal()
        await until_up(pool, first)


async def test_pauses_grow(hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be used is tried again less and less often, up to a limit, never in step with others."""
    monkeypatch.setattr(fleet.random, "random", lambda: 0.5)
    async with RemoteExecutor(hosts) as pool:
        member = next(iter(pool._hands.members.values()))
        pauses = []
        for member.failures in (*range(1, 10), 5000):
            pauses.append(pool._hands._pause(member))
        member.failures = 0
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


async def test_no_host_is_left(hosts: list[SshHost]) -> None:
    """When all hosts are lost, calls wait as long as there is patience, then fail with an error that names all."""
    ssh = SshSettings(connect_timeout=2)
    async with RemoteExecutor(hosts, patience=1.0, ssh=ssh) as pool:
        await until_up(pool, *hosts)
        for host in hosts:
            host.refuse()
            host.cut()
        await until(lambda: all(status.state == "waiting" for status in pool.hosts))
        with pytest.raises(HostError) as caught:
            await pool.submit(os.getpid)
        assert all(host.name in str(caught.value) for host in hosts)
        hosts[0].heal()
        await until_up(pool, hosts[0])
        assert await pool.submit(os.getpid) != os.getpid()


async def test_the_last_host_is_removed_and_another_added(hosts: list[SshHost]) -> None:
    """Without any host calls fail at once; when one is added they wait for that."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        await pool.remove_host(first)
        with pytest.raises(HostError, match="has no host: add one"):
            await pool.submit(os.getpid)
        pool.add_host(second)
        assert await pool.submit(os.getpid) != os.getpid()
        assert first.connections == 0


async def test_hosts_that_are_added_in_vain(hosts: list[SshHost]) -> None:
    """When no host is left, and one that is added then cannot be used either, calls wait no longer than patience."""
    first, second = hosts
    async with RemoteExecutor([first], patience=0.3, ssh=SshSettings(connect_timeout=2)) as pool:
        for host in hosts:
            host.refuse()
        first.cut()
        await until(lambda: status_of(pool, first).state == "waiting")
        with pytest.raises(HostError, match="no host can be used"):
            await pool.submit(os.getpid)
        pool.add_host(second)
        with pytest.raises(HostError, match=second.name):
            await pool.submit(os.getpid)


async def test_a_jump_host_is_removed(gate: Gate) -> None:
    """A host that others are reached through may be removed, or lose its agent: their calls go on."""
    async with ssh_hosts(2, slots=1) as (bastion, inner):
        jump = Host(bastion.name, slots=1, python=bastion.python, options=bastion.options)
        behind = Host(inner.name, slots=1, python=inner.python, options={**inner.options, "tunnel": jump})
        async with RemoteExecutor([jump, behind]) as pool:
            await until(lambda: [status.state for status in pool.hosts] == ["up", "up"])
            held = [pool.submit(hold, gate, number) for number in range(2)]
            await until(lambda: len(gate.entered) == 2)
            at = {call.info.host: call for call in held}
            (agent,) = bastion.commands
            os.kill(agent, signal.SIGKILL)
            with pytest.raises(WorkerLostError):
                await at[jump.name]
            await until(lambda: pool.hosts[0].state == "up")
            await pool.remove_host(jump)
            assert bastion.connections == 1
            gate.open()
            assert await at[behind.name] in {0, 1}
            await pool.remove_host(behind)
            await until(lambda: not bastion.connections)


async def test_removing_is_cancelled(hosts: list[SshHost], gate: Gate) -> None:
    """A host whose removal nobody waits for goes on leaving: it gets no further calls, and is left after the last."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        held = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        removing = asyncio.ensure_future(pool.remove_host(first))
        await until(lambda: status_of(pool, first).state == "draining")
        removing.cancel()
        await asyncio.wait([removing])
        with pytest.raises(ValueError, match="is still leaving"):
            pool.add_host(first)
        pool.add_host(second)
        await until_up(pool, second)
        assert await pool.submit(os.getpid) != gate.entered[0]
        gate.open()
        await held
        await until(lambda: [status.name for status in pool.hosts] == [second.name])
        await until(lambda: (first.commands, first.connections) == ([], 0), "the host has noticed")


async def test_an_agent_that_ends(hosts: list[SshHost]) -> None:
    """When the agent of a host ends, its connection is closed, and a new agent is started over a new one."""
    async with RemoteExecutor(hosts[:1]) as pool:
        (agent,) = hosts[0].commands
        os.kill(agent, signal.SIGKILL)
        await until(lambda: status_of(pool, hosts[0]).losses == 1)
        assert await pool.submit(os.getpid) != os.getpid()
        assert agent not in hosts[0].commands


# What nobody has thought of


class Failing:
    """Stands before a function, and fails instead of it the second time; or whenever ``always``."""

    def __init__(self, function: Callable[..., Any], error: BaseException, *, always: bool = False) -> None:
        self.function = function
        self.error = error
        self.always = always
        self.asked = 0

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if self.always or self.asked == 2:
            raise self.error
        return self.function(*args, **kwargs)


SEAMS = [
    (Dialer, "create_connection"),
    (Connections, "connect"),
    (Connections, "_log_in"),
    (Connections, "_gates_of"),
    (Connection, "open_session"),
    (bootstrap, "start_agent"),
    (Agent, "open"),
    (fleet.Fleet, "_on_up"),
]
"""Where something may fail on the way to a host."""


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam[1])
async def test_an_unexpected_error(
    hosts: list[SshHost], seam: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody has thought of costs one host for a while, whatever was being done, and is in the log."""
    failing = Failing(getattr(*seam), RuntimeError("out of tune"))
    monkeypatch.setattr(*seam, failing)
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.05)
    lost: list[HostLost] = []
    pool = RemoteExecutor(hosts)
    with pool.observe(lambda event: lost.append(event) if isinstance(event, HostLost) else None):
        async with pool:
            assert await pool.submit(os.getpid) != os.getpid()
            await until_up(pool, *hosts)
            assert [status.error for status in pool.hosts] == [None, None]
    assert [(event.host, event.permanent) for event in lost] == [(lost[0].host, False)]
    assert "unexpected RuntimeError" in str(lost[0].error)
    assert "out of tune" in str(lost[0].error)
    assert lost[0].error.__cause__ is failing.error
    assert any(record.exc_info and record.exc_info[1] is failing.error for record in caplog.records)


async def test_an_unexpected_error_at_the_only_host(hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch) -> None:
    """When it happens at the only host, calls wait as long as there is patience, and then fail with that error."""
    async with RemoteExecutor(hosts[:1], patience=2.0) as pool:
        monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.05)
        monkeypatch.setattr(Connections, "connect", Failing(Connections.connect, ValueError("no"), always=True))
        hosts[0].cut()
        await until(lambda: "unexpected ValueError" in str(status_of(pool, hosts[0]).error))
        assert status_of(pool, hosts[0]).state in {"waiting", "connecting"}
        with pytest.raises(HostError, match="unexpected ValueError: no"):
            await pool.submit(os.getpid)
        monkeypatch.undo()
        await until_up(pool, hosts[0])
        assert await pool.submit(os.getpid) != os.getpid()
    failing = Failing(Connections.connect, ValueError("no"), always=True)
    monkeypatch.setattr(Connections, "connect", failing)
    with pytest.raises(HostError, match="unexpected ValueError: no"):
        await RemoteExecutor(hosts[:1]).start()


async def test_a_host_is_removed_while_it_is_connected_to(hosts: list[SshHost]) -> None:
    """Whoever removes a host does not wait for it: what is being done there is cancelled, and is no failure."""
    async with RemoteExecutor(hosts[:1]) as pool:
        hosts[1].stall()
        pool.add_host(hosts[1])
        await until(lambda: hosts[1].logins)
        await pool.remove_host(hosts[1])
        assert [status.name for status in pool.hosts] == [hosts[0].name]
        assert await pool.submit(os.getpid) != os.getpid()


def test_an_interrupt_while_a_host_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt is nobody's failure: it ends the program, and the pool with it."""

    async def main() -> None:
        async with ssh_hosts(1, slots=1) as found:
            monkeypatch.setattr(Connections, "connect", Failing(Connections.connect, KeyboardInterrupt(), always=True))
            await RemoteExecutor(found).start()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


async def test_a_module_that_cannot_be_described(
    hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A module that cannot be described fails the import that asked for it, with the reason, and is tried again."""
    failing = Failing(Modules.describe, RuntimeError("an odd finder"), always=True)
    async with RemoteExecutor(hosts) as pool:
        monkeypatch.setattr(Modules, "describe", failing)
        with pytest.raises(ImportError, match=r"cannot be imported on .* RuntimeError: an odd finder"):
            await pool.submit(importlib.import_module, "tests")
        assert any(record.exc_info and record.exc_info[1] is failing.error for record in caplog.records)
        monkeypatch.undo()
        for _ in range(4):
            assert await pool.submit(hold_nothing) is None
        assert [status.losses for status in pool.hosts] == [0, 0]


@pytest.mark.parametrize("quick", [PATIENCE, -1], ids=["few-files", "many-files"])
@pytest.mark.parametrize("way", ["call", "chunk", "thread"])
async def test_edits_are_seen_whatever_comes(
    way: str, quick: float, hosts: list[SshHost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit is picked up by the next call, be it one, a chunk of a map, or submitted by another thread; if there are
    so many files that looking takes a while, the call waits for it."""
    monkeypatch.setattr(remote, "EDIT_SECONDS", 0)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(remote, "HOLD_SECONDS", PATIENCE)
    monkeypatch.setattr(remote, "QUICK", quick)

    async def use(fn: Callable[[int], int]) -> int:
        if way == "chunk":
            return max(await pool.map(fn, range(4), chunksize=2))
        return await (pool.submit(fn, 0) if way == "call" else await asyncio.to_thread(pool.submit, fn, 0))

    for project in project_at(tmp_path / "project", monkeypatch):
        project.write({"dairy.py": "def milk(x): return 1"})
        milk = importlib.import_module("dairy").milk
        async with RemoteExecutor(hosts[:1]) as pool:
            assert await use(milk) == 1
            project.write({"dairy.py": "def milk(x): return 22"})
            assert await use(milk) == 22


async def test_a_module_that_grows(hosts: list[SshHost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a package that was written a moment ago is there for the call that uses it, however often is looked."""
    monkeypatch.setattr(remote, "EDIT_SECONDS", PATIENCE)
    for project in project_at(tmp_path / "project", monkeypatch):
        project.write({"dairy/__init__.py": "", "dairy/cow.py": "def milk(): return 1"})
        async with RemoteExecutor(hosts[:1]) as pool:
            assert await pool.submit(importlib.import_module("dairy.cow").milk) == 1
            project.write({"dairy/goat.py": "def milk(): return 22"})
            assert await pool.submit(importlib.import_module("dairy.goat").milk) == 22


@pytest.fixture
async def looking(
    hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RemoteExecutor, asyncio.Event, list[None]]]:
    """A pool that looks for edits before each call, until an event is set, and notes that it has begun to."""
    monkeypatch.setattr(remote, "EDIT_SECONDS", 0)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(remote, "HOLD_SECONDS", PATIENCE)
    done, begun = asyncio.Event(), list[None]()

    async def look(modules: Modules) -> set[str]:
        begun.append(None)
        await done.wait()
        return set()

    monkeypatch.setattr(Modules, "changed_in_thread", look)
    async with RemoteExecutor(hosts[:1], max_pending=2) as pool:
        pool._look_is_quick = False
        yield pool, done, begun
        done.set()


async def test_calls_wait_until_it_was_looked(looking: tuple[RemoteExecutor, asyncio.Event, list[None]]) -> None:
    """While it is looked for edits, calls wait in their order, count as pending, and may be cancelled."""
    pool, done, begun = looking
    first, second = pool.submit(abs, -1), pool.submit(abs, -2)
    with pytest.raises(PoolFullError):
        pool.submit(abs, -3)
    await until(lambda: begun)
    assert pool.status().queued == 2
    second.cancel()
    third = asyncio.ensure_future(pool.submit_wait(abs, -3))
    done.set()
    assert await first == 1
    assert await (await third) == 3
    assert second.cancelled()


async def test_calls_that_wait_when_the_pool_is_closed(
    looking: tuple[RemoteExecutor, asyncio.Event, list[None]],
) -> None:
    """A pool that is closed runs what waits until it was looked for edits; without draining it is cancelled."""
    pool, done, begun = looking
    future = pool.submit(abs, -1)
    await until(lambda: begun)
    closing = asyncio.ensure_future(pool.aclose())
    done.set()
    await closing
    assert await future == 1
    done.clear()
    async with pool:
        future = pool.submit(abs, -1)
        await until(lambda: len(begun) == 2)
        await pool.aclose(drain=False)
    assert future.cancelled()


async def test_looking_takes_too_long(
    looking: tuple[RemoteExecutor, asyncio.Event, list[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where looking for edits takes very long, calls do not wait for its end."""
    pool, done, _ = looking
    monkeypatch.setattr(remote, "HOLD_SECONDS", 0.01)
    assert await pool.submit(abs, -1) == 1
    assert not done.is_set()


async def test_looking_for_edits_fails(
    hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it cannot be seen whether modules were edited, calls go on; each such failure is logged once."""
    monkeypatch.setattr(remote, "EDIT_SECONDS", 0)
    monkeypatch.setattr(remote, "QUICK", PATIENCE)
    quick = Failing(Modules.changed, OSError("no disk"), always=True)
    slow = Failing(Modules.changed_in_thread, OSError("no disk"), always=True)
    monkeypatch.setattr(Modules, "changed", quick)
    monkeypatch.setattr(Modules, "changed_in_thread", slow)
    async with RemoteExecutor(hosts) as pool:
        for _ in range(3):
            assert await pool.submit(abs, -1) == 1
        pool._look_is_quick = False
        for _ in range(3):
            assert await pool.submit(abs, -1) == 1
    assert quick.asked == slow.asked == 3
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no disk"]


# Many hosts


class Unseen(dict[Any, Any]):
    """A table in which things may be found, but that nobody goes through."""

    def __iter__(self) -> Any:
        raise AssertionError("somebody looks at each")

    values = items = keys = __iter__


async def test_news_of_one_host_wake_nobody_at_another(hosts: list[SshHost], monkeypatch: pytest.MonkeyPatch) -> None:
    """When a worker ends and another is started, nobody looks at other hosts, and the tasks that keep those sleep on."""
    async with RemoteExecutor(hosts) as pool:
        await until_up(pool, *hosts)
        first, second = pool._hands.members.values()
        monkeypatch.setattr(pool._hands, "members", Unseen(pool._hands.members))
        woken: list[str] = []
        monkeypatch.setattr(first.news, "tell", lambda: woken.append("first"))
        monkeypatch.setattr(second.news, "tell", lambda: woken.append("second"))
        (seat,) = second.site.seats
        seat.carrier.station.kill(seat.carrier)
        await until(lambda: second.site.seats and seat not in second.site.seats and second.site.ready)
        assert woken == ["second"]
        monkeypatch.undo()


async def test_workers_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a host is tried where no worker can be started, it has no more places than it has slots."""
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.02)

    def env(index: int) -> dict[str, str]:
        if index:
            raise LookupError(f"there is no GPU {index}")
        return {}

    async with ssh_hosts(2) as hosts:
        good, bad = (
            Host(host.name, slots=slots, python=host.python, options=host.options)
            for host, slots in zip(hosts, (1, 4), strict=True)
        )
        async with RemoteExecutor([good], env=env) as pool:
            pool.add_host(bad)
            await until(lambda: hosts[1].logins >= 4)
            assert "there is no GPU" in str(status_of(pool, hosts[1]).error)
            ledger = pool._hands.run.ledger
            assert max(len(ledger.seats), ledger.width) <= 5


def refused(host: SshHost) -> Callable[[], None]:
    """Have a host refuse all keys, until what is returned is called."""
    key, host._server.user_key = host._server.user_key, asyncssh.generate_private_key("ssh-ed25519")

    def allow() -> None:
        host._server.user_key = key

    return allow


async def test_a_host_that_refused_is_removed_and_added(hosts: list[SshHost]) -> None:
    """A host that has refused a login is asked again when it is removed and added: the user has mended something."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        allow = refused(second)
        pool.add_host(second)
        await until(lambda: status_of(pool, second).state == "failed")
        await pool.remove_host(second)
        allow()
        pool.add_host(second)
        await until_up(pool, second)


async def test_hosts_come_and_go(hosts: list[SshHost]) -> None:
    """Nothing is kept of a host that was removed."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        for _ in range(2):
            pool.add_host(second)
            await until_up(pool, second)
            await pool.remove_host(second)
        connections = pool._hands._connections
        assert list(connections._logins) == [first]
        assert list(connections._gates) == []
        assert len(pool._hands._by_site) == len(pool._hands.members) == 1


def hold_nothing() -> None:
    """What is in this module, so that it has to travel."""


class Counter:
    """A state."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise LookupError(f"there is no {start}")
        self.count = start

    def __call__(self, _: Any = None) -> int:
        self.count += 1
        return self.count


async def test_states_on_hosts(hosts: list[SshHost]) -> None:
    """A stateful pool has a state in each slot of its hosts, in their order, and opens with all of them or not at all."""
    own = [{"start": 100}, {"start": 200}]
    async with StatefulPool(Counter, method="remote", hosts=hosts, worker_kwargs=own) as pool:
        assert pool.status().workers == 2
        assert {value // 100 for value in await pool.map([None] * 40)} == {1, 2}
    with pytest.raises(Exception, match="there is no -1"):
        await StatefulPool(Counter, method="remote", hosts=hosts, worker_kwargs=[{}, {"start": -1}]).start()
