"""What a call returns or raises arrives, on every executor."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
import traceback
from collections import namedtuple
from typing import Any

import pytest

from aioparallel import CallCancelledError, CallExitedError, PicklingError, RemoteTraceback, SmartFuture, wait_all
from tests.contract import jobs
from tests.contract.jobs import Adder, JobError
from tests.contract.kinds import Kind, every
from tests.tools import Gate, Log, hold

Pair = namedtuple("Pair", "first second")


@every()
async def test_value(kind: Kind, pool: Any) -> None:
    """``submit`` returns a SmartFuture, and awaiting it gives what the function returned, again and again."""
    future = pool.submit(kind.fit(jobs.add), 1, 2)
    assert isinstance(future, SmartFuture)
    assert await future == 3
    assert await future == 3
    assert future.result() == 3
    assert future.done()


@every()
@pytest.mark.parametrize("value", [None, False, 0, "", (), {}, NotImplemented, ValueError("a value")], ids=repr)
async def test_empty_values_are_values(kind: Kind, pool: Any, value: Any) -> None:
    """A result may be anything, ``None`` and an exception included."""
    assert repr(await pool.submit(kind.fit(jobs.same), value)) == repr(value)


@every()
async def test_large_values_are_values(kind: Kind, pool: Any) -> None:
    """Megabytes arrive as they were given, by place and by name, alone and within something, as call and as item."""
    large = bytes(range(256)) * 4096
    assert await pool.submit(kind.fit(jobs.same), large) == large
    described = await pool.submit(kind.fit(jobs.describe), large, [large], large, name=large)
    assert described == ((large, [large], large), {"name": large})
    assert await pool.map(kind.fit(jobs.same), [large, b"", large[:70_000], [large]]) == [
        large,
        b"",
        large[:70_000],
        [large],
    ]


@every()
async def test_no_keyword_is_taken(kind: Kind, pool: Any) -> None:
    """Whatever keywords a function has are its own: ``submit`` takes none of them for itself."""
    kwargs = {"self": 1, "fn": 2, "function": 3, "timeout": 4, "name": 5, "args": 6, "kwargs": 7, "priority": 8}
    assert await pool.submit(kind.fit(jobs.describe), 0, **kwargs) == ((0,), kwargs)


@every()
async def test_exception(kind: Kind, pool: Any) -> None:
    """What a function raises keeps its class, arguments and attributes, and shows the line that raised."""
    future = pool.submit(kind.fit(jobs.fail), "no luck", code=7)
    with pytest.raises(JobError) as caught:
        await future
    assert caught.value.args == ("no luck", 7)
    assert caught.value.code == 7
    assert "raise JobError(message, code)" in "".join(traceback.format_exception(caught.value))
    assert isinstance(future.exception(), JobError)
    if kind.separate:
        assert isinstance(caught.value.__cause__, RemoteTraceback)


@every()
async def test_exception_keeps_its_notes(kind: Kind, pool: Any) -> None:
    """Notes that the function added to its exception arrive."""
    with pytest.raises(ValueError, match="no luck") as caught:
        await pool.submit(kind.fit(jobs.fail_with_note))
    assert "it was a Monday" in caught.value.__notes__


@every()
async def test_exceptions_are_not_shared(kind: Kind, pool: Any) -> None:
    """Each failed call has an exception of its own."""
    calls = [pool.submit(kind.fit(jobs.fail), "no luck", n) for n in range(20)]
    errors = [await asyncio.wait_for(_error(call), 20) for call in calls]
    assert [error.code for error in errors] == list(range(20))
    assert len(set(map(id, errors))) == 20


async def _error(future: SmartFuture[Any]) -> Any:
    with pytest.raises(Exception) as caught:  # PT011: whatever it is
        await future
    return caught.value


@every()
async def test_stop_iteration(kind: Kind, pool: Any) -> None:
    """A function that raises StopIteration fails with a RuntimeError that says so, as a coroutine would."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.submit(kind.fit(jobs.stop_iteration))


@every()
@pytest.mark.parametrize("code", [None, 0, 3, "goodbye"])
async def test_exit(kind: Kind, pool: Any, code: Any) -> None:
    """``sys.exit`` in a call ends the call and not the worker: CallExitedError has the code."""
    with pytest.raises(CallExitedError) as caught:
        await pool.submit(kind.fit(jobs.exit_with), code)
    assert caught.value.code == code
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3
    assert pool.status().deaths == 0


