"""Starting agents on real hosts: login shells, profiles, Pythons, full disks, limits."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioparallel import HostError
from aioparallel._workers.ssh import Connections
from tests.remote.agents import Talk, start
from tests.remote.openssh import IS_ROOT, MINOR, PYENVS, SHELLS, UID, Sshd, World, run
from tests.tools import is_alive, until

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]
ROOT = pytest.mark.skipif(not IS_ROOT, reason="needs root, for users and servers of its own")

PROFILES = {
    "bash": ".bashrc",
    "zsh": ".zshenv",
    "tcsh": ".tcshrc",
    "fish": ".config/fish/config.fish",
}
"""What each shell reads before it runs a command by ssh; dash reads nothing."""


@pytest.fixture
def profile(world: World) -> Iterator[Callable[[str, str], None]]:
    """Writes what a shell reads first."""
    written: list[Path] = []

    def write(shell: str, text: str) -> None:
        file = world.home(f"lab{shell}") / PROFILES[shell]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        written.append(file)

    yield write
    for file in written:
        file.unlink()


async def fail(connections: Connections, server: Sshd, user: str = "", **fields: object) -> HostError:
    connection = await connections.connect(server.host(user, **fields))  # type: ignore[arg-type]
    with pytest.raises(HostError) as caught:
        await start(connection)
    return caught.value


# Shells


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
async def test_login_shells(sshd: Start, connections: Connections, world: World, shell: str) -> None:
    """An agent starts whichever shell a user has, with whatever is in the host's fields."""
    if not os.access(SHELLS[shell], os.X_OK):
        pytest.skip(f"there is no {shell} here")
    env = {"ODD": 'it\'s "so" $HOME `x` \\n !! ü\n and %s'}
    setup = "SET='a b'; export SET\n# a comment\n[ -n \"$ODD\" ] && echo 'done' !"
    connection = await connections.connect(sshd().host(f"lab{shell}", env=env, setup=setup))
    talk = await start(connection)
    environ = Path(f"/proc/{talk.channel.hello.pid}/environ").read_text().split("\0")
    assert f"ODD={env['ODD']}" in environ
    assert "SET=a b" in environ
    assert os.readlink(f"/proc/{talk.channel.hello.pid}/cwd") == str(world.home(f"lab{shell}"))
    assert await talk.channel.aclose()


@ROOT
@pytest.mark.parametrize("shell", PROFILES)
async def test_profiles_that_print(
    sshd: Start, connections: Connections, profile: Callable[[str, str], None], shell: str
) -> None:
    """What a shell's profile prints is skipped, also if it looks like nothing on earth."""
    if not os.access(SHELLS[shell], os.X_OK):
        pytest.skip(f"there is no {shell} here")
    profile(
        shell,
        "printf 'Welcome!\\n\\000aioparallel \\000\\001\\377 nonsense\\n'\nsh -c \"echo 'oh, and this' >&2\"\n",
    )
    talk = await start(await connections.connect(sshd().host(f"lab{shell}")))
    assert "oh, and this" in talk.channel.last_words
    assert await talk.channel.aclose()


@ROOT
async def test_a_profile_that_does_not_stop(
    sshd: Start, connections: Connections, profile: Callable[[str, str], None]
) -> None:
    """A profile that prints without end is told from an agent, and its session is closed."""
    profile("bash", "yes 'more and more'\n")
    server = sshd()
    error = await fail(connections, server, "labbash")
    assert (error.phase, error.permanent) == ("handshake", True)
    assert "wrote more than 64 KiB before it. It wrote:\nmore and more" in str(error)


@ROOT
async def test_a_slow_profile(sshd: Start, connections: Connections, profile: Callable[[str, str], None]) -> None:
    """A profile that takes its time is waited for; one that takes too long is blamed for it."""
    profile("bash", "echo thinking; sleep 0.5\n")
    host = sshd().host("labbash")
    talk = await start(await connections.connect(host))
    assert await talk.channel.aclose()
    with pytest.raises(HostError, match=r"did not say hello within 0\.1 s") as caught:
        await start(await connections.connect(host), seconds=0.1)
    assert (caught.value.phase, caught.value.permanent) == ("handshake", False)


