"""Questions: how a worker on another machine asks what a module is where its calls come from.

The worker asks its agent, and the agent asks the executor, once for each question. Each
question has a connection of its own to a Unix socket of the agent, so that every thread may
ask at any time, forked children too, and whoever is interrupted leaves nothing half read::

    question   u32 serial number of the worker | u8 1 to have it sent | u16 length of the name | name
    answer     u32 length | a message (see :mod:`.messages`)

What an answer says is its ``kind``. From the executor to the agent, ``files`` announces an
archive (see :mod:`.archives`) that follows piece by piece; the worker is answered when all
of it is there, with the folder's path.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from time import monotonic

from . import messages
from .archives import ArchiveError, Unpacker, remove_folder
from .lean import socket
from .polling import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .messages import Value
    from .polling import Poll

    Answer = dict[str, Value]
    Question = tuple[str, bool]
    """The name of a module, and whether it must be sent even if it might be found on the host."""

# Kinds of answers
FILES = "files"
"""The user's own code: it travels, and wins over what the host has under this name."""
SPARE = "spare"
"""What we need ourselves: the host's own will do, in ``version`` if that is given; else ask to have it sent."""
INSTALLED = "installed"
"""Of others: the host's own must do. ``requirement`` says what to install."""
REFUSED = "refused"
"""The user's own, but it cannot be sent, for the reason in ``text``: the host's own must do."""
UNKNOWN = "unknown"
"""Not known to the executor either: the host's own must do."""
FAILED = "failed"
"""It should have been sent, but the executor could not read it, or the agent not keep it: see ``text``."""

QUESTION = Struct("<IBH")
ANSWER = Struct("<I")
MAX_NAME = 1000
MAX_ANSWER = 32 * 1024
DIGEST = 32
"""Letters and digits in the name of an archive."""
FAILED_SECONDS = 5.0
"""So long a failure is not tried again."""
WAITING = 128
"""Connections that the system keeps until the agent looks."""


def socket_path(folder: str) -> str:
    """Where the agent of a private folder is asked."""
    return os.path.join(folder, "q")


class Asker:
    """A worker's end.

    Args:
        folder: The agent's private folder.
        serial: The worker's serial number.
    """

    def __init__(self, folder: str, serial: int) -> None:
        self._path = socket_path(folder)
        self._serial = serial

    def __call__(self, name: str, send: bool = False) -> Answer:
        """Ask, and wait for the answer.

        Raises:
            OSError: The agent is gone, or says what no agent of ours says.
        """
        wanted = name.encode("utf-8", "surrogatepass")
        if len(wanted) > MAX_NAME:
            return {"kind": UNKNOWN}
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
            connection.sendall(QUESTION.pack(self._serial, send, len(wanted)) + wanted)
            (length,) = ANSWER.unpack(_read(connection, ANSWER.size))
            if length > MAX_ANSWER:
                raise ConnectionError(f"an answer of {length} bytes")
            return messages.loads(_read(connection, length))
        except messages.MessageError as error:
            raise ConnectionError(str(error)) from None
        finally:
            connection.close()


def _read(connection: Any, length: int) -> bytes:
    found = b""
    while len(found) < length:
        received = connection.recv(length - len(found))
        if not received:
            raise ConnectionError("the host agent is gone")
        found += received
    return found


class Arrival:
    """An archive that was announced: it arrives, is here, or could not be kept."""

    def __init__(self, path: str, digest: str, unpacker: Unpacker | None) -> None:
        self.path = path
        self.digest = digest
        self.unpacker = unpacker
        self.names: set[str] = set()
        self.asking: list[tuple[int, int]] = []
        """Connections that wait for it, and the workers' serial numbers."""
        self.users: set[int] = set()
        """Serial numbers of the workers that were told of it."""
        self.stale = False
        """Whether new workers get another one."""
        self.failure: Answer | None = None
        self.failed_at = 0.0


