"""Calling a decorated function: what comes back, what is awaited first, and what it says where it cannot work."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import (
    CallCancelledError,
    ExecutorClosedError,
    ProcessExecutor,
    SmartFuture,
    Stream,
    TaskTimeoutError,
    configure,
    later,
    parallelize,
    wait_all,
)
from aioparallel._executors.thread import ThreadExecutor
from tests.tools import Gate
from tests.unit.verbs import jobs

Pair = namedtuple("Pair", "left right")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


@pytest.fixture
async def processes() -> AsyncIterator[ProcessExecutor]:
    async with configure(process=ProcessExecutor(2)) as configuration:
        yield configuration.opened[0]  # type: ignore[misc]


async def test_a_call_returns_a_future_at_once(gate: Gate) -> None:
    """A call returns a SmartFuture at once, whatever the function does; awaiting it gives the value."""
    future = jobs.hold_in_thread(gate, 7)
    assert type(future) is SmartFuture
    assert not future.done()
    gate.open()
    assert await future == 7


async def test_arguments_are_awaited_without_blocking(gate: Gate) -> None:
    """A call with a pending future among its arguments returns at once, too."""
    held = jobs.hold_in_thread(gate, 1)
    total = jobs.add(held, 2)
    assert not held.done()
    gate.open()
    assert await total == 3


@pytest.mark.parametrize("add", [jobs.add, jobs.add_async, jobs.add_in_process], ids=repr)
@pytest.mark.usefixtures("processes")
async def test_arguments_are_awaited_at_any_depth(add: Any) -> None:
    """Futures are awaited at any depth of list, tuple, named tuple, dict, set and frozenset; as keywords, too."""
    one = add(1, 0)
    assert await add(one, b=add(1, 1)) == 3
    assert await add([(one, {"k": [one]})], b=[]) == [(1, {"k": [1]})]
    assert await add(Pair(one, 2), ()) == (1, 2)
    assert await add([{one}, frozenset([one]), {one: one}], []) == [{1}, frozenset([1]), {1: 1}]


async def test_later() -> None:
    """`later` passes a future, or a coroutine, where the value is expected."""
    assert await jobs.add(later(jobs.add(1, 1)), later(jobs.plain_async(2))) == 5


async def test_a_failed_argument() -> None:
    """A call whose argument fails, fails with that, and its function is not called."""
    with pytest.raises(LookupError, match="no luck"):
        await jobs.add(jobs.fail("no luck"), 1)


async def test_exceptions() -> None:
    """Awaiting raises what the function raised."""
    with pytest.raises(LookupError, match="no luck"):
        await jobs.fail("no luck")


async def test_wrong_arguments() -> None:
    """Arguments that do not fit the function fail its call."""
    with pytest.raises(TypeError, match="argument"):
        await jobs.add()


@pytest.mark.parametrize("name", ["self", "fn", "fun", "function", "method", "on", "timeout", "options", "args"])
async def test_keyword_arguments_may_have_any_name(name: str) -> None:
    """No name is taken: every keyword is the function's own."""
    assert await parallelize(dict)(**{name: 1}) == {name: 1}
    assert parallelize(dict).local(**{name: 1}) == {name: 1}


async def test_options_hold_for_a_call(processes: ProcessExecutor, gate: Gate) -> None:
    """`f.options(timeout=...)(...)` is a call with that option."""
    hold = parallelize(jobs.hold, method="process")
    with pytest.raises(TaskTimeoutError):
        await hold.options(timeout=0.2)(gate)
    assert processes.status().failed == 1


async def test_retry() -> None:
    """With `retry`, a call that fails is made again."""
    attempts: list[int] = []

    @parallelize(retry=3)
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError
        return len(attempts)

    assert await flaky() == 3


async def test_name() -> None:
    """With `name`, the call is called so."""
    assert jobs.add.options(name="sum")(1, 2).info.name == "sum"


async def test_on_a_particular_executor() -> None:
    """With `on`, calls go to that executor."""
    async with ThreadExecutor(1, name="mine") as pool:
        assert await parallelize(jobs.plain, on=pool)(1) == 2
        assert pool.status().done == 1


async def test_on_a_closed_executor() -> None:
    """With `on`, it is for the caller to open the executor."""
    with pytest.raises(ExecutorClosedError, match="is not open"):
        parallelize(jobs.plain, on=ThreadExecutor())(1)


async def test_on_from_another_thread() -> None:
    """With `on`, a call may be made in any thread, as long as the executor is open."""
    async with ThreadExecutor(1) as pool:
        call = parallelize(jobs.plain, on=pool)
        assert await asyncio.to_thread(lambda: call(1).result(10)) == 2


@pytest.mark.usefixtures("processes")
async def test_methods() -> None:
    """Methods work, plain and async, of the object, of the class and static, in either order of decorators."""
    base, derived = jobs.Base(5), jobs.Derived(7)
    assert await wait_all([base.times(2), base.times_async(3), base.times_in_process(4)]) == [10, 15, 20]
    assert await wait_all([derived.times(2), derived.call_from_inside(1), jobs.Base.times(base, 1)]) == [15, 8, 5]
    named = [jobs.Base.named(1), jobs.Derived.named(1), derived.named_too(1), jobs.Base.named_too(1)]
    assert await wait_all(named) == [("Base", 1), ("Derived", 1), ("Derived", 1), ("Base", 1)]
    assert await wait_all([jobs.Base.alone(1), base.alone(2), jobs.Base.alone_too(3), base.alone_too(4)]) == [
        1,
        2,
        3,
        4,
    ]


