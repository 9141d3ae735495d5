"""The executor's side of a real agent, over pipes and sockets, without an event loop."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aioparallel._child as child_package
from aioparallel._child import messages, mux, wire
from aioparallel._child.page import Page
from aioparallel._child.wire import CALL, FRAME
from aioparallel._workers.agents import BOOT
from tests.unit.child.peer import Answer, read_answers

SECONDS = 20.0


class Host:
    """An agent in a process of its own.

    Attributes:
        events: What the agent said and nobody has asked for yet.
        output: What workers wrote: by (serial number, stream).
        voices: What the agent said in workers' places: serial number, kind of the frame, body.

    Args:
        folder: The pool's; without one, the agent has its own, and carries the workers' links.
        boot: What its interpreter runs.
        **options: Fields of the ``open`` message.
    """

    def __init__(self, folder: str | None, boot: str = BOOT, **options: Any) -> None:
        self.folder = folder
        self.listener: socket.socket | None = None
        if folder is not None:
            os.mkdir(folder, 0o700)
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(f"{folder}/s")
            self.listener.listen(100)
            self.listener.settimeout(SECONDS)
        command = [sys.executable, "-P", "-c", boot, str(Path(child_package.__file__).parent)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        self.events: list[dict[str, Any]] = []
        self.output: dict[tuple[int, int], bytes] = {}
        self.voices: list[tuple[int, int, bytes]] = []
        self.links: dict[int, bytearray] = {}
        self.workers: list[Remote] = []
        self._splitter = mux.Splitter()
        self.say(**{"op": "open", "folder": folder, "threads": 1, "max_memory": None, "lease": None, **options})
        self.read()
        self.said = self.events.pop()
        self.pid = self.said.get("pid")

    def close(self) -> None:
        """Close the lifeline, and wait until the agent has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()
        if self.listener is not None:
            self.listener.close()
        for worker in self.workers:
            worker.close()

    def say(self, **message: Any) -> None:
        text = messages.dumps(message)
        assert self.process.stdin is not None
        self.process.stdin.write(mux.head(mux.MESSAGE, 0, len(text)) + text)

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait until the agent says this."""
        deadline = time.monotonic() + SECONDS
        while True:
            for event in self.events:
                if event["ev"] == name and all(event[field] == value for field, value in fields.items()):
                    self.events.remove(event)
                    return event
            assert time.monotonic() < deadline, f"the agent never said {name}, only {self.events}"
            assert self.read(), f"the agent ended and never said {name}, only {self.events}"

    def read(self) -> bool:
        """Read what the agent has to say; ``False`` when it has ended."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        if not select.select([descriptor], [], [], SECONDS)[0]:
            raise AssertionError("the agent says nothing")
        received = os.read(descriptor, 65536)
        for kind, serial, body in self._splitter.feed(received):
            self._take(kind, serial, bytes(body))
        return bool(received)

    def _take(self, kind: bytes, serial: int, body: bytes) -> None:
        if kind == mux.MESSAGE:
            self.events.append(messages.loads(body))
        elif kind == mux.LINK:
            self.links.setdefault(serial, bytearray()).extend(body)
        elif kind == mux.VOICE:
            self.voices.append((serial, body[0], body[1:]))
        else:
            stream = 1 if kind == mux.OUT else 2
            self.output[serial, stream] = self.output.get((serial, stream), b"") + body

    def written(self, serial: int, stream: int, until: bytes) -> bytes:
        """Wait until a worker has written this."""
        while until not in self.output.get((serial, stream), b""):
            assert self.read()
        return self.output[serial, stream]

    def fork(self, serial: int = 1, *, env: str = "", **setup: Any) -> Remote:
        """Have a worker forked and set up."""
        token = bytes([serial]) * 32
        self.say(op="fork", serial=serial, index=serial - 1, token=token.hex(), env=env)
        pid = self.event("forked", serial=serial)["pid"]
        worker: Remote
        if self.listener is None:
            worker = Carried(self, serial, pid)
        else:
            connection, _ = self.listener.accept()
            worker = Remote(connection, serial, pid, Page(f"{self.folder}/p{serial}"))
            assert worker.read(32) == token
        self.workers.append(worker)
        assert worker.frame() == (wire.HELLO, pid.to_bytes(8, "little"))
        plain = {"path": sys.path, "argv": [], "host": None, "max_memory": None, "levels": {}, "preload": ()}
        worker.send(wire.SETUP, pickle.dumps({**plain, "initializer": None, "threads": 1, **setup}))
        assert worker.frame() == (wire.READY, b"")
        return worker

    def kill(self, worker: Remote, *, stack: bool = False) -> None:
        self.say(op="kill", serial=worker.serial, stack=stack)

    def halt(self, worker: Remote, call: int, *, stack: bool = False) -> None:
        self.say(op="halt", serial=worker.serial, call=call, stack=stack, after=None)


class Remote:
    """A worker of a real agent."""

    def __init__(self, connection: socket.socket, serial: int, pid: int, page: Page) -> None:
        self.socket = connection
        self.socket.settimeout(SECONDS)
        self.serial = serial
        self.pid = pid
        self.page = page
        self._functions = 0

    def close(self) -> None:
        self.socket.close()
        self.page.close()

    def send(self, kind: int, body: bytes = b"") -> None:
        self.socket.sendall(FRAME.pack(len(body), kind) + body)

    def call(self, number: int, fn: Any, *args: Any) -> None:
        self.calls((number, fn, args))

    def calls(self, *calls: tuple[int, Any, tuple[Any, ...]]) -> None:
        """Send calls in one frame."""
        records = []
        for number, fn, args in calls:
            self._functions += 1
            packed = pickle.dumps(("reference", fn.__module__, fn.__qualname__, 0))
            self.send(wire.FUNCTIONS, wire.FUNCTION.pack(self._functions, 1) + b"f" + packed)
            payload = pickle.dumps((args, {}))
            records.append(CALL.pack(number, number, self._functions, 1, wire.RUN, 0, len(payload)) + payload)
        self.send(wire.CALLS, b"".join(records))

    def answer(self) -> Answer:
        kind, body = self.frame()
        assert kind == wire.ANSWERS
        (answer,) = read_answers(body)
        return answer

    def frame(self) -> tuple[int, bytes]:
        head = self.read(FRAME.size)
        if len(head) < FRAME.size:
            return 0, b""
        length, kind = FRAME.unpack(head)
        return kind, self.read(length)

    def read(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            try:
                received = self.socket.recv(length - len(found))
            except ConnectionResetError:
                break
            if not received:
                break
            found += received
        return bytes(found)


class Carried(Remote):
    """A worker whose link the agent carries. Its page is out of reach."""

    def __init__(self, host: Host, serial: int, pid: int) -> None:
        self.serial = serial
        self.pid = pid
        self._host = host
        self._functions = 0

    def close(self) -> None:
        """Nothing is open."""

    def send(self, kind: int, body: bytes = b"") -> None:
        framed = memoryview(FRAME.pack(len(body), kind) + body)
        assert self._host.process.stdin is not None
        for start in range(0, len(framed), mux.TURN):
            piece = framed[start : start + mux.TURN]
            self._host.process.stdin.write(mux.head(mux.LINK, self.serial, len(piece)) + piece)

    def read(self, length: int) -> bytes:
        link = self._host.links.setdefault(self.serial, bytearray())
        while len(link) < length and self._host.read():
            pass
        found = bytes(link[:length])
        del link[:length]
        return found
