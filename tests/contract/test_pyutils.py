"""What users of pyutils.parallelize had, or were told they had, in their own words; and where it hung or was wrong.

The tables are A.1 to A.4 of the survey of seed projects: the decorator, its future, the wait helpers, the executors.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import functools
import gc
import math
import operator
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from aioparallel import (
    CoroutineExecutor,
    ExecutorClosedError,
    Method,
    NotReadyError,
    PicklingError,
    ProcessExecutor,
    SmartFuture,
    TaskTimeoutError,
    ThreadExecutor,
    WorkerLostError,
    aclose,
    configure,
    parallelize,
    wait_all,
    wait_any,
)
from tests.tools import turns, until

METHODS = ["thread", "process"]


class Counter:
    """An object that is called, and whose decorated methods are."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x

    @parallelize(method="process")
    def add(self, x: int) -> int:
        return self.base + x

    @parallelize
    def add_here(self, x: int) -> int:
        return self.base + x


@parallelize
def bare(x: int) -> int:
    """What it does."""
    return x + 1


@parallelize(method=Method.PROCESS)
def apart(x: int) -> int:
    return x + 1


@parallelize(method=Method.PROCESS)
def apart_twice(x: int) -> Any:
    return apart(apart(x)).result()


@parallelize(method=Method.PROCESS)
def factorial(n: int) -> int:
    return n * factorial(n - 1).result() if n else 1


@parallelize
def bare_to_apart(x: int) -> Any:
    return apart(x).result()


@parallelize
def sum_of_bare(n: int) -> int:
    return sum(bare(x).result() for x in range(n))


@parallelize
def same(value: Any) -> Any:
    return value


def apply(fn: Callable[..., Any], *args: Any) -> Any:
    return fn(*args)


def pid() -> int:
    return os.getpid()


def fail(message: str) -> NoReturn:
    raise ValueError(message)


def die() -> NoReturn:
    os._exit(3)


async def ready(value: Any) -> SmartFuture[Any]:
    """A future whose value is there."""
    future = same(value)
    await future
    return future


@pytest.fixture
async def event() -> AsyncIterator[asyncio.Event]:
    """What coroutine calls wait for; set after the test."""
    event = asyncio.Event()
    yield event
    event.set()


@parallelize
async def held(event: asyncio.Event, value: Any) -> Any:
    await event.wait()
    return value


@parallelize
async def after(seconds: float, value: Any) -> Any:
    await asyncio.sleep(seconds)
    if isinstance(value, Exception):
        raise value
    return value


# A.1: the decorator


async def test_bare_or_with_arguments() -> None:
    """The decorator works bare, with a method, and with the method's name."""
    named = parallelize(method="process")(pid)
    assert await bare(1) == 2
    assert await apart(1) == 2
    assert await named() != os.getpid()


def test_decorated_function_keeps_its_name() -> None:
    """A decorated function keeps its name, its docstring and the plain function."""
    assert (bare.__name__, bare.__doc__) == ("bare", "What it does.")
    assert bare.local(1) == 2


@pytest.mark.parametrize("method", ["nowhere", 7])
def test_unknown_method(method: Any) -> None:
    """An unknown method is refused when decorating, and the error says what was wrong."""
    with pytest.raises((TypeError, ValueError), match=str(method)):
        parallelize(method=method)(pid)


@pytest.mark.parametrize("method", ["coroutine", "process", "serial"])
async def test_async_functions(method: str) -> None:
    """An async function gives its result, not an un-awaited coroutine; by default it runs on this loop."""

    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert await parallelize(double)(4) == 8
    assert await parallelize(method=method)(double)(4) == 8


def test_async_functions_in_threads() -> None:
    """An async function is refused for threads when it is decorated, and the error says what to write instead."""

    async def double(x: int) -> int:
        return 2 * x

    with pytest.raises(TypeError, match="@parallelize"):
        parallelize(method="thread")(double)


