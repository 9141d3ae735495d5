"""Questions of workers: asked once, answered to all, and never waited for when the agent is gone."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child import messages, questions
from aioparallel._child.archives import RECORD, digester
from aioparallel._child.polling import Poll
from aioparallel._child.questions import (
    ANSWER,
    FAILED,
    FILES,
    INSTALLED,
    MAX_ANSWER,
    MAX_NAME,
    QUESTION,
    UNKNOWN,
    Asker,
    Responder,
    socket_path,
)
from tests.tools import PATIENCE, no_descriptors

SECONDS = 20.0
NUMPY = {"kind": INSTALLED, "requirement": "numpy==2"}


class Box:
    """An archive with one file."""

    def __init__(self, name: str, content: bytes = b"content") -> None:
        stream = RECORD.pack(len(name), 0, len(content)) + name.encode() + content
        made = digester()
        made.update(stream)
        self.digest = str(made.hexdigest())
        self.packed = zlib.compress(stream)
        self.answer = {"kind": FILES, "digest": self.digest, "packed": len(self.packed), "size": len(stream)}


class Desk:
    """A responder and its loop; workers are threads, which ask as those in other processes do."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.poll = Poll()
        self.asked: list[tuple[str, bool]] = []
        self.responder = Responder(folder, self.poll, lambda name, send: self.asked.append((name, send)))
        self.threads: list[threading.Thread] = []

    def turn(self, until: Callable[[], object]) -> None:
        """Do as the agent's loop does until something is true."""
        for _ in range(int(SECONDS / 0.005)):
            if until():
                return
            self.poll.wait(5)
        raise AssertionError("it did not come true")

    def ask(self, name: str, send: bool = False, serial: int = 1) -> list[Any]:
        """Ask in a thread; its answer, or the error, will be in the list."""
        got: list[Any] = []

        def work() -> None:
            try:
                got.append(Asker(self.folder, serial)(name, send))
            except OSError as error:
                got.append(error)

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()
        return got

    def answer(self, name: str, send: bool = False, **answer: Any) -> None:
        self.responder.on_answer({"name": name, "send": int(send), **answer})

    def deliver(self, box: Box) -> None:
        self.responder.on_piece(box.digest, 0, box.packed)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SECONDS)
        connection.connect(socket_path(self.folder))
        return connection

    def waiting(self) -> int:
        """How many wait for an answer."""
        arriving = [arrival.asking for arrival in self.responder._arrivals.values()]
        return sum(map(len, [*self.responder._asked.values(), *arriving]))

    def folders(self) -> set[str]:
        return {name for name in os.listdir(self.folder) if name != "q"}


@pytest.fixture
def desk(folder: str) -> Iterator[Desk]:
    desk = Desk(folder)
    yield desk
    desk.responder.close()
    for thread in desk.threads:
        thread.join(PATIENCE)
    assert desk.poll._handlers == {}


def answered(*asked: list[Any]) -> Callable[[], bool]:
    return lambda: all(asked)


# Answers


def test_each_question_is_asked_once(desk: Desk) -> None:
    """Whoever asks while the executor is asked gets its answer, and whoever asks later gets the same at once."""
    first, second = desk.ask("numpy"), desk.ask("numpy", serial=2)
    desk.turn(lambda: len(desk.responder._asked.get(("numpy", False), ())) == 2)
    assert desk.asked == [("numpy", False)]
    desk.answer("numpy", **NUMPY)
    third = desk.ask("numpy")
    desk.turn(answered(first, second, third))
    assert first == second == third == [NUMPY]
    assert desk.asked == [("numpy", False)]


def test_what_the_executor_cannot_say_is_asked_again(desk: Desk) -> None:
    """When the executor could not read a module, whoever asks is told why, and the next one makes it try again."""
    failed = {"kind": FAILED, "text": "it cannot be described"}
    for turn in range(1, 3):
        asked = desk.ask("m")
        desk.turn(lambda turn=turn: len(desk.asked) == turn)
        desk.answer("m", **failed)
        desk.turn(answered(asked))
        assert asked == [failed]


def test_to_have_it_sent_is_another_question(desk: Desk) -> None:
    """What a module is, and to have it sent in any case, are different questions."""
    asked = desk.ask("anyio"), desk.ask("anyio", send=True)
    desk.turn(lambda: len(desk.asked) == 2)
    desk.answer("anyio", kind="spare", version=None)
    desk.answer("anyio", True, kind=UNKNOWN)
    desk.turn(answered(*asked))
    assert asked == ([{"kind": "spare", "version": None}], [{"kind": UNKNOWN}])


def test_answers_ahead_of_questions(desk: Desk) -> None:
    """The executor may answer what nobody has asked yet."""
    desk.answer("numpy", **NUMPY)
    asked = desk.ask("numpy")
    desk.turn(answered(asked))
    assert (asked, desk.asked) == ([NUMPY], [])


