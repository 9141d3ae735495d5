"""The hosts of a pool: lost, waited for, found again, added and removed. (On real servers: ``tests/remote``.)"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import HostError, HostStatus, RemoteExecutor, SshSettings, StatefulPool, WorkerLostError, wait_all
from aioparallel._executors import fleet
from aioparallel.testing import SshHost, ssh_hosts
from tests.tools import Gate, hold, is_alive, until


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
        for member.failures in range(1, 10):
            pauses.append(pool._hands._pause(member))
        member.failures = 0
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


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


async def test_removing_is_cancelled(hosts: list[SshHost], gate: Gate) -> None:
    """A host whose removal nobody waits for goes on leaving: it gets no further calls."""
    first, second = hosts
    async with RemoteExecutor([first]) as pool:
        held = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        removing = asyncio.ensure_future(pool.remove_host(first))
        await until(lambda: status_of(pool, first).state == "draining")
        removing.cancel()
        await asyncio.wait([removing])
        pool.add_host(second)
        await until_up(pool, second)
        assert await pool.submit(os.getpid) != gate.entered[0]
        gate.open()
        await held
        await until(lambda: not first.commands or status_of(pool, first).workers == 0)


async def test_an_agent_that_ends(hosts: list[SshHost]) -> None:
    """When the agent of a host ends, its connection is closed, and a new agent is started over a new one."""
    async with RemoteExecutor(hosts[:1]) as pool:
        (agent,) = hosts[0].commands
        os.kill(agent, signal.SIGKILL)
        await until(lambda: status_of(pool, hosts[0]).losses == 1)
        assert await pool.submit(os.getpid) != os.getpid()
        assert agent not in hosts[0].commands


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
