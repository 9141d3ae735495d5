"""Connections: one for each host, shared, patient and careful; and nothing left of them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import pytest

from aioparallel import Host, HostError, InsecureHostWarning
from aioparallel._futures.supervisor import Group
from aioparallel._workers import ssh
from aioparallel._workers.ssh import Connections, SshSettings
from aioparallel.testing import SshHost, ssh_hosts
from tests.tools import open_group, until


def again(host: Host, **fields: Any) -> Host:
    """A host that is not equal to this one, and leads to the same place."""
    options = {**(host.options or {}), **fields.pop("options", {})}
    return Host(host.name, options=options, **fields)


def stranger() -> bytes:
    """A key that nobody lets in."""
    return bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())


class Session(asyncssh.SSHClientSession[bytes]):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.text = b""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.text += data


# One connection for each host


async def test_one_for_all(connections: Connections, host: SshHost) -> None:
    """Who asks for a connection that is there, or is being made, gets that one."""
    found = await asyncio.gather(*(connections.connect(host) for _ in range(3)))
    assert len(set(found)) == 1
    assert await connections.connect(host) is found[0]
    assert host.logins == 1
    assert found[0].lost is None
    assert str(found[0]) == host.name


async def test_several_hosts(connections: Connections) -> None:
    """Each host has a connection of its own."""
    async with ssh_hosts(3) as hosts:
        found = await asyncio.gather(*map(connections.connect, hosts))
        assert [each.host for each in found] == hosts
        assert [each.logins for each in hosts] == [1, 1, 1]
        await connections.aclose()


async def test_a_lost_connection_is_made_anew(connections: Connections, host: SshHost) -> None:
    """A connection that is lost says why, tells once, and is replaced when it is asked for again."""
    one = await connections.connect(host)
    told: list[HostError] = []
    one.on_lost = told.append
    host.cut()
    await until(lambda: told)
    assert told == [one.lost]
    assert "the connection was lost: it was reset" in str(one.lost)
    two = await connections.connect(host)
    assert two is not one
    assert (two.lost, host.logins) == (None, 2)
    with pytest.raises(HostError, match="it was reset"):
        await one.open_session("true", Session)


async def test_a_partition_is_noticed(group: Group, host: SshHost) -> None:
    """A host that does not answer any more is given up after the time that keepalive takes."""
    connections = Connections(group, SshSettings(keepalive_interval=0.05, keepalive_count_max=1))
    one = await connections.connect(host)
    host.stall()
    await until(lambda: one.lost)
    assert "does not answer any more" in str(one.lost)
    await connections.aclose()


async def test_closing_one(connections: Connections, host: SshHost) -> None:
    """A connection that is closed is gone, for everybody."""
    one = await connections.connect(host)
    await one.aclose()
    assert "the connection was closed" in str(one.lost)
    await until(lambda: host.connections == 0)
    await one.aclose()


async def test_closing_all(group: Group) -> None:
    """After closing there is no connection, and nobody can log in any more."""
    async with ssh_hosts(2) as hosts:
        connections = Connections(group)
        for host in hosts:
            await connections.connect(host)
        await connections.aclose()
        await until(lambda: [host.connections for host in hosts] == [0, 0])
        with pytest.raises(HostError, match="the pool was closed before the login was through"):
            await connections.connect(hosts[0])
        assert hosts[0].logins == 1


async def test_closing_while_logins_are_under_way(connections: Connections, host: SshHost) -> None:
    """Logins that are under way when everything is closed are given up, and whoever waits is told."""
    host.stall()
    waiting = asyncio.ensure_future(connections.connect(host))
    await until(lambda: host.logins)
    await connections.aclose()
    with pytest.raises(HostError, match="the pool was closed before the login was through"):
        await waiting
    host.heal()  # so that it hears of that
    await until(lambda: host.connections == 0)


async def test_the_group_ends(host: SshHost) -> None:
    """Who waits for a login when its pool is cancelled is told."""
    async with open_group() as group:
        host.stall()
        waiting = asyncio.ensure_future(Connections(group).connect(host))
        await until(lambda: host.logins)
    with pytest.raises(HostError, match="the pool was closed"):
        await waiting


# Logins


async def test_cancelling_one_who_waits(connections: Connections, host: SshHost) -> None:
    """A login goes on for the others when one of those who wait for it is cancelled."""
    host.stall()
    one, two = (asyncio.ensure_future(connections.connect(host)) for _ in range(2))
    await until(lambda: host.logins)
    one.cancel()
    host.heal()
    await two
    assert one.cancelled()
    assert host.logins == 1


async def test_cancelling_all_who_wait(connections: Connections, host: SshHost) -> None:
    """A login that nobody waits for any more goes on to its end, which servers expect, and is then closed."""
    host.stall()
    one = asyncio.ensure_future(connections.connect(host))
    await until(lambda: host.logins)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    await until(lambda: host.connections == 1)
    host.heal()
    await until(lambda: host.connections == 0)
    assert (await connections.connect(host)).lost is None
    assert host.logins == 2


async def test_cancelled_when_it_is_too_late(connections: Connections, host: SshHost) -> None:
    """Who is cancelled in the moment in which the login is through leaves it closed."""
    waiting = asyncio.ensure_future(connections.connect(host))
    login = await until(lambda: connections._logins.get(host))
    while not login.ended.is_set():
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: host.connections == 0)


async def test_a_refused_login_is_not_repeated(connections: Connections, host: SshHost) -> None:
    """A server that has refused a login is not asked again, until somebody says that something has changed."""
    denied = again(host, options={"client_keys": stranger()})
    for _ in range(2):
        with pytest.raises(HostError, match="the login as tester was refused") as caught:
            await connections.connect(denied)
        assert (caught.value.phase, caught.value.permanent) == ("auth", True)
    assert host.logins == 1
    connections.forget(denied)
    with pytest.raises(HostError):
        await connections.connect(denied)
    assert host.logins == 2
    connections.forget(host)


async def test_other_failures_may_be_repeated(connections: Connections, host: SshHost) -> None:
    """A failure that may pass does not stand in the way of the next attempt."""
    host.refuse()
    with pytest.raises(HostError, match="refuses connections") as caught:
        await connections.connect(host)
    assert (caught.value.host, caught.value.phase, caught.value.permanent) == (host.name, "connect", False)
    host.heal()
    await connections.connect(host)


async def test_each_who_waits_gets_an_error_of_its_own(connections: Connections, host: SshHost) -> None:
    """All who wait for a login that fails get the same error, each with a traceback of its own."""
    host.refuse()
    errors = await asyncio.gather(*(connections.connect(host) for _ in range(2)), return_exceptions=True)
    assert str(errors[0]) == str(errors[1])
    assert errors[0] is not errors[1]
    assert isinstance(errors[0], HostError)
    assert isinstance(errors[0].__cause__, ConnectionRefusedError)


async def test_a_server_that_hangs(group: Group, host: SshHost) -> None:
    """A server that accepts connections and says nothing is given up in the time to connect."""
    host.stall()
    connections = Connections(group, SshSettings(connect_timeout=0.1, login_timeout=60))
    with pytest.raises(HostError, match=r"accepts connections, but said nothing within 0\.1 s") as caught:
        await connections.connect(host)
    assert caught.value.phase == "connect"
    assert host.logins == 1


async def test_a_login_that_hangs(group: Group, host: SshHost) -> None:
    """A server that has said what it is and then hangs is given up in the time to log in."""
    host.delay(0.5)
    connections = Connections(group, SshSettings(connect_timeout=60, login_timeout=1.2))
    with pytest.raises(HostError, match=r"the key exchange with .* was not through in time"):
        await connections.connect(host)


async def test_an_unknown_host(connections: Connections, host: SshHost) -> None:
    """A host that is not known is refused, with its fingerprint and what to type; a changed key is told apart."""
    with pytest.raises(HostError, match="is not known here") as caught:
        await connections.connect(again(host, options={"known_hosts": b""}))
    assert (caught.value.phase, caught.value.permanent) == ("host key", True)
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key()
    line = f"[127.0.0.1]:{host.port} ".encode() + other
    with pytest.raises(HostError, match="has CHANGED"):
        await connections.connect(again(host, options={"known_hosts": line}))
    with pytest.raises(HostError, match="is marked as revoked"):
        own = host._server.host_key.export_public_key()
        await connections.connect(again(host, options={"known_hosts": b"@revoked * " + own}))
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048).export_public_key()
    with pytest.raises(HostError, match="has CHANGED"):
        await connections.connect(again(host, options={"known_hosts": f"[127.0.0.1]:{host.port} ".encode() + rsa}))


async def test_an_insecure_host(connections: Connections, host: SshHost) -> None:
    """A host that is not checked says so once, loudly; whoever makes warnings errors is not connected."""
    insecure = again(host, options={"known_hosts": None})
    with pytest.warns(InsecureHostWarning, match=rf"{host.name}: the identity of this host is NOT checked") as caught:
        one = await connections.connect(insecure)
    assert len(caught) == 1
    await one.aclose()
    await connections.connect(insecure)
    for _ in range(2):
        with warnings.catch_warnings(action="error"), pytest.raises(InsecureHostWarning):
            await connections.connect(again(host, options={"known_hosts": None}, slots=3))
    assert host.logins == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"client_keys": "/no/such/key"}, "/no/such/key cannot be read: No such file or directory"),
        ({"client_keys": b"nonsense"}, "a key cannot be read: "),
        ({"encryption_algs": ["aes256-cbc"]}, "no algorithm in common: No matching encryption algorithm found"),
        ({"no_such_option": 1}, "unexpected keyword argument 'no_such_option'"),
    ],
)
async def test_options_that_do_not_work(
    connections: Connections, host: SshHost, options: dict[str, Any], said: str
) -> None:
    """What is wrong with a host's options is a lasting failure."""
    with pytest.raises(HostError, match=said) as caught:
        await connections.connect(again(host, options=options))
    assert caught.value.permanent


