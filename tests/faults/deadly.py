"""What kills workers, and what notes that it ran: here because workers import it, which takes long of a test module."""

from __future__ import annotations

import ctypes
import os
import time

from tests.tools import Log


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def segfault() -> None:
    ctypes.string_at(0)


def exit_hard(code: int) -> None:
    os._exit(code)


def close_everything() -> None:
    """Cut off the connection to the program, as careless daemons do."""
    os.closerange(3, 256)
    time.sleep(60)


def say_and_die(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)
    os.write(2, b"the last word, without an end")
    os._exit(3)


def begin_and_die(log: Log) -> None:
    log.write(os.getpid())
    os._exit(1)


def big_result(log: Log, size: int) -> bytearray:
    log.write(os.getpid())
    return bytearray(size)


def die_once(log: Log) -> int:
    log.write(os.getpid())
    if len(log.lines) == 1:
        os._exit(1)
    return len(log.lines)


def tick(log: Log, name: int) -> int:
    log.write(name)
    return name


def tick_and_die(log: Log, name: int) -> None:
    log.write(name)
    os._exit(1)
