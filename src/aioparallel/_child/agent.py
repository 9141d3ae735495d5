"""The host agent: a small, single-threaded parent of a pool's workers on one machine.

It never runs the user's code. It forks workers on request, reaps them, kills exactly the
one call it is told to, forwards what workers write, and ends everything when its lifeline,
standard input, closes: then the executor is gone, however it went.

Each is a frame: u32 length, then a message (see :mod:`.messages`), which on the way out has
an ``M`` before it, or ``O``, the worker's serial number, the stream and raw output. In: ``open``, ``fork``, ``kill``.
Out: ``ready``, ``forked``, ``spared``, ``gone``.
"""

from __future__ import annotations

import os
import select
import sys
import time
from struct import Struct

from . import messages, stacks, tree, worker
from .lean import signal
from .page import Page, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MESSAGE = Struct("<I")
OUTPUT = Struct("<cIB")
MAX_MESSAGE = 1 << 24
MAX_UNSENT = 1 << 20
"""Bytes of output that wait for the executor; beyond that, workers wait in their ``write``."""
STOP_SECONDS = 0.1
DRAIN_SECONDS = 0.2
END_SECONDS = 2.0
"""So long the agent waits until all that it killed has ended."""


class Child:
    """A worker as its parent sees it."""

    def __init__(self, serial: int, pid: int, mark: str, page_path: str, outputs: list[int]) -> None:
        self.serial = serial
        self.pid = pid
        self.mark = mark
        self.page_path = page_path
        self.page = Page(page_path)
        self.stack = ""
        self.outputs = outputs
        self.end: dict[str, Any] | None = None
        self.ended_at = 0.0


