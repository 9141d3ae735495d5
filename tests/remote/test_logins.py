"""Logging in to real OpenSSH servers: keys, certificates, agents, configurations, crowds."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioparallel import Host, HostError, RemoteExecutor
from aioparallel._futures.supervisor import Group
from aioparallel._workers import ssh
from aioparallel._workers.ssh import Connections, SshSettings
from tests.remote.agents import start
from tests.remote.openssh import IS_ROOT, Sshd, World, make_key, public, run
from tests.tools import until

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]
ROOT = pytest.mark.skipif(not IS_ROOT, reason="needs root, for users and servers of its own")


async def fail(connections: Connections, host: Host) -> HostError:
    with pytest.raises(HostError) as caught:
        await connections.connect(host)
    assert caught.value.host == host.name
    return caught.value


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty ssh folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


# Who is let in


async def test_a_login(sshd: Start, connections: Connections) -> None:
    """A host that knows the key lets in, with quick ciphers, and has a session for an agent."""
    server = sshd()
    connection = await connections.connect(server.host())
    assert connection.ssh.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
    assert connection.ssh.get_extra_info("send_compression") == "none"
    talk = await start(connection)
    assert talk.channel.hello.pid in server.processes
    assert await talk.channel.aclose()
    await connections.aclose()
    await until(lambda: not server.processes)


@ROOT
async def test_a_login_of_root(sshd: Start, connections: Connections) -> None:
    """Root can be logged in as, where the server allows it."""
    server = sshd()
    talk = await start(await connections.connect(server.host("root")))
    assert os.stat(f"/proc/{talk.channel.hello.pid}").st_uid == 0
    assert await talk.channel.aclose()
    forbidden = sshd("PermitRootLogin no")
    assert (await fail(connections, forbidden.host("root"))).phase == "auth"


@ROOT
async def test_a_server_of_a_user(sshd: Start, connections: Connections, world: World) -> None:
    """A server that a user without privileges runs is as good, for that user."""
    server = sshd(user=world.user)
    talk = await start(await connections.connect(server.host()))
    assert os.stat(f"/proc/{talk.channel.hello.pid}").st_uid != 0
    assert await talk.channel.aclose()


async def test_wrong_keys(sshd: Start, connections: Connections, tmp_path: Path) -> None:
    """A key that nobody knows, no key, and a user who is not there look alike to us, and are not tried again."""
    server = sshd()
    others = [
        server.host(options={"client_keys": str(make_key(tmp_path / "other"))}),
        server.host(options={"client_keys": []}),
        server.host("nobody-by-that-name"),
    ]
    for host in others:
        for _ in range(2):
            error = await fail(connections, host)
            assert (error.phase, error.permanent) == ("auth", True)
            assert f"the login as {host.username} was refused" in str(error)
    assert server.logins == 0
    assert server.log.count("Connection from") == len(others)


async def test_too_many_keys(sshd: Start, connections: Connections, tmp_path: Path) -> None:
    """A server that gives up because of too many keys is told from one that does not know the key."""
    server = sshd("MaxAuthTries 2")
    keys = [str(make_key(tmp_path / f"key{n}")) for n in range(4)]
    error = await fail(connections, server.host(options={"client_keys": keys}))
    assert (error.phase, error.permanent) == ("auth", True)
    assert "gave up on" in str(error)


async def test_an_encrypted_key(sshd: Start, connections: Connections, tmp_path: Path) -> None:
    """A key with a passphrase needs one, and the error says how to give it."""
    server = sshd()
    key = make_key(tmp_path / "locked", "-m", "PEM", kind="rsa", passphrase="secret")
    with server.world.authorized_keys.open("ab") as file:
        file.write(public(key))
    error = await fail(connections, server.host(options={"client_keys": str(key)}))
    assert (error.phase, error.permanent) == ("auth", True)
    assert "its passphrase is not known here" in str(error)
    await connections.connect(server.host(options={"client_keys": str(key), "passphrase": "secret"}))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World) -> Iterator[str]:
    """An ssh agent that holds the right key."""
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not os.path.exists(path):
        assert process.poll() is None
    run("ssh-add", "-q", str(world.key), SSH_AUTH_SOCK=path)
    yield path
    process.kill()
    process.wait()


async def test_an_ssh_agent(sshd: Start, connections: Connections, agent: str, home: Path) -> None:
    """A key that only an agent has is used, by the option or by the usual variable; a dead agent is no trouble."""
    server = sshd()
    options = server.options()
    del options["client_keys"], options["agent_path"]
    base = server.host()
    await connections.connect(Host(base.name, options={**options, "agent_path": agent}))
    os.environ["SSH_AUTH_SOCK"] = agent
    await connections.connect(Host(base.name, options=options))
    os.environ["SSH_AUTH_SOCK"] = f"{agent}-gone"
    assert (await fail(connections, Host(base.name, slots=3, options=options))).phase == "auth"
    await connections.connect(Host(base.name, options={**options, "client_keys": str(server.world.key)}))
    assert server.logins == 3


async def test_no_agent_is_forwarded(sshd: Start, connections: Connections, agent: str, home: Path) -> None:
    """What runs on a host does not get at the user's ssh agent, whatever the configuration says; only an option gives it."""
    server = sshd()
    (home / "known").write_bytes(server.known_hosts)
    (home / ".ssh" / "config").write_text(
        f"Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  IdentityAgent {agent}\n  UserKnownHostsFile ~/known\n"
    )
    base = server.host()
    for options, forwarded in ({}, False), ({"agent_forwarding": True}, True):
        host = Host(base.machine, port=base.port, username=base.username, python=base.python, options=options)
        talk = await start(await connections.connect(host))
        environ = Path(f"/proc/{talk.channel.hello.pid}/environ").read_bytes()
        assert (b"SSH_AUTH_SOCK=" in environ, b"DISPLAY=" in environ) == (forwarded, False)
        await talk.channel.aclose()