async def test_methods_of_objects() -> None:
    """A decorated method is called on its object, in a thread or in a process, to which the object travels."""
    assert await Counter(10).add(1) == 11
    assert await Counter(10).add_here(1) == 11


async def test_call_returns_at_once(event: asyncio.Event) -> None:
    """A call returns its future at once, also when an argument is a future that is not ready."""
    first = held(event, 1)
    began = time.monotonic()
    second = bare(first)
    assert time.monotonic() - began < 1
    assert isinstance(second, SmartFuture)
    assert not second.is_ready()
    event.set()
    assert await second == 2


@pytest.mark.parametrize("method", METHODS)
async def test_futures_as_arguments(method: str) -> None:
    """Futures among the arguments are awaited first, by position and by name."""

    def minus(x: int, y: int) -> int:
        return x - y

    assert await parallelize(method=method)(minus)(bare(4), y=apart(1)) == 3


@pytest.mark.parametrize("method", METHODS)
async def test_futures_nested_in_arguments(method: str) -> None:
    """Futures nested in lists, tuples and dicts are awaited as well."""

    def types(tree: Any) -> str:
        return repr(tree)

    call = parallelize(method=method)(types)
    assert await call([bare(0), {"a": (bare(1), [apart(2)])}]) == "[1, {'a': (2, [3])}]"


async def test_failed_argument() -> None:
    """When a future among the arguments fails, so does the call that was waiting for it."""
    with pytest.raises(ValueError, match="no argument"):
        await bare(parallelize(fail)("no argument"))


async def test_options_of_a_call() -> None:
    """One call may have other options; they are never mixed with the function's own arguments."""

    @parallelize(method="process")
    def doze(seconds: float, timeout: float = 0) -> float:
        time.sleep(seconds)
        return timeout

    with pytest.raises(TaskTimeoutError):
        await doze.options(timeout=0.05)(60)
    assert await doze(0, timeout=7) == 7


async def test_calls_register_nothing() -> None:
    """A call registers nothing to be done at the end of the program; pyutils did so at every call."""
    assert await bare(1) == 2
    registered = atexit._ncallbacks()  # type: ignore[attr-defined]
    await wait_all([bare(n) for n in range(20)])
    assert atexit._ncallbacks() == registered  # type: ignore[attr-defined]


async def test_calls_leave_nothing_behind() -> None:
    """What a call took is not kept: its argument is gone when its future is."""
    argument = Counter(1)
    seen = weakref.ref(argument)
    assert await same(argument) is argument
    del argument
    await until(lambda: (gc.collect(), seen())[1] is None)


async def test_process_from_thread() -> None:
    """A call in a thread may call what runs in a process."""
    assert await bare_to_apart(1) == 2


async def test_process_from_process() -> None:
    """A call in a process may call what runs in a process, at any depth, and does not hang."""
    assert await apart_twice(1) == 3
    assert await factorial(5) == 120


async def test_thread_from_thread_with_one_worker() -> None:
    """A call in the only thread may wait for calls in threads without a deadlock."""
    async with configure(thread=ThreadExecutor(max_workers=1)):
        assert await wait_all([sum_of_bare(3), sum_of_bare(4)]) == [6, 10]


async def test_coroutine_from_coroutine_with_one_slot() -> None:
    """A coroutine in the only slot may await coroutines without a deadlock."""

    @parallelize
    async def fibonacci(n: int) -> int:
        return n if n < 2 else sum(await wait_all([fibonacci(n - 1), fibonacci(n - 2)]))

    async with configure(coroutine=CoroutineExecutor(max_concurrency=1)):
        assert await fibonacci(7) == 13


async def test_process_from_process_with_one_worker() -> None:
    """A call in the only worker process may wait for calls in processes."""
    async with configure(process=ProcessExecutor(max_workers=1)):
        assert await wait_all([factorial(3), factorial(4)]) == [6, 24]


