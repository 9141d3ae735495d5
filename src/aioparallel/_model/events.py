"""What happens to calls, workers and hosts, one frozen record for each thing, and who wants to be told.

The records are named tuples, not dataclasses: a frozen dataclass of so many fields takes four times as long to make,
and there is one for each step of each call that is watched.

What an observer of one pool is told comes in an order that it may rely on::

    PoolOpened, then for each call   CallQueued  (CallPlaced  CallRetried)*  CallPlaced  CallEnded
                for each worker      WorkerStarted  WorkerEnded
                for each host        HostUp  HostLost, as often as that happens
    PoolClosed, after which the pool may be opened again

A call that never came to a worker ends without having been placed. One that was given back unbegun is placed again.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

__all__ = [
    "CallEnded",
    "CallPlaced",
    "CallQueued",
    "CallRetried",
    "Event",
    "HostLost",
    "HostUp",
    "Observer",
    "PoolClosed",
    "PoolOpened",
    "WorkerEnded",
    "WorkerStarted",
]


class PoolOpened(NamedTuple):
    """An executor was opened.

    Attributes:
        at: When (``time.time``), here and in all other records.
        pool: The executor's name.
        kind: ``"thread"``, ``"process"``, ...
    """

    at: float
    pool: str
    kind: str


class PoolClosed(NamedTuple):
    """An executor was closed; nothing of it is left."""

    at: float
    pool: str


class CallQueued(NamedTuple):
    """A call waits for a worker: it was submitted, and has its arguments.

    Attributes:
        id: The number of the call's future, as in ``future.id`` and ``current_call().id``.
        name: The function's name, or the call's own.
    """

    at: float
    id: int
    name: str


class CallPlaced(NamedTuple):
    """A call was sent to a worker, where it begins when what was sent there before has ended.

    Attributes:
        worker: The worker's name.
        host: The machine it is on; ``None`` for this one.
        attempt: 1 for the first time.
        backup: Whether this is a backup copy of a call that runs elsewhere.
    """

    at: float
    id: int
    name: str
    worker: str
    host: str | None
    attempt: int
    backup: bool


class CallRetried(NamedTuple):
    """An attempt of a call has failed, and there will be another.

    Attributes:
        attempt: The one that has failed.
        begun_at: When that began; ``None`` if nobody can tell.
        pause: Seconds until it is queued again.
        error: What it failed with.
    """

    at: float
    id: int
    name: str
    worker: str
    host: str | None
    attempt: int
    begun_at: float | None
    pause: float
    error: BaseException


class CallEnded(NamedTuple):
    """A call has ended: all that is known of it.

    Attributes:
        worker: Who ran it last; ``None`` if nobody ever had it.
        outcome: ``"done"``, ``"failed"`` or ``"cancelled"``.
        attempts: How often it was begun.
        copies: How many backup copies it had.
        won_by_copy: Whether one of them gave the result.
        items: How many items of a map travelled in it; 1 for a call of its own.
        queued_at: When it was submitted.
        begun_at: When it last began; ``None`` if it did not.
        duration: Seconds it ran the last time, by the worker's own clock, if it said so.
        error: What it failed with.
    """

    at: float
    id: int
    name: str
    worker: str | None
    host: str | None
    outcome: str
    attempts: int
    copies: int
    won_by_copy: bool
    items: int
    queued_at: float
    begun_at: float | None
    duration: float | None
    error: BaseException | None


class WorkerStarted(NamedTuple):
    """A worker takes calls.

    Attributes:
        worker: Its name.
        host: The machine it is on; ``None`` for this one.
        worker_index: Its place in the pool; a replacement gets the same one.
        pid: Its process, if it has one of its own.
        width: How many calls it runs at a time.
    """

    at: float
    worker: str
    host: str | None
    worker_index: int
    pid: int | None
    width: int


class WorkerEnded(NamedTuple):
    """A worker has ended.

    Attributes:
        asked: Whether it was told to: it was idle, worn, or ran what was to be stopped. Otherwise it died.
        reason: How it ended, in words: a signal's name, an exit code, evidence of too little memory.
        call: The number of the call that it ran, if it ran one.
        max_rss: The most memory it ever had, in bytes, if that is known.
    """

    at: float
    worker: str
    host: str | None
    worker_index: int
    pid: int | None
    asked: bool
    reason: str
    call: int | None
    max_rss: int | None


class HostUp(NamedTuple):
    """A host takes calls.

    Attributes:
        slots: How many at a time.
    """

    at: float
    host: str
    slots: int


class HostLost(NamedTuple):
    """A host cannot be used, or not any more.

    Attributes:
        error: Why.
        permanent: Whether it is given up for good; otherwise it is tried again.
    """

    at: float
    host: str
    error: BaseException
    permanent: bool


Event: TypeAlias = (
    PoolOpened
    | PoolClosed
    | CallQueued
    | CallPlaced
    | CallRetried
    | CallEnded
    | WorkerStarted
    | WorkerEnded
    | HostUp
    | HostLost
)


class Observer(Protocol):
    """Whoever is told: any function of one argument.

    It is called on the thread of the pool's event loop, between two steps of the pool's own work: it should be quick,
    and must not submit, cancel or close anything there and then.
    """

    def __call__(self, event: Event, /) -> object:
        """This has happened."""
        ...
