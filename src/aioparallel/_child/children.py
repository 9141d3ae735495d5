"""The agent's children: workers, from the fork to the end."""

from __future__ import annotations

import os
import sys
import time

from . import mux, stacks, tree, worker
from .lean import signal
from .looking import Watch
from .page import Page, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .carrying import Carried

STOP_SECONDS = 0.1


class Child:
    """A worker as its parent sees it.

    Attributes:
        outputs: The descriptors of its standard output and error, as long as they are open, and what they are.
        link: Its end of the worker's link, where the agent carries that.
        end: What is known of its end, once it has ended.
    """

    def __init__(self, serial: int, pid: int, mark: str, page_path: str, page: Page, out: int, err: int) -> None:
        self.serial = serial
        self.pid = pid
        self.mark = mark
        self.page_path = page_path
        self.page = page
        self.watch = Watch(self.page)
        self.outputs = {out: mux.OUT, err: mux.ERR}
        self.link: Carried | None = None
        self.stack = ""
        self.too_large: str | None = None
        self.end: dict[str, Any] | None = None
        self.ended_at = 0.0

    def kill(self, number: int | None, stack: bool) -> bool:
        """Kill the worker and all that it started; if a call is named, only while it runs that very call.

        Returns:
            Whether it was spared.
        """
        if self.end is not None:
            return False
        if stack:
            self.stack = stacks.take(self.pid, self.page_path)
        if number is None or self._stop_and_look() == number:
            tree.kill(self.pid, self.mark)
            return False
        if self.end is None:
            self.stack = ""
            os.kill(self.pid, signal.SIGCONT)
            return True
        return False

    def _stop_and_look(self) -> int:
        """Which call the worker runs, with the worker stopped, so that it stays true."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            pid, status, usage = os.wait4(self.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                break
            if pid:
                self.ended(status, usage)
                return 0
            time.sleep(0.0002)
        return self.page.running()[0]

    def ended(self, status: int, usage: Any) -> None:
        """It was reaped."""
        tree.sweep(self.pid, self.mark)
        killed = os.WIFSIGNALED(status)
        self.ended_at = time.monotonic()
        self.end = {
            "serial": self.serial,
            "pid": self.pid,
            "signal": _signal_name(os.WTERMSIG(status)) if killed else None,
            "exitcode": None if killed else os.WEXITSTATUS(status),
            "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "stack": self.stack,
            "oom": self.too_large or (tree.out_of_memory() if killed else None),
        }

    def notes(self) -> bytes:
        """What the items of the chunk that it ran had returned, as it lies on the page."""
        return self.page.notes.raw()

    def close(self) -> None:
        """Let go of what it had; its outputs are closed already."""
        if self.link is not None:
            self.link.close()
            self.link = None
        self.page.close()
        stacks.forget(self.page_path)


def fork(message: dict[str, Any], folder: str) -> Child:
    """Fork a worker.

    Raises:
        OSError: There is no more memory, or there are too many processes or files, or no room on the disk.
    """
    serial, parent = message["serial"], os.getpid()
    page_path = os.path.join(folder, f"p{serial}")
    page, pipes = _new_page(page_path), list[int]()
    try:  # all that may fail comes before the fork: a worker that nobody knows of would never end
        pipes += os.pipe()
        pipes += os.pipe()
        pid = os.fork()
    except OSError:
        for descriptor in pipes:
            os.close(descriptor)
        page.close()
        os.unlink(page_path)
        raise
    out_read, out_write, err_read, err_write = pipes
    if not pid:
        _become_worker(message, folder, page_path, parent, out_write, err_write)
    os.close(out_write)
    os.close(err_write)
    for descriptor in (out_read, err_read):
        os.set_blocking(descriptor, False)
    return Child(serial, pid, message["token"], page_path, page, out_read, err_read)


def _new_page(path: str) -> Page:
    create(path)
    try:
        return Page(path)
    except OSError:
        os.unlink(path)
        raise


def _become_worker(message: dict[str, Any], folder: str, page_path: str, parent: int, out: int, err: int) -> NoReturn:
    """In the new process: leave the agent behind, and be a worker until the end."""
    code = 1
    try:
        os.setsid()
        tree.die_with_parent(parent)
        _reset_signals()
        _redirect(out, err)
        os.environ.update(entry.split("=", 1) for entry in message["env"].split("\0") if entry)
        os.environ[tree.MARK] = message["token"]
        worker.main(folder, page_path, bytes.fromhex(message["token"]), message["index"], message["serial"])
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        _leave(code)


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
