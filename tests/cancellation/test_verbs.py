"""Each verb, cancelled at each of its awaits: what it began has stopped, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioparallel import ExecutorClosedError, SmartFuture, configure, wait_all, wait_any
from tests.cancellation.stepping import WAYS, Case, Stepped, each_await, the_first
from tests.contract import jobs
from tests.contract.kinds import Kind, every
from tests.contract.streaming import fit_stream, stream
from tests.tools import Gate, Log, hold, is_alive, until

Gates = Callable[[], Gate]
ways = pytest.mark.parametrize("way", WAYS)


def killing(kind: Kind) -> bool:
    return kind.later and kind.stops


async def assert_works(kind: Kind, pool: Any) -> None:
    """The pool has nothing left to do, and does what it is asked to."""
    await until(lambda: pool.status().running == 0, "nothing runs")
    assert pool.task_count == 0
    assert await asyncio.wait_for(pool.submit(kind.fit(jobs.add), 1, 2), 20) == 3


def assert_stopped(kind: Kind, gate: Gate) -> None:
    """Nobody who came to the gate is there any more."""
    if kind.separate:
        assert not any(map(is_alive, gate.entered))
    gate.open()


async def wait_for_value(future: Any) -> Any:
    return await future


# Opening and closing


@every()
@ways
async def test_start(kind: Kind, opened: Any, way: str) -> None:
    """A start that is cancelled leaves the executor closed, and nothing behind; it can be started again."""
    pool = kind.make(1)

    async def case() -> Case:
        yield pool.start()
        closed = "closed" in repr(pool)
        if not closed:  # it was not cancelled any more
            await pool.aclose()
        with pytest.raises(ExecutorClosedError):
            pool.submit(kind.fit(jobs.add), 1, 2)

    assert await each_await(case, way) >= 1
    async with pool:
        await assert_works(kind, pool)


@every()
async def test_start_at_each_step(kind: Kind, opened: Any) -> None:
    """However far the opening of an executor has come, a start that is cancelled undoes it."""
    for n in range(1, 50):
        pool = kind.make(1)
        starting = asyncio.ensure_future(pool.start())
        opening = step_inside(pool, "_open", n, starting.cancel)
        await asyncio.wait([starting], timeout=20)
        if not opening[0].was_struck:
            break
        assert starting.cancelled()
        assert "closed" in repr(pool)
    await starting
    await assert_works(kind, pool)
    await pool.aclose()


@every()
async def test_aclose_at_each_step(kind: Kind, opened: Any) -> None:
    """However far the closing of an executor has come, it is finished although its closer is cancelled."""
    for n in range(1, 50):
        pool = await kind.make(1).start()
        await assert_works(kind, pool)
        closing = asyncio.ensure_future(pool.aclose())
        steps = step_inside(pool, "_close", n, closing.cancel)
        await asyncio.wait([closing], timeout=20)
        assert closing.done()
        assert "closed" in repr(pool)
        if not steps[0].was_struck:
            return
        assert closing.cancelled()
    raise AssertionError("closing takes more than 50 awaits")


def step_inside(pool: Any, method: str, n: int, strike: Callable[[], object]) -> list[Stepped]:
    """Call ``strike`` at the n-th await inside a method that is going to be called."""
    original = getattr(pool, method)
    stepped: list[Stepped] = []

    async def step(*args: Any) -> Any:
        stepped.append(Stepped(original(*args), n, strike))
        return await stepped[0]

    setattr(pool, method, step)
    return stepped


@every()
@ways
async def test_aclose(kind: Kind, opened: Any, way: str) -> None:
    """A close that is cancelled has closed the executor."""
    pool = kind.make(1)

    async def case() -> Case:
        await pool.start()
        yield pool.aclose()
        assert "closed" in repr(pool)

    assert await each_await(case, way) >= 1


@every(killing)
@ways
async def test_aclose_while_calls_run(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """A close that waits for calls and is cancelled has stopped them."""
    pool = kind.make(1)
    calls: list[SmartFuture[Any]] = []

    async def case() -> Case:
        await pool.start()
        gate = gates()
        calls[:] = [pool.submit(kind.fit(hold), gate), pool.submit(kind.fit(jobs.add), 1, 2)]
        await until(lambda: gate.entered)
        closing = asyncio.ensure_future(pool.aclose())
        await asyncio.sleep(0)
        yield pool.aclose()
        await closing
        assert "closed" in repr(pool)
        assert_stopped(kind, gate)
        assert all(call.cancelled() for call in calls)

    await the_first(case, way)


@every(killing)
@ways
async def test_body(kind: Kind, opened: Any, way: str) -> None:
    """Wherever a whole program is cancelled, its executor is closed, its calls are settled, and nothing is left."""
    pool = kind.make(2)
    calls: list[SmartFuture[Any]] = []

    async def program() -> None:
        calls.clear()
        async with pool:
            calls.append(pool.submit(kind.fit(jobs.add), 1, 2))
            await calls[0]
            calls.extend(pool.submit(kind.fit(jobs.add), calls[0], n) for n in range(3))
            await wait_all(calls)
            async for call in wait_any(calls):
                calls.append(call.then(abs))
            calls.append(await pool.submit_wait(kind.fit(jobs.add), calls[-1], 1))

    async def case() -> Case:
        yield program()
        assert "closed" in repr(pool)
        await asyncio.sleep(0)
        assert all(call.done() for call in calls)

    assert await each_await(case, way) >= 3


@every(lambda kind: kind.name in {"thread", "process-resident"})
@ways
async def test_configure(kind: Kind, opened: Any, way: str) -> None:
    """A ``configure`` that is cancelled while it opens or closes executors leaves none of its own open."""
    method = {"thread": "thread", "process-resident": "process"}[kind.name]
    pool = kind.make(1)

    async def program() -> None:
        async with configure(**{method: pool}):
            await pool.submit(jobs.add, 1, 2)

    async def case() -> Case:
        yield program()
        assert "closed" in repr(pool)

    assert await each_await(case, way) >= 2


# Submitting and awaiting


@every(lambda kind: kind.later)
@ways
async def test_submit_wait(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """A ``submit_wait`` that is cancelled has submitted nothing, and others get the room."""
    pool = await opened(1, max_pending=1)
    gate = gates()
    running = pool.submit(kind.fit(hold), gate)
    await until(lambda: gate.entered)
    waiting = pool.submit(kind.fit(jobs.add), 1, 2)
    other = asyncio.ensure_future(pool.submit_wait(kind.fit(jobs.add), 3, 4))

    async def case() -> Case:
        yield pool.submit_wait(kind.fit(jobs.add), 5, 6)
        assert pool.task_count == 2

    await the_first(case, way)
    gate.open()
    assert await (await other) == 7
    await wait_all([running, waiting])
    assert pool.status().done == 3


@every(killing)
@ways
async def test_await(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """Awaiting a running call and being cancelled stops the call, and its neighbours go on."""
    pool = await opened(2)
    kept = gates()
    neighbour = pool.submit(kind.fit(hold), kept, "neighbour")
    await until(lambda: kept.entered)

    async def case() -> Case:
        gate = gates()
        call = pool.submit(kind.fit(hold), gate)
        await until(lambda: gate.entered)
        yield wait_for_value(call)
        assert call.cancelled()
        assert_stopped(kind, gate)

    await the_first(case, way)
    kept.open()
    assert await neighbour == "neighbour"
    await assert_works(kind, pool)


@every(lambda kind: kind.later)
@ways
async def test_await_with_other_awaiters(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """Being cancelled while others await the same call takes nothing from them."""
    pool = await opened(1)
    gate = gates()
    call = pool.submit(kind.fit(hold), gate, "value")
    others = [asyncio.ensure_future(wait_for_value(call)) for _ in range(2)]
    await until(lambda: gate.entered)

    async def case() -> Case:
        yield wait_for_value(call)
        assert not call.done()

    await the_first(case, way)
    gate.open()
    assert [await other for other in others] == ["value", "value"]


@every(killing)
@ways
async def test_wait_all(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """Being cancelled in ``await wait_all(...)`` stops the calls that nobody else awaits, and only those."""
    pool = await opened(3)

    async def case() -> Case:
        mine, shared = gates(), gates()
        calls = [pool.submit(kind.fit(hold), mine), pool.submit(kind.fit(hold), shared, "shared")]
        other = asyncio.ensure_future(wait_for_value(calls[1]))
        await until(lambda: mine.entered and shared.entered)
        yield wait_for_value(wait_all(calls))
        assert calls[0].cancelled()
        assert not calls[1].done()
        assert_stopped(kind, mine)
        shared.open()
        assert await other == "shared"

    await the_first(case, way)
    await assert_works(kind, pool)


@every(killing)
@ways
@pytest.mark.parametrize("waiting", [wait_any, wait_all])
async def test_cancel_pending(kind: Kind, opened: Any, gates: Gates, way: str, waiting: Any) -> None:
    """Wherever a block with ``cancel_pending`` is cancelled, none of its calls is left running."""
    pool = await opened(2)
    calls: list[SmartFuture[Any]] = []

    async def program() -> None:
        async with waiting(calls, cancel_pending=True) as finished:
            async for call in finished:
                await call

    async def case() -> Case:
        gate = gates()
        calls[:] = [pool.submit(kind.fit(jobs.add), 1, 2), pool.submit(kind.fit(hold), gate)]
        await until(lambda: gate.entered)
        yield program()
        assert all(call.done() for call in calls)
        assert calls[1].cancelled()
        assert_stopped(kind, gate)

    await the_first(case, way)
    await assert_works(kind, pool)


@every(lambda kind: kind.later)
@ways
async def test_iterating(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """Being cancelled while iterating over ``wait_any`` stops nothing, and a new iteration goes on."""
    pool = await opened(1)
    gate = gates()
    call = pool.submit(kind.fit(hold), gate, "value")
    await until(lambda: gate.entered)
    finished = wait_any([call])

    async def case() -> Case:
        yield wait_for_value(anext(finished))
        assert not call.done()

    await the_first(case, way)
    gate.open()
    assert [await each async for each in finished] == ["value"]


@every(killing)
@ways
async def test_dependent_call(kind: Kind, opened: Any, gates: Gates, way: str) -> None:
    """Being cancelled while awaiting a call that waits for its arguments stops those too."""
    pool = await opened(2)

    async def case() -> Case:
        gate = gates()
        argument = pool.submit(kind.fit(hold), gate, 1)
        await until(lambda: gate.entered)
        call = pool.submit(kind.fit(jobs.add), argument, 1) + 1
        yield wait_for_value(call)
        await until(argument.done)
        assert argument.cancelled()
        assert_stopped(kind, gate)

    await the_first(case, way)
    await assert_works(kind, pool)


# Streams


@every(lambda kind: killing(kind) and kind.streams and not kind.coroutines)
@ways
async def test_stream(kind: Kind, opened: Any, gates: Gates, way: str, tmp_path: Any) -> None:
    """Being cancelled while waiting for the next item stops the generator."""
    pool = await opened(1)

    async def case() -> Case:
        gate = gates()
        items = stream(pool, jobs.count_at_gates, Log(str(tmp_path / "log")), [gate])
        yield wait_for_value(anext(items))
        if not gate.entered:
            gate.open()
        assert_stopped(kind, gate)
        assert [item async for item in items] == []
        await items.aclose()

    await the_first(case, way)
    await assert_works(kind, pool)


@every(lambda kind: kind.streams)
@ways
async def test_stream_aclose(kind: Kind, opened: Any, way: str, tmp_path: Any) -> None:
    """Closing a stream and being cancelled closes the generator all the same."""
    pool = await opened(1)
    count = 0

    async def case() -> Case:
        nonlocal count
        count += 1
        log = Log(str(tmp_path / f"log{count}"))
        items = stream(pool, fit_stream(kind, jobs.endless), log)
        assert await anext(items) == 0
        yield items.aclose()
        await until(lambda: log.lines[-1] == "closed" or not pool.status().running)
        assert await asyncio.wait_for(pool.submit(kind.fit(jobs.add), 1, 2), 20) == 3

    await each_await(case, way)
    await assert_works(kind, pool)
