"""The executors of an event loop: configured, default, closed by the loop or by hand."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import aioparallel
from aioparallel import ExecutorClosedError, Method, ProcessExecutor, WorkerStartError, configure, parallelize
from aioparallel._executors.coroutine import CoroutineExecutor
from aioparallel._executors.pool import Executor
from aioparallel._executors.thread import ThreadExecutor
from aioparallel._verbs.ambient import _ambients, executor_for
from tests.tools import Gate, is_alive, until, wait_for
from tests.unit.verbs import jobs


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


def is_open(pool: Executor) -> bool:
    return pool._run is not None


def ambient_thread_executor() -> Executor:
    pool = executor_for(Method.THREAD)
    assert pool is not None
    return pool


# configure


async def test_configure_opens_and_closes() -> None:
    """Entering opens the executors, calls use them, and leaving closes them."""
    pool = ThreadExecutor(1, name="mine")
    async with configure(thread=pool):
        assert is_open(pool)
        assert await jobs.add(1, 2) == 3
        assert pool.status().done == 1
    assert not is_open(pool)


async def test_configure_leaves_open_what_was_open() -> None:
    """An executor that is open already is used, and stays open."""
    async with ThreadExecutor(1) as pool:
        async with configure(thread=pool):
            assert await jobs.add(1, 2) == 3
        assert await pool.submit(jobs.plain, 1) == 2


async def test_configure_restores() -> None:
    """Nested configurations count from the inside out; what the inner one does not name stays."""
    outer, inner = ThreadExecutor(1), ThreadExecutor(1)
    async with configure(thread=outer, coroutine=CoroutineExecutor(1)):
        coroutines = executor_for(Method.COROUTINE)
        async with configure(thread=inner):
            assert executor_for(Method.THREAD) is inner
            assert executor_for(Method.COROUTINE) is coroutines
        assert executor_for(Method.THREAD) is outer
    assert executor_for(Method.THREAD) not in {outer, inner}


async def test_configurations_may_end_in_any_order() -> None:
    """Those that were started by hand may be closed in any order: what is left counts."""
    first, second = ThreadExecutor(1), ThreadExecutor(1)
    one = await configure(thread=first).start()
    two = await configure(thread=second).start()
    await one.aclose()
    assert executor_for(Method.THREAD) is second
    await two.aclose()
    assert executor_for(Method.THREAD) not in {first, second}


async def test_start_and_close_in_different_tasks() -> None:
    """A configuration may be started in one task and closed in another, as fixtures and notebook cells do."""
    configuration = configure(thread=ThreadExecutor(1))
    await asyncio.create_task(configuration.start())
    assert await jobs.add(1, 2) == 3
    await asyncio.create_task(configuration.aclose())
    await configuration.aclose()


async def test_start_twice() -> None:
    """A configuration that is in use cannot be started again; one that was closed can."""
    configuration = configure(thread=ThreadExecutor(1))
    async with configuration:
        with pytest.raises(RuntimeError, match="in use already"):
            await configuration.start()
        assert await jobs.add(1, 2) == 3
    async with configuration:
        assert await jobs.add(1, 2) == 3


async def test_nothing_happens_before_it_starts() -> None:
    """Making a configuration opens nothing and changes nothing."""
    pool = ThreadExecutor(1)
    configure(thread=pool)
    assert not is_open(pool)
    assert executor_for(Method.THREAD) is not pool


@pytest.mark.parametrize("wrong", ["thread", ThreadExecutor, 3])
def test_configure_takes_executors(wrong: Any) -> None:
    """What is no executor is refused at once."""
    with pytest.raises(TypeError, match=r"configure\(thread=.*expected an executor"):
        configure(thread=wrong)


async def test_any_executor_may_stand_in() -> None:
    """An executor of another kind may stand in for a method, which is a way to debug."""
    async with configure(process=ThreadExecutor(1)):
        assert await jobs.where_in_process() == os.getpid()


async def test_one_executor_for_two_methods() -> None:
    """One executor may be given twice; it is opened and closed once."""
    pool = ThreadExecutor(1)
    async with configure(process=pool, thread=pool):
        assert await jobs.where_in_process() == (await jobs.where())[0]
        assert pool.status().done == 2


async def test_leaving_waits_for_what_was_submitted(gate: Gate) -> None:
    """Leaving normally waits for all calls, those among them that they make to other executors."""

    @parallelize
    def outer() -> int:
        jobs.hold(gate)
        return jobs.where_in_process().result(10)

    async with configure(thread=ThreadExecutor(1), process=ProcessExecutor(1)):
        future = outer()
        asyncio.get_running_loop().call_later(0.05, gate.open)
    assert future.done()
    assert future.result(10) != os.getpid()


async def test_leaving_by_an_exception_cancels() -> None:
    """Leaving by an exception cancels what was submitted."""
    with pytest.raises(LookupError):
        async with configure(coroutine=CoroutineExecutor(1)):
            future = parallelize(asyncio.Event().wait)()
            raise LookupError
    assert future.cancelled()


async def test_a_cancelled_leaving_cancels() -> None:
    """Cancelling whoever waits while leaving cancels what was submitted, on every executor."""
    futures = []

    async def main() -> None:
        async with configure(coroutine=CoroutineExecutor(1), thread=ThreadExecutor(1)):
            futures.append(parallelize(asyncio.Event().wait)())

    task = asyncio.create_task(main())
    await until(lambda: futures)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert futures[0].cancelled()


async def test_what_cannot_be_opened() -> None:
    """If one executor cannot be opened, none is, and nothing has changed."""

    def refuse() -> None:
        raise LookupError("no luck")

    good, bad = ThreadExecutor(1), ThreadExecutor(1, initializer=refuse)
    with pytest.raises(WorkerStartError, match="no luck"):
        await configure(coroutine=CoroutineExecutor(1), process=good, thread=bad).start()
    assert not is_open(good)
    assert await jobs.add(1, 2) == 3


async def test_repr() -> None:
    """Its text shows the executors."""
    assert "thread=<ThreadExecutor 'mine' closed>" in repr(configure(thread=ThreadExecutor(name="mine")))


# The default executors


async def test_started_on_first_use() -> None:
    """Without a configuration an executor is started by the first call, which waits for nothing, and then stays."""
    future = jobs.add(1, 2)
    pool = ambient_thread_executor()
    assert is_open(pool)
    assert await future == 3
    assert await jobs.add(2, 2) == 4
    assert ambient_thread_executor() is pool
    assert pool.status().done == 2


async def test_one_executor_of_each_kind() -> None:
    """Each method has one executor on a loop, of its own kind."""
    for method in (Method.COROUTINE, Method.THREAD, Method.PROCESS):
        pool = executor_for(method)
        assert pool is not None
        assert pool.kind == method
        assert executor_for(method) is pool


async def test_aclose() -> None:
    """`aclose` waits for what was submitted and closes them all; the next call starts new ones."""
    futures = [jobs.add(1, 2), jobs.add_async(1, 2), jobs.add_in_process(1, 2)]
    first = ambient_thread_executor()
    await aioparallel.aclose()
    assert [future.result(10) for future in futures] == [3, 3, 3]
    assert not is_open(first)
    assert await jobs.add(1, 2) == 3
    assert ambient_thread_executor() is not first


async def test_aclose_waits_for_what_calls_start(gate: Gate) -> None:
    """`aclose` also waits for calls that others make without awaiting them, on executors that were not open yet."""
    futures: list[Any] = []

    @parallelize
    def outer() -> None:
        jobs.hold(gate)
        futures.append(jobs.where_in_process())

    outer()
    asyncio.get_running_loop().call_later(0.05, gate.open)
    await aioparallel.aclose()
    assert futures[0].result() != os.getpid()


async def test_aclose_without_draining() -> None:
    """`aclose(drain=False)` cancels what was submitted."""
    future = parallelize(asyncio.Event().wait)()
    await aioparallel.aclose(drain=False)
    assert future.cancelled()


async def test_aclose_where_nothing_is_open() -> None:
    """`aclose` where nothing was started does nothing."""
    await aioparallel.aclose()
    await aioparallel.aclose()


async def test_aclose_ends_configurations() -> None:
    """`aclose` closes what configurations opened, for whoever has lost them, and not what was open before."""
    mine = ThreadExecutor(1)
    async with ThreadExecutor(1) as other:
        configuration = await configure(thread=mine).start()
        await configure(process=other).start()
        await aioparallel.aclose()
        assert not is_open(mine)
        assert is_open(other)
        assert executor_for(Method.PROCESS) is not other
        await configuration.aclose()


async def test_an_executor_that_was_closed_is_started_again() -> None:
    """A default executor that somebody closed works again at the next call."""
    assert await jobs.add(1, 2) == 3
    await ambient_thread_executor().aclose()
    assert await jobs.add(1, 2) == 3


async def test_a_configured_executor_that_was_closed() -> None:
    """A configured executor that somebody closed is not opened behind his back."""
    pool = ThreadExecutor(1)
    async with configure(thread=pool):
        await pool.aclose()
        with pytest.raises(ExecutorClosedError):
            jobs.add(1, 2)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_loop_for_each_test(number: int) -> None:
    """Each event loop has its own executors, as with pytest-asyncio, which makes one for each test."""
    assert await jobs.add(number, 0) == number
    loops = {pool._run.loop for each in _ambients.values() for pool in each.defaults.values() if pool._run}
    assert loops == {asyncio.get_running_loop()}


def test_asyncio_run_closes_them() -> None:
    """The end of `asyncio.run` ends the executors that it used: no thread, no process is left, and nothing is said."""

    async def main() -> int:
        assert await jobs.add(1, 2) == await jobs.add_async(1, 2) == 3
        return await jobs.where_in_process()

    for _ in range(2):
        pid = asyncio.run(main())
        assert not is_alive(pid)


def test_a_runner_keeps_them() -> None:
    """Between two `run` of a Runner the executors stay."""
    with asyncio.Runner() as runner:
        assert runner.run(_where_in_process()) == runner.run(_where_in_process())


def test_loops_in_threads() -> None:
    """Two loops in two threads have two sets of executors at the same time."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(_where_in_process()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2


