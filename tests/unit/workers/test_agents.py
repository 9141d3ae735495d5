"""The executor's end of a host agent."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child.agent import MAX_MESSAGE, MESSAGE
from aioparallel._model.errors import WorkerStartError
from aioparallel._workers import agents
from aioparallel._workers.agents import LONGEST_PARENT, Agent, private_folder, remove_folder
from tests.tools import is_alive, until


class Heard:
    """An agent, and what was heard of it."""

    def __init__(self, folder: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.output: list[tuple[int, int, bytes]] = []
        self.agent = Agent(folder, self.events.append, lambda *written: self.output.append(written))

    def fork(self, serial: int) -> None:
        self.agent.say(op="fork", serial=serial, index=0, token="00" * 32, env="")

    async def event(self, name: str, serial: int) -> dict[str, Any]:
        found: dict[str, Any] = await until(
            lambda: next((event for event in self.events if (event["ev"], event["serial"]) == (name, serial)), None)
        )
        return found


@pytest.fixture
def folder() -> Iterator[str]:
    path = private_folder()
    yield path
    remove_folder(path)


@pytest.fixture
async def heard(folder: str) -> AsyncIterator[Heard]:
    found = Heard(folder)
    await found.agent.start()
    yield found
    await found.agent.aclose()


async def test_start(heard: Heard) -> None:
    """An agent that was started is a process of its own, in a session of its own."""
    assert heard.agent.pid is not None
    assert is_alive(heard.agent.pid)
    assert os.getsid(heard.agent.pid) == heard.agent.pid


async def test_events_and_output(heard: Heard) -> None:
    """The agent does what it is told, and its events and its workers' output are heard."""
    heard.fork(1)
    heard.fork(2)
    pids = [(await heard.event("forked", serial))["pid"] for serial in (1, 2)]
    end = await heard.event("gone", 2)  # nobody listens at the socket, so workers end at once
    assert end["pid"] == pids[1]
    assert end["exitcode"] == 1
    assert any(serial == 2 and stream == 2 and b"FileNotFoundError" in text for serial, stream, text in heard.output)


async def test_closing(heard: Heard, folder: str) -> None:
    """Closing an agent ends it, and leaves no process and no folder."""
    pid = heard.agent.pid
    assert pid is not None
    await heard.agent.aclose()
    assert not is_alive(pid)
    assert heard.agent.ended.is_set()
    assert not os.path.exists(folder)
    await heard.agent.aclose()


async def test_an_agent_that_was_never_started(folder: str) -> None:
    """Closing an agent that was never started does nothing."""
    heard = Heard(folder)
    heard.agent.say(op="fork")
    await heard.agent.aclose()


async def test_an_agent_that_dies(heard: Heard) -> None:
    """The end of an agent is noticed, and telling it something afterwards does nothing."""
    assert heard.agent.pid is not None
    os.kill(heard.agent.pid, signal.SIGKILL)
    await heard.agent.ended.wait()
    for _ in range(10):
        heard.fork(1)
    assert heard.events == []


async def test_an_agent_that_does_not_end(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not end when its lifeline closes is killed."""
    monkeypatch.setattr(agents, "END_SECONDS", 0.01)
    assert heard.agent.pid is not None
    os.kill(heard.agent.pid, signal.SIGSTOP)
    await heard.agent.aclose()
    assert not is_alive(heard.agent.pid)


@pytest.mark.parametrize(
    "message", [MESSAGE.pack(MAX_MESSAGE + 1), MESSAGE.pack(5) + b"M?!?!", MESSAGE.pack(2) + b"O1"]
)
async def test_nonsense(folder: str, message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that says what no agent says is killed."""
    script = f"import os, time; os.write(1, {message!r}); time.sleep(300)"
    monkeypatch.setattr(agents, "BOOT", script)
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match="the host agent ended, or did not answer"):
        await heard.agent.start()
    await heard.agent.aclose()
    assert heard.agent.ended.is_set()


async def test_an_interpreter_that_is_not_there(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that cannot be started is an error that names the interpreter."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(WorkerStartError, match="cannot start the host agent with '/no/such/python'"):
        await Heard(folder).agent.start()


async def test_an_agent_that_ends_at_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends before it listens is an error that says what to try."""
    monkeypatch.setattr(agents, "BOOT", "pass")
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match=r"does `.* -c pass` work\?"):
        await heard.agent.start()
    await heard.agent.aclose()


async def test_an_agent_that_does_not_answer(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not answer in time is an error, and is killed when it is closed."""
    monkeypatch.setattr(agents, "BOOT", "import time; time.sleep(300)")
    monkeypatch.setattr(agents, "START_SECONDS", 0.05)
    monkeypatch.setattr(agents, "END_SECONDS", 0.05)
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match="did not answer"):
        await heard.agent.start()
    await heard.agent.aclose()
    assert heard.agent.ended.is_set()


def test_the_interpreters_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent is started by this very interpreter, with its warnings, and not from the current folder."""
    monkeypatch.setattr(sys, "warnoptions", ["error", "ignore::DeprecationWarning"])
    command = agents._command()
    assert command[:2] == [sys.executable, "-P"]
    assert command[2:4] == ["-Werror", "-Wignore::DeprecationWarning"]
    assert Path(command[-1], "agent.py").is_file()


# Folders


def test_folders_are_private() -> None:
    """A private folder is new, and for this user only."""
    one, two = private_folder(), private_folder()
    try:
        assert one != two
        assert stat.S_IMODE(os.stat(one).st_mode) == 0o700
        assert len(one) < 90
    finally:
        remove_folder(one)
        remove_folder(two)
    assert not os.path.exists(one)


def test_folders_have_short_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A place whose path is too long for a socket, or cannot be written to, is passed over."""
    long = tmp_path / ("x" * LONGEST_PARENT)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/shm")
    folder = private_folder()
    remove_folder(folder)
    assert os.path.dirname(folder) == "/tmp"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WorkerStartError, match="set TMPDIR to one"):
        private_folder()


def test_removing_folders(folder: str) -> None:
    """A folder is removed with its files, and may be removed twice."""
    Path(folder, "p1").touch()
    remove_folder(folder)
    remove_folder(folder)
    assert not os.path.exists(folder)


async def test_agents_outlive_their_callers_task(folder: str) -> None:
    """An agent belongs to its loop and not to the task that started it."""
    heard = Heard(folder)
    await asyncio.create_task(heard.agent.start())
    heard.fork(1)
    await heard.event("forked", 1)
    await asyncio.create_task(heard.agent.aclose())