@every()
async def test_keyboard_interrupt_in_a_call(kind: Kind, pool: Any) -> None:
    """A KeyboardInterrupt that a function raises fails its call, and interrupts nothing else."""
    with pytest.raises(CallExitedError):
        await pool.submit(kind.fit(jobs.interrupt))
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


@every()
async def test_cancelled_error_in_a_call(kind: Kind, pool: Any) -> None:
    """A function that raises ``asyncio.CancelledError`` cancels its own call, and nobody who awaits it."""
    with pytest.raises(CallCancelledError):
        await pool.submit(kind.fit(jobs.raise_), asyncio.CancelledError())
    assert await pool.submit(kind.fit(jobs.add), 1, 2) == 3


# Whatever can be called


@every()
async def test_any_callable(kind: Kind, pool: Any) -> None:
    """Lambdas, closures, partials, bound methods, callable objects and classes can be called."""
    base = 10
    callables = [
        lambda x: x + base,
        functools.partial(jobs.add, base),
        Adder(base).add,
        Adder(base),
        functools.partial(Adder(base).add),
    ]
    calls = [pool.submit(kind.fit(fn), 1) for fn in callables]
    assert await wait_all(calls) == [11] * 5
    if not kind.coroutines:
        assert await pool.submit(int, "12") == 12


@every()
async def test_closure_is_never_stale(kind: Kind, pool: Any) -> None:
    """A function that reads a changed variable sees the new value at the next call."""
    factor = 2

    def scale(x: int) -> int:
        return x * factor

    assert await pool.submit(kind.fit(scale), 10) == 20
    factor = 3
    assert await pool.submit(kind.fit(scale), 10) == 30


@every()
async def test_local_classes(kind: Kind, pool: Any) -> None:
    """Classes and exceptions that are defined inside a function go there and come back as the very same classes."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class LocalError(Exception):
        pass

    def shift(point: Point) -> Point:
        if point.x < 0:
            raise LocalError(point.x)
        return Point(point.x + 1)

    point = await pool.submit(kind.fit(shift), Point(1))
    assert type(point) is Point
    assert point.x == 2
    with pytest.raises(LocalError, match="-1"):
        await pool.submit(kind.fit(shift), Point(-1))


@every(lambda kind: not kind.loops)
async def test_refused_async_function(kind: Kind, pool: Any) -> None:
    """An executor that has no event loop for an ``async def`` refuses it, and says which one has."""
    with pytest.raises(TypeError, match="CoroutineExecutor"):
        pool.submit(jobs.add_async, 1, 2)
    assert pool.task_count == 0


@every(lambda kind: kind.loops)
async def test_async_function(kind: Kind, pool: Any) -> None:
    """An ``async def`` runs on an event loop, wherever the executor runs its calls."""
    assert await wait_all([pool.submit(jobs.add_async, n, 1) for n in range(5)]) == [1, 2, 3, 4, 5]
    with pytest.raises(JobError):
        await pool.submit(jobs.fail_async)


@every(lambda kind: kind.coroutines)
async def test_plain_function_is_no_coroutine(kind: Kind, pool: Any) -> None:
    """An executor for coroutines refuses a plain function, which would block the loop."""
    with pytest.raises(TypeError, match="async def"):
        pool.submit(jobs.add, 1, 2)


# Futures as arguments


@every()
async def test_futures_as_arguments(kind: Kind, pool: Any) -> None:
    """A future among the arguments, at any depth of list, tuple, dict and set, is replaced by its value."""
    one, two = pool.submit(kind.fit(jobs.same), 1), pool.submit(kind.fit(jobs.same), 2)
    args, kwargs = await pool.submit(
        kind.fit(jobs.describe),
        one,
        [two, (one, {"deep": [{two}]})],
        Pair(one, 3),
        key=one,
        table={one: frozenset([two])},
    )
    assert args == (1, [2, (1, {"deep": [{2}]})], Pair(1, 3))
    assert type(args[2]).__name__ == "Pair"
    assert kwargs == {"key": 1, "table": {1: frozenset([2])}}


@every(lambda kind: kind.later)
async def test_arguments_are_awaited_elsewhere(kind: Kind, pool: Any, gate: Gate) -> None:
    """``submit`` does not wait for futures among the arguments, and a call that waits for them holds no worker."""
    slow = pool.submit(kind.fit(hold), gate, 1)
    sums = [pool.submit(kind.fit(jobs.add), slow, n) for n in range(5)]
    assert [call.info.state for call in sums] == ["waiting"] * 5
    assert await pool.submit(kind.fit(jobs.add), 2, 2) == 4, "the second worker is free"
    gate.open()
    assert await wait_all(sums) == [1, 2, 3, 4, 5]


@every()
async def test_chain(kind: Kind, pool: Any) -> None:
    """A chain of a hundred calls, each of which takes the one before, is one expression."""
    total = pool.submit(kind.fit(jobs.same), 0)
    for _ in range(100):
        total = pool.submit(kind.fit(jobs.add), total, 1)
    assert await total == 100


@every()
async def test_failed_argument(kind: Kind, pool: Any, log: Log) -> None:
    """A call whose argument fails never begins, and fails with the argument's exception."""
    bad = pool.submit(kind.fit(jobs.fail))
    call = pool.submit(kind.fit(jobs.write), log, [bad])
    with pytest.raises(JobError):
        await call
    with pytest.raises(JobError):
        await bad
    assert not log.lines
    assert call.info.attempts == 0