@ROOT
async def test_no_shell(sshd: Start, connections: Connections) -> None:
    """An account that is not meant to be used says so in the error."""
    error = await fail(connections, sshd(), "nologin")
    assert (error.phase, error.permanent) == ("handshake", True)
    assert "does not run our commands (exit status 1)" in str(error)
    assert "This account is currently not available" in str(error)


async def test_a_forced_command(sshd: Start, connections: Connections) -> None:
    """A login whose key is bound to another command says so in the error."""
    error = await fail(connections, sshd("ForceCommand echo only backups here"))
    assert (error.phase, error.permanent) == ("handshake", True)
    assert "its key is bound to another command" in str(error)
    assert "only backups here" in str(error)


# Pythons


@ROOT
@pytest.mark.parametrize("minor", ["2.7", "3.6", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
async def test_other_versions(sshd: Start, connections: Connections, world: World, minor: str) -> None:
    """A Python of another version is refused, by name, before anything is sent to it; the next one is taken."""
    if minor == MINOR:
        pytest.skip("that is this one")
    other = world.need_python(minor)
    server = sshd()
    error = await fail(connections, server, python=["no-such-python", other])
    assert (error.phase, error.permanent) == ("python", True)
    assert error.mismatch is not None
    assert error.mismatch.startswith(f"{minor}.")
    assert error.tried[0] == ("no-such-python", "not found")
    assert error.tried[1][0] == other
    assert error.tried[1][1].startswith(error.mismatch)
    assert f"there is no Python {MINOR}" in str(error)
    talk = await start(await connections.connect(server.host(python=[other, world.need_python()])))
    assert talk.channel.hello.version.startswith(f"{MINOR}.")
    assert await talk.channel.aclose()


async def test_no_python(sshd: Start, connections: Connections) -> None:
    """A host without Python is a lasting failure that lists what was tried."""
    error = await fail(connections, sshd(), env={"PATH": "/nowhere"}, python=None)
    assert (error.phase, error.permanent, error.mismatch) == ("python", True, None)
    assert error.tried == tuple((name, "not found") for name in (f"python{MINOR}", "python3", "python"))


async def test_the_python_of_the_path(sshd: Start, connections: Connections, world: World, tmp_path: Path) -> None:
    """Without a word on it, the command with our version is looked for; a setup may lead there."""
    folder = world.folder / "bin"
    folder.mkdir(exist_ok=True)
    link = folder / f"python{MINOR}"
    if not link.exists():
        link.symlink_to(world.need_python())
    host = sshd().host(python=None, setup=f"PATH={folder}:$PATH")
    talk = await start(await connections.connect(host))
    assert talk.channel.hello.tag == sys.implementation.cache_tag
    assert await talk.channel.aclose()


@pytest.mark.skipif(not PYENVS.is_dir(), reason="there is no pyenv here")
@ROOT
async def test_shims(sshd: Start, connections: Connections, world: World) -> None:
    """A command of pyenv whose version is not active is passed over, although it is there."""
    folder = world.folder / "shims"
    folder.mkdir(exist_ok=True)
    shim = folder / f"python{MINOR}"
    shim.write_text(f"#!/bin/bash\necho 'pyenv: python{MINOR}: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    python = [str(shim), world.need_python()]
    talk = await start(await connections.connect(sshd().host(python=python)))
    assert await talk.channel.aclose()
    error = await fail(connections, sshd(), python=[str(shim)])
    assert error.tried == ((str(shim), f"exit status 127: pyenv: python{MINOR}: command not found"),)


@ROOT
async def test_a_virtual_environment(sshd: Start, connections: Connections, world: World) -> None:
    """An environment in the home over there is reached by a tilde, or activated by the setup."""
    python, home = world.need_python(), world.home()
    run(*world.inside(user="lab"), python, "-m", "venv", "--without-pip", str(home / "venv"))
    server = sshd()
    for fields in ({"python": "~/venv/bin/python"}, {"python": "python", "setup": ". ~/venv/bin/activate"}):
        talk = await start(await connections.connect(server.host(**fields)))
        assert talk.channel.hello.executable == str(home / "venv" / "bin" / "python")
        assert await talk.channel.aclose()


# Limits


FULL = """\
mount -t tmpfs -o size=16k,mode=1777 tmpfs {home} && mount -t tmpfs -o size=16k,mode=1777 tmpfs /tmp && \\
mount -t tmpfs -o size=16k,mode=1777 tmpfs /var/tmp/full && mount -t tmpfs -o size=16k,mode=1777 tmpfs /dev/shm || exit 1
for folder in {home} /tmp /var/tmp/full /dev/shm; do cat /dev/zero >$folder/full 2>/dev/null; done
"""


@ROOT
async def test_full_disks(sshd: Start, connections: Connections, world: World) -> None:
    """A host whose disks are full starts an agent like any other: nothing is written there."""
    Path("/var/tmp/full").mkdir(exist_ok=True)
    try:
        server = sshd(before=FULL.format(home=world.home()))
        talk = await start(await connections.connect(server.host()))
        home = f"/proc/{talk.channel.hello.pid}/root{world.home()}"
        assert os.listdir(home) == ["full"]
        with pytest.raises(OSError, match="No space left"):
            Path(home, "more").write_bytes(bytes(100_000))
        assert await talk.channel.aclose()
    finally:
        Path("/var/tmp/full").rmdir()


@pytest.mark.parametrize("most", [1, 10])
async def test_max_sessions(sshd: Start, connections: Connections, most: int) -> None:
    """So many agents fit on a connection as the server allows; the next is refused, and hurts nobody."""
    connection = await connections.connect(sshd(f"MaxSessions {most}").host())
    talks = await asyncio.gather(*(start(connection) for _ in range(most)))
    with pytest.raises(HostError, match=r"opens no further session on this connection \(MaxSessions") as caught:
        await start(connection)
    assert (caught.value.phase, caught.value.permanent) == ("handshake", False)
    assert connection.lost is None
    assert await talks[0].channel.aclose()
    talks[0] = await start(connection)
    for talk in talks:
        assert await talk.channel.aclose()


async def test_a_second_try_fits_into_one_session(sshd: Start, connections: Connections, world: World) -> None:
    """Looking further after a Python that failed needs no second session at a time."""
    python = ["/bin/false", world.need_python()]
    talk = await start(await connections.connect(sshd("MaxSessions 1").host(python=python)))
    assert await talk.channel.aclose()


async def test_large_data(sshd: Start, connections: Connections) -> None:
    """An agent that is sent too large a message ends; what was sent before that is neither lost nor torn."""
    talk = await start(await connections.connect(sshd().host()))
    talk.channel.write([bytes(2), b"\xff\xff", bytes(30_000_000)])
    await until(lambda: talk.error)
    assert "the host agent ended (exit status 0)" in str(talk.error)


@ROOT
async def test_what_is_left_of_an_agent(sshd: Start, connections: Connections) -> None:
    """An agent belongs to its user, and after its end no process of it is there."""
    server = sshd()
    talk = await start(await connections.connect(server.host()))
    pid = talk.channel.hello.pid
    assert os.stat(f"/proc/{pid}").st_uid == UID
    assert await talk.channel.aclose()
    assert not is_alive(pid)


# Cancelling


async def test_cancelled_starts_leave_nothing(sshd: Start, connections: Connections) -> None:
    """Starts that are cancelled, at whatever moment, leave no channel and no process on the host."""
    server = sshd("MaxSessions 4")
    connection = await connections.connect(server.host())
    await (await start(connection)).channel.aclose()  # once a session was there, the login's own processes are
    before = len(server.processes)

    async def attempt() -> Talk:
        return await start(connection)

    for moment in range(20):
        starting = asyncio.ensure_future(attempt())
        await asyncio.sleep(moment * 0.004)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().channel.aclose()
        await until(lambda: len(connection.ssh._channels) < 4)
    await until(lambda: not connection.ssh._channels)
    await until(lambda: len(server.processes) <= before)
    talks = await asyncio.gather(*(start(connection) for _ in range(4)))
    for talk in talks:
        assert await talk.channel.aclose()
