"""Where a stuck call is: its Python stack, taken from outside just before it is killed, or while it goes on.

A signal makes the interpreter's own fault handler write the stack to a file, also while
C code holds the interpreter lock. The signal is one that programs hardly use.
"""

from __future__ import annotations

import faulthandler
import os
import time

from .lean import signal

SIGNAL = signal.SIGRTMAX - 5 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", 0)  # Windows has neither
SECONDS = 0.05
LONGEST = 20_000


def listen(page_path: str) -> None:
    """In a worker: be ready to tell."""
    descriptor = os.open(_path(page_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True)


def take(pid: int, page_path: str) -> str:
    """In the agent: the worker's stack, or nothing if it does not come soon."""
    path = _path(page_path)
    try:
        before = os.stat(path).st_size
        os.kill(pid, SIGNAL)
        written = _wait_for_more(path, before)
        with open(path, "rb") as file:
            file.seek(before)
            said = file.read(LONGEST) if written else b""
    except OSError:
        return ""
    lines = said.decode(errors="replace").splitlines()
    own = os.path.dirname(take.__code__.co_filename)  # on other machines there is no __file__
    return "\n".join(line for line in lines if own not in line and '"<string>", line 1 in <module>' not in line)


def forget(page_path: str) -> None:
    """Remove the file."""
    try:
        os.unlink(_path(page_path))
    except FileNotFoundError:
        pass


def _path(page_path: str) -> str:
    return page_path + ".stack"


def _wait_for_more(path: str, before: int) -> bool:
    """Wait until the file has grown, and stays as it is for a moment."""
    deadline = time.monotonic() + SECONDS
    size = before
    while time.monotonic() < deadline:
        time.sleep(0.001)
        size, last = os.stat(path).st_size, size
        if size > before and size == last:
            return True
    return size > before
