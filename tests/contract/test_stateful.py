"""Stateful pools: a state in each worker, built there, used for every item, closed at the end."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import aioparallel
from aioparallel import (
    ExecutorClosedError,
    Outcome,
    PicklingError,
    ProcessExecutor,
    SerialExecutor,
    ThreadExecutor,
    WorkerLostError,
    WorkerStartError,
    parmap,
)
from tests.contract import statejobs
from tests.contract.remote import AnyStatefulPool as StatefulPool
from tests.contract.statejobs import Model
from tests.tools import Gate, Log, until

pytestmark = pytest.mark.timeout(60)

METHODS = [
    "process",
    "thread",
    pytest.param("remote", marks=pytest.mark.one_host),
    # Ray's processes come and go as it likes.
    pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.leak_check(processes=False, fds=False)]),
]
every = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def log(tmp_path: Any) -> Log:
    return Log(str(tmp_path / "log"))


@pytest.fixture
def gate(tmp_path: Any) -> Iterator[Gate]:
    gate = Gate(str(tmp_path / "gate"))
    yield gate
    gate.open()


# The state


@every
async def test_state_is_built_in_its_worker_once(method: str, log: Log) -> None:
    """The factory runs in each worker, never in the parent, once, and before the first item."""
    async with StatefulPool(Model, workers=2, method=method, kwargs={"log": log}) as pool:
        assert len(log.lines) == 2
        results = await pool.map(range(50))
    assert all(result["born"] == result["here"] for result in results)
    assert (os.getpid(), threading.get_ident()) not in {result["born"] for result in results}
    assert method == "thread" or os.getpid() not in {result["born"][0] for result in results}
    assert log.lines.count("built None") == 2


@every
async def test_worker_kwargs_win_over_shared_ones(method: str) -> None:
    """Every worker gets the shared arguments and its own, which win; its index is that of its arguments."""
    async with StatefulPool(
        Model, workers=2, method=method, kwargs={"base": 10, "gpu": -1}, worker_kwargs=[{"gpu": 0}, {"gpu": 1}]
    ) as pool:
        results = await pool.map(range(40))
    assert [result["value"] for result in results] == [10 + x for x in range(40)]
    assert all(result["gpu"] == result["index"] for result in results)


def test_worker_kwargs_of_another_length() -> None:
    """There must be as many ``worker_kwargs`` as workers; without ``workers``, they say how many there are."""
    with pytest.raises(ValueError, match="3 entries for 2 workers"):
        StatefulPool(Model, workers=2, worker_kwargs=[{}, {}, {}])
    assert "of 3 Model" in repr(StatefulPool(Model, worker_kwargs=[{}, {}, {}]))
    with pytest.raises(ValueError, match="worker_kwargs"):
        StatefulPool(Model, worker_kwargs=[])


@every
async def test_plain_function_needs_no_state(method: str) -> None:
    """A plain function is called for every item; so is a builtin, a lambda, or an object that can be called."""
    offset = 5
    for fn, value in ((statejobs.double, 6), (abs, 3), (lambda x: x + offset, 8), (statejobs.make_adder(1), 4)):
        async with StatefulPool(fn, workers=2, method=method) as pool:
            assert await pool.map([3, 3]) == [value, value]


@every
async def test_function_with_arguments_is_a_factory(method: str) -> None:
    """A function that is given ``kwargs`` makes the states, as a class does; so does a partial of a class."""
    async with StatefulPool(statejobs.make_adder, workers=1, method=method, kwargs={"base": 7}) as pool:
        assert await pool.map([1, 2]) == [8, 9]
    async with StatefulPool(functools.partial(Model, base=1), workers=1, method=method) as pool:
        assert (await pool.submit(1))["value"] == 2


async def test_async_functions_and_states() -> None:
    """An ``async def``, or a class whose instances are called asynchronously, runs on the worker's event loop."""
    for factory in (statejobs.double_async, statejobs.AsyncModel):
        async with StatefulPool(factory, workers=1) as pool:
            assert await pool.map([1, 2]) == [2, 4]
    with pytest.raises(TypeError, match="plain function"):
        StatefulPool(statejobs.double_async, kwargs={"x": 1})


