"""parmap, distribute and parallelize where no event loop runs, and where another one does."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from concurrent.futures import Future
from typing import Any

import pytest

import aioparallel
from aioparallel import ThreadExecutor as AsyncThreadExecutor
from aioparallel import blocking
from aioparallel.blocking import distribute, parallelize, parmap
from tests.contract import jobs
from tests.tools import Gate, hold, is_alive, wait_for


def portals() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aioparallel portal"]


def square(n: int) -> int:
    return n * n


@parallelize(method="process")
def crunch(a: int, b: int) -> int:
    return a * b


@parallelize
def where(value: int = 0) -> tuple[int, str]:
    return value, threading.current_thread().name


@parallelize
async def fetch(n: int) -> int:
    await asyncio.sleep(0)
    return n


@parallelize(method="process")
def numbers(stop: int) -> Any:
    yield from range(stop)


@distribute(job="threads")
def scale(x: int, y: int, plus: int = 0) -> int:
    return x * y + plus


def nest(n: int) -> tuple[int, int, list[int], list[int], int]:
    """Every verb, inside a call."""
    deeper = list(parmap(lambda n: sum(parmap(square, range(n))), range(n)))
    return crunch(n, n).result(), os.getpid(), deeper, scale([1, 2], [3, 4]), sum(numbers(n))


# parmap


@pytest.mark.parametrize("method", ["process", "thread", "serial"])
def test_parmap(method: str) -> None:
    """``parmap`` takes the keywords that it has elsewhere."""
    assert list(parmap(square, range(100), method=method)) == [n * n for n in range(100)]
    pairs = parmap(pow, [(2, 3), (3, 2)], method=method, star=True, args=(7,))
    assert list(pairs) == [1, 2]
    assert sorted(parmap(square, range(10), method=method, ordered=False)) == [n * n for n in range(10)]
    outcomes = list(parmap(lambda n: 1 // n, [1, 0], method=method, errors="return"))
    assert [outcome.ok for outcome in outcomes] == [True, False]
    with pytest.raises(ZeroDivisionError, match="division") as caught:
        list(parmap(lambda n: 1 // n, [0], method=method))
    assert caught.value.seq_index == 0  # type: ignore[attr-defined]


def test_parmap_of_coroutines() -> None:
    """A coroutine function runs on the portal's loop, many at a time."""
    assert list(parmap(jobs.add_async, [(n, 1) for n in range(50)], method="coroutine", star=True)) == [
        n + 1 for n in range(50)
    ]


def test_parmap_refuses_nonsense() -> None:
    """Arguments that make no sense are refused at once."""
    with pytest.raises(TypeError, match="has no option luck"):
        parmap(square, [1], luck=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"blocking\.Executor\(\.\.\.\)"):
        parmap(square, [1], on=AsyncThreadExecutor(1))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"aioparallel\.blocking"):
        parmap(square, [1], on="process")  # type: ignore[call-overload]
    assert not portals()


def test_parmap_on_an_executor() -> None:
    """``on`` is an executor of this module, which is opened if need be, and stays open."""
    with blocking.ThreadExecutor(1) as pool:
        assert list(parmap(square, range(5), on=pool)) == [0, 1, 4, 9, 16]
        assert pool.submit(square, 3).result(20) == 9


def test_its_executors_stay() -> None:
    """The executors that maps open by themselves stay for the next one, until they are closed."""
    pids = {pid for _ in range(3) for pid in parmap(lambda _: os.getpid(), range(50))}
    assert len(pids) <= (os.cpu_count() or 1)
    assert portals()
    blocking.close()
    assert not portals()
    assert not any(map(is_alive, pids))
    blocking.close()
    assert list(parmap(square, [2])) == [4]


def test_the_signature_shows_the_keywords() -> None:
    """``parmap`` shows the keywords that it takes."""
    assert {"prefetch", "star", "errors", "method", "on"} <= set(inspect.signature(parmap).parameters)


