"""Maps, on every executor: lazy, ordered or not, leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import logging
import operator
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from aioparallel import (
    CallCancelledError,
    ExecutorClosedError,
    Outcome,
    PicklingError,
    TaskTimeoutError,
    WorkerLostError,
)
from aioparallel._futures.smart import wrapped
from tests.contract import jobs, mapjobs
from tests.contract.kinds import Kind, every
from tests.contract.mapjobs import ItemError
from tests.tools import Gate, Log, turns, until

pytestmark = pytest.mark.timeout(60)


class Source:
    """An endless input that knows what happened to it.

    Args:
        end: How many items there are.
        error: What it ends with.
    """

    def __init__(self, end: float = float("inf"), error: BaseException | None = None) -> None:
        self.end = end
        self.error = error
        self.pulled = 0
        self.allowed = float("inf")
        """So many may be pulled for now."""
        self.hasty = False
        """Whether more were pulled than were allowed at that moment."""
        self.closed = False
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        self.threads.add(threading.get_ident())
        try:
            while self.pulled < self.end:
                self._pull()
                yield self.pulled - 1
            if self.error is not None:
                raise self.error
        finally:
            self.threads.add(threading.get_ident())
            self.closed = True

    def _pull(self) -> None:
        self.pulled += 1
        self.hasty = self.hasty or self.pulled > self.allowed


class AsyncSource(Source):
    """The same, asynchronous."""

    def __init__(self, end: float = float("inf"), error: BaseException | None = None) -> None:
        super().__init__(end, error)
        self.tasks: set[object] = set()

    async def __aiter__(self) -> AsyncIterator[int]:
        self.tasks.add(asyncio.current_task())
        try:
            while self.pulled < self.end:
                await asyncio.sleep(0)
                self._pull()
                yield self.pulled - 1
            if self.error is not None:
                raise self.error
        finally:
            await asyncio.sleep(0)  # closing may take its time
            self.tasks.add(asyncio.current_task())
            self.closed = True


SOURCES = [Source, AsyncSource]
sources = pytest.mark.parametrize("source", [pytest.param(kind, id=kind.__name__) for kind in SOURCES])


def fit(kind: Kind, fn: Callable[..., Any], *args: Any) -> Any:
    """A function for items, with its first arguments."""
    return functools.partial(kind.fit(fn), *args)


def holding(kind: Kind, gate: Gate, held: int) -> Any:
    return functools.partial(mapjobs.hold_at_async if kind.coroutines else mapjobs.hold_at, gate, held)


def failing(kind: Kind, gate: Gate, bad: int) -> Any:
    return functools.partial(mapjobs.fail_or_hold_async if kind.coroutines else mapjobs.fail_or_hold, gate, bad)


# Results


@every()
async def test_await_gives_a_list(kind: Kind, pool: Any) -> None:
    """Awaiting a map gives the list of its results, in the order of the items."""
    assert await pool.map(kind.fit(mapjobs.double), range(100)) == [2 * x for x in range(100)]


@every()
@pytest.mark.parametrize(
    "make",
    [list, tuple, set, dict.fromkeys, lambda xs: dict.fromkeys(xs).keys(), iter, lambda xs: map(int, xs), bytes, deque],
)
async def test_any_iterable(kind: Kind, pool: Any, make: Callable[[Any], Any]) -> None:
    """The input may be anything that a ``for`` loop takes."""
    assert await pool.map(kind.fit(mapjobs.double), make(range(1, 4))) == [2, 4, 6]


@every()
@sources
async def test_results_come_as_they_are_iterated_over(kind: Kind, pool: Any, source: type[Source]) -> None:
    """``async for`` gives one result after the other, from a sync or an async input."""
    assert [x async for x in pool.map(kind.fit(mapjobs.double), source(50))] == [2 * x for x in range(50)]


@every()
@sources
async def test_empty_input(kind: Kind, pool: Any, source: type[Source]) -> None:
    """An input without items gives no results."""
    assert await pool.map(kind.fit(mapjobs.double), source(0)) == []
    assert [x async for x in pool.map(kind.fit(mapjobs.double), [])] == []


@every()
async def test_lambdas_and_closures(kind: Kind, pool: Any) -> None:
    """The function may be a lambda that refers to local variables."""
    offset = 7
    assert await pool.map(kind.fit(lambda x: x + offset), range(5)) == [7, 8, 9, 10, 11]


@every(lambda kind: kind.later)
async def test_one_slow_item_does_not_idle_the_others(kind: Kind, pool: Any, gate: Gate, log: Log) -> None:
    """In an ordered map the other workers go on while an early item takes its time, far beyond the usual window."""
    flow = pool.map(holding(kind, gate, 0), Source(400))
    done: list[int] = []

    async def consume() -> None:
        async for x in flow:
            done.append(x)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await until(lambda: pool.status().done >= 399, "all items but the first are done")
        assert not done, "the first one is not, and results come in order"
        gate.open()
    assert done == list(range(400))


@every(lambda kind: kind.later)
async def test_unordered_results_come_as_they_are_ready(kind: Kind, pool: Any, gate: Gate) -> None:
    """With ``ordered=False`` a slow item holds back nothing, and its result comes last."""
    results = pool.map(holding(kind, gate, 0), range(20), ordered=False)
    got = [await anext(results) for _ in range(19)]
    gate.open()
    assert sorted(got) == list(range(1, 20))
    assert [x async for x in results] == [0]


@every()
async def test_map_can_be_awaited_half_way(kind: Kind, pool: Any) -> None:
    """Awaiting a map whose first results were taken gives the others."""
    results = pool.map(kind.fit(mapjobs.double), range(10))
    assert await anext(results) == 0
    assert await results == [2 * x for x in range(1, 10)]


@every()
async def test_map_gives_its_results_once(kind: Kind, pool: Any) -> None:
    """A map is used up when its results have been taken: iterating again gives none, awaiting it again is an error."""
    results = pool.map(kind.fit(mapjobs.double), range(3))
    assert await results == [0, 2, 4]
    assert [x async for x in results] == []
    with pytest.raises(RuntimeError, match="once"):
        await results


@every()
async def test_several_consumers_share_the_results(kind: Kind, pool: Any) -> None:
    """Tasks that iterate over one map each get some of the results, and together all."""
    results = pool.map(kind.fit(mapjobs.double), range(100))
    got: list[int] = []

    async def consume() -> None:
        async for x in results:
            got.append(x)
            await asyncio.sleep(0)

    await asyncio.gather(consume(), consume(), consume())
    assert sorted(got) == [2 * x for x in range(100)]


@every()
async def test_maps_share_an_executor(kind: Kind, pool: Any) -> None:
    """Several maps can run on one executor at a time, beside single calls."""
    maps = [pool.map(kind.fit(mapjobs.double), range(n)) for n in (5, 50, 20)]
    single = pool.submit(kind.fit(mapjobs.double), 4)
    assert [len(await each) for each in maps] == [5, 50, 20]
    assert await single == 8


@every()
async def test_maps_chain(kind: Kind, pool: Any) -> None:
    """A map may be the input of another, which takes from it only what it needs."""
    source = Source()
    inner = pool.map(kind.fit(mapjobs.double), source, prefetch=2)
    outer = pool.map(kind.fit(mapjobs.double), inner, prefetch=2)
    assert [await anext(outer) for _ in range(3)] == [0, 4, 8]
    assert source.pulled <= 3 + 2 + 2
    await outer.aclose()
    assert source.closed


@every(lambda kind: kind.contexts)
async def test_items_see_the_contextvars_of_who_began_the_map(kind: Kind, pool: Any) -> None:
    """Items run in the contextvars of whoever began to iterate."""
    who = contextvars.ContextVar("who", default="nobody")
    who.set("the caller")

    def ask(_: int) -> str:
        return who.get()

    if not kind.pickles:
        assert set(await pool.map(kind.fit(ask), range(5))) == {"the caller"}


# Laziness


@every()
@sources
async def test_nothing_happens_before_the_first_demand(kind: Kind, pool: Any, source: type[Source]) -> None:
    """Making a map opens neither its input nor anything else; a wrong argument is refused at once all the same."""
    items = source()
    results = pool.map(kind.fit(mapjobs.double), items)
    for _ in range(5):
        await asyncio.sleep(0)
    assert items.pulled == 0
    assert not items.closed
    assert "not begun" in repr(results)
    with pytest.raises(TypeError, match="items"):
        pool.map(kind.fit(mapjobs.double), 5)


@every()
@sources
@pytest.mark.parametrize("ordered", [True, False])
async def test_endless_input_is_pulled_by_at_most_prefetch(
    kind: Kind, pool: Any, source: type[Source], ordered: bool
) -> None:
    """However slow the consumer is, no more than ``prefetch`` items are in flight or buffered."""
    items = source()
    async with pool.map(kind.fit(mapjobs.double), items, prefetch=5, ordered=ordered) as results:
        for taken in range(1, 20):
            items.allowed = taken + 5  # the one that is asked for now makes room for another
            await anext(results)
            await until(lambda taken=taken: items.pulled >= taken + 5, "the window is filled again")
            await until(lambda: not pool.task_count, "all that was pulled has ended")
            assert not items.hasty
    assert items.closed
    assert not items.hasty


@every()
@sources
async def test_slow_consumer_stops_the_source(kind: Kind, pool: Any, source: type[Source]) -> None:
    """Without ``prefetch``, too, a consumer that takes nothing stops the intake soon."""
    items = source()
    async with pool.map(kind.fit(mapjobs.double), items, ordered=False) as results:
        await anext(results)
        items.allowed = 10_000  # more than a few milliseconds' worth
        looks: deque[tuple[int, int]] = deque(maxlen=20)

        def has_stopped() -> bool:
            looks.append((items.pulled, pool.task_count))
            return looks.count((items.pulled, 0)) == looks.maxlen

        await until(lambda: items.hasty or has_stopped(), "no item is pulled any more")
        assert not items.hasty


@every()
async def test_window_of_one(kind: Kind, pool: Any) -> None:
    """``prefetch=1`` pulls an item only when the result before it was taken."""
    items = Source(10)
    got = []
    async for x in pool.map(kind.fit(mapjobs.double), items, prefetch=1):
        assert items.pulled <= x // 2 + 2
        got.append(x)
    assert got == [2 * x for x in range(10)]


@every()
async def test_awaited_map_pulls_everything(kind: Kind, pool: Any) -> None:
    """Awaiting a map needs no consumer: results are taken as they come, whatever ``prefetch`` is."""
    assert await pool.map(kind.fit(mapjobs.double), Source(100), prefetch=3) == [2 * x for x in range(100)]


@every()
async def test_blocking_input_does_not_block_the_loop(kind: Kind, pool: Any) -> None:
    """While a plain input waits, for a queue or a disk, the loop goes on; one thread opens, pulls and closes it."""
    released = threading.Event()
    threads = []

    def blocking() -> Iterator[int]:
        threads.append(threading.get_ident())
        try:
            yield 1
            released.wait(30)
            threads.append(threading.get_ident())
            yield 2
        finally:
            threads.append(threading.get_ident())

    results = pool.map(kind.fit(mapjobs.double), blocking())
    assert await anext(results) == 2
    waiting = asyncio.ensure_future(anext(results))
    for _ in range(10):
        await asyncio.sleep(0)  # the loop goes on
    released.set()
    assert await waiting == 4
    assert await results == []
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


@every()
async def test_slow_input_is_not_waited_for_in_batches(kind: Kind, pool: Any) -> None:
    """An item is passed on as soon as the input has it."""
    gate = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        gate.wait(30)
        yield 2

    results = pool.map(kind.fit(mapjobs.double), slow())
    assert await asyncio.wait_for(anext(results), 10) == 2
    gate.set()
    assert await anext(results) == 4
    assert await results == []


@every()
async def test_async_input_is_opened_pulled_and_closed_by_one_task(kind: Kind, pool: Any) -> None:
    """An async generator may hold a task group or a timeout: the task that enters it leaves it."""

    async def items() -> AsyncIterator[int]:
        async with anyio.create_task_group():
            with anyio.fail_after(30):
                for x in itertools.count():
                    yield x

    neighbour = wrapped(asyncio.sleep(30))
    async with pool.map(kind.fit(mapjobs.double), items()) as results:
        assert [await anext(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    await turns()
    assert not neighbour.done(), "closing disturbs nobody else on this loop"
    neighbour.cancel()


# Leaving


@every()
@sources
async def test_break_in_async_with_ends_everything(kind: Kind, pool: Any, source: type[Source], log: Log) -> None:
    """Leaving the ``async with`` block early stops intake and items, and closes the input, before it ends."""
    items = source()
    async with pool.map(fit(kind, mapjobs.write, log), items) as results:
        async for x in results:
            if x == 3:
                break
    assert items.closed
    assert pool.task_count == 0
    begun, items.allowed = len(log.lines), items.pulled
    await pool.aclose()
    assert not items.hasty
    in_hand = 0 if kind.stops else 2  # a thread that was in an item cannot be stopped in the middle of it
    assert begun <= len(log.lines) <= begun + in_hand


@every(lambda kind: kind.later)
async def test_leaving_cancels_what_runs(kind: Kind, pool: Any, gate: Gate) -> None:
    """Items that run when the block is left are cancelled, and do not hold it up."""
    async with pool.map(holding(kind, gate, 0), range(10)):
        await until(lambda: gate.entered)
    assert pool.task_count == 0
    if kind.stops:
        assert not gate.left


@every()
@sources
async def test_dropping_a_map_ends_it(kind: Kind, pool: Any, source: type[Source]) -> None:
    """After a bare ``break`` the map that nobody holds stops its intake, cancels its items and closes its input."""
    items = source()
    async for x in pool.map(kind.fit(mapjobs.double), items):
        if x >= 6:
            break
    await until(lambda: items.closed)
    await until(lambda: pool.task_count == 0)


@every()
@sources
async def test_exception_in_the_loop_ends_the_map(kind: Kind, pool: Any, source: type[Source]) -> None:
    """An exception in the body of a bare ``async for`` ends the map as soon as the exception is gone."""
    items = source()

    async def consume() -> None:
        async for x in pool.map(kind.fit(mapjobs.double), items):
            if x >= 6:
                raise LookupError(x)

    with pytest.raises(LookupError):
        await consume()
    gc.collect()
    await until(lambda: items.closed)


@every(lambda kind: kind.later)
@sources
async def test_cancelled_consumer_ends_the_map(kind: Kind, pool: Any, gate: Gate, source: type[Source]) -> None:
    """Cancelling who waits for a result ends the map; that is over when items have stopped and the input is closed."""
    items = source()
    consumer = asyncio.ensure_future(_collect(pool.map(holding(kind, gate, 0), items)))
    await until(lambda: gate.entered)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert items.closed
    assert pool.task_count == 0
    if kind.stops:
        assert not gate.left


@every(lambda kind: kind.later)
@pytest.mark.parametrize("awaited", [True, False])
async def test_timeout_around_a_map(kind: Kind, pool: Any, gate: Gate, awaited: bool) -> None:
    """A timeout around a map stops it and is raised as a timeout, with asyncio's and with AnyIO's."""
    for timeout, error in ((asyncio.timeout, TimeoutError), (anyio.fail_after, TimeoutError)):
        results = pool.map(holding(kind, gate, 0), range(10))
        with pytest.raises(error):
            if timeout is asyncio.timeout:
                async with asyncio.timeout(0.2):
                    await (results if awaited else _collect(results))
            else:
                with anyio.fail_after(0.2):
                    await (results if awaited else _collect(results))
        assert pool.task_count == 0


async def _collect(results: Any) -> list[Any]:
    return [x async for x in results]


@every()
async def test_aclose(kind: Kind, pool: Any) -> None:
    """``aclose`` ends a map at any time, even before it began, and again does nothing."""
    items = Source()
    results = pool.map(kind.fit(mapjobs.double), items)
    await anext(results)
    await results.aclose()
    assert items.closed
    await results.aclose()
    assert await _collect(results) == []
    never = pool.map(kind.fit(mapjobs.double), Source())
    await never.aclose()
    assert await _collect(never) == []


@every(lambda kind: kind.later and kind.stops)
async def test_cancelled_aclose(kind: Kind, pool: Any, gate: Gate) -> None:
    """``aclose`` that is cancelled ends the map all the same, and is cancelled when that is over."""
    items = Source()
    results = pool.map(holding(kind, gate, 0), items)
    taking = asyncio.ensure_future(anext(results))
    await until(lambda: gate.entered)
    closing = asyncio.ensure_future(results.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert items.closed
    assert pool.task_count == 0
    with pytest.raises(StopAsyncIteration):
        await taking


@every()
async def test_nothing_is_said_about_a_map_that_is_left(
    kind: Kind, pool: Any, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """However a map is left, nothing is logged and nobody is warned."""
    gc.collect()  # earlier tests' garbage may complain
    recwarn.clear()
    async for _ in pool.map(fit(kind, mapjobs.fail_at, 10**6), AsyncSource()):
        break
    async with pool.map(fit(kind, mapjobs.fail_at, 2), Source(), errors="return") as results:
        await anext(results)
    with pytest.raises(ItemError):
        await pool.map(kind.fit(mapjobs.fail_if_odd), range(40))
    pool.map(kind.fit(mapjobs.double), Source())
    await until(lambda: pool.task_count == 0)
    gc.collect()
    await turns()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not recwarn.list


@every()
async def test_stuck_input_does_not_hold_up_the_end(kind: Kind, pool: Any) -> None:
    """An input that hangs in its ``__next__`` is left to its thread, which closes it when it comes back."""
    released, closed = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        try:
            yield 1
            released.wait(30)
        finally:
            closed.set()

    started = time.monotonic()
    async with pool.map(kind.fit(mapjobs.double), stuck()) as results:
        await anext(results)
    assert time.monotonic() - started < 10
    released.set()
    await until(closed.is_set)


@every()
async def test_closed_executor(kind: Kind) -> None:
    """A map on an executor that is not open says so; one whose executor is closed meanwhile ends."""
    pool = kind.make()
    with pytest.raises(ExecutorClosedError):
        await pool.map(kind.fit(mapjobs.double), range(3))
    async with pool:
        results = pool.map(kind.fit(mapjobs.double), Source())
        await anext(results)
    with pytest.raises((ExecutorClosedError, CallCancelledError)):
        await _collect(results)


# Arguments: the six rows


ROWS = [
    # star, kwstar, item, positional, keywords
    (False, False, 1, (1, "a"), {"k": 0}),
    (True, False, (1, 2), (1, 2, "a"), {"k": 0}),
    (None, False, 1, ("a",), {"k": 0}),
    (None, True, {"k": 1, "m": 2}, ("a",), {"k": 1, "m": 2}),
    (False, True, (1, {"k": 1}), (1, "a"), {"k": 1}),
    (True, True, ((1, 2), {"m": 2}), (1, 2, "a"), {"k": 0, "m": 2}),
]


@every()
@pytest.mark.parametrize(("star", "kwstar", "item", "args", "kwargs"), ROWS)
async def test_star_and_kwstar(
    kind: Kind, pool: Any, star: bool | None, kwstar: bool, item: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """An item is one argument, several, or none; ``args`` follow it; keywords of the item win over ``kwargs``."""
    fixed = {"k": 0}
    results = await pool.map(
        kind.fit(mapjobs.call_with), [item, item], star=star, kwstar=kwstar, args=("a",), kwargs=fixed
    )
    assert results == [(args, kwargs), (args, kwargs)]
    assert fixed == {"k": 0}


@every()
async def test_item_of_another_form(kind: Kind, pool: Any) -> None:
    """An item that is not what ``star`` announces fails, and only that."""
    outcomes = await pool.map(kind.fit(operator.add), [(1, 2), 3, (4, 5)], star=True, errors="return")
    assert [outcome.value for outcome in outcomes] == [3, None, 9]
    assert isinstance(outcomes[1].error, TypeError)


@every(lambda kind: kind.later)
async def test_futures_as_items(kind: Kind, pool: Any) -> None:
    """Items, and what is in them, may be futures; their values are what the function gets."""
    futures = [pool.submit(kind.fit(mapjobs.double), x) for x in range(5)]
    assert await pool.map(kind.fit(mapjobs.double), futures) == [4 * x for x in range(5)]


@every()
@pytest.mark.parametrize(
    "options",
    [
        {"errors": "ignore"},
        {"prefetch": 0},
        {"chunksize": 0},
        {"chunksize": "big"},
        {"args": "b"},
        {"kwargs": [1]},
        {"star": "yes"},
        {"total": -1},
        {"timeout": 0},
        {"retry": "often"},
        {"limit": 5},
        {"ordred": False},
    ],
    ids=str,
)
async def test_wrong_options_fail_at_once(kind: Kind, options: dict[str, Any]) -> None:
    """An option that does not exist or makes no sense is refused when the map is made."""
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        kind.make().map(kind.fit(mapjobs.double), range(3), **options)


@every()
async def test_generator_function_is_refused(kind: Kind) -> None:
    """A generator function has no one result for an item; the error says what to do instead."""

    def generate(x: int) -> Iterator[int]:
        yield x

    with pytest.raises(TypeError, match="return a list"):
        kind.make().map(generate, range(3))
    with pytest.raises(TypeError, match="function"):
        kind.make().map(5, range(3))


# Errors


@every()
async def test_first_failure_is_raised(kind: Kind, pool: Any) -> None:
    """By default the original exception is raised, with the item and its index, after the results before it."""
    got: list[int] = []
    with pytest.raises(ItemError, match="bad item 5") as caught:
        async for x in pool.map(fit(kind, mapjobs.fail_at, 5), range(20)):
            got.append(x)
    assert got == list(range(len(got))), "what comes before it in order, as far as that is there"
    assert caught.value.seq_index == 5  # type: ignore[attr-defined]
    assert "item 5 of the map: 5" in caught.value.__notes__
    if kind.separate:
        assert "fail_at" in str(caught.value.__cause__), "the worker's traceback"


@every()
async def test_map_has_ended_after_its_error(kind: Kind, pool: Any) -> None:
    """The exception is raised once, when nothing of the map runs any more."""
    results = pool.map(fit(kind, mapjobs.fail_at, 0), Source())
    with pytest.raises(ItemError):
        await anext(results)
    assert pool.task_count == 0
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@every()
@pytest.mark.timeout(20)
async def test_failure_with_500_items_queued_is_prompt(kind: Kind, pool: Any, log: Log) -> None:
    """With 500 items queued a failure is raised at once, and what is queued never begins."""

    def job(x: int) -> int:
        log.write(x)
        if x == 3:
            raise ItemError(x)
        time.sleep(0.01)
        return x

    with pytest.raises(ItemError):
        await pool.map(kind.fit(job), range(500), prefetch=500)
    assert pool.task_count == 0
    assert len(log.lines) < 200


@every(lambda kind: kind.later)
async def test_failure_cancels_what_runs(kind: Kind, pool: Any, gate: Gate) -> None:
    """A failure is raised although another item would run for ever: that is cancelled."""
    with pytest.raises(ItemError):
        await pool.map(failing(kind, gate, 1), range(10))
    assert pool.task_count == 0
    if kind.stops:
        assert not gate.left


@every(lambda kind: kind.later and kind.stops)
async def test_finish_lets_running_items_end(kind: Kind, pool: Any, gate: Gate) -> None:
    """With ``errors="finish"`` running items end, queued ones never begin, and then the failure is raised."""
    results = pool.map(failing(kind, gate, 0), Source(100), errors="finish", prefetch=8)
    got: list[int] = []

    async def consume() -> None:
        async for x in results:
            got.append(x)

    consumer = asyncio.ensure_future(consume())
    await until(lambda: pool.status().failed == 1)
    running = len(gate.entered)
    await turns()
    assert not consumer.done(), "the error waits for what runs"
    gate.open()
    with pytest.raises(ItemError):
        await consumer
    assert running <= len(gate.left) <= 8
    assert sorted(got) == sorted(set(got))
    assert len(got) == len(gate.left)


@every()
async def test_finish_raises_the_earliest_failure(kind: Kind, pool: Any) -> None:
    """Of several failures ``errors="finish"`` raises that of the earliest item, and gives what succeeded first."""
    got: list[int] = []
    with pytest.raises(ItemError, match="odd: 1") as caught:
        async for x in pool.map(kind.fit(mapjobs.fail_if_odd), range(4), errors="finish", prefetch=4, ordered=False):
            got.append(x)
    assert caught.value.seq_index == 1  # type: ignore[attr-defined]
    assert set(got) <= {0, 2}


@every()
async def test_return_gives_an_outcome_for_every_item(kind: Kind, pool: Any) -> None:
    """With ``errors="return"`` every item gives an Outcome: index, item, value or error, worker and duration."""
    outcomes = await pool.map(kind.fit(mapjobs.fail_if_odd), range(10, 20), errors="return")
    assert [(outcome.index, outcome.item, outcome.ok) for outcome in outcomes] == [
        (n, 10 + n, n % 2 == 0) for n in range(10)
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Outcome)
        assert outcome.value == (outcome.item if outcome.ok else None)
        assert isinstance(outcome.error, type(None) if outcome.ok else ItemError)
        assert outcome.ok or outcome.error.seq_index == outcome.index
        assert not kind.told or (outcome.worker and outcome.duration >= 0)


@every()
@sources
@pytest.mark.parametrize("errors", ["raise", "finish", "return"])
async def test_error_of_the_input_surfaces(kind: Kind, pool: Any, source: type[Source], errors: str) -> None:
    """What the input raises is raised, as it is, after the results of the items that it gave."""
    items = source(5, LookupError("the disk is gone"))
    got: list[Any] = []
    with pytest.raises(LookupError, match="the disk is gone"):
        async for x in pool.map(kind.fit(mapjobs.double), items, errors=errors):
            got.append(x)
    assert len(got) == 5
    assert pool.task_count == 0


@every(lambda kind: kind.stays)  # AnyIO leaks a process that is cancelled while it starts
async def test_input_that_raises_something_odd(kind: Kind, pool: Any) -> None:
    """An input or a function that raises StopAsyncIteration, CancelledError or SystemExit ends nothing silently."""

    def stop() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    def leave() -> Iterator[int]:
        yield 1
        raise SystemExit(3)

    async def cancelled() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    for items, error in ((stop(), RuntimeError), (leave(), Exception), (cancelled(), CallCancelledError)):
        with pytest.raises(error):
            await pool.map(kind.fit(mapjobs.double), items)
    with pytest.raises(RuntimeError, match="StopAsyncIteration"):
        await _collect(pool.map(kind.fit(mapjobs.stop_async_iteration), range(3)))


@every()
async def test_input_that_is_not_iterable_after_all(kind: Kind, pool: Any) -> None:
    """An input whose ``__iter__`` fails ends the map with that error."""

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        await pool.map(kind.fit(mapjobs.double), Broken())


@every()
async def test_input_whose_closing_fails(kind: Kind, pool: Any) -> None:
    """An error while an input is closed does not hang the map."""

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise LookupError("cannot close")

    async with pool.map(kind.fit(mapjobs.double), items()) as results:
        await anext(results)
    with pytest.raises(LookupError, match="cannot close"):
        await _collect(pool.map(kind.fit(mapjobs.double), items()))


@every()
async def test_exception_that_takes_no_attributes(kind: Kind, pool: Any) -> None:
    """An exception that refuses ``seq_index`` is raised all the same."""
    with pytest.raises(mapjobs.Slots):
        await pool.map(kind.fit(mapjobs.raise_slots), range(3))


@every(lambda kind: kind.pickles)
async def test_item_that_cannot_be_pickled_fails_alone(kind: Kind, pool: Any) -> None:
    """An item that cannot travel fails by itself, with the way to the culprit; the others are not touched."""
    outcomes = await pool.map(kind.fit(mapjobs.double), [1, threading.Lock(), 3], errors="return")
    assert [outcome.value for outcome in outcomes] == [2, None, 6]
    assert isinstance(outcomes[1].error, PicklingError)


@every(lambda kind: kind.separate)
async def test_result_that_cannot_be_pickled_fails_alone(kind: Kind, pool: Any) -> None:
    """A result that cannot travel back fails its own item, and hangs nothing."""
    outcomes = await pool.map(functools.partial(mapjobs.unpicklable_at, 3), range(6), errors="return")
    assert [outcome.ok for outcome in outcomes] == [True, True, True, False, True, True]
    assert isinstance(outcomes[3].error, PicklingError)
    assert outcomes[4].value() == 4


@every(lambda kind: kind.separate)
@pytest.mark.parametrize("ordered", [True, False])
async def test_dead_worker_fails_its_item_only(kind: Kind, pool: Any, log: Log, ordered: bool) -> None:
    """A worker that dies fails the item that it was running; every other item runs once and has its result."""
    job = functools.partial(mapjobs.die_or_write, log, 7)
    outcomes = await pool.map(job, range(40), errors="return", ordered=ordered)
    outcomes.sort(key=lambda outcome: outcome.index)
    assert [outcome.value for outcome in outcomes] == [x if x != 7 else None for x in range(40)]
    assert isinstance(outcomes[7].error, WorkerLostError)
    assert sorted(map(int, log.lines)) == list(range(40))


@every(lambda kind: kind.separate)
async def test_exit_in_an_item(kind: Kind, pool: Any) -> None:
    """``sys.exit`` in an item fails that item and hangs nothing."""
    outcomes = await pool.map(exit, range(3), errors="return")
    assert [type(outcome.error).__name__ for outcome in outcomes] == ["CallExitedError"] * 3


@every()
async def test_items_are_retried(kind: Kind, pool: Any, log: Log) -> None:
    """``retry`` begins a failed item again, and the map does not notice."""

    def flaky(x: int) -> int:
        log.write(x)
        if log.lines.count(str(x)) < 2:
            raise OSError(x)
        return x

    from aioparallel import Retry

    assert await pool.map(kind.fit(flaky), range(4), retry=Retry(3, backoff=0)) == [0, 1, 2, 3]


@every(lambda kind: kind.later and kind.stops)
async def test_timeout_of_items(kind: Kind, pool: Any, gate: Gate) -> None:
    """``timeout`` stops the item that runs longer, and only that."""
    timeout = 0.3 if kind.stays else 3  # in which AnyIO also starts the process
    outcomes = await pool.map(holding(kind, gate, 1), range(5), timeout=timeout, errors="return")
    assert [outcome.value for outcome in outcomes] == [0, None, 2, 3, 4]
    assert isinstance(outcomes[1].error, TaskTimeoutError)


@every()
async def test_options_of_a_view(kind: Kind, pool: Any) -> None:
    """A view's options hold for its maps; those of the map win."""
    view = pool.options(timeout=5, name="mine")
    assert view.map(kind.fit(mapjobs.double), [1])._flow.plan.options.timeout == 5
    assert view.map(kind.fit(mapjobs.double), [1], timeout=6)._flow.plan.options.timeout == 6
    assert await view.map(kind.fit(mapjobs.double), range(3)) == [0, 2, 4]