async def test_stacked_decorators() -> None:
    """A function that is decorated twice gives its result."""

    @parallelize
    def outer(x: int) -> Any:
        return apart(x).result() + bare(x).result()

    assert await outer(1) == 4


@pytest.mark.parametrize("method", METHODS)
async def test_partials_and_callable_objects(method: str) -> None:
    """Partials and callable objects work, though they have no ``__name__``."""
    assert await parallelize(method=method)(functools.partial(pow, 2))(5) == 32
    assert await parallelize(method=method)(Counter(10))(5) == 15


@pytest.mark.parametrize("method", METHODS)
async def test_names_of_users_arguments(method: str) -> None:
    """A function's own arguments may be called fun, function, method, timeout or self."""

    def names(**kwargs: int) -> list[str]:
        return sorted(kwargs)

    mine = dict.fromkeys(["fn", "fun", "function", "method", "on", "retry", "self", "timeout"], 1)
    assert await parallelize(method=method)(names)(**mine) == sorted(mine)


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
async def test_names_of_submitted_arguments(executor: Callable[..., Any]) -> None:
    """The same holds for what is submitted to an executor."""

    def names(**kwargs: int) -> list[str]:
        return sorted(kwargs)

    mine = dict.fromkeys(["fn", "fun", "function", "self", "args", "kwargs", "timeout"], 1)
    async with executor(max_workers=1) as pool:
        assert await pool.submit(names, **mine) == sorted(mine)


# A.2: the future


async def test_ids() -> None:
    """Every future has a number, and later futures have higher ones."""
    first, second = same(1), same(2)
    assert first.id < second.id
    await wait_all([first, second])


async def test_storing_never_waits(event: asyncio.Event) -> None:
    """Storing, hashing, comparing with == and printing a future do not wait for it."""
    future, other = held(event, 1), held(event, 1)
    assert len({future, other, future}) == 2
    assert {future: "x"}[future] == "x"
    assert future == future  # noqa: PLR0124
    assert future != other
    assert "SmartFuture" in repr(future)
    assert not hasattr(future, "no_such_attribute")
    assert not future.is_ready()
    event.set()
    await wait_all([future, other])
    assert future.is_ready()
    assert future != other


@pytest.mark.parametrize("use", [bool, int, float, len, list, str, range, lambda x: f"{x:d}", lambda x: 1 in x])
async def test_use_before_it_is_there(use: Callable[[Any], Any], event: asyncio.Event) -> None:
    """Using the value before it is there never blocks the loop: it raises, and says to await first."""
    future = held(event, 1)
    with pytest.raises(NotReadyError, match="await"):
        use(future)
    with pytest.raises(NotReadyError, match="await"):
        future.result()
    event.set()
    await future


async def test_result_is_the_value() -> None:
    """When it is ready, a future gives its value as often as it is asked, awaited or not."""
    future = await ready([1])
    assert future.result() is future.result()
    assert await future is future.result()


@pytest.mark.parametrize(("value", "truth"), [(0, False), (1, True), ("", False), ([], False), ([0], True)])
async def test_truth(value: Any, truth: bool) -> None:
    """A future of nothing is false, as nothing is."""
    assert bool(await ready(value)) is truth
    assert (not await ready(value)) is not truth


