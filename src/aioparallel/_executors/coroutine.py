from __future__ import annotations

import math
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any

from .._model.shapes import shape_of, Shape
from .._workers.tasks import Tasks
from .local import Foreman, LocalExecutor
from .pool import Run

__all__ = ["CoroutineExecutor"]

class CoroutineExecutor(LocalExecutor):
    kind = "coroutine"

    def __init__(
        self,
        max_concurrency: int = 100,
        *,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
    ) -> None:
        self.max_concurrency = max_concurrency
        super().__init__(self.max_concurrency, name=name, max_pending=max_pending, grace=grace)

    def _check(self, fn: Any) -> None:
        if type(fn) is FunctionType and fn.__code__.co_flags & CO_COROUTINE:
            return  # shape_of knows more, and takes longer
        if shape_of(fn) is not Shape.COROUTINE:
            raise TypeError("plain")

    def _crew(self, run: Run, foreman: Foreman) -> Tasks:
        group = run.supervisor.group
        assert group is not None
        return Tasks(self.kind, self.name, self._size, group, foreman.ended)
