"""Each verb, cancelled from outside after every turn of the loop, and by deadlines: nothing is left, the pool goes on.

``test_verbs`` cancels where a task suspends itself; here it may also have been woken already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioparallel import configure, parallelize, parmap, wait_all, wait_any
from tests.contract import jobs
from tests.contract.kinds import KINDS, Kind
from tests.contract.streaming import fit_stream
from tests.tools import Gate, Log, hold, until

Gates = Callable[[], Gate]
Case = AsyncIterator[Coroutine[Any, Any, Any]]
"""Yields what is to be cancelled and, when it goes on, checks what is left."""

MOST = 9
WAYS = ["turns", "asyncio.timeout", "anyio"]
SOON = 0.01

_KINDS = {kind.name: kind for kind in KINDS}
pools = pytest.mark.parametrize(
    ("kind", "workers"),
    [
        pytest.param(_KINDS["process-resident"], 1, id="process-1"),
        pytest.param(_KINDS["process-resident"], 2, id="process-2"),
        pytest.param(_KINDS["thread"], 2, id="thread"),
        pytest.param(_KINDS["coroutine"], 2, id="coroutine"),
    ],
)
ways = pytest.mark.parametrize("way", WAYS)


async def turn(number: int) -> None:
    """Let the loop go on: for one turn at first, for longer and longer from the seventh on."""
    await asyncio.sleep(0 if number < 6 else 0.0005 * 2 ** (number - 6))


async def cancelled_after(n: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Cancel a task after n turns of the loop; returns whether it had not ended before."""
    task = asyncio.ensure_future(coroutine)
    for number in range(n):
        await turn(number)
    struck = task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.done(), f"still waiting 20 s after it was cancelled at turn {n}"
    if struck:
        assert task.cancelled(), f"cancelled at turn {n}, but it ended with {task!r}"
    else:
        task.result()
    return struck


async def out_of_time(coroutine: Coroutine[Any, Any, Any], way: str) -> None:
    """Run a coroutine until a deadline of asyncio or of anyio, which must be what ends it."""
    task = asyncio.current_task()
    assert task is not None
    if way == "anyio":
        with anyio.move_on_after(SOON):
            await coroutine
    else:
        try:
            async with asyncio.timeout(SOON) as deadline:
                await coroutine
        except TimeoutError:
            assert deadline.expired()
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def each(make: Callable[[], Case], way: str) -> int:
    """Cancel a case after no turn, after one, and so on, until it ends before; returns how often it was cancelled."""
    for n in range(MOST + 1 if way == "turns" else 1):
        case = make()
        coroutine = await anext(case)
        struck = True
        if way == "turns":
            struck = await cancelled_after(n, coroutine)
        else:
            await out_of_time(coroutine, way)
        async for _ in case:
            raise AssertionError("a case yields once")
        if not struck:
            return n
    return MOST + 1


async def assert_goes_on(kind: Kind, pool: Any, gate: Gate | None = None) -> None:
    """Nothing runs on, the books balance, and a new call succeeds."""
    if kind.stops:
        await until(lambda: pool.task_count == 0, "what was cancelled has stopped")
    if gate is not None:
        gate.open()
    await until(lambda: pool.task_count == 0, "nothing is left to do")
    pool._run.ledger.check()
    assert await asyncio.wait_for(pool.submit(kind.fit(jobs.add), 1, 2), 20) == 3
    pool._run.ledger.check()
    if gate is not None and kind.stops:
        assert not gate.left


async def wait_for_value(awaitable: Any) -> Any:
    return await awaitable


# Opening and closing


@pools
@ways
async def test_start(kind: Kind, workers: int, opened: Any, way: str) -> None:
    """A start that is cancelled leaves the pool closed, and it can be started again."""
    pool = kind.make(workers)

    async def case() -> Case:
        yield pool.start()
        if pool._run is not None:  # it was in time
            await assert_goes_on(kind, pool)
            await pool.aclose()
        async with pool:
            await assert_goes_on(kind, pool)

    await each(case, way)


@pools
@ways
async def test_aclose_while_a_call_runs(kind: Kind, workers: int, opened: Any, gates: Gates, way: str) -> None:
    """A close that drains and is cancelled has cancelled what it waited for, and has closed the pool."""
    pool = kind.make(workers, grace=0.05)

    async def case() -> Case:
        await pool.start()
        gate = gates()
        call = pool.submit(kind.fit(hold), gate)
        await until(lambda: gate.entered)
        yield pool.aclose(drain=True)
        if pool._run is not None:  # cancelled before it began
            assert not call.done()
            await pool.aclose(drain=False)
        assert pool._run is None
        assert call.cancelled()
        gate.open()
        await asyncio.sleep(0)
        if kind.stops:
            assert not gate.left

    assert await each(case, way) >= 1


