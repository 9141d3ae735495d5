"""Routes: what a host's fields and the user's ssh configuration come to together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncssh
import pytest

from aioparallel import Host
from aioparallel._workers import routes
from aioparallel._workers.routes import Route, SshSettings, resolve

CONFIG = """\
Host node?
    HostName 10.0.0.7
    Port 2222
    User me
    ServerAliveInterval 7
    ConnectTimeout 3
    Ciphers aes128-ctr
Host inner
    ProxyJump you@outer:2200,middle
Host tricky
    UserKnownHostsFile none
    HostKeyAlias known-as
Host proxied
    ProxyCommand nc %h %p
Host direct
    ProxyJump none
Host loop
    ProxyJump loop
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an ssh configuration, and nothing for the whole system."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(routes, "SYSTEM_KNOWN_HOSTS", str(tmp_path / "system"))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(CONFIG)
    return tmp_path


def route(address: str, **options: Any) -> Route:
    return resolve(Host(address, options=options), SshSettings())


def test_the_configuration_fills_the_gaps(home: Path) -> None:
    """What a host leaves open, the user's ssh configuration says."""
    found = route("node1")
    assert (found.machine, found.port, found.username) == ("10.0.0.7", 2222, "me")
    assert found.connect_timeout == 3
    assert not found.jump
    assert not found.proxied


def test_the_host_comes_first(home: Path) -> None:
    """What a host says itself counts more than the configuration."""
    found = route("you@node1:22", connect_timeout="1m")
    assert (found.machine, found.port, found.username) == ("10.0.0.7", 22, "you")
    assert found.connect_timeout == 60
    assert found.arguments["username"] == "you"


def test_defaults(home: Path) -> None:
    """Where nobody has a say, connections have quick ciphers, no compression, keepalive, and forward no agent."""
    arguments = route("elsewhere").arguments
    assert arguments["keepalive_interval"] == SshSettings().keepalive_interval
    assert arguments["compression_algs"] is None
    assert arguments["agent_forwarding"] is False
    prepared = asyncssh.SSHClientConnectionOptions(**{**arguments, "client_keys": None})
    assert prepared.encryption_algs[0] == b"aes128-gcm@openssh.com"
    assert b"aes256-ctr" in prepared.encryption_algs
    assert arguments["server_host_key_algs"].startswith("+")
    assert route("elsewhere").connect_timeout == SshSettings().connect_timeout


def test_defaults_give_way(home: Path) -> None:
    """Neither the configuration nor the options of a host are overruled by our defaults."""
    arguments = route("node1", compression_algs="zlib@openssh.com").arguments
    assert "encryption_algs" not in arguments
    assert "keepalive_interval" not in arguments
    assert arguments["keepalive_count_max"] == SshSettings().keepalive_count_max
    assert arguments["compression_algs"] == "zlib@openssh.com"


# Jump hosts


def test_jump_hosts_of_the_configuration(home: Path) -> None:
    """A list of jump hosts becomes hosts, of which each is reached through the one before."""
    jump = route("inner", client_keys="mine").jump
    assert jump is not None
    assert jump.name == "middle"
    outer = (jump.options or {})["tunnel"]
    assert isinstance(outer, Host)
    assert outer.name == "you@outer:2200"


def test_jump_hosts_of_the_options(home: Path) -> None:
    """The option ``tunnel`` names a jump host, is one, or says that there is none."""
    bastion = Host("bastion", options={"client_keys": "theirs"})
    assert route("inner", tunnel=bastion).jump is bastion
    assert route("inner", tunnel=None).jump is None
    named = route("elsewhere", tunnel="me@bastion:2").jump
    assert named is not None
    assert named.name == "me@bastion:2"
    assert "tunnel" not in route("elsewhere", tunnel="me@bastion:2").arguments


def test_what_jump_hosts_inherit(home: Path) -> None:
    """A jump host that is only named gets the keys and the trust that were given to the target, but not its distrust."""
    jump = route("elsewhere", tunnel="bastion", client_keys="mine", known_hosts=b"x y z", encoding="x", env={}).jump
    assert jump is not None
    assert dict(jump.options or {}) == {"client_keys": "mine", "known_hosts": b"x y z"}
    jump = route("elsewhere", tunnel="bastion", known_hosts=None).jump
    assert jump is not None
    assert dict(jump.options or {}) == {}


def test_equal_jump_hosts_are_one(home: Path) -> None:
    """Two targets behind the same jump host have equal ones, so that they can share it."""
    (home / ".ssh" / "config").write_text("Host a b\n  ProxyJump bastion\n")
    assert route("a").jump == route("b").jump


@pytest.mark.parametrize("name", ["direct", "loop", "proxied"])
def test_no_jump_host(name: str, home: Path) -> None:
    """There is none when the configuration says so, names the target itself, or has another way."""
    assert route(name).jump is None
    assert route(name).proxied is (name == "proxied")


def test_a_jump_host_comes_before_a_proxy_command(home: Path) -> None:
    """A host with a jump host of its own goes that way, whatever the configuration has."""
    assert not route("proxied", tunnel="bastion").proxied


# Known hosts


def test_known_hosts_are_files_that_are_there(home: Path) -> None:
    """By default the user's list and that of the system are read, as far as they are there; without them nobody is known."""
    assert (route("elsewhere").known_hosts, route("elsewhere").files) == (b"", ())
    mine, system = home / ".ssh" / "known_hosts", home / "system"
    mine.touch()
    assert route("elsewhere").known_hosts == [str(mine)]
    system.touch()
    assert route("elsewhere").known_hosts == [str(mine), str(system)]
    (home / ".ssh" / "config").write_text("UserKnownHostsFile ~/other /no/such\nGlobalKnownHostsFile ~/system\n")
    (home / "other").touch()
    assert route("elsewhere").files == (str(home / "other"), str(system))


def test_the_configuration_cannot_switch_checks_off(home: Path) -> None:
    """A list that the configuration switches off is an empty one; only the host's own option ends the checks."""
    (home / ".ssh" / "known_hosts").touch()
    assert route("tricky").known_hosts == b""
    assert route("tricky").arguments["known_hosts"] == b""
    assert route("tricky").alias == "known-as"
    assert route("elsewhere", known_hosts=None).known_hosts is None


@pytest.mark.parametrize(
    ("given", "files"),
    [("a", ("a",)), (Path("a"), ("a",)), (["a", "b"], ("a", "b")), (b"x y z", ()), (([], [], []), ())],
)
def test_known_hosts_of_the_options(home: Path, given: Any, files: tuple[str, ...]) -> None:
    """The option may be a file, several, or the keys themselves; what is named is read, also if it is not there."""
    assert route("elsewhere", known_hosts=given).files == files
    assert route("elsewhere", known_hosts=given).known_hosts == (list(files) if files else given)


# What makes no sense


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TypeError, {"no_such_option": 1}),
        (ValueError, {"encryption_algs": ["rot13"]}),
        (OSError, {"config": "/no/such/config"}),
        (ValueError, {"keepalive_interval": "often"}),
    ],
)
def test_nonsense(home: Path, error: type[Exception], options: dict[str, Any]) -> None:
    """What asyncssh does not understand is an error; keys are left for later."""
    with pytest.raises(error):
        route("elsewhere", **options)
    assert route("elsewhere", client_keys="/no/such/key", passphrase="x").machine == "elsewhere"


def test_a_configuration_that_cannot_be_read(home: Path) -> None:
    """A mistake in the configuration is an error that names its line."""
    (home / ".ssh" / "config").write_text("Port many\n")
    with pytest.raises(asyncssh.ConfigParseError, match="line 1"):
        route("elsewhere")