# distribute


def test_distribute() -> None:
    """A distributed function takes sequences and returns a list."""
    assert scale(range(4), [10, 20, 30, 40], plus=1) == [1, 21, 61, 121]
    assert distribute(square)(range(5)) == [0, 1, 4, 9, 16]
    assert distribute(job="compute", workers=2)(square)(iter([3])) == [9]
    assert distribute(job="web")(jobs.add_async)([1, 2], [3, 4]) == [4, 6]


def test_distribute_is_the_same() -> None:
    """Errors, names and signatures are as elsewhere."""
    with pytest.raises(ValueError, match="lengths"):
        scale([1, 2, 3], [1, 2])
    with pytest.raises(TypeError, match="nothing to distribute"):
        scale(plus=1)
    with pytest.raises(ValueError, match="job='luck'"):
        distribute(job="luck")
    with pytest.raises(jobs.JobError):
        distribute(job="threads")(jobs.fail)(["a"])
    assert scale.__name__ == "scale"
    assert "Sequence" in str(inspect.signature(scale))
    assert "distributed" in repr(scale)


def test_distributed_methods() -> None:
    """Methods may be distributed."""

    class Scaler:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @distribute(job="threads")
        def scale(self, x: int) -> int:
            return self.factor * x

    assert Scaler(3).scale([1, 2]) == [3, 6]


# parallelize


def test_parallelize() -> None:
    """Calling a parallelized function returns a future of the standard library at once."""
    future = crunch(6, 7)
    assert isinstance(future, Future)
    assert future.result(20) == 42
    assert crunch.local(2, 3) == 6
    assert "aioparallel thread" in where(1).result(20)[1]
    assert fetch(3).result(20) == 3


def test_parallelized_generators() -> None:
    """Calling a parallelized generator function returns an iterator that streams."""
    assert list(numbers(100)) == list(range(100))
    with numbers(10**12) as stream:
        assert next(stream) == 0
    with pytest.raises(TypeError, match="no length"):
        len(numbers(3))


