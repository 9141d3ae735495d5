"""The fake executor: the test ends calls, everything else is real."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioparallel import (
    CallCancelledError,
    Limit,
    PoisonTaskError,
    Retry,
    TaskTimeoutError,
    WorkerLostError,
    current_call,
    parmap,
    wait_all,
    wait_any,
)
from aioparallel.testing import FakeExecutor
from tests.tools import until


def fetch(url: str, *, depth: int = 0) -> str:
    return f"{url} {depth} {current_call().attempt}"


async def test_the_test_ends_calls() -> None:
    """Calls begin in order, as many as there are workers, and end as and when the test says."""
    async with FakeExecutor(2) as pool:
        futures = [pool.submit(fetch, url, depth=1) for url in "abc"]
        first, second = pool.calls
        assert (first.name, first.args, first.kwargs, first.attempt) == ("fetch", ("a",), {"depth": 1}, 1)
        assert repr(first) == "<FakeCall fetch('a', depth=1), attempt 1>"
        assert pool.status().queued == 1
        second.succeed("B", after=3.0)
        first.fail(OSError("no route"))
        (third,) = pool.calls
        third.run()
        with pytest.raises(OSError, match="no route"):
            await futures[0]
        assert await futures[1] == "B"
        assert await futures[2] == "c 1 1"
        assert pool.status().p95 == pytest.approx(3.0, rel=0.02)


async def test_run_that_raises() -> None:
    """A call that is run may raise."""
    async with FakeExecutor() as pool:
        future = pool.submit(divmod, 1, 0)
        pool.calls[0].run()
        with pytest.raises(ZeroDivisionError):
            await future


async def test_retry_and_the_next_call() -> None:
    """A failed attempt is followed by the next one, for which a test can wait."""
    async with FakeExecutor() as pool:
        future = pool.options(retry=Retry(2, backoff=0.001)).submit(fetch, "a")
        (await pool.next_call()).fail(OSError("no route"))
        again = await pool.next_call()
        assert again.attempt == 2
        again.run()
        assert await future == "a 0 2"


async def test_dead_worker() -> None:
    """A worker that is lost takes its call along, is replaced, and too many are poison."""
    async with FakeExecutor() as pool:
        future = pool.submit(fetch, "a")
        pool.calls[0].lose()
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            await future
        assert pool.status().deaths == 1
        bad = pool.options(idempotent=True, retry=Retry(5, worker_lost=5)).submit(fetch, "b")
        for _ in range(3):
            (await pool.next_call()).lose()
        with pytest.raises(PoisonTaskError):
            await bad


async def test_cancelling() -> None:
    """A cancelled call ends at once, running or not, and is not there to be ended any more."""
    async with FakeExecutor() as pool:
        running, waiting = pool.submit(fetch, "a"), pool.submit(fetch, "b")
        (call,) = pool.calls
        waiting.cancel()
        running.cancel()
        for future in (running, waiting):
            with pytest.raises(CallCancelledError):
                await future
        with pytest.raises(RuntimeError, match="has ended, or was cancelled"):
            call.succeed()
        assert pool.calls == ()


async def test_timeout() -> None:
    """A call whose time is up is stopped."""
    async with FakeExecutor() as pool:
        with pytest.raises(TaskTimeoutError):
            await pool.options(timeout=0.01).submit(fetch, "a")


async def test_limit_and_map() -> None:
    """Limits and maps work on it as on any executor."""
    async with FakeExecutor(4) as pool:
        results = parmap(fetch, "abcd", on=pool, limit=Limit(concurrency=2))

        async def workers() -> None:
            for _ in range(4):
                call = await pool.next_call()
                assert len(pool.calls) <= 2
                call.run()

        found, _ = await asyncio.gather(_list(results), workers())
        assert found == [f"{url} 0 1" for url in "abcd"]


async def _list(results: Any) -> list[Any]:
    return [result async for result in results]


async def test_completion_order() -> None:
    """The test decides who is first."""
    async with FakeExecutor(3) as pool:
        futures = [pool.submit(fetch, url) for url in "abc"]
        for call in reversed(pool.calls):
            call.succeed(call.args[0])
            await until(lambda: len(pool.calls) < 3)
        assert sorted([await future async for future in wait_any(futures)]) == ["a", "b", "c"]
        assert await wait_all(futures) == ["a", "b", "c"]


async def test_closing_cancels_what_nobody_ended() -> None:
    """Leaving by an exception cancels what the test did not end."""
    pool = FakeExecutor()
    with pytest.raises(LookupError):
        async with pool:
            future = pool.submit(fetch, "a")
            raise LookupError
    assert future.cancelled()


def test_no_workers() -> None:
    """There must be a worker."""
    with pytest.raises(ValueError, match="workers=0"):
        FakeExecutor(0)