async def test_a_restricted_key(sshd: Start, tmp_path: Path) -> None:
    """A key that may only run commands is enough: nothing is forwarded, and no terminal is asked for."""
    server = sshd()
    server.stop()
    allowed = server.folder / "authorized_keys"
    allowed.write_bytes(b"restrict " + public(server.world.key))
    server.lines = (f"AuthorizedKeysFile {allowed}",)
    server.start()
    async with RemoteExecutor([server.host(slots=2)]) as pool:
        assert await pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))


async def test_certificates(sshd: Start, connections: Connections, tmp_path: Path) -> None:
    """Users and hosts may show certificates, which one authority has signed."""
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "id")
    server = sshd()
    server.stop()

    def sign(path: Path, *options: str) -> None:
        run("ssh-keygen", "-q", "-s", str(authority), "-I", "test", *options, f"{path}.pub")

    sign(key, "-n", server.world.user)
    sign(server.host_key, "-h", "-n", "127.0.0.1")
    shutil.copy(f"{authority}.pub", server.folder / "authority.pub")
    server.lines = (
        f"TrustedUserCAKeys {server.folder}/authority.pub",
        f"HostCertificate {server.host_key}-cert.pub",
        "AuthorizedKeysFile none",
    )
    server.start()
    trusted = f"@cert-authority [127.0.0.1]:{server.port} ".encode() + public(authority)
    options = {"client_keys": str(key), "client_certs": [f"{key}-cert.pub"], "known_hosts": trusted}
    connection = await connections.connect(server.host(options=options))
    assert connection.lost is None
    other = trusted.replace(public(authority), public(key))
    error = await fail(connections, server.host(options={**options, "known_hosts": other}))
    assert (error.phase, error.permanent) == ("host key", True)


# Who they are


async def test_host_keys(sshd: Start, connections: Connections, home: Path) -> None:
    """An unknown, a changed and a revoked host key are told apart; what the messages tell to type mends them."""
    server = sshd()
    file = home / ".ssh" / "known_hosts"
    options = {"known_hosts": ()}  # those of the user
    error = await fail(connections, server.host(options=options))
    assert (error.phase, error.permanent) == ("host key", True)
    assert "is not known here (there is no ~/.ssh/known_hosts)" in str(error)
    shown = run("ssh-keygen", "-lf", f"{server.host_key}.pub").split()[1]
    assert shown in str(error)

    scan = next(line for line in str(error).splitlines() if "ssh-keyscan" in line).partition("network: ")[2]
    run("sh", "-c", scan, HOME=str(home))
    await connections.connect(server.host(options=options))

    file.write_bytes(server.known_hosts.replace(public(server.host_key), public(server.world.key)))
    error = await fail(connections, server.host(options=options, slots=2))
    assert f"has CHANGED. It shows ssh-ed25519 {shown}, but {file} says otherwise" in str(error)
    remove = next(line for line in str(error).splitlines() if "ssh-keygen" in line).partition(" && ")[0]
    run("sh", "-c", remove)
    assert str(server.port) not in file.read_text()

    file.write_bytes(b"@revoked * " + public(server.host_key))
    error = await fail(connections, server.host(options=options, slots=3))
    assert f"is marked as revoked ({file})" in str(error)