def test_loops_are_forgotten() -> None:
    """A loop that has ended is not kept."""

    async def main() -> weakref.ref[Any]:
        assert await jobs.add(1, 2) == 3
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    gc.collect()
    assert loop() is None


def test_a_program_that_closes_nothing(tmp_path: Path) -> None:
    """A program that just makes calls ends by itself, quietly, and leaves no process."""
    script = tmp_path / "program.py"
    script.write_text(
        "import asyncio, os\n"
        "from aioparallel import parallelize\n"
        "@parallelize(method='process')\n"
        "def pid(): return os.getpid()\n"
        "async def main(): return await pid()\n"
        "print(asyncio.run(main()))\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", str(script)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    wait_for(lambda: not is_alive(int(done.stdout)))


# Methods without a default


async def test_remote_without_hosts() -> None:
    """REMOTE without a configuration says how to configure it, when it is called."""
    with pytest.raises(RuntimeError, match=r"configure\(remote=RemoteExecutor\(load_hosts\(\)\)\)"):
        parallelize(jobs.plain, method=Method.REMOTE)(1)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
async def test_ray_without_the_extra() -> None:
    """RAY without ray names the extra to install."""
    with pytest.raises(ModuleNotFoundError, match=r"aioparallel\[ray\]"):
        parallelize(jobs.plain, method=Method.RAY)(1)


async def _where_in_process() -> int:
    return await jobs.where_in_process()
