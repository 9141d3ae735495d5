"""Hosts in this process: they behave like real ones, can be broken, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from aioparallel import Host
from aioparallel.testing import SshHost, server, ssh_host, ssh_hosts
from tests.tools import is_alive, until


@pytest.fixture
async def host() -> AsyncIterator[SshHost]:
    async with ssh_host() as found:
        yield found


@contextlib.asynccontextmanager
async def login(host: Host, **changes: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    options = {**(host.options or {}), **changes}
    async with asyncssh.connect(host.machine, host.port, username=host.username, **options) as connection:
        yield connection


async def test_it_is_ready(host: SshHost) -> None:
    """A host can be logged in to with what it holds itself, and has the running Python."""
    async with login(host) as connection:
        done = await connection.run(f"{host.python[0]} -c 'print(6 * 7)'" if host.python else "")
        assert (done.stdout, done.exit_status) == ("42\n", 0)
        assert (host.logins, host.connections) == (1, 1)
    assert host.python == (sys.executable,)
    await until(lambda: host.connections == 0)


async def test_fields() -> None:
    """The other fields of a host can be given; a host that runs here is a Host, and travels as one."""
    async with ssh_hosts(2, slots=3, python="python3", setup="true") as hosts:
        assert [(each.slots, each.python, each.setup) for each in hosts] == [(3, ("python3",), "true")] * 2
        assert len({each.name for each in hosts}) == 2
        again = pickle.loads(pickle.dumps(hosts[0]))
        assert type(again) is Host
        assert again.options == hosts[0].options
        async with login(again):
            pass


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_commands_read_and_write(host: SshHost, size: int) -> None:
    """A command gets its whole input, and all that it writes arrives, however soon it ends."""
    async with login(host) as connection:
        done = await connection.run("cat; echo oops >&2", input=bytes(size), encoding=None)
        assert (len(done.stdout), done.stderr, done.exit_status) == (size, b"oops\n", 0)


@pytest.mark.parametrize(
    ("command", "status", "signal"),
    [("exit 3", 3, None), ("no-such-command", 127, None), ("kill -TERM $$", None, "TERM")],
)
async def test_ends(host: SshHost, command: str, status: int | None, signal: str | None) -> None:
    """How a command ended is reported, by its exit code or the signal that ended it."""
    async with login(host) as connection:
        done = await connection.run(command)
        if status is not None:
            assert done.exit_status == status
        assert (done.exit_signal[0] if done.exit_signal else None) == signal


async def test_the_environment_is_that_of_a_login(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command starts in the user's home, in a session of its own, without the variables of this process."""
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    async with login(host) as connection:
        done = await connection.run("pwd; ps -o sid= -p $$; echo $$; echo $PYTHONPATH")
        home, session, pid, path = str(done.stdout).splitlines()
    assert home == os.path.expanduser("~")
    assert int(session) == int(pid)
    assert path == ""


async def test_others_are_not_let_in(host: SshHost) -> None:
    """Only the key of the host lets in, and only its own key is the right one."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        async with login(host, client_keys=[other]):
            pass
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        async with login(host, known_hosts=b""):
            pass


async def test_shells_are_refused(host: SshHost) -> None:
    """There are commands only: no shell to type into."""
    async with login(host) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process()


async def test_the_users_own_configuration_stays_out(
    host: SshHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The configuration, keys and agent of whoever runs the tests have no say."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  ProxyCommand false\n  IdentityFile /no/such/file\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/no/such/socket")
    async with login(host) as connection:
        assert (await connection.run("true")).exit_status == 0


async def test_it_can_be_a_jump_host() -> None:
    """Another host can be reached through it."""
    async with (
        ssh_hosts(2) as (bastion, inner),
        login(bastion) as jump,
        login(inner, tunnel=jump) as connection,
    ):
        assert (await connection.run("echo inside")).stdout == "inside\n"
        assert inner.logins == 1


# Faults


async def test_refusing(host: SshHost) -> None:
    """A host that refuses is not listening, until it is healed."""
    host.refuse()
    with pytest.raises(ConnectionRefusedError):
        async with login(host):
            pass
    host.heal()
    async with login(host):
        pass


async def test_stalling(host: SshHost) -> None:
    """A host that stalls accepts connections, and never says a word."""
    host.stall()
    with pytest.raises(asyncssh.ConnectionLost, match="Login timeout expired"):
        async with login(host, login_timeout=0.2):
            pass
    assert host.logins == 1


async def test_a_partition(host: SshHost) -> None:
    """A connection that stalls later is noticed by keepalive."""
    async with login(host, keepalive_interval=0.1, keepalive_count_max=1) as connection:
        await connection.run("true")
        host.stall()
        await connection.wait_closed()


async def test_cutting(host: SshHost) -> None:
    """Connections that are cut are lost at once."""
    async with login(host) as connection:
        process = await connection.create_process("cat")
        host.cut()
        await connection.wait_closed()
        await process.wait_closed()
        await until(lambda: not host.commands)


async def test_delays(host: SshHost) -> None:
    """A delay holds up every round trip."""
    loop = asyncio.get_running_loop()
    async with login(host) as connection:
        host.delay(0.02)
        begun = loop.time()
        await connection.run("true")
        assert loop.time() - begun >= 0.08  # a channel, and a command


# Ends


async def test_commands_see_that_they_are_alone(host: SshHost) -> None:
    """A command whose connection is gone reads the end of its input, and can end by itself."""
    async with login(host) as connection:
        await connection.create_process("cat")
        await until(lambda: host.commands)
        pid = host.commands[0]
    await until(lambda: not is_alive(pid))


async def test_commands_that_do_not_listen_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end by itself is killed, with its children, and leaving the host waits for that."""
    monkeypatch.setattr(server, "END_SECONDS", 0.1)
    async with ssh_host() as host, login(host) as connection:
        process = await connection.create_process("sleep 300 & echo $!; exec sleep 301")
        child = int(await process.stdout.readline())
        pid = host.commands[0]
        assert is_alive(child)
    assert not is_alive(pid)
    await until(lambda: not is_alive(child))


async def test_what_outlives_its_command_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who keeps a command's output open after its end is killed, or let go when it has left, and nobody waits for it."""
    monkeypatch.setattr(server, "END_SECONDS", 0.1)
    async with ssh_host() as host, login(host) as connection:
        process = await connection.create_process("sleep 300 & echo $!; setsid sleep 5 & echo $!; exit 0")
        stays, leaves = [int(await process.stdout.readline()) for _ in range(2)]
    await until(lambda: not is_alive(stays))
    os.kill(leaves, signal.SIGKILL)


async def test_leaving_with_connections_open() -> None:
    """A host may be left while its connections are open and its commands run."""
    async with contextlib.AsyncExitStack() as stack:
        async with ssh_host() as host:
            connection = await stack.enter_async_context(login(host))
            await connection.create_process("cat")
            await connection.create_process("cat >/dev/null & cat")
        await connection.wait_closed()
