"""The other machine: run by a bare interpreter, it is an agent's loop around a real responder, and forks workers.

Frames on standard input and output: u32 length, then ``M`` and a message, or ``P`` and a piece of an archive.
"""

from __future__ import annotations

import os
import sys
from struct import Struct

from _aioparallel_child import agent, failures, imports, messages, polling, questions  # noqa: F401 - as real agents, these have all that workers need
from _aioparallel_child.lean import pickle

LENGTH = Struct("<I")
PIECE = Struct("<32sQ")


class Outpost:
    def __init__(self, folder: str, host: str) -> None:
        self.folder, self.host = folder, host
        self.poll = polling.Poll()
        self.poll.watch(0, polling.IN, lambda event: self.read())
        self.responder = questions.Responder(folder, self.poll, self.ask)
        self.workers: dict[int, int] = {}
        self.unread = bytearray()
        self.serving = True

    def serve(self) -> None:
        while self.serving:
            self.poll.wait(5)
            self.reap()

    def read(self) -> None:
        received = os.read(0, 1 << 20)
        self.serving = bool(received)
        self.unread += received
        while len(self.unread) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.unread)
            if len(self.unread) < LENGTH.size + length:
                break
            body = bytes(self.unread[LENGTH.size : LENGTH.size + length])
            del self.unread[: LENGTH.size + length]
            self.take(body)

    def take(self, body: bytes) -> None:
        if body[:1] == b"P":
            digest, offset = PIECE.unpack_from(body, 1)
            self.responder.on_piece(digest.decode(), offset, body[1 + PIECE.size :])
            return
        message = messages.loads(body[1:])
        op = message.pop("op")
        if op == "answer":
            self.responder.on_answer(message)
        elif op == "forget":
            holders = self.responder.forget(message["names"].split())
            self.say(ev="forgotten", holders=" ".join(map(str, sorted(holders))))
        elif op == "run":
            self.fork(message["serial"], message["source"])

    def say(self, **message: str | int | None) -> None:
        text = b"M" + messages.dumps(message)
        os.write(1, LENGTH.pack(len(text)) + text)

    def ask(self, name: str, send: bool) -> None:
        self.say(ev="ask", name=name, send=int(send))

    def fork(self, serial: int, source: str) -> None:
        pid = os.fork()
        if pid:
            self.workers[pid] = serial
            self.say(ev="forked", serial=serial, pid=pid)
            return
        try:
            os.closerange(3, 100)
            imports.install(questions.Asker(self.folder, serial), self.host)
            scope: dict[str, object] = {"__name__": "__main__", "serial": serial, "folder": self.folder}
            try:
                exec(source, scope)
                outcome = True, scope.get("result")
            except BaseException as error:
                outcome = False, failures.pack(error)
            with open(f"{self.folder}/r{serial}", "wb") as file:
                file.write(pickle.dumps(outcome))
        finally:
            os._exit(0)

    def reap(self) -> None:
        while self.workers:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            serial = self.workers.pop(pid)
            self.responder.worker_gone(serial)
            self.say(ev="ended", serial=serial)


Outpost(*sys.argv[2:]).serve()
