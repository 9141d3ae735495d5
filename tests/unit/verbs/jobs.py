"""What the tests of the verbs have executors run: decorated functions, here where workers can import them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from aioparallel import SmartFuture, check_cancelled, current_call, parallelize
from tests.tools import Gate, hold


@parallelize
def add(a: Any, b: Any = 2) -> Any:
    """Add two things."""
    return a + b


@parallelize
async def add_async(a: Any, b: Any = 2) -> Any:
    await asyncio.sleep(0)
    return a + b


@parallelize(method="process")
def add_in_process(a: Any, b: Any = 2) -> Any:
    return a + b


@parallelize
def hold_in_thread(gate: Gate, value: Any = None) -> Any:
    return hold(gate, value)


@parallelize
def fail(message: str) -> None:
    raise LookupError(message)


@parallelize(method="process")
def where_in_process() -> int:
    return os.getpid()


@parallelize
def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@parallelize
async def where_async() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@parallelize
def count_in_thread(n: int) -> Iterator[int]:
    yield from range(n)


@parallelize
def look_around() -> Iterator[Any]:
    yield current_call().name
    yield add(1, 2).result(10)


@parallelize
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@parallelize(method="process")
def count_in_process(n: int) -> Iterator[int]:
    for i in range(n):
        yield os.getpid() if i == 0 else i


@parallelize
def down_in_threads(n: int) -> list[bool]:
    """Whether each of n nested calls in threads had ended when it was made."""
    if n == 0:
        return []
    inner = down_in_threads(n - 1)
    return [inner.done(), *inner.result(10)]


@parallelize
async def down_in_coroutines(n: int) -> int:
    return 0 if n == 0 else 1 + await down_in_coroutines(n - 1)


@parallelize(method="process")
def down_in_processes(n: int) -> list[tuple[int, bool]]:
    """The process of each of n nested calls, and whether it had ended when it was made."""
    if n == 0:
        return []
    inner = down_in_processes(n - 1)
    return [(os.getpid(), inner.done()), *inner.result(10)]


@parallelize
def from_thread_to_coroutine(n: int) -> Any:
    return down_in_coroutines(n).result(10)


@parallelize
async def from_coroutine_to_thread_and_back(n: int) -> Any:
    return await from_thread_to_coroutine(n)


@parallelize
def from_thread_to_process() -> int:
    return where_in_process().result(10)


@parallelize
async def from_coroutine_to_process() -> int:
    return await where_in_process()


@parallelize(method="process")
def all_kinds_from_process() -> tuple[list[int], bool]:
    """The processes in which calls of three kinds ran, and whether all had ended when they were made."""
    calls: list[SmartFuture[Any]] = [where(), where_async(), where_in_process()]
    pids = [result if isinstance(result, int) else result[0] for result in (call.result(10) for call in calls)]
    return pids, all(call.done() for call in calls)


@parallelize(method="process")
async def all_kinds_from_loop_in_process() -> list[int]:
    values = await asyncio.gather(where(), where_async(), where_in_process())
    return [value if isinstance(value, int) else value[0] for value in values]


@parallelize(method="process")
async def add_up_in_process() -> Any:
    """Calls in a worker take futures as arguments, those of coroutines that are still to run included."""
    return await add_in_process([add_async(1)], [add_in_process(add_async(2))])


@parallelize(method="process")
async def stream_in_process(n: int) -> tuple[list[int], list[int]]:
    return [i async for i in count(n)], [i async for i in count_in_thread(n)]


@parallelize(method="process")
def fail_inside(message: str) -> str:
    future = fail(message)
    return f"{future.done()} {type(future.exception()).__name__} {future.exception()}"


@parallelize(method="process")
def recurse_in_process(n: int) -> int:
    """As a mistake: a call that waits for a call of its own kind, on every level."""
    return n if n == 0 else recurse_in_process(n - 1).result(10) + 1


@parallelize(method="process")
def describe_call() -> tuple[str, int, int, str | None]:
    call = current_call()
    return call.name, call.attempt, call.worker_index, call.host


@parallelize
def describe_call_in_thread() -> tuple[int, str, int, int]:
    check_cancelled()
    call = current_call()
    return call.id, call.name, call.attempt, call.worker_index


@parallelize
async def describe_call_in_coroutine() -> tuple[int, str, int, int]:
    call = await asyncio.create_task(_later(current_call))
    return call.id, call.name, call.attempt, call.worker_index


async def _later(fn: Any) -> Any:
    return fn()


class Base:
    """Has methods of all kinds, in both orders of decorators."""

    def __init__(self, k: int = 3) -> None:
        self.k = k

    @parallelize
    def times(self, x: int) -> int:
        """Multiply."""
        return self.k * x

    @parallelize
    async def times_async(self, x: int) -> int:
        return self.k * x

    @parallelize(method="process")
    def times_in_process(self, x: int) -> int:
        return self.k * x

    @parallelize(method="process")
    @classmethod
    def named(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @classmethod
    @parallelize(method="process")
    def named_too(cls, x: int) -> tuple[str, int]:
        return cls.__name__, x

    @parallelize(method="process")
    @staticmethod
    def alone(x: int) -> int:
        return x

    @staticmethod
    @parallelize(method="process")
    def alone_too(x: int) -> int:
        return x

    def call_from_inside(self, x: int) -> SmartFuture[int]:
        return self.times(x)


class Derived(Base):
    """Calls the method that it overrides."""

    @parallelize
    def times(self, x: int) -> int:
        return super().times.local(x) + 1


class Scaler:
    """A callable object, whose attributes have the names of ours."""

    def __init__(self) -> None:
        self.options = 3
        self.local = "here"

    def __call__(self, x: int) -> int:
        return self.options * x


class AsyncScaler:
    """The same with an async ``__call__``."""

    async def __call__(self, x: int) -> int:
        await asyncio.sleep(0)
        return 3 * x


def plain(x: int) -> int:
    return x + 1


async def plain_async(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1