async def test_hashed_names(sshd: Start, connections: Connections, home: Path) -> None:
    """Names that are hashed in the list of known hosts are found."""
    server = sshd()
    file = home / ".ssh" / "known_hosts"
    file.write_bytes(server.known_hosts)
    run("ssh-keygen", "-q", "-H", "-f", str(file))
    assert b"127.0.0.1" not in file.read_bytes()
    await connections.connect(server.host(options={"known_hosts": ()}))


async def test_another_kind_of_key(sshd: Start, connections: Connections, tmp_path: Path) -> None:
    """A host that has a key of another kind than the one that is known of it has changed, too."""
    server = sshd()
    other = server.known_hosts.replace(public(server.host_key), public(make_key(tmp_path / "key", kind="ecdsa")))
    error = await fail(connections, server.host(options={"known_hosts": other}))
    assert (error.phase, error.permanent) == ("host key", True)
    assert "has CHANGED. It shows ssh-ed25519" in str(error)
    rsa = make_key(tmp_path / "rsa", kind="rsa")
    both = sshd(f"HostKey {rsa}")
    known = both.known_hosts.replace(public(both.host_key), public(rsa))
    await connections.connect(both.host(options={"known_hosts": known}))


async def test_nothing_in_common(sshd: Start, connections: Connections) -> None:
    """A server without a common cipher is a lasting failure that names both lists; a server with old ones is understood."""
    server = sshd("Ciphers aes256-ctr")
    error = await fail(connections, server.host(options={"encryption_algs": ["aes128-gcm@openssh.com"]}))
    assert (error.phase, error.permanent) == ("connect", True)
    assert "sent aes128-gcm@openssh.com and received aes256-ctr" in str(error)
    connection = await connections.connect(server.host())
    assert connection.ssh.get_extra_info("send_cipher") == "aes256-ctr"


# What the configuration says


async def test_the_users_configuration(sshd: Start, connections: Connections, home: Path) -> None:
    """A host that is only a name to us is found by the user's ssh configuration, with key, port and known hosts."""
    server = sshd()
    (home / "known").write_bytes(server.known_hosts)
    (home / ".ssh" / "config").write_text(
        f"Host short\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.world.user}\n"
        f"  IdentityFile {server.world.key}\n  UserKnownHostsFile ~/known\n"
    )
    await connections.connect(Host("short"))
    assert server.logins == 1


async def test_a_proxy_command(sshd: Start, connections: Connections, home: Path) -> None:
    """A connection may be made by a command, which ends with it; without the command the error names it."""
    server = sshd()
    (home / "relay.py").write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    config = home / ".ssh" / "config"
    config.write_text(f"ProxyCommand {sys.executable} {home}/relay.py %h %p\n")
    host = server.host(options={"config": ()})
    connection = await connections.connect(host)
    talk = await start(connection)
    assert await talk.channel.aclose()
    await connection.aclose()
    config.write_text("ProxyCommand no-such-command %h\n")
    error = await fail(connections, host)
    assert (error.phase, error.permanent) == ("connect", True)
    assert "the ProxyCommand of your ssh configuration cannot be run: no-such-command" in str(error)