@pools
@ways
async def test_configure(kind: Kind, workers: int, opened: Any, way: str) -> None:
    """A ``configure`` whose start is cancelled leaves its executor closed, and can be used afterwards."""
    pool = kind.make(workers)

    async def case() -> Case:
        configuration = configure(**{kind.name.partition("-")[0]: pool})
        yield configuration.start()
        await configuration.aclose()
        assert pool._run is None
        async with configuration:
            await assert_goes_on(kind, pool)

    await each(case, way)


# Submitting and awaiting


@pools
@ways
async def test_submit_wait(kind: Kind, workers: int, opened: Any, gates: Gates, way: str) -> None:
    """A ``submit_wait`` that is cancelled while there is no room has submitted nothing."""
    pool = await opened(workers, max_pending=1)
    gate = gates()
    running = []
    for _ in range(workers):
        running.append(pool.submit(kind.fit(hold), gate))
        await until(lambda: len(gate.entered) == len(running))
    waiting = pool.submit(kind.fit(jobs.add), 1, 2)

    async def case() -> Case:
        yield pool.submit_wait(kind.fit(jobs.add), 5, 6)
        assert pool.task_count == workers + 1
        pool._run.ledger.check()

    await each(case, way)
    gate.open()
    await wait_all([*running, waiting])
    assert pool.status().done == workers + 1
    await assert_goes_on(kind, pool)


@pools
@ways
async def test_single_awaiter(kind: Kind, workers: int, opened: Any, gates: Gates, way: str) -> None:
    """A call whose only awaiter is cancelled is stopped."""
    pool = await opened(workers, grace=0.05)

    async def case() -> Case:
        gate = gates()
        call = pool.submit(kind.fit(hold), gate)
        await until(lambda: gate.entered)
        began = asyncio.Event()

        async def program() -> None:
            began.set()
            await call

        yield program()
        if not began.is_set():
            call.cancel()
        await until(call.done)
        assert call.cancelled()
        await assert_goes_on(kind, pool, gate)

    await each(case, way)


@pools
@ways
async def test_two_awaiters(kind: Kind, workers: int, opened: Any, gates: Gates, way: str) -> None:
    """A call that somebody else awaits as well goes on when one awaiter is cancelled."""
    pool = await opened(workers)
    gate = gates()
    call = pool.submit(kind.fit(hold), gate, "value")
    other = asyncio.ensure_future(wait_for_value(call))
    await until(lambda: gate.entered)

    async def case() -> Case:
        yield wait_for_value(call)
        assert not call.done()
        pool._run.ledger.check()

    await each(case, way)
    gate.open()
    assert await other == "value"
    await assert_goes_on(kind, pool)


@pools
@ways
async def test_short_call(kind: Kind, workers: int, opened: Any, way: str) -> None:
    """A call that ends about when its awaiter is cancelled harms nobody, whichever comes first."""
    pool = await opened(workers)

    async def case() -> Case:
        call = pool.submit(kind.fit(jobs.add), 1, 2)
        yield wait_for_value(call)
        await until(call.done)
        await assert_goes_on(kind, pool)

    await each(case, way)


@pools
@ways
async def test_wait_all(kind: Kind, workers: int, opened: Any, gates: Gates, way: str) -> None:
    """``await wait_all(...)`` that is cancelled stops all its calls, the queued ones too."""
    pool = await opened(workers, grace=0.05)

    async def case() -> Case:
        gate = gates()
        calls = [pool.submit(kind.fit(hold), gate) for _ in range(3)]
        began = asyncio.Event()

        async def program() -> None:
            began.set()
            await wait_all(calls)

        yield program()
        if not began.is_set():
            for call in calls:
                call.cancel()
        await until(lambda: all(call.done() for call in calls))
        assert all(call.cancelled() for call in calls)
        await assert_goes_on(kind, pool, gate)

    await each(case, way)