@every(lambda kind: kind.later)
async def test_cancelled_argument(kind: Kind, pool: Any, gate: Gate, log: Log) -> None:
    """A call whose argument is cancelled never begins, and says that it was cancelled."""
    argument = pool.submit(kind.fit(hold), gate)
    call = pool.submit(kind.fit(jobs.write), log, argument)
    argument.cancel()
    with pytest.raises(CallCancelledError):
        await call
    assert not log.lines


@every()
async def test_expressions(kind: Kind, pool: Any) -> None:
    """An expression over calls is a future of its value."""
    a, b = pool.submit(kind.fit(jobs.same), 3), pool.submit(kind.fit(jobs.same), 4)
    assert await (a * a + b * b) == 25
    assert await (10 - a) == 7
    assert await (a < b)


@every(lambda kind: kind.pickles)
async def test_future_in_an_object(kind: Kind, pool: Any) -> None:
    """A future inside another object cannot travel; the error says to await it first."""
    box = Adder(pool.submit(jobs.same, 1))
    with pytest.raises(PicklingError, match="await it first") as caught:
        pool.submit(jobs.same, [box])
    assert caught.value.path is not None
    assert caught.value.path.startswith("args[0]")
    await box.base


@every(lambda kind: kind.pickles)
async def test_unpicklable_argument(kind: Kind, pool: Any) -> None:
    """An argument that cannot be pickled fails in ``submit``, which names it and the way to it; the pool goes on."""
    with pytest.raises(PicklingError) as caught:
        pool.submit(jobs.same, {"deep": [1, threading.Lock()]})
    assert caught.value.path == "args[0]['deep'][1]"
    assert "lock" in str(caught.value)
    assert pool.task_count == 0
    assert await pool.submit(jobs.add, 1, 2) == 3


# Many calls, and calls that nobody awaits


@every()
async def test_a_thousand_calls(kind: Kind, pool: Any) -> None:
    """A thousand calls are a thousand results, each its own."""
    calls = [pool.submit(kind.fit(jobs.add), n, 1) for n in range(1000)]
    assert await wait_all(calls) == list(range(1, 1001))
    status = pool.status()
    assert (status.done, status.queued, status.running, status.failed) == (1000, 0, 0, 0)
    assert pool.task_count == 0


@every()
async def test_call_that_nobody_awaits(kind: Kind, log: Log) -> None:
    """A call that nobody awaits, and whose future nobody keeps, runs to its end."""
    async with kind.make() as pool:
        for n in range(5):
            pool.submit(kind.fit(jobs.write), log, n)
        gc.collect()
    assert sorted(log.lines) == ["0", "1", "2", "3", "4"]


@every()
async def test_failure_that_nobody_sees(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody sees is logged once, with the function's name and the traceback."""
    async with kind.make() as pool:
        pool.submit(kind.fit(jobs.fail), "unseen")
    gc.collect()
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 1, [record.getMessage() for record in records]
    assert "fail" in records[0].getMessage()
    assert records[0].exc_info is not None


@every()
async def test_failure_that_somebody_sees(kind: Kind, pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that somebody awaited is not logged."""
    with pytest.raises(JobError):
        await pool.submit(kind.fit(jobs.fail))
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