EXPRESSIONS: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("a+F", lambda f: "a" + f, "b"),
    ("F+a", lambda f: f + "a", "b"),
    ("list+F", lambda f: [1] + f, [2]),  # noqa: RUF005
    ("10-F", lambda f: 10 - f, 4),
    ("F-10", lambda f: f - 10, 4),
    ("2*F", lambda f: 2 * f, 4),
    ("F*2", lambda f: f * 2, 4),
    ("10/F", lambda f: 10 / f, 4),
    ("10//F", lambda f: 10 // f, 4),
    ("F%2", lambda f: f % 2, 5),
    ("7%F", lambda f: 7 % f, 5),
    ("2**F", lambda f: 2**f, 5),
    ("F**2", lambda f: f**2, 5),
    ("-F", operator.neg, 5),
    ("+F", operator.pos, 5),
    ("~F", operator.invert, 5),
    ("F&3", lambda f: f & 3, 6),
    ("F|3", lambda f: f | 3, 4),
    ("3|F", lambda f: 3 | f, 4),
    ("F^3", lambda f: f ^ 3, 6),
    ("3^F", lambda f: 3 ^ f, 6),
    ("F<<1", lambda f: f << 1, 6),
    ("1<<F", lambda f: 1 << f, 6),
    ("F>>1", lambda f: f >> 1, 6),
    ("F[0]", operator.itemgetter(0), "xyz"),
    ("F[1:]", operator.itemgetter(slice(1, None)), "xyz"),
    ("abs", abs, -3),
    ("round", round, 2.7),
    ("round 1", lambda f: round(f, 1), 2.77),
    ("divmod", lambda f: divmod(f, 3), 7),
    ("pow", lambda f: pow(2, f), 7),
    ("F<3", lambda f: f < 3, 2),
    ("F<=3", lambda f: f <= 3, 4),
    ("F>3", lambda f: f > 3, 4),
    ("3>=F", lambda f: 3 >= f, 4),  # noqa: SIM300
    ("mixed", lambda f: (1 - f) * 2 + f, 4),
]


@pytest.mark.parametrize(("use", "value"), [pytest.param(use, value, id=name) for name, use, value in EXPRESSIONS])
async def test_expressions(use: Callable[[Any], Any], value: Any, event: asyncio.Event) -> None:
    """An expression over a future gives what it gives over the value, before the value is there and after."""
    early = held(event, value)
    waiting = use(early)
    assert isinstance(waiting, SmartFuture)
    assert not waiting.done()
    event.set()
    assert await waiting == use(value)
    assert await use(early) == use(value)


CONVERSIONS: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("int", int, 3),
    ("float", float, 3),
    ("complex", complex, 3),
    ("len", len, "abc"),
    ("list", list, "abc"),
    ("in", lambda f: "b" in f, "abc"),
    ("not in", lambda f: "d" in f, "abc"),
    ("str", str, "a"),
    ("bytes", bytes, [1, 2]),
    ("reversed", lambda f: list(reversed(f)), "abc"),
    ("format", lambda f: f"{f:04d}", 7),
    ("range", lambda f: list(range(f)), 3),
    ("index", lambda f: "abc"[f], 1),
]


@pytest.mark.parametrize(("use", "value"), [pytest.param(use, value, id=name) for name, use, value in CONVERSIONS])
async def test_conversions(use: Callable[[Any], Any], value: Any) -> None:
    """Built-in functions take a finished future for its value; ``str`` adds no quotes."""
    assert use(await ready(value)) == use(value)


async def test_expressions_over_several_futures() -> None:
    """Futures may be combined with each other, and what comes out is an argument like any other."""
    assert await (bare(1) + apart(2) * 2) == 8
    assert await bare(bare(1) + bare(2)) == 6


async def test_rounding_to_whole_numbers() -> None:
    """``math.ceil`` and ``math.floor`` take a finished future, as numbers."""
    future = await ready(2.5)
    assert (math.floor(future), math.ceil(future)) == (2, 3)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_copies_of_futures(make: Callable[[Any], Any]) -> None:
    """A future is neither copied nor pickled, and says so, and what to do; nothing recurses without end."""
    with pytest.raises(PicklingError, match="await it first"):
        make(await ready(1))


async def test_failures_at_each_use() -> None:
    """A failure is raised at each use, and an expression over it fails alike."""
    future = parallelize(fail)("bad")
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            await future
    with pytest.raises(ValueError, match="bad"):
        bool(future)
    with pytest.raises(ValueError, match="bad"):
        await (future + 1)
    assert isinstance(future.exception(), ValueError)


