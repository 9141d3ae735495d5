"""What the calls of the campaign do. Workers and hosts import this: it needs nothing but the standard library."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any


def begin(folder: str, number: int) -> None:
    """Count, in a file of its own, that this call was begun."""
    descriptor = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)


def work(folder: str, number: int, seconds: float) -> int:
    begin(folder, number)
    time.sleep(seconds)
    return number


async def work_async(folder: str, number: int, seconds: float) -> int:
    begin(folder, number)
    await asyncio.sleep(seconds)
    return number


def echo(folder: str, number: int, data: bytes) -> tuple[int, int]:
    begin(folder, number)
    return number, len(data)


def fail(folder: str, number: int) -> None:
    begin(folder, number)
    raise ValueError(number)


def quit_(folder: str, number: int) -> None:
    begin(folder, number)
    sys.exit(3)


def die(folder: str, number: int) -> None:
    """Poison: kills whichever process runs it."""
    begin(folder, number)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(folder: str, number: int) -> None:
    begin(folder, number)
    time.sleep(600)


def straggle(folder: str, number: int) -> int:
    """One in ten takes long."""
    begin(folder, number)
    time.sleep(1.5 if os.urandom(1)[0] < 25 else 0.01)
    return number


def unpicklable_result(folder: str, number: int) -> Any:
    begin(folder, number)
    return threading.Lock()
