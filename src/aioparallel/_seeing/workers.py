"""How the workers of a pool stand: read from its books, which are not touched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._model.call import Call
from .._model.info import RunningCall, WorkerStatus

if TYPE_CHECKING:
    from .._executors.pool import Executor
    from .._policy.seats import Seat

__all__ = ["memory_of", "workers_of"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def workers_of(pool: Executor) -> tuple[WorkerStatus, ...]:
    """How each worker of a pool stands, in the order of their places."""
    run = pool._run
    seats = () if run is None else tuple(run.ledger.seats)
    return tuple(_status(pool, seat) for seat in sorted(seats, key=lambda seat: seat.index))


def _status(pool: Executor, seat: Seat) -> WorkerStatus:
    held = tuple(seat.held.values())
    running = [found for call in held if (found := _running(pool, call)) is not None]
    pid = getattr(seat.carrier, "pid", None)
    return WorkerStatus(
        name=str(seat),
        host=seat.site.name,
        index=seat.index,
        pid=pid,
        state=seat.standing.name.lower(),
        width=seat.width,
        running=tuple(sorted(running, key=lambda call: call.begun_at)),
        waiting=len(held) - len(running),
        ended=seat.ended,
        memory=memory_of(pid) if seat.site.name is None else None,
    )


def _running(pool: Executor, call: Call) -> RunningCall | None:
    begun_at = pool._began(call)
    future = getattr(call, "future", None)  # it may be settled by now
    if begun_at is None or future is None:
        return None
    return RunningCall(future.id, call.name, call.attempts, begun_at, call.stop is not None)


def memory_of(pid: int | None) -> int | None:
    """What a process of this machine holds in memory, in bytes; ``None`` where that cannot be seen."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None