class Agent:
    """Serves one executor over standard input and output."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.folder = ""
        self.children: dict[int, Child] = {}
        self.by_output: dict[int, tuple[Child, int]] = {}
        self.unread = bytearray()
        self.unsent = bytearray()
        self.poll = select.poll()
        self.poll.register(source, select.POLLIN)
        self.wakeup, wake = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wake, False)
        os.set_blocking(sink, False)
        self.poll.register(self.wakeup, select.POLLIN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> NoReturn:
        """Work until the lifeline closes; then leave nothing behind."""
        try:
            while self._step():
                pass
        finally:
            self._end_everything()
            os._exit(0)

    def _step(self) -> bool:
        for descriptor, event in self.poll.poll(self._patience()):
            if descriptor == self.source:
                if not self._read_messages():
                    return False
            elif descriptor == self.wakeup:
                os.read(self.wakeup, 4096)
                self._reap()
            elif descriptor == self.sink:
                self._flush()
                if event & (select.POLLERR | select.POLLHUP):
                    return False
            elif descriptor in self.by_output:
                self._forward(descriptor)
        self._announce_ends()
        return True

    def _patience(self) -> float | None:
        """Milliseconds until a dead worker is announced although its output stays open."""
        ends = [child.ended_at for child in self.children.values() if child.end is not None]
        return max(1.0, (min(ends) + DRAIN_SECONDS - time.monotonic()) * 1000) if ends else None

    # Messages

    def _read_messages(self) -> bool:
        received = os.read(self.source, 65536)
        if not received:
            return False
        self.unread += received
        while len(self.unread) >= MESSAGE.size:
            (length,) = MESSAGE.unpack_from(self.unread)
            if length > MAX_MESSAGE:
                return False
            if len(self.unread) < MESSAGE.size + length:
                break
            message = messages.loads(bytes(self.unread[MESSAGE.size : MESSAGE.size + length]))
            del self.unread[: MESSAGE.size + length]
            getattr(self, f"_on_{message['op']}")(message)
        return True

    def _say(self, **message: Any) -> None:
        self._queue(b"M" + messages.dumps(message))

    def _queue(self, body: bytes) -> None:
        self.unsent += MESSAGE.pack(len(body)) + body
        self._flush()

    def _flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: os.write(self.sink, self.unsent)]
        except BlockingIOError:
            self.poll.register(self.sink, select.POLLOUT)
        except OSError:
            self.unsent.clear()  # the executor is gone; the lifeline says so too
        else:
            try:
                self.poll.unregister(self.sink)
            except KeyError:
                pass
        self._listen_to_outputs()

    def _listen_to_outputs(self) -> None:
        """While the executor does not keep up, let those who write wait."""
        wanted = select.POLLIN if len(self.unsent) < MAX_UNSENT else 0
        for descriptor in self.by_output:
            self.poll.register(descriptor, wanted)

    def _on_open(self, message: dict[str, Any]) -> None:
        self.folder = message["folder"]
        tree.adopt_orphans()
        self._say(ev="ready", pid=os.getpid(), version=sys.version.partition(" ")[0])

    # Workers

    def _on_fork(self, message: dict[str, Any]) -> None:
        serial, index = message["serial"], message["index"]
        page_path = os.path.join(self.folder, f"p{serial}")
        pipes: list[int] = []
        parent = os.getpid()
        try:
            create(page_path)
            pipes += os.pipe()
            pipes += os.pipe()
            pid = os.fork()
        except OSError as error:  # of memory, processes, files or room on the disk there is no more
            self._cannot_fork(serial, pipes, error)
            return
        out_read, out_write, err_read, err_write = pipes
        if not pid:
            self._become_worker(message, index, page_path, parent, out_write, err_write)
        os.close(out_write)
        os.close(err_write)
        child = self.children[pid] = Child(serial, pid, message["token"], page_path, [out_read, err_read])
        for stream, descriptor in enumerate(child.outputs, start=1):
            os.set_blocking(descriptor, False)
            self.by_output[descriptor] = (child, stream)
            self.poll.register(descriptor, select.POLLIN)
        self._say(ev="forked", serial=serial, pid=pid)

    def _cannot_fork(self, serial: int, pipes: list[int], error: OSError) -> None:
        for descriptor in pipes:
            os.close(descriptor)
        self._queue(OUTPUT.pack(b"O", serial, 2) + f"the host agent cannot start a worker: {error}\n".encode())
        self._say(ev="gone", serial=serial, pid=None, signal=None, exitcode=None, max_rss=None, stack="", oom=None)

    def _become_worker(
        self, message: dict[str, Any], index: int, page_path: str, parent: int, out: int, err: int
    ) -> NoReturn:
        """In the new process: leave the agent behind, and be a worker until the end."""
        code = 1
        try:
            os.setsid()
            tree.die_with_parent(parent)
            _reset_signals()
            _redirect(out, err)
            os.environ.update(entry.split("=", 1) for entry in message["env"].split("\0") if entry)
            os.environ[tree.MARK] = message["token"]
            worker.main(os.path.join(self.folder, "s"), page_path, bytes.fromhex(message["token"]), index)
            code = 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            _leave(code)

    def _on_kill(self, message: dict[str, Any]) -> None:
        """Kill a worker; if a call is named, only while it runs that very call."""
        child = next((child for child in self.children.values() if child.serial == message["serial"]), None)
        if child is None or child.end is not None:
            return
        number = message["call"]
        if message["stack"]:
            child.stack = stacks.take(child.pid, child.page_path)
        if number is None or self._stop_and_look(child) == number:
            tree.kill(child.pid, child.mark)
        elif child.end is None:
            child.stack = ""
            os.kill(child.pid, signal.SIGCONT)
            self._say(ev="spared", serial=child.serial, call=number)

    def _stop_and_look(self, child: Child) -> int:
        """Which call the worker runs, with the worker stopped, so that it stays true."""
        os.kill(child.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            pid, status, usage = os.wait4(child.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                break
            if pid:
                self._ended(child, status, usage)
                return 0
            time.sleep(0.0002)
        return child.page.running()[0]

    # Ends

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.get(pid)
            if child is not None:
                self._ended(child, status, usage)

    def _ended(self, child: Child, status: int, usage: Any) -> None:
        tree.sweep(child.pid, child.mark)
        killed = os.WIFSIGNALED(status)
        child.ended_at = time.monotonic()
        child.end = {
            "serial": child.serial,
            "pid": child.pid,
            "signal": _signal_name(os.WTERMSIG(status)) if killed else None,
            "exitcode": None if killed else os.WEXITSTATUS(status),
            "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "stack": child.stack,
            "oom": tree.out_of_memory() if killed else None,
        }

    def _announce_ends(self) -> None:
        """Say that a worker is gone: when its output has ended, or a little later."""
        for child in [child for child in self.children.values() if child.end is not None]:
            if not child.outputs or time.monotonic() - child.ended_at >= DRAIN_SECONDS:
                for descriptor in list(child.outputs):
                    self._close_output(descriptor)
                del self.children[child.pid]
                child.page.close()
                stacks.forget(child.page_path)
                assert child.end is not None, "that is what was asked"
                self._say(ev="gone", **child.end)

    def _forward(self, descriptor: int) -> None:
        child, stream = self.by_output[descriptor]
        try:
            written = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        if written:
            self._queue(OUTPUT.pack(b"O", child.serial, stream) + written)
        else:
            self._close_output(descriptor)

    def _close_output(self, descriptor: int) -> None:
        child, _ = self.by_output.pop(descriptor)
        child.outputs.remove(descriptor)
        self.poll.unregister(descriptor)
        os.close(descriptor)

    def _end_everything(self) -> None:
        for child in list(self.children.values()):
            if child.end is None:
                tree.kill(child.pid, child.mark)
        _kill_all()
        if self.folder:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)


def _kill_all() -> None:
    """Kill what is left, and what that starts meanwhile, until nothing is."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        tree.kill_orphans()
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.0005)
        except ChildProcessError:
            return


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _redirect(out: int, err: int) -> None:
    """Give the worker its own standard streams, and close everything that is the agent's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 4096)
    sys.stdin, sys.stdout, sys.stderr = _text(0, "r"), _text(1, "w"), _text(2, "w")
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


def _text(descriptor: int, mode: str) -> Any:
    """A standard stream, by lines."""
    return open(descriptor, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _leave(code: int) -> NoReturn:
    """End the process the way an interpreter ends, as far as that is safe after a fork."""
    try:
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main() -> NoReturn:
    """Serve on what were standard input and output, and leave those to nobody."""
    source, sink = os.dup(0), os.dup(1)
    os.set_inheritable(source, False)
    os.set_inheritable(sink, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    Agent(source, sink).serve()
