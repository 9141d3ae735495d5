"""The call that a worker is running. The face of the library looks here when it is imported in a worker."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple


class Current(NamedTuple):
    """A call that runs in this worker."""

    id: int
    name: str
    attempt: int
    worker_index: int
    host: str | None
    is_cancelled: Callable[[], bool]


current: ContextVar[Current | None] = ContextVar("aioparallel_current", default=None)
