"""Real networks: servers that die, machines that are cut off, and long ways."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from aioparallel import Host, HostError
from aioparallel._futures.supervisor import Group
from aioparallel._workers.ssh import Connections, SshSettings
from aioparallel.testing import Relay
from tests import frames
from tests.remote.agents import start
from tests.remote.netlab import Machine, netlab
from tests.remote.openssh import Sshd, World, send
from tests.tools import until

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]
QUICK = SshSettings(connect_timeout=2, login_timeout=5, keepalive_interval=0.3, keepalive_count_max=1)
"""A silent machine is noticed after 0.6 s."""


@pytest.fixture
async def quick(group: Group) -> AsyncIterator[Connections]:
    """Connections that notice quickly."""
    found = Connections(group, QUICK)
    yield found
    await found.aclose()


# Servers that die


async def test_a_server_that_is_killed(sshd: Start, connections: Connections) -> None:
    """When the processes of a server are killed, the connection is lost at once, and so is the agent."""
    server = sshd()
    connection = await connections.connect(server.host())
    talk = await start(connection)
    server.stop()
    await until(lambda: talk.error and connection.lost)
    assert "the connection was lost: it was reset" in str(talk.error)
    assert (talk.error.phase, talk.error.permanent) == (None, False) if talk.error else False
    server.start()
    talk = await start(await connections.connect(server.host()))
    assert await talk.channel.aclose()


async def test_an_agent_that_is_killed(sshd: Start, connections: Connections) -> None:
    """When the agent is killed, that is told with the signal, and the connection lives."""
    connection = await connections.connect(sshd().host())
    talk = await start(connection)
    send(signal.SIGKILL, talk.channel.hello.pid)
    await until(lambda: talk.error)
    assert "the host agent ended (killed by SIGKILL)" in str(talk.error)
    assert connection.lost is None


async def test_a_server_that_is_stopped(sshd: Start, quick: Connections) -> None:
    """A server that does not run any more, but whose machine does, is noticed by keepalive."""
    server = sshd()
    connection = await quick.connect(server.host())
    talk = await start(connection)
    processes = server.processes
    send(signal.SIGSTOP, *processes)
    await until(lambda: talk.error)
    assert "the server does not answer any more" in str(talk.error)
    send(signal.SIGCONT, *processes)
    await until(lambda: not server.processes)


# Long ways


@asynccontextmanager
async def far_away(server: Sshd, round_trip: float) -> AsyncIterator[Host]:
    """The same host at the other end of a long way."""
    async with Relay("127.0.0.1", server.port) as relay:
        relay.delay(round_trip / 2)
        known = server.known_hosts.replace(f":{server.port}".encode(), f":{relay.port}".encode())
        yield Host(
            f"{server.world.user}@127.0.0.1:{relay.port}",
            python=server.world.python(),
            options=server.options(known_hosts=known),
        )


@pytest.mark.parametrize("round_trip", [0.05, 0.2])
async def test_long_ways(sshd: Start, connections: Connections, round_trip: float) -> None:
    """A host far away works like any other, if a little later; nothing is said twice on the way."""
    async with far_away(sshd(), round_trip) as host:
        connection = await connections.connect(host)
        talk = await start(connection)
        assert await talk.channel.aclose()
        await connection.aclose()


async def test_cancelling_on_long_ways(sshd: Start, connections: Connections) -> None:
    """What is cancelled while it is on its way is closed when it arrives."""
    server = sshd("MaxSessions 2")
    async with far_away(server, 0.05) as host:
        connection = await connections.connect(host)
        before = len(server.processes)
        for moment in range(8):
            starting = asyncio.ensure_future(start(connection))
            await asyncio.sleep(moment * 0.02)
            starting.cancel()
            await asyncio.wait([starting])
            await until(lambda: not connection.ssh._channels)
        await until(lambda: len(server.processes) <= before)
        talks = await asyncio.gather(*(start(connection) for _ in range(2)))
        for talk in talks:
            assert await talk.channel.aclose()
        await connection.aclose()


# Machines


@pytest.fixture(scope="module")
def machines(world: World) -> Iterator[list[Machine]]:
    """Four machines."""
    with netlab(world, 4) as found:
        yield found


@pytest.fixture
def healed(machines: list[Machine]) -> Iterator[list[Machine]]:
    """The machines, of which those that were harmed are healed afterwards."""
    yield machines
    for machine in machines:
        machine.heal()


async def test_several_machines(healed: list[Machine], quick: Connections) -> None:
    """Each machine has an agent of its own, and they can be told apart."""
    found = await asyncio.gather(*(quick.connect(machine.sshd.host()) for machine in healed))
    talks = await asyncio.gather(*map(start, found))
    assert len({talk.channel.hello.pid for talk in talks}) == 4
    assert [connection.host.machine for connection in found] == [machine.address for machine in healed]
    assert all(await asyncio.gather(*(talk.channel.aclose() for talk in talks)))


@pytest.mark.parametrize("how", [Machine.partition, Machine.unplug, Machine.freeze], ids=lambda how: how.__name__)
async def test_a_machine_that_falls_silent(
    healed: list[Machine], quick: Connections, how: Callable[[Machine], None]
) -> None:
    """A machine that is cut off without a word is noticed in the time of keepalive; the others live; it may come back."""
    ill, well = healed[0].sshd.host(), healed[1].sshd.host()
    found = await asyncio.gather(*map(quick.connect, (ill, well)))
    talks = await asyncio.gather(*map(start, found))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    how(healed[0])
    await until(lambda: talks[0].error)
    assert loop.time() - begun >= QUICK.keepalive_interval
    assert "the server does not answer any more" in str(talks[0].error)
    assert (talks[1].error, found[1].lost) == (None, None)
    healed[0].heal()
    talk = await start(await quick.connect(ill))
    for each in (talk, talks[1]):
        assert await each.channel.aclose()


async def test_a_machine_that_cannot_be_reached(healed: list[Machine], group: Group) -> None:
    """A machine that does not answer costs the time to connect; one that is not there is told from it."""
    connections = Connections(group, SshSettings(connect_timeout=0.5))
    healed[0].partition()
    with pytest.raises(HostError, match=r"did not answer within 0\.5 s") as caught:
        await connections.connect(healed[0].sshd.host())
    assert (caught.value.phase, caught.value.permanent) == ("connect", False)
    healed[1].reject()
    with pytest.raises(HostError, match="refuses connections"):
        await connections.connect(healed[1].sshd.host())


async def test_a_machine_that_was_started_again(healed: list[Machine], connections: Connections) -> None:
    """A machine that does not know of the connection any more says so, and it is lost at once."""
    connection = await connections.connect(healed[0].sshd.host())
    talk = await start(connection)
    healed[0].reject()
    talk.say(**frames.OPEN)
    await until(lambda: talk.error)
    assert "it was reset" in str(talk.error)


async def test_a_network_that_loses_packets(healed: list[Machine], connections: Connections) -> None:
    """Lost packets are sent again: nothing is lost for good."""
    healed[0].lose(0.05)
    connection = await connections.connect(healed[0].sshd.host())
    talk = await start(connection)
    assert await talk.channel.aclose()


async def test_a_machine_that_loses_its_power(world: World, quick: Connections) -> None:
    """A machine that is gone from one moment to the next is noticed in the time of keepalive."""
    with netlab(world, 1) as (machine,):
        talk = await start(await quick.connect(machine.sshd.host()))
        machine.power_off()
        await until(lambda: talk.error)
        assert "the server does not answer any more" in str(talk.error)
        with pytest.raises(HostError) as caught:
            await quick.connect(machine.sshd.host())
        assert (caught.value.phase, caught.value.permanent) == ("connect", False)


async def test_a_bastion_between_networks(healed: list[Machine], quick: Connections) -> None:
    """Behind a jump host that is cut off everything is lost; a target that is cut off takes nobody along."""
    bastion, one, two = (machine.sshd.host() for machine in healed[:3])

    def behind(host: Host) -> Host:
        return Host(host.name, python=host.python, options={**(host.options or {}), "tunnel": bastion})

    found = await asyncio.gather(quick.connect(behind(one)), quick.connect(behind(two)))
    assert healed[0].sshd.log.count("Accepted publickey for") >= 1
    healed[1].partition()
    await until(lambda: found[0].lost)
    talk = await start(found[1])
    healed[0].partition()
    await until(lambda: talk.error)
