"""How the workers of a pool stand: read from its books, which are not touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._model.call import Call
from .._model.status import RunningCall, WorkerStatus
from .._policy.seats import Standing

if TYPE_CHECKING:
    from .._executors.pool import Executor
    from .._policy.seats import Seat

__all__ = ["doing_of", "held_back", "memory_of", "running_calls", "workers_of"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def workers_of(pool: Executor) -> tuple[WorkerStatus, ...]:
    """How each worker of a pool stands, in the order of their places."""
    run = pool._run
    running: dict[Seat, list[RunningCall]] = {} if run is None else {seat: [] for seat in run.ledger.seats}
    for seat, call, begun_at in running_calls(pool):
        told = RunningCall(call.future.id, call.name, call.attempts, begun_at, call.stop is not None)
        running[seat].append(told)
    return tuple(_status(seat, running[seat]) for seat in sorted(running, key=lambda seat: seat.index))


def running_calls(pool: Executor) -> Iterator[tuple[Seat, Call, float]]:
    """Each call that runs: on which worker, and when it began there."""
    run = pool._run
    for seat in () if run is None else run.ledger.seats:
        for call in seat.held.values():
            begun_at = pool._began(call)
            if begun_at is not None and getattr(call, "future", None) is not None:  # it may be settled by now
                yield seat, call, begun_at


def _status(seat: Seat, running: list[RunningCall]) -> WorkerStatus:
    pid = getattr(seat.carrier, "pid", None)
    return WorkerStatus(
        name=str(seat),
        host=seat.site.name,
        index=seat.index,
        pid=pid,
        state=seat.standing.name.lower(),
        width=seat.width,
        running=tuple(sorted(running, key=lambda call: call.begun_at)),
        waiting=len(seat.held) - len(running),
        ended=seat.ended,
        starting_since=getattr(seat.carrier, "asked_at", None) if seat.standing is Standing.STARTING else None,
        memory=memory_of(pid) if seat.site.name is None else getattr(seat.carrier, "memory", None),
    )


def held_back(pool: Executor) -> int:
    """How many of the queued calls wait for something else than a worker: for their arguments, or for a limit."""
    run = getattr(pool, "_run", None)
    return 0 if run is None else len(run.waiting)


def doing_of(pid: int | None) -> str | None:
    """What a process of this machine does at this moment, in words; ``None`` where that cannot be seen."""
    states = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                states.add(file.read().rpartition(b") ")[2][:1])
    except OSError:
        return None
    if b"R" in states:
        return "computes"
    if b"D" in states:
        return "waits for a disk or the like"
    return "was stopped" if states & {b"T", b"t"} else "waits, and computes nothing"


def memory_of(pid: int | None) -> int | None:
    """What a process of this machine holds in memory, in bytes; ``None`` where that cannot be seen."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None
