"""What can be known of an executor, its workers and what these run: frozen records of one moment.

Imported when somebody asks: dataclasses take a millisecond each to make, and most programs never look at these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PoolStatus", "RunningCall", "WorkerStatus"]


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call that a worker runs.

    Attributes:
        id: The number of its future.
        name: The function's name, or the call's own.
        attempt: 1 for the first time.
        begun_at: When it began (``time.time``).
        stopping: Whether it is being stopped, because it was cancelled or its time is up.
    """

    id: int
    name: str
    attempt: int
    begun_at: float
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker stands, at one moment. The threads, or tasks, of an executor count as one worker that is wide.

    Attributes:
        name: Its name.
        host: The machine it is on; ``None`` for this one.
        index: Its place in the pool; a replacement gets the same one.
        pid: Its process; ``None`` if it has none of its own, or none yet.
        state: ``starting``, ``ready`` or ``retiring``.
        width: How many calls it runs at a time.
        running: What it runs, what began first in front.
        waiting: Calls that were sent to it and have not begun.
        ended: Calls that it has ended.
        memory: What its process holds, in bytes: now, or on a host when that said so last; ``None`` where that cannot
            be seen, or has not been said yet.
        starting_since: When it was asked for (``time.time``), while it takes no calls yet.
    """

    name: str
    host: str | None
    index: int
    pid: int | None
    state: str
    width: int = 1
    running: tuple[RunningCall, ...] = ()
    waiting: int = 0
    ended: int = 0
    memory: int | None = None
    starting_since: float | None = None


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """How an executor stands, at one moment.

    Attributes:
        name: The executor's name.
        kind: ``"thread"``, ``"process"``, ...
        workers: Workers that are alive.
        queued: Calls that have not begun.
        running: Calls that have begun and not ended.
        done: Calls that succeeded.
        failed: Calls that raised, timed out or lost their worker.
        cancelled: Calls that were cancelled.
        retried: Attempts after the first one.
        backups: Backup copies that were started.
        backups_won: How many of them gave their call its result.
        backup_seconds: What workers spent on copies, those that lost included.
        deaths: Workers that died unasked.
        abandoned: Threads that are still in a call that has been given up, also from before the executor was closed.
        p50: Median time from beginning to end, in seconds; ``None`` before anything ended.
        p95: The same for 95 of 100 calls.
        per_worker: How each worker stands, if that was asked for.
    """

    name: str
    kind: str
    workers: int
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    retried: int = 0
    backups: int = 0
    backups_won: int = 0
    deaths: int = 0
    p50: float | None = None
    p95: float | None = None
    backup_seconds: float = 0.0
    abandoned: int = 0
    per_worker: tuple[WorkerStatus, ...] = field(default=(), repr=False)
