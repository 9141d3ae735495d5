"""Dask runs its graphs on our executors."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aioparallel import WorkerLostError, blocking

dask = pytest.importorskip("dask")
np = pytest.importorskip("numpy")

KINDS = {"thread": blocking.ThreadExecutor, "process": blocking.ProcessExecutor}


@pytest.fixture(params=KINDS)
def scheduler(request: pytest.FixtureRequest) -> Iterator[blocking.Executor]:
    """An executor that Dask uses for everything in the test."""
    with KINDS[request.param](2) as pool, dask.config.set(scheduler=pool):
        yield pool


@pytest.fixture
def process_scheduler() -> Iterator[blocking.Executor]:
    with blocking.ProcessExecutor(2) as pool, dask.config.set(scheduler=pool):
        yield pool


def test_delayed(scheduler: blocking.Executor) -> None:
    """A graph of delayed calls, each of which depends on others, is computed on the executor's workers."""
    double, total = dask.delayed(lambda n: (2 * n, threading.get_ident(), os.getpid())), dask.delayed(list)
    results = total([double(n) for n in range(50)]).compute()
    assert [value for value, *_ in results] == [2 * n for n in range(50)]
    here = threading.get_ident(), os.getpid()
    assert all((thread, pid) != here for _, thread, pid in results)
    assert scheduler.status().done > 0


def test_deep_graph(scheduler: blocking.Executor) -> None:
    """A tree of a thousand sums is one number."""
    layer = [dask.delayed(n) for n in range(1024)]
    add = dask.delayed(operator.add)
    while len(layer) > 1:
        layer = [add(left, right) for left, right in zip(layer[::2], layer[1::2], strict=True)]
    assert layer[0].compute(optimize_graph=False) == sum(range(1024))


def test_array(scheduler: blocking.Executor) -> None:
    """Arrays in blocks give what numpy gives."""
    array = pytest.importorskip("dask.array")
    data = np.arange(400 * 300, dtype=float).reshape(400, 300)
    blocks = array.from_array(data, chunks=(100, 100))
    np.testing.assert_allclose((blocks @ blocks.T).sum(axis=0).compute(), (data @ data.T).sum(axis=0))
    np.testing.assert_allclose(
        (blocks[::2, 10:20] - blocks.mean()).std().compute(), (data[::2, 10:20] - data.mean()).std()
    )


def test_bag(scheduler: blocking.Executor) -> None:
    """Bags map, filter, fold and group."""
    bag = pytest.importorskip("dask.bag")
    numbers = bag.from_sequence(range(1000), npartitions=8)
    assert numbers.map(lambda n: n * n).filter(lambda n: n % 2).fold(operator.add).compute() == sum(
        n * n for n in range(1000) if n % 2
    )
    assert dict(numbers.foldby(lambda n: n % 3, lambda total, n: total + n, 0, operator.add, 0).compute()) == {
        rest: sum(range(rest, 1000, 3)) for rest in range(3)
    }


def test_failure(scheduler: blocking.Executor) -> None:
    """What a task raises is raised by ``compute``, and the executor goes on."""

    def fail(n: int) -> Any:
        raise LookupError(f"no luck with {n}")

    with pytest.raises(LookupError, match="no luck with 3"):
        dask.delayed(fail)(3).compute()
    assert dask.delayed(abs)(-3).compute() == 3


def test_death(process_scheduler: blocking.Executor) -> None:
    """A task that kills its worker fails with what is known of that, and the executor goes on."""
    with pytest.raises(WorkerLostError, match="exited with code 7"):
        dask.delayed(os._exit)(7).compute()
    assert dask.delayed(abs)(-3).compute() == 3


def test_timeout(process_scheduler: blocking.Executor) -> None:
    """A view with a ``timeout`` is a scheduler, too: a task that takes too long is killed."""
    import time

    with pytest.raises(TimeoutError, match="longer than its timeout"):
        dask.delayed(time.sleep)(60).compute(scheduler=process_scheduler.options(timeout=0.3))
