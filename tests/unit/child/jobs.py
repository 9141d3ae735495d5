"""What workers of a real agent are told to do; it imports nothing that a worker need not have."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]


def echo(*args: object) -> object:
    return args


def sleep() -> None:
    os.write(1, b"begun\n")
    time.sleep(300)


def hold_the_lock() -> None:
    """Keep the interpreter's lock in C code for a minute or so."""
    os.write(1, b"begun\n")
    sum(range(10**10))


async def wait_for_others() -> None:
    """Wait, some calls further down, for a task of one's own."""
    import asyncio

    task = asyncio.create_task(asyncio.sleep(300), name="other")
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(os.write, 1, b"begun\n")  # when all wait

    async def pass_on() -> None:
        await task

    await pass_on()


async def block_the_loop() -> None:
    os.write(1, b"begun\n")
    time.sleep(300)


def leave(code: int) -> None:
    os._exit(code)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def write(out: str, err: str = "") -> None:
    sys.stdout.write(out)
    sys.stderr.write(err)


def write_directly(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode())


def write_and_die(text: str) -> None:
    os.write(1, text.encode())
    os._exit(3)


def have(megabytes: int) -> int:
    return len(bytearray(os.urandom(1024) * 1024 * megabytes))


def have_for_long(megabytes: int) -> None:
    kept = have(megabytes), os.urandom(1024) * 1024 * megabytes
    time.sleep(300)
    del kept


def connect_as_somebody_else() -> bytes:
    """Connect to where this worker has connected to, with a token that nobody knows; returns what comes back."""
    with open("/proc/net/unix", encoding="ascii") as file:
        paths = [line.split()[-1] for line in file if line.rstrip().endswith("/s") and "aioparallel" in line]
    found = b""
    for path in paths:
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.connect(path)
            connection.sendall(b"x" * 32)
            found += connection.recv(1)
    return found


def start_others() -> list[int]:
    """A child, and one in a session of its own."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return [subprocess.Popen(SLEEP, start_new_session=new, **quiet).pid for new in (False, True)]  # type: ignore[call-overload]


def start_one_that_keeps_the_output() -> int:
    return subprocess.Popen(SLEEP, start_new_session=True).pid


def open_files() -> list[str]:
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def surroundings() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "group": os.getpgrp(),
        "parent": os.getppid(),
        "files": open_files(),
        "env": dict(os.environ),
        "sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "modules": sorted(sys.modules),
        "threads": len(os.listdir("/proc/self/task")),
    }
