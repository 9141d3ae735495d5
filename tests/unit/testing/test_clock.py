"""The manual clock: what takes minutes is over at once, in the right order, and everything is as before afterwards."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from aioparallel import Limit, ProcessExecutor, Retry, TaskTimeoutError, ThreadExecutor, parmap, wait_any
from aioparallel.testing import FakeExecutor, ManualClock
from tests.tools import Gate, hold, until


@pytest.fixture
async def clock() -> ManualClock:
    with ManualClock() as clock:
        yield clock


async def test_timers_in_their_order(clock: ManualClock) -> None:
    """Timers fire in their order, also those that other timers set, and none before its time."""
    loop = asyncio.get_running_loop()
    fired: list[tuple[str, float]] = []
    began = loop.time()

    def chain(left: int) -> None:
        fired.append(("chain", loop.time() - began))
        if left:
            loop.call_later(10, chain, left - 1)

    loop.call_later(10, chain, 5)
    loop.call_later(25, lambda: fired.append(("single", loop.time() - began)))
    await clock.advance(45)
    assert [name for name, _ in fired] == ["chain", "chain", "single", "chain", "chain"]
    assert [round(at) for _, at in fired] == [10, 20, 25, 30, 40]


async def test_long_pause_of_a_retry(clock: ManualClock) -> None:
    """A retry in an hour takes no hour."""
    async with FakeExecutor() as pool:
        future = pool.options(retry=Retry(2, backoff=3600)).submit(pow, 2, 10)
        pool.calls[0].fail(OSError("no route"))
        await clock.advance(1700)  # the pause is jittered, by half of it at most
        assert pool.calls == ()
        await clock.advance(3800)
        pool.calls[0].run()
        assert await future == 1024


async def test_timeouts_of_real_calls(clock: ManualClock, tmp_path: object) -> None:
    """The timeout of a call in a thread, or in a real process, is over when the clock says so."""
    for pool in (ThreadExecutor(1), ProcessExecutor(1)):
        gate = Gate(f"{tmp_path}/{pool.name}")
        async with pool:
            future = pool.options(timeout=600).submit(hold, gate)
            await until(lambda gate=gate: gate.entered)
            if pool.kind == "process":
                gate.open()  # the agent, which is another process, has the last word on its time
                assert await future is None
                continue
            await clock.advance(590)
            assert not future.done()
            await clock.advance(20)
            with pytest.raises(TaskTimeoutError):
                await future
            gate.open()


async def test_rate_of_a_limit(clock: ManualClock) -> None:
    """What a limit spreads over minutes comes as fast as the clock is put forward."""
    started: list[int] = []

    async def note(n: int) -> None:
        started.append(n)

    results = asyncio.ensure_future(_all(parmap(note, range(5), method="coroutine", limit=Limit(rate=1, per=60))))
    await until(lambda: started == [0])
    for n in range(1, 5):
        await clock.advance(61)
        await until(lambda n=n: len(started) == n + 1)
    await results


async def _all(results: object) -> list[object]:
    return await results  # type: ignore[misc]


async def test_anyio_and_deadlines(clock: ManualClock) -> None:
    """Sleeping and deadlines of the code under test go by the same clock."""
    slept = asyncio.ensure_future(anyio.sleep(1000))
    forever = asyncio.get_running_loop().create_future()

    async def look() -> None:
        async for _ in wait_any([forever], timeout=500):
            raise AssertionError("nothing ever ends")

    late = asyncio.ensure_future(look())
    await clock.advance(501)
    with pytest.raises(TimeoutError):
        await late
    assert not slept.done()
    await clock.advance(500)
    await slept
    forever.cancel()


async def test_everything_as_before() -> None:
    """Afterwards all clocks are as they were, and the program's own was never touched."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    with ManualClock() as clock:
        program = time.time()
        await clock.advance(10_000)
        assert loop.time() - before >= 10_000
        assert clock.time() - program >= 10_000
        assert time.time() - program < 1000
    assert loop.time() - before < 1000
    assert "time" not in vars(loop)
    from aioparallel._executors import pool
    from aioparallel._workers import crew

    assert pool.time is time
    assert (crew.time, crew.monotonic) == (time.time, time.monotonic)


async def test_misuse() -> None:
    """A clock goes forward only, and inside its block only."""
    clock = ManualClock()
    with pytest.raises(RuntimeError, match="use `with ManualClock"):
        await clock.advance(1)
    with clock:
        with pytest.raises(ValueError, match="forward only"):
            await clock.advance(-1)
        with pytest.raises(RuntimeError, match="entered already"), clock:
            pass
