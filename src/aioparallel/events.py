"""What executors tell their observers (see :meth:`aioparallel.Executor.observe`): one record for each thing."""

from __future__ import annotations

from ._model.events import (
    CallEnded,
    CallPlaced,
    CallQueued,
    CallRetried,
    Event,
    HostLost,
    HostUp,
    Observer,
    PoolClosed,
    PoolOpened,
    WorkerEnded,
    WorkerStarted,
)

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
