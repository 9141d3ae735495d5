"""Blocking executors: real ones of concurrent.futures, and what they add to those."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import pytest

import aioparallel
from aioparallel import ExecutorClosedError, PicklingError, PoolFullError, WorkerLostError, WorkerStartError, blocking
from tests.contract import jobs
from tests.tools import Gate, Log, hold, is_alive, wait_for


def portals() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aioparallel portal"]


@contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C comes while the block waits for something."""
    timer = threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    yield
    timer.join()


# Calls


def test_is_an_executor(pool: Any) -> None:
    """Whatever takes a ``concurrent.futures.Executor`` takes it; it needs no ``with``."""
    assert isinstance(pool, concurrent.futures.Executor)
    assert pool.submit(jobs.add, 1, y=2).result(20) == 3
    assert pool._max_workers == 2


def test_a_thousand_calls(pool: Any) -> None:
    """A thousand calls are a thousand results, each its own."""
    calls = [pool.submit(jobs.add, n, 1) for n in range(1000)]
    assert [call.result(20) for call in calls] == list(range(1, 1001))
    wait_for(lambda: pool.status().done == 1000)


def test_from_several_threads(pool: Any) -> None:
    """Any thread may submit, and wait for its results."""
    results: dict[int, list[int]] = {}

    def use(thread: int) -> None:
        results[thread] = [pool.submit(jobs.add, thread, n).result(20) for n in range(50)]

    threads = [threading.Thread(target=use, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {thread: [thread + n for n in range(50)] for thread in range(8)}


def test_one_thread_for_all(opened: Callable[..., Any]) -> None:
    """All executors share one portal thread, which is there from the first call on, until the last is shut down."""
    one, two = opened("thread"), opened("thread")
    assert not portals(), "an executor that is not used costs nothing"
    one.submit(jobs.same).result(20)
    two.submit(jobs.same).result(20)
    assert len(portals()) == 1
    one.shutdown()
    assert two.submit(jobs.same, 2).result(20) == 2
    two.shutdown()
    assert not portals()


def test_closures(opened: Callable[..., Any]) -> None:
    """Closures, lambdas and classes that are defined here travel to processes."""
    base = 10
    assert opened("process").submit(lambda x: x + base, 1).result(20) == 11


def test_what_cannot_travel(opened: Callable[..., Any]) -> None:
    """A call that cannot be pickled fails in ``submit``, which names what; the executor goes on."""
    pool = opened("process")
    with pytest.raises(PicklingError) as caught:
        pool.submit(jobs.same, {"lock": threading.Lock()})
    assert caught.value.path == "args[0]['lock']"
    assert pool.submit(jobs.same, 1).result(20) == 1


def test_a_death(opened: Callable[..., Any]) -> None:
    """A worker that dies fails its own call, and the executor goes on."""
    pool = opened("process", 1)
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        pool.submit(signal.raise_signal, signal.SIGKILL).result(20)
    assert pool.submit(jobs.add, 1, 2).result(20) == 3


def test_workers_that_cannot_start(opened: Callable[..., Any]) -> None:
    """If no worker can be started, the calls say so, and the next one tries again."""
    pool = opened("process", 1, initializer=jobs.fail)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="no luck"):
            pool.submit(jobs.same, 1).result(20)


def test_full(kind: str, opened: Callable[..., Any], gate: Gate) -> None:
    """Beyond ``max_pending`` waiting calls, ``submit`` raises."""
    pool = opened(kind, 1, max_pending=1)
    running = pool.submit(hold, gate)
    wait_for(lambda: gate.entered)
    waiting = pool.submit(hold, gate)
    wait_for(lambda: pool.status().queued == 1)
    with pytest.raises(PoolFullError):
        pool.submit(hold, gate)
    gate.open()
    concurrent.futures.wait([running, waiting])


def test_options(opened: Callable[..., Any], gate: Gate, log: Log) -> None:
    """A view with other options is the same executor."""
    pool = opened("process", 1)
    with pytest.raises(TimeoutError):
        pool.options(timeout=0.2).submit(hold, gate).result(20)
    assert pool.options(retry=3).submit(jobs.fail_until, log, 2).result(20) == 2
    assert list(pool.options(timeout=20).options(priority=1).map(jobs.same, range(3))) == [0, 1, 2]
    with pytest.raises(TypeError, match="no such option"):
        pool.options(luck=1)
    view = pool.options(timeout=20)
    view.shutdown()
    with pytest.raises(ExecutorClosedError):
        pool.submit(jobs.same)


def test_a_view_keeps_its_executor() -> None:
    """An executor of which only a view is left goes on."""
    view = blocking.ThreadExecutor(1).options(timeout=20)
    gc.collect()
    assert view.submit(jobs.same, 1).result(20) == 1
    view.shutdown()


@pytest.mark.parametrize("make", [aioparallel.SerialExecutor, aioparallel.CoroutineExecutor])
def test_any_executor(make: Callable[[], aioparallel.Executor]) -> None:
    """Any executor of aioparallel has such a door."""
    with blocking.Executor(make()) as pool:
        assert pool.submit(jobs.add_async, 1, 2).result(20) == 3
        assert list(pool.map(jobs.add_async, range(3), range(3))) == [0, 2, 4]


@pytest.mark.parametrize("wrong", [None, blocking.ThreadExecutor, concurrent.futures.ThreadPoolExecutor(1)])
def test_no_executor(wrong: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(TypeError, match="expected an executor of aioparallel"):
        blocking.Executor(wrong)


def test_wrong_options() -> None:
    """An option that makes no sense is refused when the executor is made."""
    with pytest.raises(ValueError, match="max_workers"):
        blocking.ProcessExecutor(0)


# Maps


def test_map(pool: Any) -> None:
    """``map`` gives the results in order, of one or several iterables, as far as the shortest goes."""
    assert list(pool.map(jobs.same, [3, 1, 2])) == [3, 1, 2]
    assert list(pool.map(jobs.add, range(5), itertools.count(10))) == [10, 12, 14, 16, 18]
    assert list(pool.map(jobs.same, iter("abc"))) == ["a", "b", "c"]
    assert list(pool.map(jobs.describe)) == []
    assert list(pool.map(jobs.same, [], chunksize=7)) == []


def test_map_of_many(pool: Any) -> None:
    """Many short items come in order."""
    assert list(pool.map(abs, range(-20_000, 0))) == list(range(20_000, 0, -1))


def test_map_runs_unasked(pool: Any, log: Log) -> None:
    """What is mapped runs also if nobody asks for the results, or has dropped them."""
    pool.map(jobs.write, itertools.repeat(log), range(20))
    pool.shutdown()
    assert sorted(map(int, log.lines)) == list(range(20))


def test_results_outlive_the_executor(pool: Any) -> None:
    """Results that were not taken are there when the executor has been shut down, and its thread is gone."""
    results = pool.map(jobs.same, range(1000))
    pool.shutdown()
    assert not portals()
    assert list(results) == list(range(1000))


def test_map_that_fails(pool: Any) -> None:
    """The results before a failure are given, then the failure is raised in its place, and the map is over."""
    results = pool.map(lambda n: 10 // n, [5, 2, 0, 1])
    assert next(results) == 2
    assert next(results) == 5
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value.seq_index == 2  # type: ignore[attr-defined]
    assert list(results) == []


def test_map_failure_stops_the_rest(opened: Callable[..., Any], gate: Gate) -> None:
    """When a failure is raised, what has not ended is cancelled."""
    pool = opened("process", 2)
    results = pool.map(lambda n: 1 // 0 if n == 0 else hold(gate), range(10), chunksize=2)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not any(map(is_alive, gate.entered))
    assert pool.submit(jobs.same, 1).result(20) == 1


def test_map_with_a_timeout(pool: Any, gate: Gate) -> None:
    """A result that is not there so long after ``map`` was called raises ``TimeoutError``."""
    results = pool.map(lambda n: hold(gate) if n else "quick", range(3), timeout=1.0)
    assert next(results) == "quick"
    with pytest.raises(TimeoutError):
        next(results)
    assert list(results) == []
    late = pool.map(jobs.same, range(3), timeout=0.0)
    with pytest.raises(TimeoutError):
        next(late)


def test_map_takes_all_at_once(pool: Any) -> None:
    """Without ``buffersize`` the input is read when ``map`` is called, by whoever calls it."""
    readers: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            readers.append(threading.get_ident())
            yield n

    results = pool.map(jobs.same, items())
    assert set(readers) == {threading.get_ident()}
    assert len(readers) == 100
    assert list(results) == list(range(100))


@pytest.mark.parametrize("size", [1, 3])
def test_map_with_a_buffer(pool: Any, size: int) -> None:
    """With ``buffersize`` the input is read as results are taken, and may be infinite."""
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for n in itertools.count():
            read = n + 1
            yield n

    results = pool.map(jobs.same, items(), buffersize=size)
    for n in range(20):
        wait_for(lambda n=n: read > n)
        assert next(results) == n
        assert read <= n + 1 + size
    results.close()
    assert list(results) == []


def test_chunksize(pool: Any) -> None:
    """``chunksize`` does not change what comes out."""
    assert list(pool.map(abs, range(100), chunksize=13)) == list(range(100))


@pytest.mark.parametrize("option", ["chunksize", "buffersize"])
def test_map_refuses_nonsense(pool: Any, option: str) -> None:
    """Sizes are whole numbers, and at least 1."""
    with pytest.raises(ValueError, match=option):
        pool.map(abs, [1], **{option: 0})


def test_map_in_a_callback(pool: Any) -> None:
    """A callback may begin a map, whose results another thread takes."""
    maps: list[Any] = []
    pool.submit(jobs.same).add_done_callback(lambda _: maps.append(pool.map(abs, range(10))))
    wait_for(lambda: maps)
    assert list(maps[0]) == list(range(10))


def test_a_dropped_map_is_cancelled(opened: Callable[..., Any], gate: Gate) -> None:
    """A map whose results somebody has begun to take, and dropped, is cancelled."""
    pool = opened("process", 2)
    results = pool.map(lambda n: hold(gate) if n else n, range(10))
    assert next(results) == 0
    wait_for(lambda: gate.entered)
    del results
    wait_for(lambda: not any(map(is_alive, gate.entered)))
    assert pool.submit(jobs.same, 1).result(20) == 1


# Ends


def test_with_waits(kind: str, log: Log) -> None:
    """The end of ``with`` waits for what was submitted; afterwards nothing is left, and no call is taken."""
    with blocking.ThreadExecutor(1) if kind == "thread" else blocking.ProcessExecutor(1) as pool:
        calls = [pool.submit(jobs.write, log, n) for n in range(20)]
    assert all(call.done() for call in calls)
    assert len(log.lines) == 20
    assert not portals()
    for refused in (lambda: pool.submit(jobs.same), lambda: pool.map(jobs.same, [1])):
        with pytest.raises(RuntimeError, match="shut down"):
            refused()
        with pytest.raises(ExecutorClosedError, match="shut down"):
            refused()


def test_with_that_is_left_by_an_exception(gate: Gate, log: Log) -> None:
    """Leaving ``with`` by an exception stops what runs, and what waits never begins."""
    error = LookupError("no luck")
    with pytest.raises(LookupError) as caught, blocking.ProcessExecutor(1) as pool:
        running = pool.submit(hold, gate)
        waiting = pool.submit(jobs.write, log, "begun")
        (pid,) = wait_for(lambda: gate.entered)
        raise error
    assert caught.value is error
    assert not is_alive(pid)
    assert running.cancelled()
    assert waiting.cancelled()
    assert not log.lines


def test_shutdown_again(pool: Any) -> None:
    """It may be shut down again, and also when it was never used."""
    pool.submit(jobs.same).result(20)
    for wait in (False, True, False, True):
        pool.shutdown(wait)
    unused = blocking.ThreadExecutor(1)
    unused.shutdown()
    with pytest.raises(ExecutorClosedError):
        unused.submit(jobs.same)


def test_shutdown_without_waiting(pool: Any, gate: Gate) -> None:
    """``shutdown(wait=False)`` returns at once, and what was submitted runs to its end."""
    calls = [pool.submit(hold, gate, n) for n in range(5)]
    pool.shutdown(wait=False)
    assert not any(call.done() for call in calls)
    with pytest.raises(ExecutorClosedError):
        pool.submit(jobs.same)
    gate.open()
    assert [call.result(20) for call in calls] == list(range(5))
    wait_for(lambda: not portals())


def test_shutdown_that_cancels(kind: str, opened: Callable[..., Any], gate: Gate, log: Log) -> None:
    """``shutdown(cancel_futures=True)`` cancels what has not begun, and waits for what has."""
    pool = opened(kind, 1)
    running = pool.submit(hold, gate, 5)
    wait_for(lambda: gate.entered)
    waiting = [pool.submit(jobs.write, log, n) for n in range(50)]
    closing = threading.Thread(target=lambda: pool.shutdown(cancel_futures=True))
    closing.start()
    assert concurrent.futures.wait(waiting, 20).not_done == set()
    assert all(call.cancelled() for call in waiting)
    assert not running.done()
    gate.open()
    closing.join(20)
    assert running.result() == 5
    assert not log.lines


def test_shutdown_that_cancels_a_map(opened: Callable[..., Any], gate: Gate) -> None:
    """Who takes the results of a map that ``shutdown(cancel_futures=True)`` has cancelled is told so."""
    pool = opened("process", 1)
    results = pool.map(lambda n: hold(gate) if n else n, range(10))
    assert next(results) == 0
    wait_for(lambda: gate.entered)
    pool.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        next(results)


def test_shutdown_and_a_map_with_a_buffer(pool: Any) -> None:
    """``shutdown`` does not wait for whoever takes the results of a map with ``buffersize``: that has no more input."""
    results = pool.map(jobs.same, itertools.count(), buffersize=2)
    assert next(results) == 0
    pool.shutdown()
    with pytest.raises(ExecutorClosedError):
        list(results)


def test_a_dropped_executor(kind: str, gate: Gate) -> None:
    """An executor that is dropped ends what was submitted, and then itself."""
    make = blocking.ThreadExecutor if kind == "thread" else blocking.ProcessExecutor
    call = make(1).submit(hold, gate, 5)
    gc.collect()
    gate.open()
    assert call.result(20) == 5
    wait_for(lambda: not portals())


def test_threads_that_submit_while_it_closes(kind: str) -> None:
    """However a thread's calls and the closing interleave, every call is settled or refused."""
    make = blocking.ThreadExecutor if kind == "thread" else blocking.ProcessExecutor
    for cancel in (False, True, False, True):
        pool = make(2)
        futures: list[Any] = []

        def submit_until_closed(pool: Any = pool, futures: list[Any] = futures) -> None:
            with pytest.raises(ExecutorClosedError):
                while True:
                    futures.append(pool.submit(jobs.same, len(futures)))

        threads = [threading.Thread(target=submit_until_closed) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda futures=futures: len(futures) > 50)
        pool.shutdown(cancel_futures=cancel)
        for thread in threads:
            thread.join(20)
        assert all(future.done() for future in futures)
        assert not concurrent.futures.wait(futures, 0).not_done


def test_shutdown_while_it_opens() -> None:
    """However the first call and the closing interleave, nothing is left open."""
    for _ in range(30):
        pool = blocking.ThreadExecutor(1)
        barrier = threading.Barrier(2)

        def submit(pool: Any = pool, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                pool.submit(jobs.same, 1).result(20)
            except (ExecutorClosedError, CancelledError):
                pass

        thread = threading.Thread(target=submit)
        thread.start()
        barrier.wait()
        pool.shutdown()
        thread.join(20)
    wait_for(lambda: not portals())


def test_status_and_repr(pool: Any) -> None:
    """It says how it stands, also when it is not open."""
    assert repr(pool).startswith("<blocking <")
    assert pool.status().workers == 0
    pool.submit(jobs.same).result(20)
    wait_for(lambda: pool.status().done == 1)
    assert "done=1" in repr(pool)


def test_not_picklable(pool: Any) -> None:
    """An executor cannot be pickled, and says why."""
    with pytest.raises(PicklingError, match="belongs to this process"):
        pickle.dumps(pool)


def test_an_interrupted_shutdown(gate: Gate) -> None:
    """Ctrl-C while ``shutdown`` waits stops what runs, and then raises."""
    pool = blocking.ProcessExecutor(1)
    future = pool.submit(hold, gate)
    (pid,) = wait_for(lambda: gate.entered)
    with interrupted(), pytest.raises(KeyboardInterrupt):
        pool.shutdown()
    assert not is_alive(pid)
    assert future.cancelled()
    assert not portals()


def test_an_interrupted_result(gate: Gate) -> None:
    """Ctrl-C while ``result`` waits ends the waiting, and ``with`` stops what runs."""
    with pytest.raises(KeyboardInterrupt), blocking.ProcessExecutor(1) as pool:
        future = pool.submit(hold, gate)
        wait_for(lambda: gate.entered)
        with interrupted():
            future.result()
    assert not any(map(is_alive, gate.entered))