# What a map says of itself


@every()
async def test_length(kind: Kind, pool: Any) -> None:
    """``len`` is the number of items where the input has one, or ``total``; the hint is what remains."""
    results = pool.map(kind.fit(mapjobs.double), range(5))
    assert len(results) == 5
    await anext(results)
    assert len(results) == 5
    assert results.__length_hint__() == 4
    await results.aclose()
    assert len(pool.map(kind.fit(mapjobs.double), Source(), total=9)) == 9
    assert len(pool.map(kind.fit(mapjobs.double), pool.map(kind.fit(mapjobs.double), range(4)))) == 4


@every()
async def test_no_length(kind: Kind, pool: Any) -> None:
    """Where the input has no length, ``len`` is a TypeError that names the remedy; a map is true all the same."""
    results = pool.map(kind.fit(mapjobs.double), iter([]))
    with pytest.raises(TypeError, match="total="):
        len(results)
    assert operator.length_hint(results, -1) == -1
    assert results
    assert pool.map(kind.fit(mapjobs.double), [])


@every()
async def test_more_items_than_total(kind: Kind, pool: Any) -> None:
    """``total`` is a promise for people: an input of another length is mapped to its end."""
    assert await pool.map(kind.fit(mapjobs.double), Source(5), total=3) == [0, 2, 4, 6, 8]