def test_parallelized_options() -> None:
    """Options hold, may be changed, and are refused when they make no sense."""

    @parallelize(method="process", timeout=0.2)
    def linger(gate: Gate) -> Any:
        return hold(gate)

    for call in (linger(never()), linger.options(timeout=0.1)(never())):
        with pytest.raises(TimeoutError):
            call.result(20)
    assert crunch.options(method="thread")(2, 3).result(20) == 6
    with pytest.raises(TypeError, match="no such option"):
        parallelize(luck=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no such option"):
        crunch.options(luck=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="method='luck'"):
        parallelize(method="luck")
    with pytest.raises(TypeError, match="plain function"):
        parallelize(square, method="coroutine")
    again = parallelize(crunch, method="thread")
    assert type(again) is blocking.Parallel
    assert again(2, 3).result(20) == 6
    assert parallelize(aioparallel.parallelize(square))(3).result(20) == 9


def never() -> Gate:
    """A gate that nobody opens."""
    import tempfile

    return Gate(os.path.join(tempfile.mkdtemp(), "gate"))


def test_parallelized_on_an_executor() -> None:
    """``on`` is an executor of this module; the function keeps it, and opens it when it is called."""

    @parallelize(on=blocking.ThreadExecutor(1, name="mine"))
    def name() -> str:
        return threading.current_thread().name

    assert name().result(20) == "aioparallel mine 0"
    assert "process" not in repr(name)
    assert list(name.map([1], star=None)) == ["aioparallel mine 0"]
    assert "mine" not in name.options(method="thread")().result(20)
    with blocking.ProcessExecutor(1) as pool:  # where it travels to, it runs in place
        assert pool.submit(lambda fn: fn(2, 3).result(), crunch.options(on=pool)).result(20) == 6
    with pytest.raises(TypeError, match=r"blocking\.Executor"):
        parallelize(on=AsyncThreadExecutor(1))(square)  # type: ignore[call-overload]


def test_parallelized_maps() -> None:
    """A parallelized function maps, where it is called."""
    assert list(crunch.map([(1, 2), (3, 4)], star=True)) == [2, 12]
    assert list(crunch.map([(1, 2)], star=True, method="thread", workers=1)) == [2]
    with blocking.ThreadExecutor(1) as pool:
        assert list(crunch.map([(1, 2)], star=True, on=pool)) == [2]


def test_parallelized_methods() -> None:
    """Methods, partials and callable objects may be parallelized."""

    class Adder:
        def __init__(self, base: int) -> None:
            self.base = base

        @parallelize
        def add(self, n: int) -> int:
            return self.base + n

    assert Adder(3).add(4).result(20) == 7
    assert parallelize(functools.partial(square, 3))().result(20) == 9
    assert parallelize(jobs.Adder(5))(1).result(20) == 6


def test_parallelized_failure() -> None:
    """What the function raises is raised by the future; cancelling stops what a process runs."""
    with pytest.raises(jobs.JobError):
        parallelize(jobs.fail, method="process")().result(20)
    gate = never()
    call = parallelize(hold, method="process")(gate)
    (pid,) = wait_for(lambda: gate.entered)
    assert call.cancel()
    wait_for(lambda: not is_alive(pid))


# Nested calls


@pytest.mark.parametrize("method", ["process", "thread"])
def test_nested(method: str) -> None:
    """Inside a call every verb may be used again, to any depth: in a worker process everything runs there."""
    product, pid, deeper, scaled, total = parallelize(nest, method=method)(4).result(30)
    assert (product, deeper, scaled, total) == (16, [0, 0, 1, 5], [3, 8], 6)
    assert (pid == os.getpid()) == (method == "thread")


def test_nested_threads_do_not_wait_for_each_other() -> None:
    """Calls in threads that map in threads do not wait for a slot that they hold themselves."""

    def fan_out(depth: int) -> int:
        return 1 + (sum(parmap(fan_out, [depth - 1] * 3, method="thread")) if depth else 0)

    with blocking.ThreadExecutor(1) as pool:
        assert next(parmap(fan_out, [3], on=pool)) == 40


def test_nested_on_one_executor() -> None:
    """A call to an executor of a kind that its caller holds runs in place."""
    with blocking.ThreadExecutor(1) as pool:
        inner = parallelize(square, on=pool)
        assert pool.submit(lambda: inner(5).result(20)).result(20) == 25


# Beside other event loops


async def test_beside_a_running_loop() -> None:
    """On the thread of another event loop, as in a notebook, the verbs block as anywhere, on a loop of their own."""
    assert list(parmap(square, range(5), method="thread")) == [0, 1, 4, 9, 16]
    assert scale([1], [2]) == [2]
    assert crunch(2, 3).result(20) == 6
    assert await asyncio.to_thread(lambda: crunch(2, 4).result(20)) == 8
    assert await asyncio.wrap_future(crunch(2, 5)) == 10


async def test_in_a_thread_of_another_loop() -> None:
    """In a slot of an executor of another event loop the verbs use the executors of their own."""
    async with AsyncThreadExecutor(1) as pool:
        product, pid, deeper, *_ = await pool.submit(nest, 3)
    assert (product, pid, deeper) == (9, os.getpid(), [0, 0, 1])


def test_in_a_coroutine_of_ours() -> None:
    """A coroutine that runs on the portal's loop may start calls, but not wait for them: that would be for ever."""

    @parallelize
    async def outer() -> int:
        call = crunch(2, 3)
        with pytest.raises(aioparallel.NotReadyError):
            call.result()
        with pytest.raises(aioparallel.NotReadyError):
            next(parmap(square, [1]))
        return await asyncio.wrap_future(call)

    assert outer().result(20) == 6