async def test_partials_objects_and_builtins() -> None:
    """Partials, callable objects with plain and async `__call__`, builtins and classes work."""
    futures: list[SmartFuture[Any]] = [
        parallelize(functools.partial(jobs.plain, 1))(),
        parallelize(functools.partial(jobs.plain_async, x=1))(),
        parallelize(jobs.Scaler())(2),
        parallelize(jobs.AsyncScaler())(2),
        parallelize(len)([1, 2]),
        parallelize(str)(b"a", "ascii"),
    ]
    assert await wait_all(futures) == [2, 2, 6, 6, 2, "a"]


@pytest.mark.usefixtures("processes")
async def test_partials_and_async_in_processes() -> None:
    """The same work in processes, where an `async def` runs on a loop of the worker."""
    in_process = parallelize(method="process")
    futures: list[SmartFuture[Any]] = [
        in_process(functools.partial(jobs.plain, 1))(),
        in_process(functools.partial(jobs.plain_async, 1))(),
        in_process(jobs.plain_async)(1),
        in_process(jobs.Scaler())(2),
        in_process(jobs.AsyncScaler())(2),
        in_process(len)([1, 2]),
    ]
    assert await wait_all(futures) == [2, 2, 2, 6, 6, 2]


@pytest.mark.usefixtures("processes")
async def test_closures_over_decorated_functions() -> None:
    """A local function that calls decorated functions, itself among them, works in a process."""
    k = 10

    @parallelize(method="process")
    def sum_down(x: int) -> Any:
        return jobs.add(x, k).result(10) + (sum_down(x - 1).result(10) if x else 0)

    assert await sum_down(2) == 12 + 11 + 10


@pytest.mark.usefixtures("processes")
async def test_generators() -> None:
    """Calling a generator function, plain or async, gives a stream for `async for`."""
    assert isinstance(jobs.count(3), Stream)
    assert [i async for i in jobs.count(3)] == [0, 1, 2]
    assert [i async for i in jobs.count_in_thread(3)] == [0, 1, 2]
    pid, *rest = [i async for i in jobs.count_in_process(3)]
    assert pid != os.getpid()
    assert rest == [1, 2]


@pytest.mark.parametrize("count", [jobs.count, jobs.count_in_thread, jobs.count_in_process], ids=repr)
@pytest.mark.usefixtures("processes")
async def test_arguments_of_generators(count: Any) -> None:
    """A generator function gets the values of the futures among its arguments, too."""
    assert len([i async for i in count(jobs.add(1, 2))]) == 3


async def test_inside_of_generators() -> None:
    """A generator that runs in a thread is inside a call: it knows which, and may make others."""
    assert [item async for item in jobs.look_around()] == ["look_around", 3]


async def test_maps() -> None:
    """`f.map` calls the function for many items, where and with what options its calls run."""
    assert await jobs.add.map([1, 2]) == [3, 4]
    assert [item async for item in jobs.add.map([(1, 2), (3, 4)], star=True)] == [3, 7]
    assert await jobs.Base(3).times.map([1, 2]) == [3, 6]
    async with ThreadExecutor(1) as pool:
        assert await parallelize(jobs.plain, on=pool).map([1, 2]) == [2, 3]
        assert pool.status().done == 2
        assert await jobs.add.map([1, 2], on=pool, kwargs={"b": 0}) == [1, 2]
        assert pool.status().done == 4


async def test_maps_elsewhere() -> None:
    """`f.map` takes what says where for `parmap`, and that counts instead."""
    here = os.getpid()
    assert [pid for pid, _ in await jobs.where.map([()], star=True, method="process")] != [here]
    assert [pid for pid, _ in await jobs.where.map([()], star=True, workers=1)] == [here]


async def test_calls_leave_nothing_registered() -> None:
    """Calls register nothing to be run at the end of the interpreter."""
    before = atexit._ncallbacks()
    await wait_all([jobs.add(i, 1) for i in range(20)])
    assert atexit._ncallbacks() == before


async def test_calls_run_concurrently(gate: Gate) -> None:
    """Calls in threads and coroutines run at the same time."""
    held = jobs.hold_in_thread(gate)
    assert await jobs.add(1, 2) == await jobs.add_async(1, 2) == 3
    assert not held.done()
    gate.open()
    await held


async def test_a_cancelled_call(gate: Gate) -> None:
    """A call that was cancelled by somebody else raises CallCancelledError."""
    future = jobs.hold_in_thread(gate)
    future.cancel()
    gate.open()
    with pytest.raises(CallCancelledError):
        await future


def test_where_no_loop_runs() -> None:
    """Calling where no event loop runs raises an error that names `aioparallel.blocking` and `asyncio.run`."""
    for call in (jobs.add, jobs.add_async, jobs.add_in_process, parallelize(jobs.plain, on=ThreadExecutor())):
        with pytest.raises(RuntimeError, match=r"asyncio\.run.*aioparallel\.blocking"):
            call(1)


async def test_in_a_thread_of_somebody_else() -> None:
    """The same in a thread that is not ours: it does not know on which loop to run."""
    with pytest.raises(RuntimeError, match=r"aioparallel\.blocking"):
        await asyncio.get_running_loop().run_in_executor(None, jobs.add, 1)


def test_generators_where_no_loop_runs() -> None:
    """A stream cannot be made where no event loop runs, and the error says what to do."""
    with pytest.raises(RuntimeError, match=r"count_in_thread.*\.local\(...\).*aioparallel\.blocking"):
        jobs.count_in_thread(3)


async def test_in_the_context_of_the_caller() -> None:
    """From `asyncio.to_thread` inside a call, calls are made on the loop of that call."""

    @parallelize
    async def outer() -> tuple[int, int]:
        return await asyncio.to_thread(lambda: jobs.where().result(10))

    pid, thread = await outer()
    assert pid == os.getpid()
    assert thread != threading.get_ident()
