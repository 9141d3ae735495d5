"""Workers' links, carried by the agent: for executors on other machines, which workers cannot connect to.

Workers connect to a socket of the agent's as they would to the executor's. What the executor sends to a worker is
passed on as soon as the worker takes it. The executor keeps at most so much with the agent that the worker has not
taken, and is told from time to time how much that was, so that the agent's memory stays small and a worker that takes
nothing delays nobody else.
"""

from __future__ import annotations

import math
import os
from time import monotonic

from . import descriptors, mux
from .lean import socket
from .polling import IN, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .polling import Poll

CREDIT = 4 << 20
"""Bytes for a worker that the executor sends before it is told that the worker has taken some."""
TELL = CREDIT // 4
"""It is told when so many have been taken."""
TOKEN = 32
SOCKET_BUFFER = 1 << 20


class Dock:
    """Where workers connect to.

    Args:
        poll: The agent's.
        path: Of the socket.
        on_worker: Gets the token, in hexadecimal digits, and descriptor of each worker that has connected.
        on_full: Told that no connection can be taken for now; :meth:`look` is to be called when it is ``next_look``.
    """

    def __init__(
        self, poll: Poll, path: str, on_worker: Callable[[str, int], None], on_full: Callable[[], None]
    ) -> None:
        self.next_look = math.inf
        """When to look again whether a connection can be taken (``time.monotonic``)."""
        self._poll = poll
        self._on_worker = on_worker
        self._on_full = on_full
        self._failures = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen(512)
        self._socket.setblocking(False)
        self._listen(IN)

    def look(self, now: float) -> None:
        """There may be a descriptor again."""
        if self.next_look <= now:
            self.next_look = math.inf
            self._listen(IN)

    def _listen(self, events: int) -> None:
        self._poll.watch(self._socket.fileno(), events, self._on_event)

    def _on_event(self, event: int) -> None:
        try:
            descriptor, _ = self._socket._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if descriptors.are_used_up(error):
                self._failures += 1
                self.next_look = monotonic() + descriptors.pause(self._failures)
                self._listen(0)
                self._on_full()
            return
        self._failures = 0
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)
        self._poll.watch(descriptor, IN, lambda event: self._identify(descriptor))

    def _identify(self, descriptor: int) -> None:
        """A worker says its token first, all at once."""
        try:
            token = os.read(descriptor, TOKEN)
        except BlockingIOError:
            return
        except OSError:
            token = b""
        self._poll.ignore(descriptor)
        self._on_worker(token.hex(), descriptor)


class Carried:
    """The agent's end of one worker's link.

    Args:
        poll: The agent's.
        descriptor: The connection.
        on_bytes: Gets what the worker sends.
        on_taken: Is told how many bytes the worker has taken since it was told last.
    """

    def __init__(
        self, poll: Poll, descriptor: int, on_bytes: Callable[[bytes], None], on_taken: Callable[[int], None]
    ) -> None:
        self._poll = poll
        self._in = descriptor
        self._out = os.dup(descriptor)  # a descriptor has one handler
        self._on_bytes = on_bytes
        self._on_taken = on_taken
        self._outlet = Outlet(poll, self._out, lambda: None)  # a worker that is gone says so on the other one
        self._outlet.on_room = self._tell
        self._told = 0
        self.ended = False
        """Whether the worker will send nothing more."""
        self.listen(True)

    def listen(self, wanted: bool) -> None:
        """Read what the worker sends, or let it wait."""
        if not self.ended:
            self._poll.watch(self._in, IN if wanted else 0, self._on_event)

    def write(self, body: memoryview) -> None:
        """Pass on what the executor sends."""
        self._outlet.write(body)
        self._tell()

    def read(self) -> bool:
        """Take some of what the worker has sent; returns whether there was anything."""
        try:
            received = os.read(self._in, mux.TURN)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        if received:
            self._on_bytes(received)
        else:
            self.ended = True
            self._poll.ignore(self._in)
        return bool(received)

    def _on_event(self, event: int) -> None:
        self.read()

    def close(self) -> None:
        """Read what is left, and let go."""
        while self.read():
            pass
        self._poll.ignore(self._in)
        self._outlet.clear()
        os.close(self._in)
        os.close(self._out)

    def _tell(self) -> None:
        taken = self._outlet.sent - self._told
        if taken >= TELL:
            self._told += taken
            self._on_taken(taken)