async def test_cause_of_remote_failures() -> None:
    """A failure in a process has the traceback from there as its cause."""
    with pytest.raises(ValueError, match="bad") as caught:
        await parallelize(method="process")(fail)("bad")
    assert "in fail" in str(caught.value.__cause__)


async def test_cancelling_what_runs(event: asyncio.Event) -> None:
    """A running call can be cancelled; pyutils could cancel only what had not begun."""
    future = held(event, 1)
    await until(lambda: future.info.state == "running")
    assert future.cancel()
    await asyncio.wait([future], timeout=5)
    assert future.cancelled()


async def test_callbacks() -> None:
    """A callback is called with the future when it is done."""
    seen: list[Any] = []
    future = bare(1)
    future.add_done_callback(seen.append)
    await future
    await until(lambda: seen)
    await turns()
    assert len(seen) == 1
    assert seen[0] is future


# A.3: waiting


async def test_completion_order(event: asyncio.Event) -> None:
    """``wait_any`` yields the very futures that it was given, in the order in which they complete."""
    slow, fast = held(event, "slow"), after(0, "fast")
    seen = []
    async for future in wait_any([slow, fast]):
        seen.append(future)
        event.set()
    assert [id(future) for future in seen] == [id(fast), id(slow)]


async def test_no_future_twice_with_a_heartbeat() -> None:
    """However often the heartbeat comes, no future is yielded twice."""
    beats: list[int] = []
    futures = [after(0.03 * n, n) for n in range(4)]
    waiting = wait_any(futures, heartbeat=0.005, callback=lambda: beats.append(1))
    assert [await future async for future in waiting] == [0, 1, 2, 3]
    assert len(beats) > 5


async def test_heartbeat_while_nothing_happens(event: asyncio.Event) -> None:
    """The callback comes while nothing completes, and may be async."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 5:
            event.set()

    assert [await future async for future in wait_any([held(event, 1)], heartbeat=0.01, callback=beat)] == [1]
    assert beats >= 6


async def test_callback_before_each_and_at_the_end() -> None:
    """Without a heartbeat the callback comes before each future and once at the end."""
    seen: list[Any] = []
    async for future in wait_any([await ready(1), await ready(1)], callback=lambda: seen.append("callback")):
        seen.append(await future)
    assert seen == ["callback", 1, "callback", 1, "callback"]


async def test_waiting_for_nothing() -> None:
    """For no futures at all the callback comes once, and nothing is yielded."""
    beats: list[int] = []
    assert [future async for future in wait_any([], callback=lambda: beats.append(1))] == []
    assert beats == [1]
    assert await wait_all([]) == []


async def test_timeout_is_a_deadline(event: asyncio.Event) -> None:
    """The timeout of ``wait_any`` is a deadline, whatever completes before it."""
    seen = []
    with pytest.raises(TimeoutError):
        async for future in wait_any([after(0, 1), held(event, 2)], timeout=0.1, heartbeat=0.01, callback=list):
            seen.append(await future)
    assert seen == [1]


async def test_failed_futures_are_yielded() -> None:
    """``wait_any`` yields a failed future, and the others too; to await it raises."""
    seen: list[Any] = []
    async for future in wait_any([after(0, ValueError("bad")), after(0.02, 1)]):
        try:
            seen.append(await future)
        except ValueError as e:
            seen.append(str(e))
    assert seen == ["bad", 1]


async def test_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With ``log_exceptions`` the failures are logged as well."""
    async for future in wait_any([after(0, ValueError("very bad"))], log_exceptions=True):
        assert future.exception() is not None
    assert "very bad" in caplog.text


async def test_cancelled_futures_are_yielded(event: asyncio.Event) -> None:
    """A cancelled future is yielded like any other."""
    future = held(event, 1)
    future.cancel()
    assert [f.cancelled() async for f in wait_any([future])] == [True]


async def test_same_future_twice() -> None:
    """The same future may stand in the list twice: it is yielded once by ``wait_any``, and gives two values."""
    future = bare(1)
    assert [await f async for f in wait_any([future, future])] == [2]
    assert await wait_all([future, future]) == [2, 2]