# Crowds


@asynccontextmanager
async def turnstile(host: SshHost, turned_away: list[bytes]) -> AsyncIterator[Host]:
    """A port that says something and closes for so many connections, before it lets the next through to the host."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if turned_away:
            writer.write(turned_away.pop())
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", host.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        for each in (writer, far_writer):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    known = (host.options or {})["known_hosts"].replace(str(host.port).encode(), str(port).encode())
    yield Host(f"tester@127.0.0.1:{port}", options={**(host.options or {}), "known_hosts": known})
    server.close()


@pytest.mark.parametrize("words", [b"", b"Exceeded MaxStartups\r\n"])
async def test_a_server_with_too_many_guests(
    connections: Connections, host: SshHost, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """A server that turns us away because others log in is asked again, a little later, a few times."""
    monkeypatch.setattr(ssh, "RETRY_SECONDS", 0.001)
    turned_away = [words] * ssh.RETRIES
    async with turnstile(host, turned_away) as narrow:
        await connections.connect(narrow)
        assert not turned_away
        await connections.aclose()


@pytest.mark.parametrize("words", [b"Not allowed at this time\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_server_that_punishes(connections: Connections, host: SshHost, words: bytes) -> None:
    """A server that is angry, or no ssh server, is not asked again at once."""
    turned_away = [words] * 5
    async with turnstile(host, turned_away) as narrow:
        with pytest.raises(HostError, match=words.split()[0].decode()):
            await connections.connect(narrow)
        assert len(turned_away) == 4


async def test_handshakes_are_throttled(group: Group, host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many logins are under way at one server at a time, whoever they are for."""
    under_way, most = 0, 0
    connect: Callable[..., Awaitable[Any]] = asyncssh.connect

    async def counted(**arguments: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await connect(**arguments)
        finally:
            under_way -= 1

    monkeypatch.setattr(ssh.asyncssh, "connect", counted)
    monkeypatch.setattr(ssh, "JITTER_SECONDS", 0.001)
    connections = Connections(group, SshSettings(handshakes=2))
    await asyncio.gather(*(connections.connect(again(host, slots=slots)) for slots in range(1, 8)))
    assert (most, host.logins) == (2, 7)
    await connections.aclose()


# Jump hosts


def behind(bastion: Host, host: Host) -> Host:
    return again(host, options={"tunnel": bastion})


async def test_one_login_at_the_jump_host(connections: Connections) -> None:
    """All who go through a jump host share one login there, which is left with the last of them."""
    async with ssh_hosts(4) as (bastion, *inner):
        found = await asyncio.gather(*(connections.connect(behind(bastion, host)) for host in inner))
        assert [each.logins for each in (bastion, *inner)] == [1, 1, 1, 1]
        _, session = await found[0].open_session("echo inside", Session)
        await until(lambda: session.text == b"inside\n")
        await found[0].aclose()
        await found[1].aclose()
        assert bastion.connections == 1
        await found[2].aclose()
        await until(lambda: bastion.connections == 0)


async def test_a_jump_host_that_is_used_itself(connections: Connections) -> None:
    """A jump host that is also a host of the pool stays connected."""
    async with ssh_hosts(2) as (bastion, inner):
        itself = await connections.connect(bastion)
        found = await connections.connect(behind(bastion, inner))
        await found.aclose()
        await until(lambda: inner.connections == 0)
        assert (bastion.logins, itself.lost) == (1, None)
        await connections.aclose()


async def test_a_jump_host_changes_hands(connections: Connections) -> None:
    """A jump host is not left in the moment in which somebody else is about to go through it."""
    async with ssh_hosts(3) as (bastion, one, two):
        first = await connections.connect(behind(bastion, one))
        second = asyncio.ensure_future(connections.connect(behind(bastion, two)))
        login = connections._logins[bastion]
        await until(lambda: login.waiting or second.done())
        await first.aclose()
        assert (await second).lost is None
        assert bastion.logins == 1
        await connections.aclose()


async def test_jump_hosts_in_a_row(connections: Connections) -> None:
    """A jump host may itself be reached through another."""
    async with ssh_hosts(3) as (outer, middle, inner):
        await connections.connect(behind(behind(outer, middle), inner))
        assert [each.logins for each in (outer, middle, inner)] == [1, 1, 1]
        await connections.aclose()
        await until(lambda: outer.connections == 0)


async def test_a_jump_host_that_is_lost(connections: Connections) -> None:
    """When the jump host is lost, so is everything behind it."""
    async with ssh_hosts(2) as (bastion, inner):
        found = await connections.connect(behind(bastion, inner))
        bastion.cut()
        await until(lambda: found.lost)
        await until(lambda: inner.connections == 0)
        await connections.connect(behind(bastion, inner))
        assert bastion.logins == 2
        await connections.aclose()


async def test_a_jump_host_that_cannot_be_used(connections: Connections) -> None:
    """What is wrong with the jump host is told for each host behind it, and it is not asked again for each."""
    async with ssh_hosts(3) as (bastion, *inner):
        closed = again(bastion, options={"client_keys": stranger()})
        for host in inner:
            with pytest.raises(HostError, match="a jump host, which cannot be used") as caught:
                await connections.connect(behind(closed, host))
            assert (caught.value.phase, caught.value.permanent) == ("auth", True)
            assert f"{bastion.name}: the login as tester was refused" in str(caught.value)
            assert str(caught.value).startswith(f"{host.name}: ")
        assert bastion.logins == 1


async def test_a_host_that_the_jump_host_cannot_reach(connections: Connections) -> None:
    """A host that the jump host cannot reach is the one that is blamed, and the jump host is left."""
    async with ssh_hosts(2) as (bastion, inner):
        inner.refuse()
        with pytest.raises(HostError, match=rf"{bastion.name} cannot reach 127\.0\.0\.1 port") as caught:
            await connections.connect(behind(bastion, inner))
        assert caught.value.phase == "connect"
        await until(lambda: bastion.connections == 0)


async def test_a_host_that_says_nothing_to_the_jump_host(group: Group) -> None:
    """A host that hangs behind a jump host is given up in the same time, and leaves no channel open there."""
    async with ssh_hosts(2) as (bastion, inner):
        connections = Connections(group, SshSettings(connect_timeout=0.2))
        jump = await connections.connect(bastion)
        inner.stall()
        with pytest.raises(HostError, match=r"through .* accepts connections, but said nothing within 0\.2 s"):
            await connections.connect(behind(bastion, inner))
        assert jump.lost is None
        await until(lambda: not jump.ssh._channels)
        await connections.aclose()


async def test_the_jump_host_is_checked(connections: Connections) -> None:
    """Host keys are checked on every step of the way."""
    async with ssh_hosts(2) as (bastion, inner):
        with pytest.raises(HostError, match=rf"{bastion.name}: its host key is not known here") as caught:
            await connections.connect(behind(again(bastion, options={"known_hosts": b""}), inner))
        assert caught.value.phase == "host key"


async def test_circles(connections: Connections, tmp_path: Any) -> None:
    """Jump hosts that lead back to where they came from are refused instead of being waited for."""
    config = tmp_path / "config"
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(HostError, match="the jump hosts lead in a circle: b -> a -> b") as caught:
        await connections.connect(Host("a", options={"config": str(config)}))
    assert caught.value.permanent


# Channels


async def test_sessions(connections: Connections, host: SshHost) -> None:
    """A session runs a command, and its session object is told what it says."""
    one = await connections.connect(host)
    channel, session = await one.open_session("echo hello", Session)
    await channel.wait_closed()
    assert session.text == b"hello\n"


async def test_a_session_that_is_refused(connections: Connections, host: SshHost) -> None:
    """A session that the host does not open is a failure of the handshake, and the connection lives."""
    one = await connections.connect(host)
    with pytest.raises(HostError, match="does not run commands for this login") as caught:
        await one.open_session("", Session)  # a shell
    assert caught.value.phase == "handshake"
    assert one.lost is None


async def test_a_session_that_is_not_opened_in_time(group: Group, host: SshHost) -> None:
    """Opening a session has a time of its own."""
    connections = Connections(group, SshSettings(channel_timeout=0.1))
    one = await connections.connect(host)
    host.stall()
    with pytest.raises(HostError, match="did not open a session in time"):
        await one.open_session("true", Session)
    host.heal()
    await until(lambda: not one.ssh._channels)
    await connections.aclose()


async def test_cancelled_sessions_leave_nothing(connections: Connections, host: SshHost) -> None:
    """Sessions whose opening is cancelled leave no channel and no process, at whatever moment that comes."""
    one = await connections.connect(host)
    host.delay(0.01)
    for moment in range(12):
        opening = asyncio.ensure_future(one.open_session("exec cat", Session))
        await asyncio.sleep(moment * 0.005)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():  # it was open already
            opening.result()[0].abort()
    host.heal()
    await until(lambda: not one.ssh._channels)
    await until(lambda: not host.commands)
    _, alive = await one.open_session("exec cat", Session)
    assert isinstance(alive, Session)


async def test_nobody_is_told_of_what_is_cancelled(connections: Connections, host: SshHost) -> None:
    """A session that is opened although nobody waits for it any more has nobody who is told what happens there."""
    one = await connections.connect(host)
    made: list[Session] = []

    def session() -> Session:
        made.append(Session())
        return made[-1]

    host.stall()
    opening = asyncio.ensure_future(one.open_session("echo hello", session))
    await until(lambda: one.ssh._channels)
    opening.cancel()
    await asyncio.wait([opening])
    host.heal()
    await until(lambda: not one.ssh._channels)
    assert made == []


async def test_the_connection_is_lost_while_a_session_opens(connections: Connections, host: SshHost) -> None:
    """A session that is being opened when the connection is lost fails for that reason."""
    one = await connections.connect(host)
    host.stall()
    opening = asyncio.ensure_future(one.open_session("true", Session))
    await asyncio.sleep(0)
    host.cut()
    with pytest.raises(HostError, match="the connection was lost"):
        await opening
