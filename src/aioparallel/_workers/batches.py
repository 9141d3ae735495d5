"""Items of a map that share one call in this process: one after the other, each still on its own.

Each item runs in a context of its own, and fails alone. What has not begun can be taken away at any
moment, from any thread, when a member of the crew turns out to be stuck in an item.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from types import CoroutineType
from typing import Any

from .._child.current import Current, current
from .._model.errors import CallCancelledError
from .crew import never_awaited, presentable
from .tasks import in_context

__all__ = ["AsyncBatch", "Batch", "Ended"]

Ended = tuple[list[Any], dict[int, BaseException]]
"""What the items returned (as many as have ended), and what some of them raised."""


class Batch:
    """Calls a plain function for some items.

    Args:
        fn: A function of one item.
        name: What its calls are named by.
        items: The items.
        stop_at_failure: Whether what follows an item that failed does not begin.
    """

    def __init__(self, fn: Callable[[Any], Any], name: str, items: Sequence[Any], stop_at_failure: bool) -> None:
        self.__qualname__ = name
        self._fn = fn
        self._todo = deque(items)
        self._count = len(items)
        self._stop_at_failure = stop_at_failure
        self._values: list[Any] = []
        self._failures: dict[int, BaseException] = {}

    def take_rest(self) -> int:
        """Take away the items that have not begun; returns the index of the first of them."""
        while self._todo:
            try:
                self._todo.pop()
            except IndexError:  # another thread has just begun the last one
                break
            self._count -= 1
        return self._count

    def __call__(self) -> Ended:
        context, here = copy_context(), _here()
        while self._todo and not here.is_cancelled():
            try:
                item = self._todo.popleft()
            except IndexError:
                break
            try:
                value = context.copy().run(self._fn, item)
                if type(value) is CoroutineType:
                    value.close()
                    raise never_awaited(self.__qualname__)
                self._values.append(value)
            except BaseException as error:
                self._fail(error, here)
        return self._values, self._failures

    def _fail(self, error: BaseException, here: Current) -> None:
        if isinstance(error, CancelledError):
            error = CallCancelledError(f"{self.__qualname__} let the cancellation of something escape")
        self._failures[len(self._values)] = presentable(error, self.__qualname__, f"worker {here.worker_index}")
        self._values.append(None)
        if self._stop_at_failure:
            self._todo.clear()


class AsyncBatch(Batch):
    """Calls a coroutine function for some items."""

    async def __call__(self) -> Ended:  # type: ignore[override]
        context, here = copy_context(), _here()
        task = asyncio.current_task()
        while self._todo:
            item = self._todo.popleft()
            try:
                self._values.append(await in_context(context.copy(), self._fn, item))
            except GeneratorExit:
                raise
            except BaseException as error:
                if isinstance(error, CancelledError) and (here.is_cancelled() or (task and task.cancelling())):
                    raise
                self._fail(error, here)
        return self._values, self._failures


def _here() -> Current:
    here = current.get()
    assert here is not None, "a crew runs us"
    return here
