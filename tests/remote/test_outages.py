"""A pool of hosts on a real network: machines that are cut off, frozen or switched off, long ways, and the end of ours."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioparallel import HostError, WorkerLostError
from aioparallel.testing import Relay
from tests.remote import farjobs
from tests.remote.netlab import Machine, netlab
from tests.remote.openssh import Sshd, World
from tests.remote.pools import LEASE, Open, far_folder, gate, is_up, log, open_pool, parent_of, status_of
from tests.tools import Gate, is_alive, until, wait_for

__all__ = ["far_folder", "gate", "log", "open_pool"]

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]


@pytest.fixture(scope="module")
def machines(world: World) -> Iterator[list[Machine]]:
    """Eight machines."""
    with netlab(world, 8) as found:
        yield found


@pytest.fixture
def healed(machines: list[Machine]) -> Iterator[list[Machine]]:
    """The same, which are made whole again after the test."""
    yield machines
    for machine in machines:
        machine.heal()


# Eight machines


async def test_eight_hosts(healed: list[Machine], open_pool: Open) -> None:
    """Eight machines work together: each gets its share, and the pool knows how far each is."""
    hosts = [machine.sshd.host(slots=1) for machine in healed]
    pool = await open_pool(*hosts, lease=5.0)
    await until(lambda: all(is_up(pool, host) for host in hosts))
    found = await pool.map(farjobs.where, range(400), chunksize=1)
    assert {host for host, _ in found} == {host.name for host in hosts}
    assert pool.status().workers == 8
    await until(lambda: all(status_of(pool, host).trip for host in hosts))


async def test_half_of_eight_hosts_lose_their_power(healed: list[Machine], world: World, open_pool: Open) -> None:
    """When machines lose their power in the middle of a map, the map of idempotent calls has all its results."""
    with netlab(world, 2) as doomed:
        hosts = [machine.sshd.host(slots=1) for machine in [*doomed, *healed[:2]]]
        pool = await open_pool(*hosts)
        await until(lambda: all(is_up(pool, host) for host in hosts))
        results = []
        async for result in pool.map(farjobs.slow_square, range(60), idempotent=True, chunksize=1):
            results.append(result)
            if len(results) == 10:
                for machine in doomed:
                    machine.power_off()
        assert results == [x * x for x in range(60)]
        assert {status_of(pool, host).state for host in hosts[:2]} <= {"waiting", "connecting"}


# Silence


@pytest.mark.parametrize("fault", ["partition", "unplug"])
async def test_a_machine_that_is_cut_off(healed: list[Machine], open_pool: Open, gate: Gate, fault: str) -> None:
    """A machine that is cut off is given up when its lease is over, and what runs there ends by itself; then it is used
    again as soon as it can be reached."""
    near, far = (machine.sshd.host(slots=1) for machine in healed[:2])
    pool = await open_pool(far)
    running = pool.submit(farjobs.busy_in_c, gate)
    again = pool.options(idempotent=True).submit(farjobs.square, 11)
    (worker,) = await until(lambda: gate.entered)
    agent = parent_of(worker)
    getattr(healed[1], fault)()
    pool.add_host(near)
    with pytest.raises(WorkerLostError) as caught:
        await running
    assert caught.value.host == far.name
    assert f"nothing was heard of it for {LEASE:g} s" in str(caught.value.__cause__)
    assert await again == 121
    await until(lambda: not is_alive(worker) and not is_alive(agent), "the lease ends them over there")
    assert {host for host, _ in await pool.map(farjobs.where, range(10))} == {near.name}
    status = status_of(pool, far)
    assert isinstance(status.error, HostError)
    assert not status.error.permanent
    healed[1].heal()
    await until(lambda: is_up(pool, far))
    found = await pool.map(farjobs.where, range(100), chunksize=1)
    assert {host for host, _ in found} == {near.name, far.name}


async def test_a_machine_that_freezes(healed: list[Machine], open_pool: Open, gate: Gate) -> None:
    """A machine whose processes stand still is given up; when they go on, they find that their time is over, and end."""
    near, far = (machine.sshd.host(slots=1) for machine in healed[:2])
    pool = await open_pool(far)
    running = pool.submit(farjobs.hold_at, gate)
    (worker,) = await until(lambda: gate.entered)
    waiting = pool.submit(farjobs.where)
    healed[1].freeze()
    pool.add_host(near)
    with pytest.raises(WorkerLostError):
        await running
    assert (await waiting)[0] == near.name, "it was never sent"
    assert is_alive(worker), "it stands still"
    healed[1].heal()
    await until(lambda: not is_alive(worker))
    assert not gate.left, "it did not go on with its call"
    await until(lambda: is_up(pool, far))


async def test_a_short_silence_is_borne(healed: list[Machine], open_pool: Open, gate: Gate) -> None:
    """A machine that is cut off for less than its lease loses nothing."""
    host = healed[0].sshd.host(slots=1)
    pool = await open_pool(host, lease=10.0)
    running = pool.submit(farjobs.hold_at, gate, 5)
    await until(lambda: gate.entered)
    healed[0].partition()
    gate.open()
    await until(lambda: gate.left)
    assert not running.done()
    healed[0].heal()
    assert await running == (host.name, 5)
    assert status_of(pool, host).losses == 0


async def test_a_network_that_loses_packets(healed: list[Machine], open_pool: Open) -> None:
    """Where packets are lost, calls take longer, and nothing else."""
    healed[0].lose(0.03)
    pool = await open_pool(healed[0].sshd.host(slots=2), lease=15.0)
    assert await pool.map(farjobs.square, range(300)) == [x * x for x in range(300)]
    block = bytes(300_000)
    assert await pool.submit(len, block) == len(block)


async def test_closing_a_pool_whose_machine_is_cut_off(healed: list[Machine], open_pool: Open, gate: Gate) -> None:
    """Closing waits no longer for a machine that cannot be reached than for one that can: it has its lease."""
    pool = await open_pool(healed[0].sshd.host(slots=1), grace=0.5)
    running = pool.submit(farjobs.busy_in_c, gate)
    (worker,) = await until(lambda: gate.entered)
    healed[0].partition()
    await asyncio.wait_for(pool.aclose(drain=False), 15)
    assert running.done()
    await until(lambda: not is_alive(worker), "the lease ends it over there")


# Long ways


@pytest.mark.parametrize("seconds", [0.025, 0.1])
async def test_long_ways(sshd: Start, open_pool: Open, seconds: float) -> None:
    """Over a way of 50 or 200 ms short calls still go by the thousand, and the pool has measured the way."""
    server = sshd()
    async with Relay("127.0.0.1", server.port) as relay:
        relay.delay(seconds)
        line = server.known_hosts.replace(f":{server.port} ".encode(), f":{relay.port} ".encode())
        pool = await open_pool(server.host(slots=2, port=relay.port, options={"known_hosts": line}), lease=10.0)
        assert await pool.map(farjobs.square, range(2000)) == [x * x for x in range(2000)]
        (status,) = pool.hosts
        await until(lambda: (pool.hosts[0].trip or 0) >= 2 * seconds)
        assert status.losses == 0
        await pool.aclose()


# The end of ours

CONTROLLER = """
import asyncio
from aioparallel import Host, RemoteExecutor
from tests.remote import farjobs
from tests.tools import Gate

async def main():
    hosts = {hosts}
    async with RemoteExecutor(hosts, lease=60) as pool:
        for job in (farjobs.busy_in_c, farjobs.with_child):
            pool.submit(job, Gate({gate!r}))
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("user", ["", "root"])
def test_the_controller_is_killed(sshd: Start, far_folder: Path, world: World, user: str) -> None:
    """However this program ends, everything ends on the hosts: busy in C, or a process that left its session, also of
    root's logins."""
    if user and world.user != "lab":
        pytest.skip("needs root, for a login of root")
    gate = Gate(str(far_folder / f"gate{user}"))
    server = sshd()
    host = server.host(user, slots=2)
    fields = {
        "username": host.username,
        "port": host.port,
        "slots": 2,
        "python": host.python,
        "options": dict(host.options or {}),
    }
    text = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    program = CONTROLLER.format(hosts=f"[Host({host.machine!r}, {text})]", gate=gate.path)
    controller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        wait_for(lambda: len(gate.entered) == 3, seconds=40)
        pids = {*gate.entered, *server.processes}
        assert len(pids) > 4
    finally:
        controller.send_signal(signal.SIGKILL)
        controller.wait()
    wait_for(lambda: not any(map(is_alive, pids)))
