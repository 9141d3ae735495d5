"""What distributed functions of the tests do; here, where workers can import them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from aioparallel import current_call, distribute, parmap


@distribute(job="io", workers=8)
def score(x: int, y: int, verbose: bool = False) -> int:
    return -(x + y) if verbose else x + y


@distribute(job="io")
def pairs(*args: int) -> tuple[int, ...]:
    return args


@distribute(job="io")
def total(numbers: list[int]) -> list[int]:
    return numbers


@distribute(job="io")
def zipped(first: list[int], second: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(first, second, strict=True))


@distribute(job="io")
def powers(numbers: list[int], power: int, verbose: bool = True) -> tuple[list[int], int]:
    return numbers, power


@distribute(job="io", autobatch=False)
def by_hand(first: list[int], second: list[int]) -> int:
    return sum(a * b for a, b in zip(first, second, strict=True))


@distribute(job="io")
def optional(numbers: Optional[list[int]]) -> int:  # noqa: UP045
    return len(numbers or [])


@distribute(job="io")
def save(data: bytes, name: str, verbose: bool = True) -> tuple[bytes, str, bool]:
    return data, name, verbose


@distribute(job="web", workers=6)
def request(data: dict[str, int], url: str, api_key: str) -> tuple[int, str, str]:
    return data["n"], url, threading.current_thread().name


@distribute(job="web", workers=3)
async def request_async(data: dict[str, int], url: str) -> tuple[int, str]:
    await asyncio.sleep(0.001)
    return data["n"], url


@distribute
def anything(x):  # type: ignore[no-untyped-def]
    return x, os.getpid()


@distribute(job="io")
def matrix(rows: list[list[int]]) -> int:
    return len(rows)


@distribute(job="io")
def unordered(items: set[int]) -> set[int]:
    return items


@distribute(job="io")
def iterables(numbers: Iterable[int], power: int) -> tuple[list[int], int]:
    return list(numbers), power


class Service:
    def __init__(self, base: int) -> None:
        self.base = base

    @distribute(job="io")
    @classmethod
    def name_and(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @distribute(job="io")
    def add(self, x: int) -> int:
        return self.base + x


@distribute(job="compute", workers=2)
def where(x: int) -> tuple[int, int]:
    return x, os.getpid()


@distribute(job="io")
def fail(x: int) -> int:
    if x == 3:
        raise LookupError(x)
    return x


def who(_: Any) -> tuple[int, int, int]:
    """The process, the thread and the worker index."""
    time.sleep(0.01)
    return os.getpid(), threading.get_ident(), current_call().worker_index


def nested(n: int) -> list[tuple[int, int]]:
    """A map inside a worker: where each of its items ran, and where the map was made."""

    async def main() -> list[tuple[int, int]]:
        mine = os.getpid()
        return [(mine, pid) for pid in await parmap(lambda _: os.getpid(), range(n), workers=4)]

    return asyncio.run(main())