async def test_one_login_at_the_bastion(sshd: Start, connections: Connections, home: Path) -> None:
    """Many hosts behind a ``ProxyJump`` of the configuration share one login at the jump host."""
    bastion, inner = sshd(), sshd()
    (home / "known").write_bytes(bastion.known_hosts + inner.known_hosts)
    (home / ".ssh" / "config").write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n"
        f"Host inner*\n  HostName 127.0.0.1\n  Port {inner.port}\n  ProxyJump bastion\n"
        f"Host *\n  User {inner.world.user}\n  IdentityFile {inner.world.key}\n  UserKnownHostsFile ~/known\n"
    )
    found = await asyncio.gather(*(connections.connect(Host(f"inner{n}")) for n in range(10)))
    assert (bastion.logins, inner.logins) == (1, 10)
    for connection in found:
        await connection.aclose()
    await until(lambda: not bastion.processes)


async def test_the_bastion_is_checked_too(sshd: Start, connections: Connections) -> None:
    """The jump host's key is checked like any other, and it is the jump host that is named."""
    bastion, inner = sshd(), sshd()
    unknown = bastion.host(options={"known_hosts": b""})
    error = await fail(connections, inner.host(options={"tunnel": unknown}))
    assert (error.phase, error.permanent) == ("host key", True)
    assert f"{bastion.host().name}: its host key is not known here" in str(error)
    assert inner.log.count("Connection from") == 0


async def test_a_bastion_that_does_not_forward(sshd: Start, connections: Connections) -> None:
    """A jump host that forwards nothing, or cannot reach the host, is told from the host itself."""
    closed, bastion, inner = sshd("AllowTcpForwarding no"), sshd(), sshd()
    error = await fail(connections, inner.host(options={"tunnel": closed.host()}))
    assert (error.phase, error.permanent) == ("connect", True)
    assert "does not forward connections (AllowTcpForwarding" in str(error)
    inner.stop()
    error = await fail(connections, inner.host(options={"tunnel": bastion.host()}))
    assert (error.phase, error.permanent) == ("connect", False)
    assert f"cannot reach 127.0.0.1 port {inner.port}" in str(error)


# The network


async def test_nobody_is_there(connections: Connections) -> None:
    """A closed port and a name that is none are told apart."""
    error = await fail(connections, Host("127.0.0.1:9", options={"config": None}))
    assert (error.phase, error.permanent) == ("connect", False)
    error = await fail(connections, Host("no-such-machine.invalid", options={"config": None}))
    assert error.phase == "dns"


async def test_a_silent_port(group: Group) -> None:
    """A port that accepts connections and says nothing costs the time to connect, and no more."""
    connections = Connections(group, SshSettings(connect_timeout=0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await fail(connections, Host(f"127.0.0.1:{silent.getsockname()[1]}", options={"config": None}))
    assert (error.phase, error.permanent) == ("connect", False)
    assert "accepts connections, but said nothing within 0.3 s" in str(error)


async def test_ipv6(sshd: Start, connections: Connections) -> None:
    """An address of version 6 is as good."""
    try:
        server = sshd(address="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    assert (await connections.connect(server.host())).lost is None


async def test_several_addresses(sshd: Start, connections: Connections) -> None:
    """A name with several addresses leads to the one that answers."""
    if len({found[4][0] for found in socket.getaddrinfo("localhost", 22)}) < 2:
        pytest.skip("localhost has one address here")
    server = sshd()
    known = server.known_hosts.replace(b"127.0.0.1", b"localhost")
    host = Host(f"{server.world.user}@localhost:{server.port}", options=server.options(known_hosts=known))
    assert (await connections.connect(host)).lost is None


# Crowds


async def test_a_crowd(sshd: Start, connections: Connections) -> None:
    """Many logins at once do not overrun a server with the usual limits: none is turned away."""
    server = sshd("MaxStartups 4:100:4")
    await asyncio.gather(*(connections.connect(server.host(slots=n)) for n in range(1, 17)))
    assert server.logins == 16
    assert "MaxStartups" not in server.log.replace("MaxStartups throttling", "")


async def test_a_server_with_too_many_guests(
    sshd: Start, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is full is asked again, a few times; then the error says so, and may be tried later."""
    monkeypatch.setattr(ssh, "RETRY_SECONDS", 0.01)
    server = sshd("MaxStartups 1")
    with socket.create_connection(("127.0.0.1", server.port)) as guest:
        assert guest.recv(4) == b"SSH-"
        error = await fail(connections, server.host())
        assert (error.phase, error.permanent) == ("connect", False)
        assert "MaxStartups" in str(error)
    await until(lambda: not server.processes)
    await connections.connect(server.host())
