"""Nothing that cannot be pickled hurts: a clear error in the right place, and the worker lives."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from aioparallel import CallExitedError, PicklingError, ProcessExecutor, RemoteError, wait_all


class Raises:
    """Cannot be pickled: it says why."""

    def __reduce__(self) -> NoReturn:
        raise LookupError("not to be copied")


class Exits:
    """Ends whatever tries to pickle it."""

    def __reduce__(self) -> NoReturn:
        sys.exit(3)


class RaisesWhenLoaded:
    """Can be pickled, but not loaded again."""

    def __reduce__(self) -> Any:
        return fail, ("cannot be loaded",)


class ExitsWhenLoaded:
    """Can be pickled, and ends whatever loads it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class OnlyHere:
    """Can be loaded in the process that pickled it, and nowhere else."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __setstate__(self, state: dict[str, int]) -> None:
        if state["pid"] != os.getpid():
            raise LookupError("this is another process")


class OnlyHereError(Exception):
    """An exception that can be loaded only where it was raised."""

    def __reduce__(self) -> Any:
        return load_here, (os.getpid(), *self.args)


def load_here(pid: int, *args: Any) -> OnlyHereError:
    if pid != os.getpid():
        raise LookupError("this is another process")
    return OnlyHereError(*args)


class TwoArgumentsError(Exception):
    """The classic: ``__init__`` takes more than it passes on, so the pickle does not load."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class ValueWithLockError(ValueError):
    """An exception that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def fail(text: str) -> NoReturn:
    raise LookupError(text)


def make(kind: Callable[[], Any]) -> Any:
    return kind()


def raise_made(kind: Callable[..., BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


def deep(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


DEPTH = 100_000

pytestmark = pytest.mark.parametrize(
    "engine",
    ["resident", pytest.param("anyio", marks=pytest.mark.leak_check(tasks=False, processes=False, fds=False))],
)


@pytest.fixture
async def pool(engine: str) -> AsyncIterator[ProcessExecutor]:
    async with ProcessExecutor(1, engine=engine) as pool:
        yield pool


async def assert_unharmed(pool: ProcessExecutor, pid: int) -> None:
    """The very same worker goes on."""
    assert await asyncio.wait_for(pool.submit(os.getpid), 20) == pid
    assert pool.task_count == 0
    assert pool.status().deaths == 0


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda: threading.Lock(), "args[0]"),
        (lambda: {"deep": [1, (2, threading.Lock())]}, "args[0]['deep'][1][1]"),
        (lambda: Raises(), "args[0]"),
        (lambda: [Exits()], "args[0][0]"),
        (lambda: (n for n in "abc"), "args[0]"),
        (lambda: deep(DEPTH), "args"),
    ],
    ids=["lock", "deep lock", "raises", "exits", "generator", "too deep"],
)
async def test_argument(pool: ProcessExecutor, value: Callable[[], Any], path: str) -> None:
    """An argument that cannot be pickled fails in ``submit``, with the way to the culprit."""
    pid = await pool.submit(os.getpid)
    with pytest.raises(PicklingError) as caught:
        pool.submit(id, value())
    assert caught.value.path is not None
    assert caught.value.path.startswith(path)
    assert "id cannot be sent to a worker" in str(caught.value)
    with pytest.raises(PicklingError):
        pool.submit(dict, key=value())
    await assert_unharmed(pool, pid)


@pytest.mark.parametrize("kind", [RaisesWhenLoaded, ExitsWhenLoaded, OnlyHere])
async def test_argument_that_cannot_be_loaded(pool: ProcessExecutor, kind: Callable[[], Any]) -> None:
    """An argument that the worker cannot load fails its call, says what is wrong, and shows the worker's traceback."""
    pid = await pool.submit(os.getpid)
    with pytest.raises(PicklingError, match="arguments") as caught:
        await pool.submit(id, kind())
    assert caught.value.__cause__ is not None
    await assert_unharmed(pool, pid)


async def test_function(pool: ProcessExecutor) -> None:
    """A function that captures what cannot be pickled fails in ``submit``, which names the variable."""
    lock, raises = threading.Lock(), Raises()
    pid = await pool.submit(os.getpid)
    with pytest.raises(PicklingError, match="variable 'lock'"):
        pool.submit(lambda: lock)
    with pytest.raises(PicklingError, match="not to be copied"):
        pool.submit(raises.__reduce__)
    await assert_unharmed(pool, pid)


