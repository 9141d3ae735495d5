"""A machine that has nothing but Python, as the executor sees it: real processes, real sockets, no network."""

from __future__ import annotations

import itertools
import os
import pickle
import select
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, Self

import aioparallel._child as child_package
from aioparallel._child import messages
from aioparallel._workers.modules import Modules
from aioparallel._workers.returning import unpack_failure

if TYPE_CHECKING:
    from aioparallel._child.messages import Value

SECONDS = 30.0
LENGTH = Struct("<I")
PIECE = Struct("<32sQ")
AGENT = Path(__file__).with_name("outpost_agent.py")
BOOT = (
    "import sys, types; package = types.ModuleType('_aioparallel_child'); package.__path__ = [sys.argv.pop(1)]; "
    "sys.modules[package.__name__] = package; exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'))"
)


class Outpost:
    """An agent and its workers, in interpreters that find nothing but the standard library.

    Args:
        modules: Answers what they ask; ``None`` leaves that to the test.
        host: The machine's name.
        folder: The agent's private folder.
        path: What its interpreter finds modules on, besides the standard library.
    """

    def __init__(self, modules: Modules | None, host: str = "h1", folder: str | None = None, path: str = "") -> None:
        self.modules = modules
        self.host = host
        self.asked: list[tuple[str, bool]] = []
        self.sent: list[str] = []
        """The modules that travelled."""
        self.folder = folder or tempfile.mkdtemp(prefix="t-", dir="/tmp")
        boot = f"import sys; sys.path.insert(0, {path!r}); {BOOT}" if path else BOOT
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                boot,
                str(Path(child_package.__file__).parent),
                str(AGENT),
                self.folder,
                host,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._serials = itertools.count(1)
        self._unread = bytearray()
        self._events: list[dict[str, Value]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Workers

    def run(self, source: str) -> Any:
        """Run a program in a fresh worker; what it calls ``result`` comes back, or what it raises is raised."""
        return self.finish(self.start(source))

    def start(self, source: str) -> int:
        """Start a program in a fresh worker; returns its serial number."""
        serial = next(self._serials)
        self.say(op="run", serial=serial, source=textwrap.dedent(source))
        return serial

    def finish(self, serial: int) -> Any:
        """Wait for a worker's program."""
        self.event("ended", serial=serial)
        path = Path(self.folder, f"r{serial}")
        ok, outcome = pickle.loads(path.read_bytes())
        if ok:
            return outcome
        raise unpack_failure(outcome, "the program", self.host)

    def call(self, packed: bytes, payload: bytes = b"") -> Any:
        """Call a function that was made ready to travel, with arguments that were."""
        return self.run(
            "from _aioparallel_child.worker import load_function\n"
            "from _aioparallel_child.packing import loads_arguments\n"
            f"args, kwargs = loads_arguments({payload!r}, [])\n"
            f"result = load_function({packed!r})(*args, **kwargs)"
        )

    # Messages

    def say(self, **message: Value) -> None:
        self._send(b"M" + messages.dumps(message))

    def answer(self, name: str, send: bool = False) -> None:
        """Answer a question as the executor does."""
        assert self.modules is not None
        module = self.modules.describe(name, send=send)
        self.say(op="answer", **module.answer())
        if module.archive is not None:
            self.sent.append(name)
            for offset, piece in module.pieces():
                self.piece(module.archive.digest, offset, piece)

    def piece(self, digest: str, offset: int, piece: bytes | memoryview) -> None:
        self._send(b"P" + PIECE.pack(digest.encode(), offset) + piece)

    def forget(self, *names: str) -> list[int]:
        """Say that modules have changed; returns the workers that hold them."""
        self.say(op="forget", names=" ".join(names))
        return list(map(int, str(self.event("forgotten")["holders"]).split()))

    def event(self, name: str, /, **fields: Value) -> dict[str, Value]:
        """Wait until the agent says this; questions are answered meanwhile."""
        deadline = time.monotonic() + SECONDS
        while True:
            for event in self._events:
                if event["ev"] == name and all(event[field] == value for field, value in fields.items()):
                    self._events.remove(event)
                    return event
            assert time.monotonic() < deadline, f"the agent never said {name}, only {self._events}"
            assert self._read(), f"the agent ended and never said {name}, only {self._events}"

    def _send(self, body: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(LENGTH.pack(len(body)) + body)
        while view:
            view = view[self.process.stdin.write(view) :]

    def _read(self) -> bool:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        if not select.select([descriptor], [], [], SECONDS)[0]:
            raise AssertionError("the agent says nothing")
        received = os.read(descriptor, 65536)
        self._unread += received
        while len(self._unread) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._unread)
            if len(self._unread) < LENGTH.size + length:
                break
            event = messages.loads(bytes(self._unread[LENGTH.size + 1 : LENGTH.size + length]))
            del self._unread[: LENGTH.size + length]
            if event["ev"] == "ask":
                question = str(event["name"]), bool(event["send"])
                self.asked.append(question)
                if self.modules is not None:
                    self.answer(*question)
                    continue
            self._events.append(event)
        return bool(received)
