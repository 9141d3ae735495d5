"""Starting the host agent on a host that has nothing but Python."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import Host, HostError
from aioparallel._child import boot, messages
from aioparallel._workers import bootstrap
from aioparallel._workers.bootstrap import COMMAND, NOISE, _Greeting, _line, start_agent
from aioparallel._workers.channel import SshChannel
from aioparallel._workers.ssh import Connections
from aioparallel.testing import SshHost
from tests import frames
from tests.tools import until

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
HERE = ".".join(map(str, sys.version_info[:3]))
SHELLS = [
    shell for shell in ("sh", "dash", "bash --posix", "mksh", "zsh --emulate sh") if shutil.which(shell.split()[0])
]


class Listener:
    """Reads the messages of an agent, once there is one."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.error: HostError | None = None

    def received(self, data: bytes) -> None:
        self.data += data

    def writable(self) -> None:
        pass

    def lost(self, error: HostError) -> None:
        self.error = error

    @property
    def events(self) -> list[dict[str, Any]]:
        return frames.messages_in(self.data)


class Starter:
    """Starts agents on the host of a test, with other fields, and closes them."""

    def __init__(self, connections: Connections, host: SshHost) -> None:
        self.connections = connections
        self.host = host
        self.listener = Listener()
        self.channels: list[SshChannel] = []

    async def start(self, *, seconds: float = 20.0, **fields: Any) -> SshChannel:
        changed = Host(self.host.name, options=self.host.options, **{"python": sys.executable, **fields})
        connection = await self.connections.connect(changed)
        self.channels.append(await start_agent(connection, self.listener, seconds=seconds))
        return self.channels[-1]

    async def fail(self, **fields: Any) -> HostError:
        with pytest.raises(HostError) as caught:
            await self.start(**fields)
        assert caught.value.host == self.host.name
        await until(lambda: not self.host.commands)
        return caught.value


def say(channel: SshChannel, **message: Any) -> None:
    channel.write([frames.message(**message)])


@pytest.fixture
async def agent(connections: Connections, host: SshHost) -> AsyncIterator[Starter]:
    starter = Starter(connections, host)
    yield starter
    for channel in starter.channels:
        await channel.aclose()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# An agent


async def test_an_agent(agent: Starter, host: SshHost) -> None:
    """An agent says who it is, does what it is told, and ends when it is left, which is confirmed."""
    channel = await agent.start()
    assert (channel.hello.version, channel.hello.executable) == (HERE, sys.executable)
    say(channel, **frames.OPEN)
    await until(lambda: agent.listener.events)
    assert agent.listener.events == [{"ev": "ready", "pid": channel.hello.pid, "version": HERE}]
    assert host.commands == [channel.hello.pid]
    assert await channel.aclose()
    await until(lambda: not host.commands)


async def test_what_an_agent_does_not_use(agent: Starter) -> None:
    """The protocol is not on the standard streams of the agent, and nothing of the start is left in its environment."""
    channel = await agent.start()
    say(channel, **frames.OPEN)
    await until(lambda: agent.listener.events)
    pid = channel.hello.pid
    targets = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert targets[0] == "/dev/null"
    assert targets[1] == targets[2]
    assert targets[2].startswith("pipe:")
    others = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd") if int(number) > 2]
    assert len([target for target in others if target.startswith("pipe:") and target != targets[2]]) >= 2
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert command[:3] == [sys.executable, "-c", 'import os; exec(os.environ["_AIOPARALLEL_BOOT"])']


async def test_workers_of_an_agent(agent: Starter, tmp_path: Path) -> None:
    """An agent on a host forks workers, without a file of ours being there; its errors can be read."""
    channel = await agent.start()
    say(channel, **{**frames.OPEN, "folder": str(tmp_path)})
    say(channel, op="fork", serial=1, index=0, token="00" * 32, env="")
    await until(lambda: len(agent.listener.events) >= 2)
    assert agent.listener.events[1]["ev"] == "forked"
    await until(lambda: b"FileNotFoundError" in agent.listener.data)  # nobody listens there
    assert b"<aioparallel>/_aioparallel_child/worker.py" in agent.listener.data


async def test_the_agents_last_words(agent: Starter) -> None:
    """An agent that fails is lost, and its last words are in the error."""
    channel = await agent.start()
    say(channel, op="no-such-message")
    await until(lambda: agent.listener.error)
    assert "the host agent ended (exit status " in str(agent.listener.error)


async def test_several_agents(connections: Connections, host: SshHost) -> None:
    """One connection may carry several agents."""
    connection = await connections.connect(host)
    channels = await asyncio.gather(*(start_agent(connection, Listener()) for _ in range(3)))
    assert len({channel.hello.pid for channel in channels}) == 3
    assert all(await asyncio.gather(*(channel.aclose() for channel in channels)))


# Finding Python


async def test_several_pythons(agent: Starter, tmp_path: Path) -> None:
    """Commands are tried in turn: those that are not there, cannot be run or fail are passed over."""
    broken = script(tmp_path / "broken", "echo no such luck >&2; exit 127")
    (tmp_path / "data").write_text("not a program")
    candidates = ["no-such-python", str(tmp_path / "data"), str(tmp_path), broken, sys.executable, "never"]
    channel = await agent.start(python=candidates)
    assert channel.hello.executable == sys.executable


