"""Calls made inside calls: nothing deadlocks, and processes never multiply."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

import aioparallel
from aioparallel import ProcessExecutor, SmartFuture, configure, parallelize
from aioparallel._executors.coroutine import CoroutineExecutor
from aioparallel._executors.thread import ThreadExecutor
from tests.unit.verbs import jobs


@pytest.fixture(autouse=True)
async def narrow() -> AsyncIterator[Any]:
    """One slot of each kind, so that whoever waits for a second one waits for ever."""
    executors = {"thread": ThreadExecutor(1), "coroutine": CoroutineExecutor(1), "process": ProcessExecutor(1)}
    async with configure(**executors):
        yield executors


# To a kind that a caller holds


async def test_thread_in_thread() -> None:
    """In a thread slot, a call in a thread runs right there, and returns a finished future."""
    assert await jobs.down_in_threads(3) == [True, True, True]


async def test_coroutine_in_coroutine() -> None:
    """In a coroutine slot, a call of a coroutine starts at once as a task without a slot."""
    assert await jobs.down_in_coroutines(3) == 3


async def test_coroutines_in_a_coroutine_run_concurrently() -> None:
    """Calls that a coroutine makes run at the same time, and do not wait for it."""
    met = asyncio.Barrier(3)

    @parallelize
    async def meet() -> None:
        await met.wait()

    @parallelize
    async def outer() -> list[None]:
        return await asyncio.gather(meet(), meet(), meet())

    assert await outer() == [None] * 3


async def test_a_caller_further_up_counts() -> None:
    """What a caller's caller holds is held: coroutine, thread, coroutine takes two slots."""
    assert await jobs.from_coroutine_to_thread_and_back(2) == 2


async def test_a_nested_coroutine_runs_on_the_loop() -> None:
    """A coroutine that is called from a thread inside a coroutine runs on the same event loop as that."""

    @parallelize
    async def loop_id() -> int:
        return id(asyncio.get_running_loop())

    @parallelize
    def in_thread() -> int:
        return loop_id().result(10)

    @parallelize
    async def outer() -> int:
        return await in_thread()

    assert await outer() == id(asyncio.get_running_loop())


async def test_a_particular_executor_of_the_same_kind() -> None:
    """The rule goes by kind: a call `on` another executor of a kind that is held runs in place, too."""
    async with ThreadExecutor(1, name="other") as other:
        inner = parallelize(threading.get_ident, on=other)

        @parallelize
        def outer() -> tuple[int, bool]:
            future = inner()
            return threading.get_ident(), future.done() and future.result(10) == threading.get_ident()

        assert (await outer())[1]
        assert other.status().done == 0


async def test_submit_is_dispatched(narrow: Any) -> None:
    """`submit` always takes a slot: it is for those who know what they do."""
    async with ThreadExecutor(1) as other:

        @parallelize
        def outer() -> int:
            return other.submit(threading.get_ident).result(10)

        assert await outer() != threading.get_ident()
        assert other.status().done == 1


async def test_arguments_in_threads_are_awaited() -> None:
    """A call that runs in place in a thread waits for the futures among its arguments."""

    @parallelize
    def outer() -> Any:
        return jobs.add(jobs.where_in_process(), later_sum()).result(10)

    def later_sum() -> Any:
        return jobs.add_async(jobs.add_async(1, 1), 1)

    assert await outer() > 3


async def test_arguments_in_coroutines_are_awaited() -> None:
    """A call that runs in place in a coroutine returns at once, and awaits the futures among its arguments."""

    @parallelize
    async def outer() -> Any:
        future = jobs.add_async(jobs.where_in_process(), [jobs.add_async(1, 1)][0])
        assert not future.done()
        return await future

    assert await outer() > 2


async def test_failures_in_place() -> None:
    """A call that runs in place fails by its future, not where it is made; a failed argument fails it."""

    @parallelize
    def outer() -> list[str]:
        futures = [jobs.fail("a"), jobs.add(jobs.fail("b"), 1)]
        return [f"{type(future.exception()).__name__}: {future.exception()}" for future in futures]

    assert await outer() == ["LookupError: a", "LookupError: b"]


