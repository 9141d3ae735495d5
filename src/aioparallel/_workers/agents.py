"""The executor's end of a host agent: what it is told, and what it says."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import anyio

from .. import _child
from .._child import descriptors, messages, mux
from .._model.errors import WorkerStartError

__all__ = ["Agent", "Channel", "Ear", "Pipe"]

START_SECONDS = 30.0
END_SECONDS = 3.0

BOOT = (
    "import sys, types; package = types.ModuleType('_aioparallel_child'); package.__path__ = [sys.argv[1]]; "
    "sys.modules[package.__name__] = package; from _aioparallel_child import agent; agent.main()"
)
"""Makes the child package importable under its travelling name, whatever ``sys.path`` is."""

Part = bytes | memoryview


class Ear(Protocol):
    """Who hears what an agent says."""

    def on_event(self, message: dict[str, Any]) -> None:
        """One of its messages."""

    def on_output(self, serial: int, stream: int, written: bytes) -> None:
        """A worker wrote this to its standard output (1) or error (2)."""

    def on_link(self, serial: int, received: memoryview) -> None:
        """Bytes of a worker's link."""

    def on_voice(self, serial: int, kind: int, body: memoryview) -> None:
        """A frame that the agent says in a worker's place; arrays may live in its body."""


class Channel(Protocol):
    """A stream of bytes to an agent; what comes back is told to the :class:`Agent`, and when it ends."""

    @property
    def congested(self) -> bool:
        """Whether more waits to be sent than is useful."""
        ...

    def write(self, parts: Sequence[Part]) -> None:
        """Send these, in order; never waits. Once the channel is lost, nothing happens."""
        ...

    async def aclose(self) -> object:
        """Close the channel, upon which the agent ends everything; return when it has ended."""
        ...


class Agent:
    """A host agent at the other end of a channel.

    It is served by callbacks of the loop, not by tasks: a loop that shuts down cancels all tasks at once, and that is
    when there is most to say.

    Args:
        ear: Who hears what it says.
    """

    def __init__(self, ear: Ear) -> None:
        self.pid: int | None = None
        """Known when it listens."""
        self.ended = asyncio.Event()
        """Set when it is gone, and everything that it said has been heard."""
        self.problem = ""
        """Why it does not listen, if it says so."""
        self.channel: Channel | None = None
        self.error: Exception | None = None
        """Why the channel has ended, if it was not closed."""
        self.heard_at = 0.0
        """When it said something last (``time.monotonic``)."""
        self.on_room: Callable[[], None] | None = None
        """Called when the channel is no longer congested."""
        self.on_end: Callable[[], None] | None = None
        """Called when it is gone."""
        self._ear = ear
        self._splitter = mux.Splitter()
        self._answered = asyncio.Event()

    async def open(self, **options: Any) -> bool:
        """Tell it what it is to serve; returns whether it listens."""
        self.say(op="open", **options)
        with anyio.move_on_after(START_SECONDS):
            await self._answered.wait()
        return self.pid is not None

    def say(self, **message: Any) -> None:
        """Send a message; once the agent is gone, nothing happens."""
        if self.channel is not None:
            text = messages.dumps(message)
            self.channel.write([mux.head(mux.MESSAGE, 0, len(text)) + text])

    async def aclose(self) -> None:
        """Close the channel, upon which the agent kills what is left and ends; wait for that."""
        if self.channel is not None:
            await self.channel.aclose()

    # What the channel tells

    def received(self, data: bytes) -> None:
        """The agent says something.

        Raises:
            ValueError, struct.error: It is nothing that an agent of ours says.
        """
        self.heard_at = time.monotonic()
        for kind, serial, body in self._splitter.feed(data):
            if kind == mux.LINK:
                self._ear.on_link(serial, body)
            elif kind == mux.MESSAGE:
                self._on_message(messages.loads(bytes(body)))
            elif kind == mux.VOICE:
                self._ear.on_voice(serial, body[0], memoryview(bytearray(body[1:])))
            else:
                self._ear.on_output(serial, 1 if kind == mux.OUT else 2, bytes(body))

    def writable(self) -> None:
        """The channel was congested, and is no longer."""
        if self.on_room is not None:
            self.on_room()

    def lost(self, error: Exception | None = None) -> None:
        """The channel has ended."""
        self.error = error
        self._answered.set()
        self.ended.set()
        if self.on_end is not None:
            self.on_end()

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["ev"] == "ready":
            self.pid = message["pid"]
            self._answered.set()
        elif message["ev"] == "failed":
            self.problem = message["reason"]
            self._answered.set()
        else:
            self._ear.on_event(message)


class Pipe(asyncio.SubprocessProtocol):
    """A channel to an agent that is a child of this process.

    Args:
        agent: The agent; this becomes its channel.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._transport: asyncio.SubprocessTransport | None = None
        self.start_over = asyncio.Event()
        """Set when :meth:`start` has ended, either way."""
        self.ended = agent.ended
        agent.channel = self

    async def start(self, folder: str, **options: Any) -> None:
        """Start the agent; return when it listens.

        Raises:
            WorkerStartError: It cannot be started here.
        """
        try:
            await self._start(folder, options)
        finally:
            self.start_over.set()

    async def _start(self, folder: str, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(lambda: self, *_command(), stderr=None, start_new_session=True)
        except OSError as error:
            advice = f". {descriptors.advice('This process')}" if descriptors.are_used_up(error) else ""
            raise WorkerStartError(f"cannot start the host agent with {sys.executable!r}: {error}{advice}") from error
        if not await self._agent.open(folder=folder, lease=None, **options):
            raise WorkerStartError(
                f"the host agent ended, or did not answer within {START_SECONDS:.0f} s; "
                f"does `{sys.executable} -c pass` work?"
            )

    @property
    def congested(self) -> bool:
        """Never said: only messages go this way."""
        return False

    def write(self, parts: Sequence[Part]) -> None:
        """Send bytes to the agent."""
        stdin = self._stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(b"".join(parts))

    async def aclose(self, patience: float | None = None) -> None:
        """Close the lifeline; wait until the agent has ended, and kill it if that takes longer than so many seconds.

        Cancellation:
            Kills it at once.
        """
        if self._transport is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        try:
            with anyio.move_on_after(END_SECONDS if patience is None else patience):
                await self._agent.ended.wait()
            if not self._agent.ended.is_set():
                self._transport.kill()
                await self._agent.ended.wait()
        finally:
            self._transport.close()  # which kills it if it is still there

    @property
    def _stdin(self) -> Any:
        return None if self._transport is None else self._transport.get_pipe_transport(0)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has been started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one, but does not inherit it

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The agent says something."""
        try:
            self._agent.received(data)
        except (ValueError, KeyError, struct.error):  # what no agent of ours says
            if self._transport is not None:
                self._transport.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, and its output too."""
        self._agent.lost()


def _command() -> list[str]:
    """This very interpreter, with its flags, and without the current folder in front of the standard library."""
    flags = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    flags += [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *flags, "-c", BOOT, os.path.dirname(_child.__file__)]
