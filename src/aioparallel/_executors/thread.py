"""ThreadExecutor: calls run in threads of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from types import FunctionType
from typing import Any

from .._model.call import function_name
from .._model.shapes import shape_of
from .._workers.cpus import available_cpus
from .._workers.threads import Threads
from .local import Foreman, LocalExecutor
from .pool import Run

__all__ = ["ThreadExecutor"]

ASYNC = CO_COROUTINE | CO_ASYNC_GENERATOR

class ThreadExecutor(LocalExecutor):
    kind = "thread"

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self.max_workers = min(32, available_cpus() + 4) if max_workers is None else max_workers
        super().__init__(self.max_workers, name=name, max_pending=max_pending, grace=grace)
        self.initializer = initializer

    def _check(self, fn: Any) -> None:
        if type(fn) is FunctionType and not fn.__code__.co_flags & ASYNC:
            return  # shape_of knows more, and takes longer
        if shape_of(fn).is_async:
            raise TypeError("async")

    def _crew(self, run: Run, foreman: Foreman) -> Threads:
        group = run.supervisor.group
        assert group is not None
        return Threads(self.kind, self.name, self.max_workers, group, foreman.ended, foreman.broken, self.initializer)
