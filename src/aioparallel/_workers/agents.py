"""The executor's end of a host agent: start it, talk to it, and outlive it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup

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


class Agent:
    """A host agent.

    Args:
        folder: The pool's private folder, which the agent removes if the executor dies.
        on_event: Gets each of its messages.
        on_output: Gets what workers write: serial number, stream (1 or 2), bytes.
    """

    def __init__(
        self, folder: str, on_event: Callable[[dict[str, Any]], None], on_output: Callable[[int, int, bytes], None]
    ) -> None:
        self.pid: int | None = None
        self._folder = folder
        self._on_event = on_event
        self._on_output = on_output
        self._process: Process | None = None
        self._outgoing = bytearray()
        self._more = anyio.Event()

    async def start(self, group: TaskGroup, on_end: Callable[[], None]) -> None:
        """Start the agent; return when it listens.

        Args:
            group: Owns the tasks that talk to it.
            on_end: Called when the agent has ended, asked or not.

        Raises:
            WorkerStartError: It cannot be started here.
        """
        ready = anyio.Event()
        try:
            self._process = await anyio.open_process(_command(), stderr=None, start_new_session=True)
        except OSError as error:
            raise WorkerStartError(f"cannot start the host agent with {sys.executable!r}: {error}") from error
        group.start_soon(self._write, self._process)
        group.start_soon(self._read, self._process, ready, on_end)
        self.say(op="open", folder=self._folder)
        with anyio.move_on_after(START_SECONDS):
            await ready.wait()
        if self.pid is None:
            raise WorkerStartError(
                f"the host agent ended, or did not answer within {START_SECONDS:.0f} s; "
                f"does `{sys.executable} -c pass` work?"
            )

    def say(self, **message: Any) -> None:
        """Send a message; once the agent is gone, nothing happens."""
        text = messages.dumps(message)
        self._outgoing += MESSAGE.pack(len(text)) + text
        self._more.set()

    async def aclose(self) -> None:
        """Close the lifeline, upon which the agent kills what is left and ends; wait for that."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            await process.stdin.aclose()
        with anyio.move_on_after(END_SECONDS) as patience:
            await process.wait()
        if patience.cancelled_caught:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
        self._process = None

    async def _write(self, process: Process) -> None:
        assert process.stdin is not None, "opened with a pipe"
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            message, self._outgoing = bytes(self._outgoing), bytearray()
            try:
                await process.stdin.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _read(self, process: Process, ready: anyio.Event, on_end: Callable[[], None]) -> None:
        assert process.stdout is not None, "opened with a pipe"
        unread = bytearray()
        try:
            async for received in process.stdout:
                unread += received
                for body in _messages(unread):
                    self._take(body, ready)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            ready.set()
            on_end()

    def _take(self, body: bytes, ready: anyio.Event) -> None:
        if body[:1] == b"O":
            _, serial, stream = OUTPUT.unpack_from(body)
            self._on_output(serial, stream, body[OUTPUT.size :])
            return
        message = messages.loads(body[1:])
        if message["ev"] == "ready":
            self.pid = int(message["pid"] or 0)
            ready.set()
        else:
            self._on_event(message)


def _messages(unread: bytearray) -> Iterator[bytes]:
    while len(unread) >= MESSAGE.size:
        (length,) = MESSAGE.unpack_from(unread)
        if length > MAX_MESSAGE:
            raise anyio.BrokenResourceError(f"the agent sent a message of {length} bytes")
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
