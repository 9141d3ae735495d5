"""What type checkers make of the public API. This is checked by mypy and by pyright, and never run.

A line that must be refused carries a ``type: ignore``; both checkers complain of one that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

from aioparallel import (
    CurrentCall,
    Method,
    Outcome,
    Parallel,
    PoolStatus,
    ProcessExecutor,
    Retry,
    SmartFuture,
    Stream,
    aclose,
    check_cancelled,
    configure,
    current_call,
    later,
    parallelize,
    wait_all,
    wait_any,
)
from aioparallel.testing.fixtures import Faults

# Functions


@parallelize
def crunch(a: int, b: int = 2, *, scale: float = 1.0) -> str:
    return str(a * b * scale)


@parallelize()
def nothing() -> None: ...


@parallelize(method=Method.PROCESS, timeout=60, retry=Retry(3), idempotent=True, priority=1, name="simulation")
def simulate(seed: int) -> list[float]:
    return [seed / 2]


@parallelize
async def fetch(url: str) -> bytes:
    return url.encode()


@parallelize(method="coroutine", retry=2)
async def fetch_again(url: str) -> bytes:
    return url.encode()


@parallelize
def count(n: int) -> Iterator[int]:
    yield from range(n)


@parallelize(method="process")
async def count_async(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


async def functions() -> None:
    # A call takes what the function takes, and returns a future of what it returns.
    assert_type(crunch(1), SmartFuture[str])
    assert_type(await crunch(1, b=3, scale=2), str)
    assert_type(await nothing(), None)
    assert_type(await simulate(1), list[float])
    assert_type(await fetch("url"), bytes)
    assert_type(await fetch_again(url="url"), bytes)
    crunch("1")  # type: ignore[arg-type]
    crunch()  # type: ignore[call-arg]
    crunch(1, timeout=3)  # type: ignore[call-arg]
    await fetch(1)  # type: ignore[arg-type]

    # A future, or a coroutine, is passed as a value by `later`.
    assert_type(await simulate(later(parallelize(int)("3"))), list[float])
    assert_type(await crunch(later(fetch_number())), str)
    crunch(crunch(1))  # type: ignore[arg-type]
    crunch(later(crunch(1)))  # type: ignore[arg-type]

    # The plain function is as it was.
    assert_type(crunch.local(1), str)
    assert_type(await fetch.local("url"), bytes)
    assert_type(list(count.local(1)), list[int])
    crunch.local("1")  # type: ignore[arg-type]

    # Options are never mixed with the function's own arguments.
    assert_type(crunch.options(timeout=5)(1), SmartFuture[str])
    assert_type(crunch.options(method="process", retry=3)(1), SmartFuture[str])
    crunch.options(timeouts=5)  # type: ignore[call-arg]
    crunch.options(timeout="5")  # type: ignore[arg-type]
    crunch.options(timeout=5)("1")  # type: ignore[arg-type]

    # Generator functions give streams.
    assert_type(count(3), Stream[int])
    async for i in count_async(3):
        assert_type(i, int)
    async with count(3) as items:
        assert_type([i async for i in items], list[int])
    count("3")  # type: ignore[arg-type]
    await count(3)  # type: ignore[misc]


async def fetch_number() -> int:
    return 1


# What else can be decorated


class Scaler:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    @parallelize
    def scale(self, x: int) -> int:
        return self.factor * x

    @parallelize(method="process")
    async def scale_later(self, x: int) -> int:
        return self.factor * x

    @parallelize
    def multiples(self, n: int) -> Iterator[int]:
        for i in range(n):
            yield self.factor * i


async def other_callables() -> None:
    scaler = Scaler(3)
    assert_type(await scaler.scale(1), int)
    assert_type(await scaler.scale_later(x=1), int)
    assert_type(await scaler.scale.options(timeout=3)(1), int)
    assert_type(scaler.scale.local(1), int)
    assert_type(scaler.multiples(2), Stream[int])
    assert_type(await Scaler.scale(scaler, 1), int)
    scaler.scale("1")  # type: ignore[arg-type]
    scaler.scale(scaler, 1)  # type: ignore[arg-type, call-arg]

    assert_type(await parallelize(scaler)(1), int)
    assert_type(await parallelize(functools.partial(int, base=2))("101"), int)
    assert_type(await parallelize(crunch, timeout=3)(1), str)
    parallelize(scaler)("1")  # type: ignore[arg-type]


def as_annotations(pool: ProcessExecutor) -> None:
    plain: Parallel[[int], SmartFuture[int], int] = parallelize(Scaler(3))
    run: Callable[[str], SmartFuture[bytes]] = fetch
    start: Parallel[[str], SmartFuture[bytes], Coroutine[Any, Any, bytes]] = parallelize(fetch.local, on=pool)
    wrong: Callable[[str], bytes] = fetch  # type: ignore[assignment]
    del plain, run, start, wrong


def wrong_decorators() -> None:
    parallelize(3)  # type: ignore[call-overload]
    parallelize("process")  # type: ignore[call-overload]
    parallelize(mehtod="process")  # type: ignore[call-overload]
    parallelize(timeout="1")  # type: ignore[call-overload]
    parallelize(on="pool")  # type: ignore[call-overload]


# Futures


async def futures() -> None:
    future = simulate(1)
    assert_type(future.result(), list[float])
    assert_type(future.then(len), SmartFuture[int])
    assert_type(future.then(fetch_length), SmartFuture[int])
    assert_type(await wait_all([crunch(1), crunch(2)]), list[str])
    async for text in wait_any([crunch(1), crunch(2)]):
        assert_type(text, SmartFuture[str])
    expression: SmartFuture[Any] = crunch(1) + crunch(2) * 2
    assert_type(await expression, Any)


async def fetch_length(values: list[float]) -> int:
    return len(values)


# Executors


def plain(a: int, *, flag: bool = False) -> str:
    return f"{a} {flag}"


async def plain_async(a: int) -> str:
    return str(a)


async def executors() -> None:
    async with ProcessExecutor(2) as pool:
        assert_type(pool, ProcessExecutor)
        assert_type(pool.submit(plain, 1, flag=True), SmartFuture[str])
        assert_type(await pool.submit(plain_async, 1), str)
        assert_type(await pool.submit(crunch, 1), str)
        assert_type(await pool.submit_wait(plain, 1), SmartFuture[str])
        assert_type(await (await pool.submit_wait(plain_async, 1)), str)
        assert_type(await pool.options(timeout=1).submit(plain, 1), str)
        assert_type(await (await pool.options(timeout=1).submit_wait(plain_async, 1)), str)
        assert_type(pool.status(), PoolStatus)
        pool.submit(plain, "1")  # type: ignore[call-overload]
        pool.submit(plain_async)  # type: ignore[call-overload]
        await pool.submit_wait(plain)  # type: ignore[call-overload]


async def maps() -> None:
    assert_type(await crunch.map([1, 2]), list[str])
    assert_type(await fetch.map(["url"], ordered=False), list[bytes])
    async for text in crunch.map([(1, 2)], star=True, workers=2):
        assert_type(text, str)
    async for outcome in crunch.map([1, 2], errors="return"):
        assert_type(outcome, Outcome[str])
    assert_type(await Scaler(3).scale.map([1, 2], method="process"), list[int])
    crunch.map([1], errors="ignore")  # type: ignore[call-overload]
    crunch.map([1], order=True)  # type: ignore[call-overload]
    count.map([1])  # type: ignore[misc]


async def ambient(pool: ProcessExecutor) -> None:
    async with configure(process=pool):
        await crunch(1)
    configuration = await configure(process=pool, thread=None).start()
    await configuration.aclose(drain=False)
    await aclose()
    configure(pool=pool)  # type: ignore[call-arg]
    configure(process="pool")  # type: ignore[arg-type]


def inside_a_call() -> None:
    check_cancelled()
    assert_type(current_call(), CurrentCall)
    assert_type(current_call().attempt, int)


def outcomes(outcome: Outcome[str]) -> None:
    assert_type(outcome.value, str | None)


# The test kit


def test_kit(faults: Faults, pool: ProcessExecutor) -> None:
    assert_type(faults.kill_worker(pool), int)
    assert_type(faults.kill_worker(pool, 1), int)
