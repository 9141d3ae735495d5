"""What blocking maps return: iterators that are lazy, bounded, and leave nothing behind."""

from __future__ import annotations

import gc
import itertools
import operator
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from aioparallel import ExecutorClosedError, NotReadyError, blocking
from aioparallel.blocking import parmap
from aioparallel.blocking.portal import shared
from tests.contract import jobs
from tests.tools import PATIENCE, Gate, hold, is_alive, wait_for


def portals() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aioparallel portal"]


def test_lazy() -> None:
    """Nothing begins before the first result is asked for."""
    asked: list[int] = []
    results = parmap(jobs.same, map(asked.append, range(10)), workers=1, method="thread")
    assert not portals()
    assert not asked
    assert next(results) is None
    assert asked


@pytest.mark.parametrize("prefetch", [1, 4])
def test_bounded(prefetch: int) -> None:
    """What is ahead of the consumer stays within ``prefetch``, also of results that have come over already."""
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    with parmap(jobs.same, items(), workers=2, method="thread", prefetch=prefetch) as results:
        for n in range(1, 50):
            assert next(results) == n
            assert pulled <= n + prefetch + 1


def test_one_pass() -> None:
    """It is an iterator, and gives each result once."""
    results = parmap(abs, range(10), method="thread")
    assert iter(results) is results
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    assert list(results) == list(range(3, 10))
    assert list(results) == []
    assert results


def test_length() -> None:
    """It has the length of its input, and says how much is left; without one it has none."""
    results = parmap(abs, range(10), method="thread")
    assert (len(results), results.__length_hint__()) == (10, 10)
    next(results)
    assert (len(results), results.__length_hint__()) == (10, 9)
    results.close()
    endless = parmap(abs, itertools.count(), method="thread")
    with pytest.raises(TypeError, match="no length"):
        len(endless)
    assert operator.length_hint(endless, 5) == 5


def test_nothing_is_left(gate: Gate) -> None:
    """After the last result, after ``close``, and after ``with``, nothing of the map is left, its thread included."""
    assert sorted(parmap(abs, range(10), workers=2, ordered=False)) == list(range(10))
    assert not portals()
    for how in ("close", "with", "error"):
        results = parmap(lambda n: hold(gate) if n else n, itertools.count(), workers=2)
        assert next(results) == 0
        wait_for(lambda: len([pid for pid in gate.entered if is_alive(pid)]) == 2)
        if how == "close":
            results.close()
        elif how == "with":
            with results:
                pass
        else:
            with pytest.raises(LookupError), results:
                raise LookupError
        assert not any(map(is_alive, gate.entered))
        assert not portals()
        assert list(results) == []


@pytest.mark.parametrize("error", [False, True])
def test_closed_while_another_thread_waits(gate: Gate, error: bool) -> None:
    """A map may be closed by one thread while others wait for its results: all of them go on."""
    results = parmap(hold, [gate], workers=1)
    got: list[Any] = []

    def take() -> None:
        try:
            got.extend(results)
        except CancelledError as cancelled:
            got.append(cancelled)

    threads = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: gate.entered)
    closing = threading.Thread(target=results.close, daemon=True)
    closing.start()
    for thread in (closing, *threads):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [type(each) for each in got] in ([], [CancelledError])
    assert not portals()


def test_close_before_the_beginning() -> None:
    """A map that has not begun may be closed; then it never begins."""
    results = parmap(abs, range(10), method="thread")
    results.close()
    results.close()
    assert list(results) == []
    assert not portals()


def test_dropped(gate: Gate) -> None:
    """A map that is left by ``break`` and dropped ends, and so does what it ran on."""
    for value in parmap(lambda n: hold(gate) if n else n, itertools.count(), workers=2):
        assert value == 0
        wait_for(lambda: gate.entered)
        break
    gc.collect()
    wait_for(lambda: not any(map(is_alive, gate.entered)) and not portals())


def test_error_in_the_input() -> None:
    """An error of the input is raised after the results of the items before it."""

    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    results = parmap(abs, items(), method="thread")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert list(results) == []


def test_interrupted(gate: Gate) -> None:
    """Ctrl-C while the next result is waited for stops the map, and then raises."""
    results = parmap(hold, [gate, gate], workers=2)
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    timer.join()
    assert not any(map(is_alive, gate.entered))
    assert not portals()


def test_async_input() -> None:
    """The input may be an async iterable."""
    assert list(parmap(abs, jobs.count_to_async(5), method="thread")) == list(range(5))


def test_on_the_portals_thread() -> None:
    """Where waiting would be for ever, asking for a result raises."""
    caught: list[BaseException] = []
    results = parmap(abs, range(3), method="thread")

    def take(_: Any) -> None:
        try:
            next(results)
        except NotReadyError as error:
            caught.append(error)

    with blocking.ThreadExecutor(1) as pool:
        pool.submit(jobs.same).add_done_callback(take)
        wait_for(lambda: caught)
        assert "would be for ever" in str(caught[0])


def test_the_program_ends_meanwhile() -> None:
    """If the program ends, a map that somebody still reads is cancelled, and says so."""
    results = parmap(jobs.same, itertools.count(), method="thread", workers=1)
    assert next(results) == 0
    portal = shared()
    assert portal is not None
    portal.end()
    with pytest.raises(CancelledError, match="the program"):
        list(results)
    wait_for(portal.loop.is_closed)


def test_cannot_begin() -> None:
    """What keeps a map from beginning is raised when the first result is asked for; nothing is left."""
    pool = blocking.ThreadExecutor(1)
    pool.shutdown()
    results = parmap(abs, [1], on=pool)
    with pytest.raises(ExecutorClosedError, match="shut down"):
        next(results)
    assert not portals()
    assert list(results) == []
