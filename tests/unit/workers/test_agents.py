"""The executor's end of a host agent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child import mux
from aioparallel._child.folders import private_folder, remove_folder
from aioparallel._model.errors import WorkerStartError
from aioparallel._workers import agents
from aioparallel._workers.agents import Agent, Pipe
from tests.tools import is_alive, until


class Heard:
    """An agent, and what was heard of it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.output: list[tuple[int, int, bytes]] = []
        self.links: list[tuple[int, bytes]] = []
        self.voices: list[tuple[int, int, bytes]] = []
        self.agent = Agent(self)
        self.pipe = Pipe(self.agent)

    async def start(self) -> None:
        await self.pipe.start(self.folder, threads=1, max_memory=None)

    def on_event(self, message: dict[str, Any]) -> None:
        self.events.append(message)

    def on_output(self, serial: int, stream: int, written: bytes) -> None:
        self.output.append((serial, stream, written))

    def on_link(self, serial: int, received: memoryview) -> None:
        self.links.append((serial, bytes(received)))

    def on_voice(self, serial: int, kind: int, body: memoryview) -> None:
        self.voices.append((serial, kind, bytes(body)))

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
    await found.start()
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
    "message",
    [
        mux.HEAD.pack(mux.LONGEST + 1, mux.MESSAGE, 0),
        mux.head(mux.MESSAGE, 0, 4) + b"?!?!",
        mux.head(b"?", 0, 2) + b"no",
    ],
)
async def test_nonsense(folder: str, message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that says what no agent says is killed."""
    script = f"import os, time; os.write(1, {message!r}); time.sleep(300)"
    monkeypatch.setattr(agents, "BOOT", script)
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match="the host agent ended, or did not answer"):
        await heard.start()
    await heard.agent.aclose()
    assert heard.agent.ended.is_set()


async def test_an_interpreter_that_is_not_there(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that cannot be started is an error that names the interpreter."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(WorkerStartError, match="cannot start the host agent with '/no/such/python'"):
        await Heard(folder).start()


async def test_an_agent_that_ends_at_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends before it listens is an error that says what to try."""
    monkeypatch.setattr(agents, "BOOT", "pass")
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match=r"does `.* -c pass` work\?"):
        await heard.start()
    await heard.agent.aclose()


async def test_an_agent_that_does_not_answer(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not answer in time is an error, and is killed when it is closed."""
    monkeypatch.setattr(agents, "BOOT", "import time; time.sleep(300)")
    monkeypatch.setattr(agents, "START_SECONDS", 0.05)
    monkeypatch.setattr(agents, "END_SECONDS", 0.05)
    heard = Heard(folder)
    with pytest.raises(WorkerStartError, match="did not answer"):
        await heard.start()
    await heard.agent.aclose()
    assert heard.agent.ended.is_set()


def test_the_interpreters_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent is started by this very interpreter, with its warnings, and not from the current folder."""
    monkeypatch.setattr(sys, "warnoptions", ["error", "ignore::DeprecationWarning"])
    command = agents._command()
    assert command[:2] == [sys.executable, "-P"]
    assert command[2:4] == ["-Werror", "-Wignore::DeprecationWarning"]
    assert Path(command[-1], "agent.py").is_file()


async def test_what_is_heard(folder: str) -> None:
    """Messages, output, links and what is said in workers' places are told apart, however they are cut."""
    heard = Heard(folder)
    text = b'ev="forked\nserial=5'
    row = (
        mux.head(mux.MESSAGE, 0, len(text)) + text + mux.head(mux.LINK, 1, 3) + b"abc" + mux.head(mux.ERR, 2, 2) + b"no"
    )
    row += mux.head(mux.VOICE, 3, 4) + b"\x0exyz"
    for byte in row:
        heard.agent.received(bytes([byte]))
    heard.agent.received(row)
    assert heard.events == [{"ev": "forked", "serial": 5}] * 2
    assert heard.links == [(1, b"abc")] * 2
    assert heard.output == [(2, 2, b"no")] * 2
    assert heard.voices == [(3, 14, b"xyz")] * 2


async def test_agents_outlive_their_callers_task(folder: str) -> None:
    """An agent belongs to its loop and not to the task that started it."""
    heard = Heard(folder)
    await asyncio.create_task(heard.start())
    heard.fork(1)
    await heard.event("forked", 1)
    await asyncio.create_task(heard.agent.aclose())
