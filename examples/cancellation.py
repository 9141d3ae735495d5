"""All the ways in which a call ends early, and what is left of it: nothing."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from aioparallel import CallCancelledError, ProcessExecutor, SmartFuture, TaskTimeoutError


def work(folder: str, name: str) -> None:
    """Say who works, and take long."""
    Path(folder, name).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(60)


def pid_of(folder: str, name: str) -> int:
    """The process that does this work; 0 if that has not begun."""
    path = Path(folder, name)
    return int(path.read_text(encoding="ascii") or 0) if path.exists() else 0


def is_running(folder: str, name: str) -> bool:
    """Whether the process that did this work is there."""
    try:
        pid = pid_of(folder, name)
        return bool(pid) and os.kill(pid, 0) is None
    except ProcessLookupError:
        return False


def wait_until_begun(folder: str, name: str) -> None:
    while not pid_of(folder, name):
        time.sleep(0.01)


async def main() -> None:
    with TemporaryDirectory() as folder:
        async with ProcessExecutor(2) as pool:
            call = pool.submit(work, folder, "cancelled")
            await asyncio.to_thread(wait_until_begun, folder, "cancelled")
            call.cancel()
            try:
                await call
            except CallCancelledError as error:
                print(f"{error}; running: {is_running(folder, 'cancelled')}")

            try:
                await pool.options(timeout=0.2).submit(work, folder, "late")
            except TaskTimeoutError as error:
                print(f"timed out after {error.timeout} s; running: {is_running(folder, 'late')}")

            call = pool.submit(work, folder, "shared")
            await asyncio.to_thread(wait_until_begun, folder, "shared")
            first, second = asyncio.ensure_future(wait(call)), asyncio.ensure_future(wait(call))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            print(f"one of two awaiters is gone; running: {is_running(folder, 'shared')}")
            second.cancel()
            await asyncio.wait([second])
            print(f"both are gone; running: {is_running(folder, 'shared')}")


async def wait(call: SmartFuture[None]) -> None:
    await call


asyncio.run(main())