async def test_function_that_cannot_be_loaded(pool: ProcessExecutor) -> None:
    """A function that the worker cannot load fails each of its calls, and no other."""
    here = OnlyHere()
    pid = await pool.submit(os.getpid)
    calls = [pool.submit(lambda: here) for _ in range(3)]
    assert await pool.submit(abs, -1) == 1
    for call in calls:
        with pytest.raises(PicklingError, match="this is another process"):
            await call
    await assert_unharmed(pool, pid)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (threading.Lock, "lock"),
        (lambda: {"deep": [threading.Lock()]}, "['deep'][0]"),
        (Raises, "not to be copied"),
        (Exits, "SystemExit"),
        (lambda: (n for n in "abc"), "generator"),
        (lambda: deep(DEPTH), "too deeply"),
    ],
    ids=["lock", "deep lock", "raises", "exits", "generator", "too deep"],
)
async def test_result(pool: ProcessExecutor, result: Callable[[], Any], said: str) -> None:
    """A result that cannot be pickled fails its call, names the culprit, and the worker lives."""
    pid = await pool.submit(os.getpid)
    call = pool.submit(make, result)
    neighbours = [pool.submit(abs, -n) for n in range(5)]
    with pytest.raises(PicklingError, match="result of make") as caught:
        await call
    assert said in str(caught.value)
    assert await wait_all(neighbours) == [0, 1, 2, 3, 4]
    await assert_unharmed(pool, pid)


@pytest.mark.parametrize("kind", [RaisesWhenLoaded, ExitsWhenLoaded, OnlyHere])
async def test_result_that_cannot_be_loaded(pool: ProcessExecutor, kind: Callable[[], Any]) -> None:
    """A result that does not load in this program fails its call, and does nothing to the program."""
    pid = await pool.submit(os.getpid)
    calls = [pool.submit(make, kind) for _ in range(3)]
    for call in calls:
        with pytest.raises(PicklingError, match="cannot be rebuilt here"):
            await call
    await assert_unharmed(pool, pid)


async def test_exception_with_other_arguments(pool: ProcessExecutor) -> None:
    """An exception whose ``__init__`` takes other arguments than it passes on arrives as itself, or as a stand-in."""
    pid = await pool.submit(os.getpid)
    with pytest.raises((TwoArgumentsError, RemoteError), match=r"gone \(404\)"):
        await pool.submit(raise_made, TwoArgumentsError, 404, "gone")
    await assert_unharmed(pool, pid)


@pytest.mark.parametrize(
    ("kind", "caught_as"),
    [(ValueWithLockError, ValueError), (OnlyHereError, RemoteError)],
)
async def test_exception_that_cannot_travel(
    pool: ProcessExecutor, kind: Callable[..., BaseException], caught_as: type[Exception]
) -> None:
    """An exception that cannot be pickled, or not loaded, is replaced by one that ``except`` catches as well."""
    pid = await pool.submit(os.getpid)
    with pytest.raises(caught_as, match="out of range") as caught:
        await pool.submit(raise_made, kind, "out of range")
    error = caught.value
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith(kind.__name__)
    assert error.reason
    assert "raise kind(*args)" in str(error.__cause__), "the worker's traceback is there all the same"
    await assert_unharmed(pool, pid)


class Unspeakable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise LookupError("no words")

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise LookupError("not to be copied")


async def test_exception_that_cannot_be_shown(pool: ProcessExecutor) -> None:
    """An exception without a text, which cannot be pickled either, still arrives, as itself or by its name."""
    pid = await pool.submit(os.getpid)
    call = pool.submit(raise_made, Unspeakable)
    await asyncio.wait([call])
    kind = type(call.exception()).__name__  # pytest could not show the exception itself
    assert kind == "Unspeakable"
    del call
    await assert_unharmed(pool, pid)


class Exit(SystemExit):
    """A SystemExit with a code that cannot be pickled."""


async def test_exit_code_that_cannot_travel(pool: ProcessExecutor) -> None:
    """An exit code that cannot be pickled is described."""
    pid = await pool.submit(os.getpid)
    with pytest.raises(CallExitedError) as caught:
        await pool.submit(raise_made, lambda: Exit(threading.Lock()))
    assert "lock" in str(caught.value.code)
    await assert_unharmed(pool, pid)


async def test_recursion(pool: ProcessExecutor) -> None:
    """A call that recurses without end fails with a RecursionError, and the worker lives."""

    def recurse(n: int) -> int:
        return recurse(n + 1) + 1

    pid = await pool.submit(os.getpid)
    with pytest.raises(RecursionError):
        await pool.submit(recurse, 0)
    await assert_unharmed(pool, pid)


async def test_everything_at_once(pool: ProcessExecutor) -> None:
    """Whatever comes between them, good calls have their results, a thousand in a row."""
    bad = [threading.Lock, Raises, Exits, ExitsWhenLoaded, OnlyHere]
    calls = [pool.submit(make, bad[n % 5]) if n % 10 == 0 else pool.submit(abs, -n) for n in range(1000)]
    await asyncio.wait(calls)
    for n, call in enumerate(calls):
        assert isinstance(call.exception(), PicklingError) if n % 10 == 0 else call.result() == n
    assert pool.status().deaths == 0