def test_archives(desk: Desk) -> None:
    """A worker is told of an archive when all of it is there, whether it asked before or after."""
    box = Box("m.py")
    before = desk.ask("m")
    desk.turn(lambda: desk.asked)
    desk.answer("m", **box.answer)
    between = desk.ask("m")
    desk.turn(lambda: len(desk.responder._arrivals[box.digest].asking) == 2)
    desk.responder.on_piece(box.digest, 0, box.packed[:5])
    assert (before, between) == ([], [])
    desk.responder.on_piece(box.digest, 5, box.packed[5:])
    after = desk.ask("m")
    desk.turn(answered(before, between, after))
    path = f"{desk.folder}/m{box.digest}"
    assert before == between == after == [{"kind": FILES, "path": path}]
    assert Path(path, "m.py").read_bytes() == b"content"
    assert desk.asked == [("m", False)]


def test_an_archive_that_is_here_already(desk: Desk) -> None:
    """An archive that was sent before need not arrive again, and does no harm if it does."""
    box = Box("m.py")
    desk.answer("m", **box.answer)
    desk.deliver(box)
    desk.responder.forget(["other"])
    desk.answer("m", True, **box.answer)
    asked = desk.ask("m", send=True)
    desk.turn(answered(asked))
    desk.deliver(box)
    assert asked[0]["kind"] == FILES


def test_pieces_that_nobody_waits_for(desk: Desk) -> None:
    """Pieces of an archive that was not announced are dropped."""
    desk.deliver(Box("m.py"))
    assert desk.folders() == set()


# What changes


def test_forgotten_answers(desk: Desk) -> None:
    """What has changed is asked for again, and nothing else is."""
    for name in ("a", "b"):
        desk.answer(name, kind=UNKNOWN)
    assert desk.responder.forget({"a"}) == set()
    asked = desk.ask("a"), desk.ask("b")
    desk.turn(lambda: asked[1] and desk.asked)
    assert desk.asked == [("a", False)]
    desk.answer("a", **NUMPY)
    desk.turn(answered(*asked))
    assert asked == ([NUMPY], [{"kind": UNKNOWN}])


def test_old_archives_live_as_long_as_their_workers(desk: Desk) -> None:
    """An archive that has been replaced is removed when the last worker that was told of it has ended."""
    old, new = Box("m.py", b"1"), Box("m.py", b"2")
    desk.answer("m", **old.answer)
    desk.deliver(old)
    asked = [desk.ask("m", serial=serial) for serial in (1, 2)]
    desk.turn(answered(*asked))
    assert desk.responder.forget({"m"}) == {1, 2}
    desk.answer("m", **new.answer)
    desk.deliver(new)
    asked = [desk.ask("m", serial=3)]
    desk.turn(answered(*asked))
    assert asked[0][0]["path"].endswith(new.digest)
    desk.responder.worker_gone(1)
    desk.responder.worker_gone(3)
    assert desk.folders() == {f"m{old.digest}", f"m{new.digest}"}
    desk.responder.worker_gone(2)
    assert desk.folders() == {f"m{new.digest}"}
    assert desk.responder.forget({"m"}) == set()
    assert desk.folders() == set()


def test_an_edit_that_is_taken_back(desk: Desk) -> None:
    """If a module becomes again what it was, its archive is used again."""
    box = Box("m.py")
    desk.answer("m", **box.answer)
    desk.deliver(box)
    first = desk.ask("m", serial=1)
    desk.turn(answered(first))
    desk.responder.forget({"m"})
    desk.answer("m", **box.answer)
    desk.responder.worker_gone(1)
    second = desk.ask("m", serial=2)
    desk.turn(answered(second))
    assert second == first
    assert Path(second[0]["path"], "m.py").exists()


def test_changes_while_it_arrives(desk: Desk) -> None:
    """Who asked before a change gets what was announced to them, and who asks after it asks anew."""
    old, new = Box("m.py", b"1"), Box("m.py", b"2")
    desk.answer("m", **old.answer)
    before = desk.ask("m", serial=1)
    desk.turn(lambda: desk.responder._arrivals[old.digest].asking)
    assert desk.responder.forget({"m"}) == {1}
    after = desk.ask("m", serial=2)
    desk.turn(lambda: desk.asked)
    desk.answer("m", **new.answer)
    desk.deliver(old)
    desk.deliver(new)
    desk.turn(answered(before, after))
    assert before[0]["path"].endswith(old.digest)
    assert after[0]["path"].endswith(new.digest)


# What goes wrong


def test_archives_that_cannot_be_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure to write is the answer, for a while; then it is tried again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    box = Box("m.py")
    asked = desk.ask("m")
    desk.turn(lambda: desk.asked)
    desk.answer("m", **box.answer)
    with monkeypatch.context() as patch:
        patch.setattr("aioparallel._child.archives._write", full)
        desk.deliver(box)
    again = desk.ask("m")
    desk.turn(answered(asked, again))
    said = f"its files cannot be kept in {desk.folder}: [Errno 28] No space left on device"
    assert asked == again == [{"kind": FAILED, "text": said}]
    assert desk.folders() == set()
    monkeypatch.setattr(questions, "FAILED_SECONDS", 0.0)
    later = desk.ask("m")
    desk.turn(lambda: len(desk.asked) == 2)
    desk.answer("m", **box.answer)
    desk.deliver(box)
    desk.turn(answered(later))
    assert later[0]["kind"] == FILES