# Progress


@every()
async def test_progress_counts_items(kind: Kind, pool: Any) -> None:
    """A progress callable gets a record of every item that ended, failed ones included."""
    seen: list[Any] = []
    await pool.map(kind.fit(mapjobs.fail_if_odd), range(10), progress=seen.append, errors="return")
    assert [record.done for record in seen] == list(range(1, 11))
    assert (seen[-1].failed, seen[-1].total) == (5, 10)
    assert all(record.elapsed >= 0 for record in seen)
    with pytest.raises(AttributeError):
        seen[0].done = 5


@every()
async def test_failing_progress_ends_the_map(kind: Kind, pool: Any) -> None:
    """A progress callable that raises ends the map with its exception."""

    def tell(record: Any) -> None:
        raise LookupError("no display")

    with pytest.raises(LookupError, match="no display"):
        await pool.map(kind.fit(mapjobs.double), Source(), progress=tell)


# Limits


@every()
async def test_limit_holds_for_items(kind: Kind, pool: Any, log: Log) -> None:
    """No more items than the limit's ``concurrency`` run at a time, for each key."""
    from aioparallel import Limit

    running: list[int] = []

    def key(x: int) -> int:
        running.append(x)
        return x % 2

    limit = Limit(concurrency=1, key=key)
    assert await pool.map(kind.fit(mapjobs.double), range(10), limit=limit) == [2 * x for x in range(10)]
    assert sorted(running) == list(range(10)), "the key gets the item"


@every()
async def test_failing_key_fails_its_item(kind: Kind, pool: Any) -> None:
    """A limit's key that raises fails the item that it was asked for."""
    from aioparallel import Limit

    limit = Limit(concurrency=1, key=lambda x: 1 // (x - 2))
    outcomes = await pool.map(kind.fit(mapjobs.double), range(5), limit=limit, errors="return")
    assert [outcome.ok for outcome in outcomes] == [True, True, False, True, True]
    assert isinstance(outcomes[2].error, ZeroDivisionError)


@every()
async def test_map_and_call_of_one_function(kind: Kind, opened: Any) -> None:
    """A function that is first used by a map, and then called by itself, is the same function both times."""
    pool = await opened(1)
    assert await pool.map(kind.fit(jobs.add), [(1, 2), (3, 4)], star=True) == [3, 7]
    assert await pool.submit(kind.fit(jobs.add), 5, 6) == 11
    assert await pool.map(kind.fit(jobs.add), [(1, 2)], star=True) == [3]
