"""What contract tests have executors run: plain functions, here where workers can import them.

They import no asyncio where they need none: it takes longer to import than most tests to run.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

from tests.tools import Gate, Log

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="none")


class JobError(Exception):
    """An exception with more than a message."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code


class Adder:
    """An object that is called, and whose method is."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x

    def add(self, x: int) -> int:
        return self.base + x


def add(x: Any, y: Any) -> Any:
    return x + y


def same(value: Any = None) -> Any:
    return value


async def add_async(x: Any, y: Any) -> Any:
    import asyncio

    await asyncio.sleep(0)
    return x + y


def describe(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def write(log: Log, line: object) -> object:
    log.write(line)
    return line


def fail(message: str = "no luck", code: int = 7) -> NoReturn:
    raise JobError(message, code)


def kill_me() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it survived")


async def fail_async() -> NoReturn:
    import asyncio

    await asyncio.sleep(0)
    raise JobError("no luck", 7)


def raise_(error: BaseException) -> NoReturn:
    raise error


def fail_with_note() -> NoReturn:
    error = ValueError("no luck")
    error.add_note("it was a Monday")
    raise error


def stop_iteration() -> NoReturn:
    raise StopIteration("not here")


def exit_with(code: Any) -> NoReturn:
    sys.exit(code)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def fail_until(log: Log, attempt: int, error: type[Exception] = OSError) -> int:
    """Fail, and succeed at this attempt."""
    log.write(os.getpid())
    if len(log.lines) < attempt:
        raise error(f"attempt {len(log.lines)}")
    return len(log.lines)


def request() -> str:
    return REQUEST.get()


def set_request(value: str) -> str:
    REQUEST.set(value)
    return REQUEST.get()


def count_to(n: int) -> Iterator[int]:
    yield from range(n)


async def count_to_async(n: int) -> AsyncIterator[int]:
    import asyncio

    for i in range(n):
        await asyncio.sleep(0)
        yield i


def count_and_fail(n: int) -> Iterator[int]:
    yield from range(n)
    raise JobError("no luck", n)


def count_at_gates(log: Log, gates: list[Gate]) -> Iterator[int]:
    """Make an item after each gate, write down what happened, and how it ended."""
    from tests.tools import hold

    try:
        for number, gate in enumerate(gates):
            hold(gate)
            log.write(number)
            yield number
    finally:
        log.write("closed")


def endless(log: Log) -> Iterator[int]:
    """Make items for ever, 6 milliseconds each, and write down how many, and the end."""
    import time

    number = 0
    try:
        while True:
            time.sleep(0.006)
            log.write(number)
            yield number
            number += 1
    finally:
        log.write("closed")


async def endless_async(log: Log) -> AsyncIterator[int]:
    import asyncio

    number = 0
    try:
        while True:
            await asyncio.sleep(0.006)
            log.write(number)
            yield number
            number += 1
    finally:
        log.write("closed")