async def test_other_awaitables() -> None:
    """Futures of other kinds may stand in the list, and coroutines."""
    loop = asyncio.get_running_loop()
    plain: asyncio.Future[int] = loop.create_future()
    plain.set_result(1)
    assert await wait_all([plain, asyncio.sleep(0, 2), bare(2)]) == [1, 2, 3]
    assert sorted([await f async for f in wait_any([plain, asyncio.sleep(0, 2), bare(2)])]) == [1, 2, 3]


async def test_wait_all_in_input_order(event: asyncio.Event) -> None:
    """``wait_all`` gives the values in input order."""
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, event.set)
    assert await wait_all([held(event, 1), after(0, 2)]) == [1, 2]


async def test_wait_all_raises_the_first_failure_in_input_order() -> None:
    """``wait_all`` waits for all, then raises the failure that is first in the list, not in time."""
    last = after(0.1, "last")
    with pytest.raises(ValueError, match="first in the list"):
        await wait_all([after(0.05, ValueError("first in the list")), after(0, KeyError("first in time")), last])
    assert last.done()


async def test_wait_all_with_a_deadline_and_a_heartbeat(event: asyncio.Event) -> None:
    """``wait_all`` takes the keywords of ``wait_any``: pyutils' had neither timeout nor callback."""
    beats: list[int] = []
    with pytest.raises(TimeoutError):
        await wait_all([held(event, 1)], timeout=0.05, heartbeat=0.01, callback=lambda: beats.append(1))
    assert beats


# A.4: executors


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
async def test_submit(executor: Callable[..., Any]) -> None:
    """An executor takes a function with its arguments, has a name, and counts what it has to do."""
    async with executor(max_workers=1, name="mine") as pool:
        future = pool.submit(divmod, 7, 3)
        assert pool.task_count == 1
        assert await future == (2, 1)
        assert pool.task_count == 0
        assert pool.status().name == "mine"


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
async def test_shutdown_if_idle(executor: Callable[..., Any]) -> None:
    """``shutdown_if_idle`` closes an executor that has nothing to do, and no other."""
    pool = await executor(max_workers=1).start()
    try:
        futures = [pool.submit(time.sleep, 0.05) for _ in range(3)]
        assert not await pool.shutdown_if_idle()  # what is queued counts too
        await wait_all(futures)
        assert await pool.shutdown_if_idle()
        with pytest.raises(ExecutorClosedError):
            pool.submit(pid)
    finally:
        await pool.aclose()


async def test_count_after_a_pickling_failure() -> None:
    """A call that cannot be pickled is refused at once and does not count, so that the executor can be idle."""
    pool = await ProcessExecutor(max_workers=1).start()
    try:
        with pytest.raises(PicklingError, match="lock"):
            pool.submit(apply, threading.Lock())
        assert pool.task_count == 0
        assert await pool.submit(abs, -1) == 1
        assert await pool.shutdown_if_idle()
    finally:
        await pool.aclose()