class Responder:
    """The agent's end. It never waits: it does what it can when something is ready, or has arrived.

    Args:
        folder: The agent's private folder.
        poll: What the agent waits with.
        on_ask: Asks the executor, who is to answer by :meth:`on_answer`: gets the name, and whether to send it.
    """

    def __init__(self, folder: str, poll: Poll, on_ask: Callable[[str, bool], None]) -> None:
        self._folder = folder
        self._poll = poll
        self._on_ask = on_ask
        self._unread: dict[int, bytearray] = {}
        """Open connections, and what has been read of their questions."""
        self._asked: dict[Question, list[tuple[int, int]]] = {}
        """Questions that the executor has not answered, and who waits: connections and serial numbers."""
        self._known: dict[Question, Answer | Arrival] = {}
        self._arrivals: dict[str, Arrival] = {}
        """By digest."""
        self._full = False
        self._listener: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(socket_path(folder))
        self._listener.listen(WAITING)
        self._listener.setblocking(False)
        self._door = self._listener.fileno()
        poll.watch(self._door, IN, lambda event: self._accept())

    # What the executor says

    def on_answer(self, message: Answer) -> None:
        """The executor answers a question."""
        answer = dict(message)
        question = str(answer.pop("name", "")), bool(answer.pop("send", 0))
        known = self._expect(answer, question[0]) if answer.get("kind") == FILES else answer
        if answer.get("kind") != FAILED:  # the next time it may turn out better
            self._known[question] = known
        for connection, serial in self._asked.pop(question, []):
            self._serve(connection, serial, known)

    def on_piece(self, digest: str, offset: int, piece: bytes | memoryview) -> None:
        """A piece of an archive is here; of one that nobody waits for, it is dropped."""
        arrival = self._arrivals.get(digest)
        if arrival is None or arrival.unpacker is None:
            return
        try:
            if not arrival.unpacker.feed(offset, piece):
                return
            arrival.unpacker = None
        except (OSError, ArchiveError) as error:
            self._fail(arrival, error)
        asking, arrival.asking = arrival.asking, []
        for connection, serial in asking:
            self._serve(connection, serial, arrival)
        self._tidy()

    def forget(self, names: Iterable[str]) -> set[int]:
        """These modules have changed: who asks from now on is answered anew.

        Returns:
            The serial numbers of the workers that have, or may have, imported what they were.
        """
        names = set(names)
        self._known = {question: known for question, known in self._known.items() if question[0] not in names}
        holders: set[int] = set()
        for arrival in self._arrivals.values():
            if arrival.names & names:
                arrival.stale = True
                holders |= arrival.users | {serial for _, serial in arrival.asking}
        self._tidy()
        return holders

    def worker_gone(self, serial: int) -> None:
        """A worker has ended, and no longer needs what it imported."""
        for arrival in self._arrivals.values():
            arrival.users.discard(serial)
        self._tidy()

    def close(self) -> None:
        """Answer nobody any more."""
        for connection in list(self._unread):
            self._drop(connection)
        self._poll.ignore(self._door)
        self._listener.close()

    # Connections

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:  # until one is closed
                    self._full = True
                    self._poll.watch(self._door, 0, lambda event: self._accept())
                return
            os.set_blocking(connection, False)
            self._unread[connection] = bytearray()
            self._listen(connection)

    def _listen(self, connection: int) -> None:
        self._poll.watch(connection, IN, lambda event: self._read(connection))

    def _drop(self, connection: int) -> None:
        del self._unread[connection]
        self._poll.ignore(connection)
        os.close(connection)
        if self._full:
            self._full = False
            self._poll.watch(self._door, IN, lambda event: self._accept())

    def _read(self, connection: int) -> None:
        try:
            received = os.read(connection, 4096)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        unread = self._unread[connection]
        unread += received
        if not received or len(unread) > QUESTION.size + MAX_NAME:
            self._withdraw(connection)
            return
        if len(unread) < QUESTION.size:
            return
        serial, send, length = QUESTION.unpack_from(unread)
        if len(unread) == QUESTION.size + length:
            try:
                name = unread[QUESTION.size :].decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                self._drop(connection)
            else:
                self._ask(connection, serial, (name, bool(send)))

    def _withdraw(self, connection: int) -> None:
        """Whoever asked is gone."""
        waiting = [*self._asked.values(), *(arrival.asking for arrival in self._arrivals.values())]
        for asking in waiting:
            asking[:] = [each for each in asking if each[0] != connection]
        self._drop(connection)

    # Answers

    def _ask(self, connection: int, serial: int, question: Question) -> None:
        known = self._known.get(question)
        if isinstance(known, Arrival) and known.failure and monotonic() - known.failed_at > FAILED_SECONDS:
            known = None
        if known is not None:
            self._serve(connection, serial, known)
            return
        is_new = question not in self._asked
        self._asked.setdefault(question, []).append((connection, serial))
        if is_new:
            self._on_ask(*question)

    def _serve(self, connection: int, serial: int, known: Answer | Arrival) -> None:
        """Answer, unless what there is to say is still arriving."""
        if not isinstance(known, Arrival):
            self._reply(connection, known)
        elif known.failure is not None:
            self._reply(connection, known.failure)
        elif known.unpacker is not None:
            known.asking.append((connection, serial))
        else:
            known.users.add(serial)
            self._reply(connection, {"kind": FILES, "path": known.path})

    def _reply(self, connection: int, answer: Answer) -> None:
        text = messages.dumps(answer)
        try:
            os.write(connection, ANSWER.pack(len(text)) + text)  # it fits into the socket
        except OSError:
            pass  # whoever asked is gone
        self._drop(connection)

    # Archives

    def _expect(self, answer: Answer, name: str) -> Arrival:
        """The archive that is announced, which may be here already."""
        digest = str(answer.get("digest"))
        arrival = self._arrivals.get(digest)
        if arrival is None or arrival.failure is not None:
            path = os.path.join(self._folder, f"m{digest}")
            arrival = Arrival(path, digest, None)
            try:
                if len(digest) != DIGEST or not digest.isalnum():
                    raise ArchiveError(f"an archive called {digest[:100]!r}")
                arrival.unpacker = Unpacker(path, digest, int(answer["packed"] or 0), int(answer["size"] or 0))
            except (OSError, ArchiveError, KeyError, ValueError) as error:
                self._fail(arrival, error)
            else:
                self._arrivals[digest] = arrival
        arrival.names.add(name)
        arrival.stale = False
        return arrival

    def _fail(self, arrival: Arrival, error: Exception) -> None:
        if arrival.unpacker is not None:
            arrival.unpacker.abandon()
            arrival.unpacker = None
        self._arrivals.pop(arrival.digest, None)
        text = f"its files cannot be kept in {self._folder}: {error}"
        arrival.failure = {"kind": FAILED, "text": text[:MAX_NAME]}
        arrival.failed_at = monotonic()

    def _tidy(self) -> None:
        """Remove archives that have been replaced, and whose last worker has ended."""
        for digest, arrival in list(self._arrivals.items()):
            if arrival.stale and arrival.unpacker is None and not arrival.users and not arrival.asking:
                del self._arrivals[digest]
                remove_folder(arrival.path)
