"""Cancelling at every await in turn: a coroutine is stepped, and cancelled where it is suspended for the n-th time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import anyio

Case = AsyncIterator[Coroutine[Any, Any, Any]]
"""Yields a coroutine that is to be cancelled and, when it goes on, checks what is left."""

WAYS = ["task.cancel", "asyncio.timeout", "anyio"]
MOST = 200
"""Suspensions. What is suspended more often waits in a loop, and would never end here."""


class Stepped:
    """Awaits a coroutine, and calls ``strike`` when it is suspended for the n-th time."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], n: int, strike: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._n = n
        self._strike = strike
        self.suspensions = 0

    @property
    def was_struck(self) -> bool:
        return self.suspensions >= self._n

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        step: Callable[[], Any] = lambda: steps.send(None)  # noqa: E731
        while True:
            try:
                wanted = step()
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions == self._n:
                self._strike()
            try:
                answer = yield wanted
                step = lambda answer=answer: steps.send(answer)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: steps.throw(error)  # noqa: E731


async def cancelled_at(n: int, coroutine: Coroutine[Any, Any, Any], way: str) -> bool:
    """Run a coroutine in a task and cancel it where it is suspended for the n-th time.

    Returns:
        Whether it was; ``False`` when it ended before that.
    """

    async def native() -> Stepped:
        task = asyncio.current_task()
        assert task is not None
        stepped = Stepped(coroutine, n, task.cancel)
        task.stepped = stepped  # type: ignore[attr-defined]
        await stepped
        return stepped

    async def with_timeout() -> Stepped:
        loop = asyncio.get_running_loop()
        timeout = asyncio.timeout(None)
        stepped = Stepped(coroutine, n, lambda: timeout.reschedule(loop.time()))
        try:
            async with timeout:
                await stepped
        except TimeoutError:
            assert timeout.expired(), "the time was up"
        return stepped

    async def with_scope() -> Stepped:
        with anyio.CancelScope() as scope:
            stepped = Stepped(coroutine, n, scope.cancel)
            await stepped
        return stepped

    task = asyncio.ensure_future({"task.cancel": native, "asyncio.timeout": with_timeout, "anyio": with_scope}[way]())
    await asyncio.wait([task], timeout=30)
    assert task.done(), f"still waiting 30 s after it was cancelled at its suspension {n}"
    stepped = task.stepped if way == "task.cancel" else task.result()  # type: ignore[attr-defined]
    if not task.cancelled():
        task.result()
    return stepped.was_struck


async def each_await(make: Callable[[], Case], way: str) -> int:
    """Cancel at the first await, then at the second, and so on, until a run ends by itself.

    Args:
        make: Makes a new case each time.
        way: How to cancel.

    Returns:
        How many awaits there were.
    """
    for n in range(1, MOST):
        case = make()
        struck = await cancelled_at(n, await anext(case), way)
        async for _ in case:
            raise AssertionError("a case yields once")
        if not struck:
            return n - 1
    raise AssertionError(f"suspended more than {MOST} times")


async def the_first(make: Callable[[], Case], way: str) -> None:
    """Cancel at the first await, for what would wait for ever if nobody cancelled it."""
    case = make()
    assert await cancelled_at(1, await anext(case), way)
    async for _ in case:
        raise AssertionError("a case yields once")
