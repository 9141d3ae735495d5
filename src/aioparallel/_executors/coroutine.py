"""CoroutineExecutor: coroutines run on the event loop, so many at a time."""

from __future__ import annotations

import math
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any

from .._model.call import function_name
from .._model.checks import checked_count
from .._model.shapes import Shape, shape_of
from .._workers.batches import AsyncBatch
from .._workers.tasks import Tasks
from .local import Foreman, check_callable, group_of
from .localmaps import MappingExecutor
from .pool import Run

__all__ = ["CoroutineExecutor"]


class CoroutineExecutor(MappingExecutor):
    """Runs coroutine functions on the event loop, and only so many at a time.

    Each call sees the contextvars of whoever submitted it. Calls take turns in a few tasks that stay, so
    ``asyncio.current_task()`` is a task that runs other calls before and after: do not keep it.

    Args:
        max_concurrency: How many calls run at a time.
        name: Seen in errors, logs, :meth:`~Executor.status` and the names of tasks.
        max_pending: How many calls may wait for their turn.
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.

    Raises:
        ValueError: ``max_concurrency`` makes no sense.

    Cancellation:
        A cancelled call, or one that runs longer than its ``timeout``, gets :exc:`asyncio.CancelledError` where it
        waits, as a cancelled task does, and has ended when its coroutine has. If it still runs ``grace`` seconds
        later, it ends for whoever awaits it, and keeps its place until it really ends.

    What may still be running:
        Nothing: a coroutine that goes on when the executor is closed is closed ``grace`` seconds later.

    Example:
        ::

            async with CoroutineExecutor(max_concurrency=10) as pool:
                pages = await wait_all([pool.submit(fetch, url) for url in urls])
    """

    kind = "coroutine"
    _batch = AsyncBatch
    _chunk_seconds = 0.02
    """What a chunk of a map may take is longer than elsewhere, for all calls share one thread's time."""
    _shape = Shape.COROUTINE

    def __init__(
        self,
        max_concurrency: int = 100,
        *,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
    ) -> None:
        self.max_concurrency = checked_count("max_concurrency", max_concurrency)
        super().__init__(self.max_concurrency, name=name, max_pending=max_pending, grace=grace)

    def _check(self, fn: Any) -> None:
        if type(fn) is FunctionType and fn.__code__.co_flags & CO_COROUTINE:
            return  # most are; shape_of would say the same, but takes longer
        check_callable(fn)
        if shape_of(fn) is not Shape.COROUTINE:
            raise TypeError(
                f"{function_name(fn)} is no `async def`: a CoroutineExecutor runs coroutine functions only; "
                "use a ThreadExecutor or a ProcessExecutor"
            )

    def _crew(self, run: Run, foreman: Foreman) -> Tasks:
        return Tasks(self.kind, self.name, self.max_concurrency, group_of(run), foreman.ended)
