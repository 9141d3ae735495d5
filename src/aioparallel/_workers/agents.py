"""The executor's end of a host agent: start it, talk to it, and outlive it."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import anyio

from .. import _child
from .._child import messages
from .._child.agent import MAX_MESSAGE, MESSAGE, OUTPUT
from .._model.errors import WorkerStartError

__all__ = ["Agent", "private_folder", "remove_folder"]

START_SECONDS = 30.0
END_SECONDS = 3.0

BOOT = (
    "import sys, types; package = types.ModuleType('_aioparallel_child'); package.__path__ = [sys.argv[1]]; "
    "sys.modules[package.__name__] = package; from _aioparallel_child import agent; agent.main()"
)
"""Makes the child package importable under its travelling name, whatever ``sys.path`` is."""

LONGEST_PARENT = 60
"""Characters: a socket's path may have about a hundred in all."""


class Agent(asyncio.SubprocessProtocol):
    """A host agent.

    It is served by callbacks of the loop, not by tasks: a loop that shuts down cancels all tasks at once, and that is
    when there is most to say.

    Args:
        folder: The pool's private folder, which the agent removes if the executor dies.
        on_event: Gets each of its messages.
        on_output: Gets what workers write: serial number, stream (1 or 2), bytes.
    """

    def __init__(
        self, folder: str, on_event: Callable[[dict[str, Any]], None], on_output: Callable[[int, int, bytes], None]
    ) -> None:
        self.pid: int | None = None
        """Known when it listens."""
        self.ended = asyncio.Event()
        self.start_over = asyncio.Event()
        """Set when :meth:`start` has ended, either way."""
        """Set when it is gone, and everything that it said has been heard."""
        self._folder = folder
        self._on_event = on_event
        self._on_output = on_output
        self._ready = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None
        self._unread = bytearray()

    async def start(self) -> None:
        """Start the agent; return when it listens.

        Raises:
            WorkerStartError: It cannot be started here.
        """
        try:
            await self._start()
        finally:
            self.start_over.set()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(lambda: self, *_command(), stderr=None, start_new_session=True)
        except OSError as error:
            raise WorkerStartError(f"cannot start the host agent with {sys.executable!r}: {error}") from error
        self.say(op="open", folder=self._folder)
        with anyio.move_on_after(START_SECONDS):
            await self._ready.wait()
        if self.pid is None:
            raise WorkerStartError(
                f"the host agent ended, or did not answer within {START_SECONDS:.0f} s; "
                f"does `{sys.executable} -c pass` work?"
            )

    def say(self, **message: Any) -> None:
        """Send a message; once the agent is gone, nothing happens."""
        text = messages.dumps(message)
        stdin = self._stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(MESSAGE.pack(len(text)) + text)

    async def aclose(self) -> None:
        """Close the lifeline, upon which the agent kills what is left and ends; wait for that."""
        if self._transport is None:
            return
        if self._stdin is not None:
            self._stdin.close()
        with anyio.move_on_after(END_SECONDS) as patience:
            await self.ended.wait()
        if patience.cancelled_caught:
            self._transport.kill()
            await self.ended.wait()
        self._transport.close()

    @property
    def _stdin(self) -> Any:
        return None if self._transport is None else self._transport.get_pipe_transport(0)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process has been started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one, but does not inherit it

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The agent says something."""
        self._unread += data
        try:
            for body in _messages(self._unread):
                self._take(body)
        except (messages.MessageError, struct.error):
            self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, and its output too."""
        self._ready.set()
        self.ended.set()

    def _take(self, body: bytes) -> None:
        if body[:1] == b"O":
            _, serial, stream = OUTPUT.unpack_from(body)
            self._on_output(serial, stream, body[OUTPUT.size :])
            return
        message = messages.loads(body[1:])
        if message["ev"] == "ready":
            self.pid = int(message["pid"] or 0)
            self._ready.set()
        else:
            self._on_event(message)

    def _give_up(self) -> None:
        """It says what no agent of ours says."""
        self._unread.clear()
        if self._transport is not None:
            self._transport.kill()


def _messages(unread: bytearray) -> Iterator[bytes]:
    while len(unread) >= MESSAGE.size:
        (length,) = MESSAGE.unpack_from(unread)
        if length > MAX_MESSAGE:
            raise messages.MessageError(f"a message of {length} bytes")
        if len(unread) < MESSAGE.size + length:
            return
        body = bytes(unread[MESSAGE.size : MESSAGE.size + length])
        del unread[: MESSAGE.size + length]
        yield body


def _command() -> list[str]:
    """This very interpreter, with its flags, and without the current folder in front of the standard library."""
    flags = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    flags += [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *flags, "-c", BOOT, os.path.dirname(_child.__file__)]


def private_folder() -> str:
    """A new folder that only this user can read, with a path short enough for a socket."""
    for parent in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/tmp"):
        if len(parent) <= LONGEST_PARENT and os.access(parent, os.W_OK | os.X_OK):
            folder = os.path.join(parent, f"aioparallel-{os.urandom(8).hex()}")
            os.mkdir(folder, 0o700)
            return folder
    raise WorkerStartError("no writable folder with a short path for a socket: set TMPDIR to one")


def remove_folder(folder: str) -> None:
    """Remove a private folder; whatever the agent has removed already is fine."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        pass