async def test_contextvars_in_place() -> None:
    """A call that runs in place sees the caller's contextvars, and changes its own copy, as on an executor."""
    from contextvars import ContextVar

    var = ContextVar("var", default=0)

    @parallelize
    def change() -> int:
        var.set(var.get() + 1)
        return var.get()

    @parallelize
    def outer() -> tuple[int, int]:
        var.set(5)
        return change().result(10), var.get()

    assert await outer() == (6, 5)


async def test_cancelling_a_nested_coroutine() -> None:
    """Cancelling the last awaiter of a coroutine that runs without a slot stops it."""
    stopped = asyncio.Event()

    @parallelize
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @parallelize
    async def outer() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 0.01)

    await outer()
    assert stopped.is_set()


# To another kind


async def test_other_kinds_are_dispatched(narrow: Any) -> None:
    """From a thread or a coroutine, a call to another kind takes a slot of that as usual."""
    here = os.getpid()
    assert await jobs.from_thread_to_process() != here
    assert await jobs.from_coroutine_to_process() != here
    assert narrow["process"].status().done == 2
    assert await jobs.from_thread_to_coroutine(0) == 0
    assert narrow["coroutine"].status().done == 2


async def test_streams_inside_calls() -> None:
    """A generator may be consumed inside a call of the same kind, and of another."""

    @parallelize
    async def outer() -> list[int]:
        return [i async for i in jobs.count(3)] + [i async for i in jobs.count_in_thread(2)]

    assert await outer() == [0, 1, 2, 0, 1]


async def test_default_executors_from_a_thread() -> None:
    """A call made in a thread may be the first use of an executor: it is opened on the loop it belongs to."""
    async with ThreadExecutor(1) as pool:
        await aioparallel.aclose()
        assert await pool.submit(lambda: jobs.down_in_coroutines(2).result(10)) == 2


async def test_a_loop_inside_a_thread() -> None:
    """An event loop that a thread runs for a moment uses the executors of the thread's own loop."""

    @parallelize
    def outer() -> int:
        async def main() -> int:
            return await jobs.where_in_process()

        return asyncio.run(main())

    first = await jobs.where_in_process()
    assert await outer() == first


# In workers


async def test_process_in_process() -> None:
    """In a worker, calls run there, and return finished futures: no second process is made, and nothing hangs."""
    assert len({pid for pid, _ in await jobs.down_in_processes(3)}) == 1
    assert [done for _, done in await jobs.down_in_processes(3)] == [True] * 3


async def test_all_kinds_in_a_worker() -> None:
    """In a worker, calls of every kind run there; called from plain code, even coroutines have ended."""
    pids, done = await jobs.all_kinds_from_process()
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()
    assert done


async def test_all_kinds_on_a_worker_s_loop() -> None:
    """In an `async def` in a worker, calls of every kind can be awaited, together."""
    pids = await jobs.all_kinds_from_loop_in_process()
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


async def test_arguments_in_a_worker_are_awaited() -> None:
    """In a worker, calls take futures as arguments."""
    assert await jobs.add_up_in_process() == [3, 6]


async def test_streams_in_a_worker() -> None:
    """In a worker, generators are streams, too."""
    assert await jobs.stream_in_process(3) == ([0, 1, 2], [0, 1, 2])


async def test_failures_in_a_worker() -> None:
    """In a worker, a call that fails is a finished future that raises."""
    assert await jobs.fail_inside("no luck") == "True LookupError no luck"


@pytest.mark.leak_check(tasks=False, processes=False, fds=False)  # anyio keeps its processes until the loop ends
async def test_the_anyio_engine() -> None:
    """The same holds in processes of the anyio engine."""
    async with configure(process=ProcessExecutor(1, engine="anyio")):
        pids, done = await jobs.all_kinds_from_process()
        assert len(set(pids)) == 1
        assert pids[0] != os.getpid()
        assert done


async def test_a_decorated_function_on_an_executor() -> None:
    """An executor that is given a decorated function runs the plain one."""
    async with ProcessExecutor(1) as processes, ThreadExecutor(1) as threads:
        futures: list[SmartFuture[Any]] = [
            processes.submit(jobs.add, 1, 2),
            threads.submit(jobs.add_in_process, 1, 2),
            processes.submit(jobs.Base(5).times, 2),
            processes.options(priority=1).submit(jobs.add_async, 1, 2),
        ]
        assert [await future for future in futures] == [3, 3, 10, 3]
