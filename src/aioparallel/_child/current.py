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

borrowed = False
"""Whether this process runs calls for an executor in another one, although it imported us under our own name."""


def borrow_process() -> None:
    """Say that this process, which somebody else started, is now a worker."""
    global borrowed
    borrowed = True