@pools
@ways
@pytest.mark.parametrize("cancel_pending", [False, True])
async def test_wait_any(kind: Kind, workers: int, opened: Any, gates: Gates, way: str, cancel_pending: bool) -> None:
    """Iterating over ``wait_any`` and being cancelled stops what is left with ``cancel_pending``, and nothing without."""
    pool = await opened(workers, grace=0.05)

    async def case() -> Case:
        gate = gates()
        calls = [pool.submit(kind.fit(jobs.add), 1, 2), pool.submit(kind.fit(hold), gate, "value")]
        began = asyncio.Event()

        async def program() -> None:
            began.set()
            async with wait_any(calls, cancel_pending=cancel_pending) as finished:
                async for _ in finished:
                    pass

        yield program()
        if cancel_pending and began.is_set():
            assert all(call.done() for call in calls)
            assert calls[1].cancelled()
            await assert_goes_on(kind, pool, gate)
        else:
            assert not calls[1].done()
            gate.open()
            assert [await call for call in calls] == [3, "value"]
            await assert_goes_on(kind, pool)

    await each(case, way)


# Maps and streams


@pools
@ways
@pytest.mark.parametrize("form", ["async for", "await"])
async def test_parmap(kind: Kind, workers: int, opened: Any, gates: Gates, way: str, form: str) -> None:
    """A map whose consumer is cancelled has stopped its items."""
    pool = await opened(workers, grace=0.05)

    async def program(gate: Gate) -> None:
        results = parmap(kind.fit(hold), [gate] * 4, on=pool)
        if form == "await":
            await results
        else:
            async for _ in results:
                pass

    async def case() -> Case:
        gate = gates()
        yield program(gate)
        await assert_goes_on(kind, pool, gate)

    await each(case, way)


@pools
@ways
async def test_parmap_under_way(kind: Kind, workers: int, opened: Any, way: str) -> None:
    """A map that is cancelled between its results, or inside the loop's body, leaves nothing to do."""
    pool = await opened(workers)

    async def program() -> None:
        async for _ in parmap(kind.fit(jobs.same), range(20), on=pool):
            await asyncio.sleep(0)

    async def case() -> Case:
        yield program()
        await assert_goes_on(kind, pool)

    await each(case, way)


@pools
@ways
async def test_stream_next(kind: Kind, workers: int, opened: Any, way: str, tmp_path: Any) -> None:
    """A stream whose consumer is cancelled ends, and gives its worker back."""
    pool = await opened(workers, grace=0.05)
    make = parallelize(on=pool)(fit_stream(kind, jobs.endless))
    logs: list[Log] = []

    async def case() -> Case:
        logs.append(Log(str(tmp_path / f"log{len(logs)}")))
        items = make(logs[-1])

        async def program() -> None:
            async for _ in items:
                pass

        yield program()
        await items.aclose()
        before = logs[-1].lines
        await assert_goes_on(kind, pool)
        await assert_ended(kind, logs[-1], before)

    assert await each(case, way) >= 1


@pools
@ways
async def test_stream_aclose(kind: Kind, workers: int, opened: Any, way: str, tmp_path: Any) -> None:
    """Closing a stream and being cancelled ends it all the same, unless closing had not begun."""
    pool = await opened(workers, grace=0.05)
    make = parallelize(on=pool)(fit_stream(kind, jobs.endless))
    logs: list[Log] = []

    async def case() -> Case:
        logs.append(Log(str(tmp_path / f"log{len(logs)}")))
        items = make(logs[-1])
        assert await anext(items) == 0
        began = asyncio.Event()

        async def program() -> None:
            began.set()
            await items.aclose()

        yield program()
        if not began.is_set():
            await items.aclose()
        before = logs[-1].lines
        await assert_goes_on(kind, pool)
        await assert_ended(kind, logs[-1], before)

    await each(case, way)


async def test_thread_generator_is_closed_after_cancelled_next(tmp_path: Path) -> None:
    """A thread's generator is closed as soon as it yields when its consumer was cancelled while waiting for an item."""
    log = Log(str(tmp_path / "log"))
    async with _KINDS["thread"].make(1) as pool:
        items = parallelize(on=pool)(jobs.endless)(log)
        consumer = asyncio.ensure_future(wait_for_value(anext(items)))
        await until(lambda: log.lines, "its first step is half done")
        consumer.cancel()
        await asyncio.wait([consumer])
        await items.aclose()
        await until(lambda: log.lines[-1] == "closed", "the generator is closed")


async def assert_ended(kind: Kind, log: Log, before: list[str]) -> None:
    """Whoever wrote the log writes no more, but for the step that a thread was at, which takes 10 ms: two items."""
    await asyncio.sleep(0.02)
    late = [line for line in log.lines[len(before) :] if line != "closed"]
    assert len(late) <= (0 if kind.stops else 2), f"it went on: {late}"