async def test_count_with_many_threads() -> None:
    """The count is right however many threads submit and finish calls at the same time."""
    async with ThreadExecutor(max_workers=8) as pool:

        def submit_many() -> list[SmartFuture[int]]:
            return [pool.submit(abs, n) for n in range(500)]

        submitted = await asyncio.gather(*[asyncio.to_thread(submit_many) for _ in range(4)])
        await wait_all([future for futures in submitted for future in futures])
        assert pool.task_count == 0
        assert pool.status().done == 2000


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
async def test_latencies(executor: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    """The status tells how long calls take, the middle one and the slow ones; closing prints nothing."""
    async with executor(max_workers=1) as pool:
        assert pool.status().p50 is None
        await wait_all([pool.submit(time.sleep, seconds) for seconds in (0, 0, 0, 0, 0.2)])
        status = pool.status()
    assert 0 <= status.p50 < 0.1 < status.p95 < 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
async def test_a_closed_executor_says_so(executor: Callable[..., Any]) -> None:
    """A closed executor says that it is not open and how to open it, and can be opened again."""
    pool = executor(max_workers=1)
    async with pool:
        assert await pool.submit(abs, -1) == 1
    with pytest.raises(ExecutorClosedError, match="not open"):
        pool.submit(abs, -1)
    async with pool:
        assert await pool.submit(abs, -2) == 2


async def test_threads() -> None:
    """A thread pool runs as many calls at a time as it has threads, in this process."""
    barrier = threading.Barrier(3)
    async with ThreadExecutor(max_workers=3) as pool:
        assert sorted(await wait_all([pool.submit(barrier.wait, 5) for _ in range(3)])) == [0, 1, 2]
        assert await pool.submit(pid) == os.getpid()


async def test_lambdas_and_closures() -> None:
    """Lambdas, closures and local classes travel to a process and back."""

    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    base = 10

    def closure(x: int) -> Local:
        return Local(base + x)

    async with ProcessExecutor(max_workers=1) as pool:
        assert await pool.submit(lambda x: base * x, 2) == 20
        assert (await pool.submit(closure, 2)).x == 12
        returned = await pool.submit(lambda: lambda x: base - x)
        assert returned(1) == 9


async def test_local_exception_class() -> None:
    """An exception of a local class is raised here as that class, with all that it carries."""

    class LocalError(Exception):
        def __init__(self, message: str, code: int) -> None:
            super().__init__(message, code)
            self.code = code

    def fail_locally() -> NoReturn:
        raise LocalError("bad", 7)

    async with ProcessExecutor(max_workers=1) as pool:
        with pytest.raises(LocalError) as caught:
            await pool.submit(fail_locally)
        assert caught.value.code == 7


async def test_result_that_cannot_be_pickled() -> None:
    """A result that cannot be pickled fails its own call, and says what it was; the pool goes on."""
    async with ProcessExecutor(max_workers=1) as pool:
        with pytest.raises(PicklingError, match="lock"):
            await pool.submit(threading.Lock)
        assert await pool.submit(abs, -1) == 1


async def test_exit_of_a_worker() -> None:
    """A call that ends its process fails alone: the pool replaces the worker and goes on."""
    async with ProcessExecutor(max_workers=2) as pool:
        futures = [pool.submit(abs, n) if n != 3 else pool.submit(die) for n in range(8)]
        with pytest.raises(WorkerLostError):
            await futures[3]
        rest = futures[:3] + futures[4:]
        assert await wait_all(rest) == [0, 1, 2, 4, 5, 6, 7]
        assert await pool.submit(abs, -1) == 1
        assert pool.status().deaths >= 1


async def test_default_executors_can_be_closed_and_used_again() -> None:
    """After ``aclose`` of the default executors, the next call starts them again."""
    for _ in range(2):
        assert await wait_all([bare(1), apart(1)]) == [2, 2]
        await aclose()


def test_default_executors_of_several_runs() -> None:
    """The default executors close themselves at the end of ``asyncio.run``, and the next run has its own."""

    async def main() -> list[int]:
        return await wait_all([bare(1), apart(1)])

    assert asyncio.run(main()) == [2, 2]
    assert asyncio.run(main()) == [2, 2]


LOOP_LEFT_OPEN = """
import asyncio
from aioparallel import parallelize, wait_all

calls = [parallelize(abs), parallelize(method="process")(abs)]

async def main():
    return await wait_all([call(-1) for call in calls])

loop = asyncio.new_event_loop()
print(loop.run_until_complete(main()))
"""


def test_program_ends_without_closing_anything() -> None:
    """A program that used the default executors and closed nothing, not even its loop, ends by itself."""
    program = [sys.executable, "-c", LOOP_LEFT_OPEN]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=15, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[1, 1]\n"), ended.stderr
