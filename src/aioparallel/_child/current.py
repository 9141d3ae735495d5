"""The call that a worker is running. The face of the library looks here when it is imported in a worker."""

from __future__ import annotations

from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Current:
    """A call that runs in this worker."""

    __slots__ = ("attempt", "host", "id", "is_cancelled", "name", "worker_index")

    def __init__(
        self, id: int, name: str, attempt: int, worker_index: int, host: str | None, is_cancelled: Callable[[], bool]
    ) -> None:
        self.id = id
        self.name = name
        self.attempt = attempt
        self.worker_index = worker_index
        self.host = host
        self.is_cancelled = is_cancelled


current: ContextVar[Current | None] = ContextVar("aioparallel_current", default=None)

borrowed = False
"""Whether this process runs calls for an executor in another one, although it imported us under our own name."""


def borrow_process() -> None:
    """Say that this process, which somebody else started, is now a worker."""
    global borrowed
    borrowed = True