async def test_no_python(agent: Starter, tmp_path: Path) -> None:
    """When there is none, the error lists what was tried and what was found."""
    broken = script(tmp_path / "broken", "echo no such luck >&2; exit 126")
    error = await agent.fail(python=["no-such-python", broken, "~/no/such/python"])
    assert (error.phase, error.permanent, error.mismatch) == ("python", True, None)
    assert error.tried == (
        ("no-such-python", "not found"),
        (broken, "exit status 126: no such luck"),
        ("~/no/such/python", "not found"),
    )
    assert f"there is no Python {MINOR} that we can find. The Python here is {HERE}" in str(error)
    assert f"  {broken}: exit status 126: no such luck\n" in str(error)


async def test_another_version(agent: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python of another version is refused before anything is sent to it, and the error names both sides."""
    monkeypatch.setattr(sys, "implementation", Future())
    error = await agent.fail(python=["no-such-python", sys.executable, sys.executable])
    tag = Future.real.cache_tag
    assert error.tried == (
        ("no-such-python", "not found"),
        (sys.executable, f"{HERE} ({tag}), {sys.executable}"),
        (sys.executable, f"{HERE} ({tag}), {sys.executable}"),
    )
    assert (error.phase, error.permanent, error.mismatch) == ("python", True, HERE)
    assert "(cpython-399), and both sides must have the same minor version" in str(error)


class Future:
    """What Python says of itself, some years from now."""

    real = sys.implementation
    cache_tag = "cpython-399"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_what_is_tried_by_default() -> None:
    """A host that does not say gets the command with our version, and the usual ones."""
    assert bootstrap.default_pythons() == (f"python{MINOR}", "python3", "python")


async def test_the_home_over_there(agent: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the home on the host, and blanks and quotes in a path are no trouble."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / 'it\'s "my" $HOME'
    folder.mkdir()
    path = script(folder / "python", f'echo used >"$HOME/proof"; exec {sys.executable} "$@"')
    await agent.start(python=path.replace(str(tmp_path), "~"))
    assert (tmp_path / "proof").read_text() == "used\n"


# Setup and environment


async def test_setup_comes_first(agent: Starter, tmp_path: Path) -> None:
    """The setup runs before Python is looked for, in the same shell; what it prints does no harm."""
    script(tmp_path / "my-python", f'exec {sys.executable} "$@"')
    setup = f"echo noise; echo more >&2\nPATH={tmp_path}:$PATH\nexport KIND='it''s'\ncat"
    channel = await agent.start(setup=setup, python="my-python")
    environ = Path(f"/proc/{channel.hello.pid}/environ").read_text().split("\0")
    assert "KIND=its" in environ
    assert "noise\nmore\n" in channel.last_words


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (". /no/such/file", "/no/such/file"),
        ("exit 5", "exit status 5"),
        ("if then", "exit status 2"),
        ("echo sorry; exit 0", "sorry"),
    ],
)
async def test_setup_that_fails(agent: Starter, setup: str, said: str) -> None:
    """A setup that ends the shell is blamed for it, with what it said."""
    error = await agent.fail(setup=setup)
    assert (error.phase, error.permanent) == ("handshake", True)
    assert f"its setup={setup!r} ended the shell (exit status " in str(error)
    assert said in str(error)


VALUES = {
    "PLAIN": "x",
    "EMPTY": "",
    "QUOTES": 'it\'s "so" `so` $HOME $(x) \\n \\\\ %s %% !! ; & | < > * ? [a] # ~',
    "SEVERAL": "one\n two\n\n'three'\n",
    "FOREIGN": "Á é ü … 漢字 \x81\x88",
}


async def test_environment(agent: Starter) -> None:
    """Variables arrive as they are, whatever is in them, and hold for the agent and its workers."""
    channel = await agent.start(env=VALUES)
    environ = dict(
        line.split("=", 1) for line in Path(f"/proc/{channel.hello.pid}/environ").read_text().split("\0") if line
    )
    assert {name: environ[name] for name in VALUES} == VALUES


@pytest.mark.parametrize("shell", SHELLS)
def test_every_posix_shell_reads_the_line(shell: str, tmp_path: Path) -> None:
    """The line that does it all is understood by the shells that stand behind /bin/sh."""
    show = script(tmp_path / "show", 'printf "%s\\0" "$PLAIN" "$EMPTY" "$QUOTES" "$SEVERAL" "$FOREIGN" "$SET"; cat')
    host = Host("node1", env=VALUES, setup="SET='a b'\nexport SET\ncat\n")
    line = _line(host, ["no-such-python", show], "MARK", 4)
    inner = COMMAND.removeprefix("exec /bin/sh -c ").strip("'")
    done = subprocess.run([*shell.split(), "-c", inner], input=line + b"rest", capture_output=True, check=True)
    assert done.stdout == "\0".join([*VALUES.values(), "a b", "rest"]).encode()
    assert line.count(b"\n") == 1
    assert done.stderr.decode().splitlines() == ["MARK setup", f"MARK try 0 {show}"]


@pytest.mark.parametrize(
    ("candidate", "word"),
    [
        ("python3", "'python3'"),
        ("~/venv/bin/python", "~/'venv/bin/python'"),
        ("~bob/bin/python", "~bob/'bin/python'"),
        ("~", "~"),
        ("~/", "~/"),
        ("~;rm/x", "'~;rm/x'"),
        ("/a b/c", "'/a b/c'"),
    ],
)
def test_paths(candidate: str, word: str) -> None:
    """Only a home in front of a path is left to the shell."""
    assert bootstrap._path(candidate) == word


# What is no hello


@pytest.mark.usefixtures("killed_at_once")
async def test_too_slow(agent: Starter) -> None:
    """An agent that does not say hello in time is given up, and what was written instead is shown."""
    error = await agent.fail(setup="echo waiting; sleep 300", seconds=0.3)
    assert (error.phase, error.permanent) == ("handshake", False)
    assert "did not say hello within 0.3 s" in str(error)
    assert "It wrote:\nwaiting" in str(error)


@pytest.mark.usefixtures("killed_at_once")
async def test_cancelling_the_start(agent: Starter, host: SshHost) -> None:
    """A start that is cancelled leaves nothing running on the host."""
    starting = asyncio.ensure_future(agent.start(setup="sleep 300"))
    await until(lambda: host.commands)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    host.cut()
    await until(lambda: not host.commands)


@pytest.mark.usefixtures("killed_at_once")
async def test_the_connection_is_lost_during_the_start(agent: Starter, host: SshHost) -> None:
    """A start whose connection is lost fails for that reason, and may be tried again."""
    starting = asyncio.ensure_future(agent.start(setup="sleep 300"))
    await until(lambda: host.commands)
    host.cut()
    with pytest.raises(HostError, match="the connection was lost: it was reset") as caught:
        await starting
    assert (caught.value.phase, caught.value.permanent) == ("handshake", False)
    await until(lambda: not host.commands)


async def test_a_login_that_runs_something_else(agent: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that does not run what it is asked for is a lasting failure, which shows what it said."""
    monkeypatch.setattr(bootstrap, "COMMAND", "echo This account is currently not available.; exit 1")
    error = await agent.fail()
    assert (error.phase, error.permanent) == ("handshake", True)
    assert "the login does not run our commands (exit status 1)" in str(error)
    assert "It wrote:\nThis account is currently not available." in str(error)


@pytest.mark.usefixtures("killed_at_once")
async def test_too_much_noise(agent: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who does not stop talking is not listened to for ever."""
    monkeypatch.setattr(bootstrap, "COMMAND", "exec yes")
    error = await agent.fail()
    assert (error.phase, error.permanent) == ("handshake", True)
    assert "wrote more than 64 KiB before it. It wrote:\ny\ny" in str(error)


@pytest.mark.parametrize("noise", [b"", b"motd\n", bytes(1000), boot.HELLO * 3, b"\xff" * (NOISE - 100)])
async def test_noise_is_skipped(agent: Starter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noise: bytes) -> None:
    """Whatever a shell profile prints before the hello does no harm."""
    (tmp_path / "noise").write_bytes(noise)
    monkeypatch.setattr(bootstrap, "COMMAND", f"cat {tmp_path}/noise; {COMMAND}")
    channel = await agent.start()
    say(channel, **frames.OPEN)
    await until(lambda: agent.listener.events)


def greeted(*pieces: bytes) -> _Greeting:
    greeting = _Greeting("n" * 32)
    for piece in pieces:
        greeting.received(piece)
    return greeting


def hello(**changes: Any) -> bytes:
    text = messages.dumps({**boot.hello(), **changes})
    return boot.HELLO + b"n" * 32 + len(text).to_bytes(4, "little") + text


def test_a_hello_in_pieces() -> None:
    """A hello is understood however it is cut, and what comes behind it is kept."""
    text = b"noise" + hello() + b"rest"
    for cut in range(len(text)):
        greeting = greeted(text[:cut], text[cut:])
        assert greeting.hello is not None
        assert greeting.hello.pid == os.getpid()
        assert greeting.rest in (b"rest", text[cut:][:0], b"rest"[: max(0, cut - len(text) + 4)])
    assert not greeted(text[:-10]).over.is_set()


@pytest.mark.parametrize(
    "text",
    [
        boot.HELLO + b"n" * 32 + b"\xff\xff\xff\xff",
        boot.HELLO + b"n" * 32 + b"\4\0\0\0????",
        hello(unknown=1).replace(b"version", b"verZion"),
    ],
)
def test_nonsense(text: bytes) -> None:
    """What begins like a hello and is none ends the wait."""
    greeting = greeted(text)
    assert greeting.over.is_set()
    assert greeting.hello is None


def test_the_hello_of_somebody_else() -> None:
    """A hello with another nonce is noise."""
    assert not greeted(hello().replace(b"n" * 32, b"m" * 32)).over.is_set()
