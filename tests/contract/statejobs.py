"""States for the workers of a StatefulPool."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Self

from aioparallel import current_call
from tests.tools import Gate, Log, hold


class Model:
    """Says where it was built, and what with."""

    def __init__(self, log: Log | None = None, base: int = 0, gpu: int | None = None) -> None:
        self.log = log
        self.base = base
        self.gpu = gpu
        self.born = os.getpid(), threading.get_ident()
        self.calls = 0
        if log is not None:
            log.write(f"built {gpu}")

    def __call__(self, x: int = 0, y: int = 0) -> dict[str, Any]:
        self.calls += 1
        return {
            "value": self.base + x + y,
            "gpu": self.gpu,
            "index": current_call().worker_index,
            "born": self.born,
            "here": (os.getpid(), threading.get_ident()),
            "calls": self.calls,
        }

    def close(self) -> None:
        if self.log is not None:
            self.log.write(f"closed {self.gpu}")


class Entered:
    """A context manager."""

    def __init__(self, log: Log) -> None:
        self.log = log
        log.write("built")

    def __enter__(self) -> Self:
        self.log.write("entered")
        return self

    def __call__(self, x: int) -> int:
        return x

    def __exit__(self, *error: object) -> None:
        self.log.write("left")


class ClosedLater:
    """Has only an asynchronous way to close."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __call__(self, x: int) -> int:
        return x

    async def aclose(self) -> None:
        self.log.write("closed")


class CannotClose:
    """Fails when it is closed."""

    def __call__(self, x: int) -> int:
        return x

    def close(self) -> None:
        raise LookupError("will not go")


class Broken:
    """Cannot be built for one of the workers."""

    def __init__(self, gpu: int = 0, bad: int = 0) -> None:
        if gpu == bad:
            raise LookupError(f"there is no GPU {gpu}")

    def __call__(self, x: int) -> int:
        return x


class FailsOnOne:
    """Works on all workers but one, where it fails at once; elsewhere it takes its time."""

    def __init__(self, gpu: int) -> None:
        self.gpu = gpu

    def __call__(self, x: int) -> int:
        if self.gpu == 0:
            raise LookupError("this GPU is broken")
        time.sleep(0.005)
        return x


class Mortal:
    """Dies of one item, and says which generation it is of."""

    def __init__(self, log: Log, gpu: int) -> None:
        self.gpu = gpu
        log.write(f"built {gpu}")

    def __call__(self, x: int) -> tuple[int, int]:
        if x == 3:
            os._exit(9)
        return x, self.gpu


class NeverAsked:
    """An exception whose ``__init__`` wants more than its text."""

    class HardError(Exception):
        def __init__(self, code: int, text: str) -> None:
            super().__init__(f"{code}: {text}")

    def __call__(self, x: int) -> int:
        raise self.HardError(x, "hard")


class Exits:
    def __call__(self, x: int) -> int:
        if x == 2:
            sys.exit(3)
        return x


class Waits:
    """Waits at a gate with one item."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(self, x: int) -> int:
        return hold(self.gate, x) if x == 0 else x


class Locks:
    """Returns what cannot be pickled, for one item."""

    def __call__(self, x: int) -> Any:
        return threading.Lock() if x == 1 else x


def make_adder(base: int) -> Any:
    """A factory that is a function."""
    return lambda x: base + x


def double(x: int) -> int:
    return 2 * x


async def double_async(x: int) -> int:
    return 2 * x


class AsyncModel:
    async def __call__(self, x: int) -> int:
        return 2 * x