@every
async def test_state_is_closed_when_its_worker_ends(method: str, log: Log) -> None:
    """``close()`` of every state runs when the pool is closed, also after an error in the block."""
    worker_kwargs = [{"gpu": 0}, {"gpu": 1}]
    async with StatefulPool(Model, method=method, kwargs={"log": log}, worker_kwargs=worker_kwargs) as pool:
        await pool.map(range(10))
        assert sorted(log.lines) == ["built 0", "built 1"]
    assert sorted(log.lines) == ["built 0", "built 1", "closed 0", "closed 1"]
    with pytest.raises(LookupError):
        async with StatefulPool(Model, method=method, kwargs={"log": log}, worker_kwargs=worker_kwargs):
            raise LookupError
    assert len(log.lines) == 8


@every
async def test_ways_to_close(method: str, log: Log) -> None:
    """A context manager is entered and left; ``aclose`` is awaited; a failing ``close`` disturbs nobody."""
    async with StatefulPool(statejobs.Entered, workers=1, method=method, kwargs={"log": log}) as pool:
        assert await pool.submit(1) == 1
    assert log.lines == ["built", "entered", "left"]
    async with StatefulPool(statejobs.ClosedLater, workers=1, method=method, kwargs={"log": log}) as pool:
        assert await pool.submit(1) == 1
    assert log.lines[3:] == ["closed"]


