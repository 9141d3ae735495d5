"""What can be known of a call and of its future: frozen records.

They are named tuples, not dataclasses: a frozen dataclass of so many fields takes two milliseconds to define, which
every program would pay for as it starts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["CallInfo", "CallState", "CurrentCall", "Method"]


class Method(StrEnum):
    """Where a decorated function runs. A string of the same name is accepted everywhere."""

    SERIAL = "serial"
    COROUTINE = "coroutine"
    THREAD = "thread"
    PROCESS = "process"
    REMOTE = "remote"
    RAY = "ray"

    @classmethod
    def _missing_(cls, value: object) -> Method | None:
        if isinstance(value, str):
            return next((member for member in cls if member.value == value.lower()), None)
        return None


class CallState(StrEnum):
    """The life of a call: ``waiting`` (for arguments), ``queued``, ``running``, then one of three ends."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallInfo(NamedTuple):
    """How a call stands. Times are ``time.time()`` seconds, ``None`` for what has not happened.

    Attributes:
        state: ``waiting``, ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
        name: The function's name.
        method: The kind of executor: ``"thread"``, ``"process"``, ...
        worker: The worker that ran it last.
        host: The machine it ran on; ``None`` for this one.
        attempts: How often it was begun: 1 for the first time.
        copies: How many backup copies were made of it.
        queued_at: When it was submitted.
        begun_at: When it last began to run.
        settled_at: When its end was known here.
    """

    state: str
    name: str = ""
    method: str | None = None
    worker: str | None = None
    host: str | None = None
    attempts: int = 0
    copies: int = 0
    queued_at: float | None = None
    begun_at: float | None = None
    settled_at: float | None = None


class CurrentCall(NamedTuple):
    """The call that the current code runs in (see :func:`aioparallel.current_call`).

    Attributes:
        id: The number of the call's future.
        name: The function's name.
        attempt: 1 for the first time.
        worker_index: The slot of the worker, stable when the worker is replaced.
        host: The machine it runs on; ``None`` for the submitting one.
    """

    id: int
    name: str
    attempt: int = 1
    worker_index: int = 0
    host: str | None = None
