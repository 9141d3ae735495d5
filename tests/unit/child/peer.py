"""The executor's end of a worker's socket, as plain as it gets."""

from __future__ import annotations

import pickle
import socket
import threading
import traceback
from typing import Any, NamedTuple

from aioparallel._child import page, wire
from aioparallel._child.page import MAX_THREADS, Page
from aioparallel._child.wire import ANSWER, CALL, FRAME
from aioparallel._child.worker import Link, Worker
from aioparallel._workers.returning import unpack_failure
from tests.tools import wait_for

TOKEN = b"t" * 32
SECONDS = 20.0


class Answer(NamedTuple):
    """What a worker says of a call."""

    number: int
    micros: int
    ending: int
    value: Any


class Peer:
    """Sends frames to a worker that runs in a thread of this process, and reads its answers.

    Args:
        folder: For the socket and the page.
    """

    def __init__(self, folder: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/s")
        listener.listen()
        page.create(f"{folder}/p")
        self.page = Page(f"{folder}/p")
        self._worker_page = Page(f"{folder}/p")
        self._link = Link(f"{folder}/s", TOKEN)
        self.worker = Worker(self._link, self._worker_page, 3)
        self.socket, _ = listener.accept()
        self.socket.settimeout(SECONDS)
        listener.close()
        assert self._read(len(TOKEN)) == TOKEN
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        self._functions = 0

    def _serve(self) -> None:
        try:
            self.worker.serve()
        except BaseException as error:
            self.error = error
            traceback.clear_frames(error.__traceback__)  # they hold views of the page
        finally:
            self._link.socket.close()

    def close(self) -> None:
        if self.worker._threaded:
            wait_for(lambda: not self.page.all_running(MAX_THREADS))  # they end a little after they have answered
        self.socket.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.worker.streams.close()
        self.page.close()
        self._worker_page.close()

    # To the worker

    def send(self, kind: int, body: bytes = b"") -> None:
        self.socket.sendall(FRAME.pack(len(body), kind) + body)

    def teach(self, fn: Any) -> int:
        """Tell the worker a function of this process; returns its number."""
        return self.teach_packed(fn.__qualname__, pickle.dumps(("reference", fn.__module__, fn.__qualname__, 0)))

    def teach_packed(self, name: str, packed: bytes) -> int:
        self._functions += 1
        encoded = name.encode()
        self.send(wire.FUNCTIONS, wire.FUNCTION.pack(self._functions, len(encoded)) + encoded + packed)
        return self._functions

    def record(self, number: int, function: int, *args: Any, verb: int = wire.RUN, **kwargs: Any) -> bytes:
        """A call, with its arguments in the pickle."""
        payload = pickle.dumps((args, kwargs)) if args or kwargs else b""
        return CALL.pack(number, 1000 + number, function, 1, verb, 0, len(payload)) + payload

    def call(self, number: int, fn: Any, *args: Any, **kwargs: Any) -> None:
        """Send a call alone in its frame."""
        self.send(wire.CALLS, self.record(number, self.teach(fn), *args, **kwargs))

    def call_with_buffers(self, number: int, fn: Any, *args: Any) -> None:
        """Send a call with its buffers beside the pickle."""
        buffers: list[Any] = []
        payload = pickle.dumps((args, {}), 5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        head = CALL.pack(number, 1, self.teach(fn), 1, wire.RUN, len(raw), len(payload))
        self.send(wire.CALLS, b"".join(wire.with_buffers(head, payload, raw)))

    # From the worker

    def frame(self) -> tuple[int, bytes]:
        """The next frame; kind 0 when the worker is gone."""
        head = self._read(FRAME.size)
        if len(head) < FRAME.size:
            return 0, b""
        length, kind = FRAME.unpack(head)
        return kind, self._read(length)

    def answers(self) -> list[Answer]:
        """The answers in the next frame."""
        kind, body = self.frame()
        assert kind == wire.ANSWERS
        return read_answers(body)

    def answer(self) -> Answer:
        """The one answer in the next frame."""
        (answer,) = self.answers()
        return answer

    def _read(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            received = self.socket.recv(length - len(found))
            if not received:
                break
            found += received
        return bytes(found)


def read_answers(body: bytes) -> list[Answer]:
    found, position = [], 0
    view = memoryview(body)
    while position < len(body):
        number, micros, ending, count, length = ANSWER.unpack_from(view, position)
        position += ANSWER.size
        payload, position = view[position : position + length], position + length
        buffers = wire.read_buffers(view, position, count) if count else []
        position = len(body) if count else position
        found.append(Answer(number, micros, ending, _value(ending, payload, buffers)))
    return found


def _value(ending: int, payload: memoryview, buffers: list[memoryview]) -> Any:
    if ending == wire.OK:
        return pickle.loads(payload, buffers=buffers)
    return unpack_failure(payload, "f", "w") if ending == wire.RAISED else None