@every
async def test_failing_close_is_told(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What closing a state raises is written to standard error, and ends nothing else."""
    async with StatefulPool(statejobs.CannotClose, workers=1, method=method) as pool:
        assert await pool.submit(1) == 1
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "will not go" in said

    assert is_told() or (method == "ray" and await until(is_told)), "Ray takes a while to print what workers write"


@every
@pytest.mark.timeout(20)
async def test_state_that_cannot_be_built_says_so_at_once(method: str) -> None:
    """If the state of one worker cannot be built, opening the pool fails with the reason, and nothing is left."""
    pool = StatefulPool(statejobs.Broken, method=method, kwargs={"bad": 1}, worker_kwargs=[{"gpu": 0}, {"gpu": 1}])
    with pytest.raises(WorkerStartError, match="there is no GPU 1"):
        await pool.start()
    with pytest.raises(ExecutorClosedError):
        pool.submit(1)
    with pytest.raises(WorkerStartError, match="there is no GPU 1"):
        async with pool:
            pytest.fail("it was opened")


async def test_replaced_worker_builds_a_fresh_state_with_its_index(log: Log) -> None:
    """When a worker dies, only its item fails; its successor gets the same arguments and goes on."""
    worker_kwargs = [{"gpu": 0}, {"gpu": 1}]
    async with StatefulPool(statejobs.Mortal, kwargs={"log": log}, worker_kwargs=worker_kwargs) as pool:
        outcomes = await pool.map(range(30), errors="return")
        await until(lambda: len(log.lines) == 3)
        seen = {gpu for _, gpu in await pool.map(range(10, 60))}
    assert isinstance(outcomes[3].error, WorkerLostError)
    assert [outcome.value[0] for outcome in outcomes if outcome.ok] == [x for x in range(30) if x != 3]
    assert sorted({*log.lines}) == ["built 0", "built 1"]
    assert seen <= {0, 1}


@every
@pytest.mark.timeout(30)
async def test_failing_worker_does_not_swallow_the_work(method: str) -> None:
    """A worker that fails every item at once gets no larger share of the items than the others."""
    async with StatefulPool(statejobs.FailsOnOne, method=method, worker_kwargs=[{"gpu": i} for i in range(4)]) as pool:
        outcomes = await pool.map(range(120), errors="return")
    failed = sum(not outcome.ok for outcome in outcomes)
    assert 1 <= failed <= 45, "a quarter, give or take"


@every
async def test_all_workers_fail(method: str) -> None:
    """Where every worker fails, none waits for the others: every item has its error."""
    async with StatefulPool(statejobs.NeverAsked, workers=2, method=method) as pool:
        outcomes = await pool.map(range(20), errors="return")
    assert [str(outcome.error).partition(":")[0] for outcome in outcomes] == [str(x) for x in range(20)]


# Maps


@every
@pytest.mark.parametrize(
    ("passing", "items"),
    [
        ("single", [3, 7]),
        ("args", [(1, 2), [3, 4]]),
        ("kwargs", [{"x": 1, "y": 2}, {"y": 7}]),
    ],
)
async def test_three_ways_of_passing(method: str, passing: Any, items: list[Any]) -> None:
    """An item is one argument, several, or keyword arguments."""
    async with StatefulPool(Model, workers=2, method=method) as pool:
        assert [result["value"] for result in await pool.map(items, passing=passing)] == [3, 7]


@every
async def test_item_of_another_form_fails_alone(method: str) -> None:
    """An item that does not have the form which ``passing`` announces fails with a TypeError of its own."""
    async with StatefulPool(Model, workers=2, method=method) as pool:
        outcomes = await pool.map([(1, 2), 3, (1, 2, 3, 4)], passing="args", errors="return")
    assert [outcome.ok for outcome in outcomes] == [True, False, False]
    assert all(isinstance(outcome.error, TypeError) for outcome in outcomes[1:])


@every
async def test_wrong_options(method: str) -> None:
    """Options that do not exist or make no sense are refused when they are given."""
    with pytest.raises(TypeError, match="5"):
        StatefulPool(5, method=method)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers"):
        StatefulPool(Model, workers=0, method=method)
    with pytest.raises(ValueError, match="method"):
        StatefulPool(Model, method="magic")
    with pytest.raises(TypeError, match="colour"):
        StatefulPool(Model, method=method, colour="red")
    pool = StatefulPool(Model, workers=1, method=method)
    with pytest.raises(ValueError, match="passing"):
        pool.map([1], passing="by hand")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="star"):
        pool.map([1], star=True)
    with pytest.raises(ExecutorClosedError, match="async with"):
        pool.submit(1)
    with pytest.raises(ExecutorClosedError):
        await pool.map([1])


@every
async def test_pool_may_be_mapped_again_and_again(method: str) -> None:
    """A pool may be mapped as often as one likes, also several times at once, and keeps its states."""
    async with StatefulPool(Model, workers=2, method=method) as pool:
        first = await pool.map(range(20))
        maps = [pool.map(range(10)) for _ in range(3)]
        for each in maps:
            assert len(await each) == 10
        last = await pool.map(range(20))
    assert {result["born"] for result in last} <= {result["born"] for result in first} | {r["born"] for r in last}
    assert max(result["calls"] for result in last) > 20


@every
async def test_pool_may_be_opened_again(method: str, log: Log) -> None:
    """A pool that was closed may be opened again, and builds its states anew."""
    pool = StatefulPool(Model, workers=1, method=method, kwargs={"log": log})
    for _ in range(2):
        await pool.start()
        assert (await pool.submit(1))["calls"] == 1
        await pool.aclose()
        await pool.aclose()
    assert log.lines == ["built None", "closed None"] * 2


@every
async def test_length_and_order(method: str) -> None:
    """A map knows its length where the input does, and gives results in order unless told otherwise."""
    async with StatefulPool(statejobs.double, workers=2, method=method) as pool:
        results = pool.map(range(7))
        assert len(results) == 7
        assert await results == [0, 2, 4, 6, 8, 10, 12]
        with pytest.raises(TypeError):
            len(pool.map(iter(range(7))))
        assert sorted(await pool.map(range(7), ordered=False)) == [0, 2, 4, 6, 8, 10, 12]


@every
async def test_lazy_and_endless_input(method: str) -> None:
    """Items are pulled as results are taken, from sync and async inputs without an end."""
    pulled = []

    def endless() -> Iterator[int]:
        for x in itertools.count():
            pulled.append(x)
            yield x

    async def endless_async() -> AsyncIterator[int]:
        for x in itertools.count():
            yield x

    async with StatefulPool(statejobs.double, workers=2, method=method) as pool:
        async with pool.map(endless(), prefetch=4) as results:
            assert [await anext(results) for _ in range(10)] == [2 * x for x in range(10)]
            assert len(pulled) <= 14
        async with pool.map(endless_async()) as results:
            assert await anext(results) == 0


@every
async def test_one_straggler_idles_nobody(method: str, gate: Gate) -> None:
    """In an ordered map the other worker goes on while one is in a slow item: there is no barrier after each chunk."""
    async with StatefulPool(statejobs.Waits, workers=2, method=method, kwargs={"gate": gate}) as pool:
        results = pool.map(range(200))
        collecting = asyncio.ensure_future(results.__anext__())
        await until(lambda: pool.status().done >= 199)
        gate.open()
        assert await collecting == 0
        assert await results == list(range(1, 200))


@every
async def test_exceptions_deferred(method: str) -> None:
    """``errors="return"`` stores exceptions in the outcomes, each with its index, also hard ones."""
    async with StatefulPool(statejobs.NeverAsked, workers=2, method=method) as pool:
        outcomes = await pool.map([5, 6], errors="return")
    assert all(isinstance(outcome, Outcome) for outcome in outcomes)
    assert [(outcome.index, str(outcome.error)) for outcome in outcomes] == [(0, "5: hard"), (1, "6: hard")]


@every
async def test_exceptions_immediate(method: str, gate: Gate) -> None:
    """``errors="raise"`` raises in the consumer without waiting for other items, and keeps what was computed before."""

    class FailsLate:
        def __call__(self, x: int) -> int:
            if x == 5:
                raise LookupError(x)
            return x

    got = []
    async with StatefulPool(FailsLate, workers=1, method=method) as pool:
        with pytest.raises(LookupError) as caught:
            async for x in pool.map(range(100)):
                got.append(x)
        assert got == [0, 1, 2, 3, 4]
        assert caught.value.seq_index == 5  # type: ignore[attr-defined]
        assert await pool.submit(1) == 1, "the pool goes on"


@every
async def test_exceptions_wait_for_others(method: str, tmp_path: Path) -> None:
    """``errors="finish"`` raises when what was running has ended; what was queued has not begun."""
    log = Log(str(tmp_path / "log"))

    class Slow:
        def __call__(self, x: int) -> int:
            log.write(x)
            if x == 0:
                raise LookupError(x)
            time.sleep(0.05)
            return x

    async with StatefulPool(Slow, workers=2, method=method) as pool:
        with pytest.raises(LookupError):
            await pool.map(range(200), errors="finish", prefetch=200)
        assert len(log.lines) < 100, "not all 200"


# What hung


@pytest.mark.timeout(30)
async def test_exit_and_unpicklable_results_hang_nothing() -> None:
    """``sys.exit`` in a worker, and a result that cannot travel, fail their items."""
    async with StatefulPool(statejobs.Exits, workers=2) as pool:
        outcomes = await pool.map(range(5), errors="return")
        assert [outcome.ok for outcome in outcomes] == [True, True, False, True, True]
    async with StatefulPool(statejobs.Locks, workers=2) as pool:
        outcomes = await pool.map(range(3), errors="return")
        assert isinstance(outcomes[1].error, PicklingError)
        outcomes = await pool.map([0, threading.Lock()], errors="return")
        assert isinstance(outcomes[1].error, PicklingError)


async def test_nothing_is_pickled_between_threads() -> None:
    """In threads items and results are the very objects."""
    item = threading.Lock()
    async with StatefulPool(lambda x: x, workers=2, method="thread") as pool:
        assert await pool.submit(item) is item


@every
async def test_factory_that_cannot_travel(method: str) -> None:
    """Arguments that cannot be pickled are refused with the way to the culprit; in threads nothing is pickled."""
    pool = StatefulPool(Model, workers=1, method=method, kwargs={"base": {"deep": threading.Lock()}})
    if method == "thread":
        async with pool:
            return
    with pytest.raises(PicklingError) as caught:
        await pool.start()
    assert "['deep']" in str(caught.value.path)


# Other executors


@pytest.mark.parametrize("make", [lambda: ProcessExecutor(2), lambda: ThreadExecutor(2), SerialExecutor])
async def test_on_a_particular_executor(make: Any, log: Log) -> None:
    """With ``on`` the workers of that executor build states when they need them, and lose them with the pool."""
    async with make() as executor:
        for _ in range(2):
            async with StatefulPool(Model, on=executor, kwargs={"log": log}) as pool:
                results = await pool.map(range(10))
                assert [result["value"] for result in results] == list(range(10))
                assert all(result["born"] == result["here"] for result in results)
            assert log.lines.count("built None") == log.lines.count("closed None")
        assert await executor.map(statejobs.double, [1]) == [2], "it stays open"
    with pytest.raises(TypeError, match="name"):
        StatefulPool(Model, on=executor, name="mine")


async def test_pool_inside_a_worker() -> None:
    """In a worker a stateful pool runs in place: processes never multiply."""

    async def inside(x: int) -> list[int]:
        async with StatefulPool(statejobs.double, workers=4) as pool:
            return await pool.map(range(x))

    assert await parmap(inside, [3], workers=1) == [[0, 2, 4]]


async def test_environment_of_workers() -> None:
    """Options of the executor are passed on: a worker sees its GPU before anything is imported."""

    def gpu(_: int) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    async with StatefulPool(gpu, workers=2, env=lambda index: {"CUDA_VISIBLE_DEVICES": str(index)}) as pool:
        assert set(await pool.map(range(20))) <= {"0", "1"}


def test_it_is_public() -> None:
    """The pool is on the face of the package."""
    assert issubclass(StatefulPool, aioparallel.StatefulPool)
