"""RemoteExecutor: its options, and its hosts from the outside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import Host, HostError, PicklingError, RemoteExecutor, RoundRobin, SshSettings, WorkerStartError
from aioparallel._child.boot import boot_id
from aioparallel._model.hosts import Hello
from aioparallel.testing import SshHost, ssh_host, ssh_hosts
from tests.tools import Log, is_alive, until


@pytest.fixture
async def host() -> AsyncIterator[SshHost]:
    """A host of two slots."""
    async with ssh_host(slots=2) as found:
        yield found


# Options


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"hosts": "node1"}, TypeError, r"expected a list of hosts, such as \['node1'\]"),
        ({"hosts": Host("node1")}, TypeError, "expected a list of hosts"),
        ({"hosts": []}, ValueError, "at least one; load_hosts"),
        ({"hosts": ["node1", Host("node1")]}, ValueError, "node1 is there twice; say with slots="),
        ({"hosts": [Host("node1", slots=2), Host("node1", weight=3)]}, ValueError, "node1 is there twice"),
        ({"hosts": ["no de"]}, ValueError, "machine"),
        ({"lease": 0}, ValueError, "lease=0: expected seconds"),
        ({"lease": True}, ValueError, "lease=True"),
        ({"patience": -1}, ValueError, "patience=-1"),
        ({"policy": "fast"}, TypeError, "policy='fast': expected WeightedRandom"),
        ({"ssh": 5}, TypeError, r"ssh=5: expected SshSettings"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker"),
        ({"env": 3}, TypeError, "env"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], error: type[Exception], complaint: str) -> None:
    """An option that makes no sense is refused when the executor is made, by name."""
    with pytest.raises(error, match=complaint):
        RemoteExecutor(**{"hosts": ["node1"], **options})


def test_slots() -> None:
    """A host runs as many calls as it has CPUs; this very machine half of that, but at least one."""
    pool = RemoteExecutor(["node1"])

    def slots(cpus: int, boot: str | None) -> int:
        return pool._slots_of(Hello("", "", "", pid=1, cpus=cpus, platform="", node="", boot=boot))

    assert [slots(8, "elsewhere"), slots(8, None), slots(8, boot_id()), slots(1, boot_id())] == [8, 8, 4, 1]


# Before it is open


async def test_hosts_of_a_closed_executor() -> None:
    """Hosts may be added and removed before it is open, and seen at any time."""
    pool = RemoteExecutor(["node1", "node2"])
    pool.add_host("node3")
    await pool.remove_host("node1")
    await pool.remove_host(Host("node2"))
    assert [(status.name, status.state) for status in pool.hosts] == [("node3", "closed")]
    with pytest.raises(ValueError, match=r"node3 is a host of .* already"):
        pool.add_host("node3")
    with pytest.raises(ValueError, match=r"node3 is a host of .* already"):
        pool.add_host(Host("node3", slots=4))  # there is one name for errors, `hosts` and `remove_host`
    with pytest.raises(ValueError, match=r"node1 is no host of .*: there are node3"):
        await pool.remove_host("node1")


# Open


async def test_open_and_closed_and_open(host: SshHost) -> None:
    """It may be opened again after it was closed; nothing of it is left on the host in between."""
    pool = RemoteExecutor([host])
    for _ in range(2):
        async with pool:
            assert await pool.submit(pow, 2, 10) == 1024
            (status,) = pool.hosts
            assert (status.state, status.slots, status.python.count(".")) == ("up", 2, 2)
            assert status.cpus >= 1
        assert (host.commands, host.connections) == ([], 0)
        assert [status.state for status in pool.hosts] == ["closed"]


async def test_opening_is_cancelled(host: SshHost) -> None:
    """Opening that is cancelled, at whatever moment, leaves neither a connection nor a process."""
    for moment in range(10):
        pool = RemoteExecutor([host], name="cut short")
        opening = asyncio.ensure_future(pool.start())
        await asyncio.sleep(moment * 0.03)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await pool.aclose()
        await until(lambda: not host.commands and not host.connections)


async def test_a_host_that_is_slow_does_not_delay_the_others() -> None:
    """The pool opens as soon as one host takes calls; a host that says nothing is waited for in the background."""
    async with ssh_hosts(2, slots=1) as (quick, slow):
        slow.stall()
        async with RemoteExecutor([slow, quick], policy=RoundRobin()) as pool:
            assert await pool.submit(pow, 2, 3) == 8
            assert [status.state for status in pool.hosts] == ["connecting", "up"]
            slow.heal()
            await until(lambda: [status.state for status in pool.hosts] == ["up", "up"])


async def test_the_environment_of_workers(host: SshHost) -> None:
    """Each worker has the variables of its own index, besides limits for numeric libraries."""
    async with RemoteExecutor([host], env=lambda index: {"GPU": str(index)}) as pool:
        await until(lambda: pool.status().workers == 2)
        seen = {await pool.submit(os.getenv, "GPU") for _ in range(20)}
        assert seen <= {"0", "1"}
        assert await pool.submit(os.getenv, "OMP_NUM_THREADS") is not None


async def test_an_environment_that_cannot_be_made(host: SshHost) -> None:
    """When the function for the environment fails, no worker can be started, and the reason is told."""

    def env(index: int) -> dict[str, str]:
        raise LookupError(f"there is no GPU {index}")

    with pytest.raises(WorkerStartError, match="there is no GPU"):
        await RemoteExecutor([host], env=env).start()


async def test_an_initializer_that_hangs(host: SshHost, tmp_path: Path) -> None:
    """A start that hangs in an initializer can be cancelled, which ends the workers without waiting for them."""

    log = Log(str(tmp_path / "log"))

    def hang() -> None:
        log.write(os.getpid())
        time.sleep(1000)

    starting = asyncio.ensure_future(RemoteExecutor([host], initializer=hang, grace=1000).start())
    await until(lambda: len(log.lines) == 2)
    starting.cancel()
    await asyncio.wait([starting], timeout=20)
    assert starting.cancelled()
    await until(lambda: not any(is_alive(int(pid)) for pid in log.lines))


async def test_an_initializer_that_fails_or_cannot_travel(host: SshHost) -> None:
    """An initializer that fails is told with its error; one that cannot travel is refused before a host is asked."""

    def fail() -> None:
        raise LookupError("there is no licence")

    with pytest.raises(WorkerStartError, match="there is no licence"):
        await RemoteExecutor([host], initializer=fail).start()
    logins = host.logins
    loop = asyncio.get_running_loop()
    with pytest.raises(PicklingError):
        await RemoteExecutor([host], initializer=lambda: print(loop)).start()
    assert host.logins == logins


async def test_memory_of_workers_on_hosts(host: SshHost) -> None:
    """The status of workers elsewhere has their memory, as their host says it from time to time."""
    async with RemoteExecutor([host], lease=2.0) as pool:
        await pool.submit(pow, 2, 2)
        await until(lambda: any(worker.memory for worker in pool.status(per_worker=True).per_worker))
        found = [worker.memory for worker in pool.status(per_worker=True).per_worker if worker.memory]
        assert all(1_000_000 < memory < 1e12 for memory in found)


async def test_a_host_that_refuses() -> None:
    """A pool whose only host refuses connections does not open, and says what to look at."""
    async with ssh_host() as host:
        host.refuse()
        pool = RemoteExecutor([host], ssh=SshSettings(connect_timeout=2))
        with pytest.raises(HostError, match="refuses connections"):
            await pool.start()
        assert pool.hosts[0].state == "closed"
