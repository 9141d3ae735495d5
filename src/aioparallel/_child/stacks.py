"""Where a stuck call is: its Python stack, taken from outside just before it is killed, or while it goes on.

A signal makes the interpreter's own fault handler write the stack to a file, also while
C code holds the interpreter lock. The signal is one that programs hardly use.

The stack of an event loop that waits says nothing of the coroutines that wait in it. Where there is a loop, these are
written after it, by Python itself, which is able to: a loop that waits holds no lock.
"""

from __future__ import annotations

import faulthandler
import os
import time

from .lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

SIGNAL = signal.SIGRTMAX - 5 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", 0)  # Windows has neither
SECONDS = 0.05
LONGEST = 20_000
LOOP = b" in _run_once\n"
"""What the stack of an event loop holds, however it is called."""
TASKS = b"What waits:\n"

_descriptor: int | None = None


def listen(page_path: str) -> None:
    """In a worker: be ready to tell."""
    global _descriptor
    signal.signal(SIGNAL, signal.SIG_IGN)  # what is in force for a moment when tasks are added
    _descriptor = os.open(_path(page_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    faulthandler.register(SIGNAL, file=_descriptor, all_threads=True)


def add_tasks(tasks: Callable[[], list[Any]]) -> None:
    """In the main thread of a worker that listens: from now on tell of these tasks as well."""
    if _descriptor is None:
        return
    descriptor = _descriptor
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, lambda number, frame: _write(descriptor, tasks))
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=True)


def frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, and of the coroutines and generators that it waits for."""
    while awaited is not None:
        frame = _first_of(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            yield frame
        awaited = _first_of(awaited, "cr_await", "gi_yieldfrom", "ag_await")


def take(pid: int, page_path: str) -> str:
    """In the agent: the worker's stack, or nothing if it does not come soon."""
    path = _path(page_path)
    try:
        before = os.stat(path).st_size
        os.kill(pid, SIGNAL)
        said = _wait_for_more(path, before)
    except OSError:
        return ""
    lines = said.replace(TASKS, b"").decode(errors="replace").rstrip("\n").splitlines()
    own = os.path.dirname(take.__code__.co_filename)  # on other machines there is no __file__
    return "\n".join(line for line in lines if own not in line and not _is_boot(line))


def forget(page_path: str) -> None:
    """Remove the file."""
    try:
        os.unlink(_path(page_path))
    except FileNotFoundError:
        pass


def _first_of(awaited: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(awaited, name, None)) is not None), None)


def _path(page_path: str) -> str:
    return page_path + ".stack"


def _wait_for_more(path: str, before: int) -> bytes:
    """What is written after this, when it stays as it is for a moment, and there are tasks if there is a loop."""
    deadline = time.monotonic() + SECONDS
    said = b""
    while time.monotonic() < deadline:
        time.sleep(0.001)
        last, said = said, _read(path, before)
        if said and said == last and (LOOP not in said or TASKS in said):
            break
    return said


def _read(path: str, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(LONGEST)


def _is_boot(line: str) -> bool:
    """Whether this is what an agent was started with, by ``python -c``."""
    return '"<string>", line ' in line and line.endswith(" in <module>")


def _write(descriptor: int, tasks: Callable[[], list[Any]]) -> None:
    """Write where tasks wait, as the fault handler shows threads; whoever is interrupted for it must not suffer."""
    try:
        said = ["", TASKS.decode().rstrip()]
        for task in tasks():
            where = [
                f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
                for frame in frames(task.get_coro())
            ]
            said += [f"Task {task.get_name()!r} (most recent call first):", *reversed(where), ""]
        os.write(descriptor, "\n".join([*said, ""]).encode(errors="replace"))
    except Exception:  # a full disk, or tasks that come and go in another thread
        pass