@pytest.mark.parametrize(
    "changes",
    [{"digest": "../up"}, {"digest": None}, {"size": 0}, {"packed": "x"}, {"packed": 1 << 60}, {"size": None}],
    ids=str,
)
def test_announcements_that_are_not_believed(desk: Desk, changes: dict[str, Any]) -> None:
    """An announcement that makes no sense is a failure, and the agent lives on."""
    desk.answer("m", **{**Box("m.py").answer, **changes})
    asked = desk.ask("m")
    desk.turn(answered(asked))
    assert asked[0]["kind"] == FAILED
    assert desk.folders() == set()


def test_archives_that_are_not_what_was_said(desk: Desk) -> None:
    """Pieces that make another archive than was announced are a failure."""
    box, other = Box("m.py", b"1"), Box("m.py", b"2")
    desk.answer("m", **box.answer)
    desk.responder.on_piece(box.digest, 0, other.packed)
    asked = desk.ask("m")
    desk.turn(answered(asked))
    assert asked[0]["kind"] == FAILED
    assert desk.folders() == set()


def test_who_asked_may_go(desk: Desk) -> None:
    """A worker that ends while it waits is forgotten, and others are answered."""
    box = Box("m.py")
    waiting: list[list[Any]] = []
    for there in (2, 3):  # while the executor is asked, and while the archive arrives
        connection = desk.connect()
        connection.sendall(QUESTION.pack(7, 0, 1) + b"m")
        waiting.append(desk.ask("m"))
        desk.turn(lambda there=there: desk.waiting() == there)  # type: ignore[misc]
        connection.close()
        desk.turn(lambda there=there: desk.waiting() == there - 1)  # type: ignore[misc]
        desk.answer("m", **box.answer)
    desk.deliver(box)
    desk.turn(answered(*waiting))
    assert desk.responder.forget({"m"}) == {1}


@pytest.mark.parametrize(
    "sent",
    [b"", QUESTION.pack(1, 0, 2) + b"\xff\xff", QUESTION.pack(1, 0, 5000) + b"x" * 2000, b"\xff" * 5000],
    ids=["nothing", "no text", "long", "noise"],
)
def test_questions_that_are_none(desk: Desk, sent: bytes) -> None:
    """What is no question gets no answer, and disturbs nobody."""
    connection = desk.connect()
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    desk.turn(lambda: select.select([connection], [], [], 0)[0])
    try:
        assert connection.recv(10) == b""
    except ConnectionResetError:
        pass  # it was not even read to the end
    connection.close()
    assert desk.asked == []
    assert not desk.responder._unread


def test_questions_in_parts(desk: Desk) -> None:
    """A question may come in parts."""
    connection = desk.connect()
    for byte in QUESTION.pack(1, 1, 5) + b"anyio":
        connection.sendall(bytes([byte]))
        desk.turn(lambda: True)
        desk.poll.wait(0)
    desk.turn(lambda: desk.asked)
    assert desk.asked == [("anyio", True)]
    connection.close()
    desk.turn(lambda: not desk.responder._unread)


def test_no_more_descriptors(desk: Desk) -> None:
    """An agent that may open no more files does not spin, and answers when it may again."""
    first = desk.connect()
    desk.turn(lambda: desk.responder._unread)
    second = desk.connect()
    with no_descriptors():
        desk.turn(lambda: desk.responder._full)
        assert desk.poll._poll.poll(0) == []
    first.close()
    desk.turn(lambda: not desk.responder._full)
    second.sendall(QUESTION.pack(1, 0, 1) + b"m")
    desk.turn(lambda: desk.asked)
    desk.answer("m", kind=UNKNOWN)
    assert second.recv(100).endswith(messages.dumps({"kind": UNKNOWN}))
    second.close()


# The worker's end


def test_nobody_listens(folder: str) -> None:
    """Without an agent a question is an error at once."""
    with pytest.raises(FileNotFoundError):
        Asker(folder, 1)("m")
    Responder(folder, Poll(), lambda *_: None).close()
    with pytest.raises(ConnectionRefusedError):
        Asker(folder, 1)("m")


def test_names_beyond_measure(folder: str) -> None:
    """A name that no module has is not asked for."""
    assert Asker(folder, 1)("m" * (MAX_NAME + 1)) == {"kind": UNKNOWN}


@pytest.mark.parametrize(
    "said",
    [b"", b"\0", ANSWER.pack(10) + b"kind", ANSWER.pack(MAX_ANSWER + 1), ANSWER.pack(5) + b"noise"],
    ids=["nothing", "half a head", "half", "too long", "noise"],
)
def test_agents_that_talk_nonsense(folder: str, said: bytes) -> None:
    """Half an answer, or one that is none, is an error of the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path(folder))
        listener.listen()

        def agent() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(said)
            connection.close()

        thread = threading.Thread(target=agent)
        thread.start()
        with pytest.raises(ConnectionError):
            Asker(folder, 1)("m")
        thread.join(PATIENCE)
