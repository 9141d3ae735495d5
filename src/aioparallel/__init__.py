"""Run Python functions in threads, processes, on remote hosts or on Ray, and await each call like any other future.

The layers, each of which imports only what stands below it::

    cli  joblib                      the command line; joblib on the executors of `blocking`
    blocking  events  testing        other doors, built on this face
    _verbs                           what users say: decorators, maps, ambient executors
    _executors                       where calls run: one file for each kind of pool
    _workers, _seeing                what executors place calls on; observers, board and trace
    _futures, _policy                the future; the decisions, without waiting, clocks or I/O
    _model                           the vocabulary: calls, options, records, errors, contracts
    _child                           what runs in workers: the standard library and cloudpickle

This face holds every public name. A name is imported when it is first used, so that importing the package costs next to
nothing, and says "aioparallel" for its module, so that tracebacks, documentation and pickles name it as users do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._executors.coroutine import CoroutineExecutor
    from ._executors.fleet import HostStatus
    from ._executors.mapping import ParallelMap
    from ._executors.pool import Executor
    from ._executors.process import ProcessExecutor
    from ._executors.progress import Progress
    from ._executors.ray import RayExecutor
    from ._executors.remote import RemoteExecutor
    from ._executors.serial import SerialExecutor
    from ._executors.stream import Stream
    from ._executors.thread import ThreadExecutor
    from ._futures.limits import Limit
    from ._futures.smart import SmartFuture
    from ._futures.waiting import later, wait_all, wait_any
    from ._model.errors import (
        AioParallelError,
        CallCancelledError,
        CallExitedError,
        ExecutorClosedError,
        HostError,
        InsecureHostWarning,
        NotReadyError,
        PicklingError,
        PoisonTaskError,
        PoolFullError,
        RemoteError,
        RemoteTraceback,
        StoreFullError,
        TaskTimeoutError,
        WorkerLostError,
        WorkerStartError,
    )
    from ._model.hosts import Host, SshSettings
    from ._model.info import CallInfo, CallState, CurrentCall, Method
    from ._model.options import Backups, Retry
    from ._model.outcome import Outcome
    from ._model.status import PoolStatus, RunningCall, WorkerStatus
    from ._policy.placement import LeastLoaded, RoundRobin, WeightedRandom
    from ._seeing.board import Board, watch
    from ._seeing.trace import Trace
    from ._verbs.ambient import aclose, configure
    from ._verbs.current import check_cancelled, current_call
    from ._verbs.distribute import Distributed, distribute
    from ._verbs.maps import parmap
    from ._verbs.parallel import Parallel, parallelize
    from ._verbs.split import split_eval
    from ._verbs.stateful import StatefulPool
    from ._workers.hostfile import load_hosts

__version__ = "0.1.0"

_NAMES = {
    "_executors.pool": "Executor",
    "_executors.serial": "SerialExecutor",
    "_executors.coroutine": "CoroutineExecutor",
    "_executors.fleet": "HostStatus",
    "_executors.thread": "ThreadExecutor",
    "_executors.mapping": "ParallelMap",
    "_executors.process": "ProcessExecutor",
    "_executors.progress": "Progress",
    "_executors.ray": "RayExecutor",
    "_executors.remote": "RemoteExecutor",
    "_executors.stream": "Stream",
    "_futures.limits": "Limit",
    "_futures.smart": "SmartFuture",
    "_futures.waiting": "later wait_all wait_any",
    "_model.errors": "AioParallelError CallCancelledError CallExitedError ExecutorClosedError HostError "
    "InsecureHostWarning NotReadyError PicklingError PoisonTaskError PoolFullError RemoteError RemoteTraceback "
    "StoreFullError TaskTimeoutError WorkerLostError WorkerStartError",
    "_model.hosts": "Host SshSettings",
    "_model.info": "CallInfo CallState CurrentCall Method",
    "_model.options": "Backups Retry",
    "_model.outcome": "Outcome",
    "_model.status": "PoolStatus RunningCall WorkerStatus",
    "_policy.placement": "LeastLoaded RoundRobin WeightedRandom",
    "_seeing.board": "Board watch",
    "_seeing.trace": "Trace",
    "_verbs.ambient": "aclose configure",
    "_verbs.current": "check_cancelled current_call",
    "_verbs.distribute": "Distributed distribute",
    "_verbs.maps": "parmap",
    "_verbs.parallel": "Parallel parallelize",
    "_verbs.split": "split_eval",
    "_verbs.stateful": "StatefulPool",
    "_workers.hostfile": "load_hosts",
}
"""Where each public name is defined. ``TYPE_CHECKING`` above and ``__all__`` below say the same to other readers."""

_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "AioParallelError",
    "Backups",
    "Board",
    "CallCancelledError",
    "CallExitedError",
    "CallInfo",
    "CallState",
    "CoroutineExecutor",
    "CurrentCall",
    "Distributed",
    "Executor",
    "ExecutorClosedError",
    "Host",
    "HostError",
    "HostStatus",
    "InsecureHostWarning",
    "LeastLoaded",
    "Limit",
    "Method",
    "NotReadyError",
    "Outcome",
    "Parallel",
    "ParallelMap",
    "PicklingError",
    "PoisonTaskError",
    "PoolFullError",
    "PoolStatus",
    "ProcessExecutor",
    "Progress",
    "RayExecutor",
    "RemoteError",
    "RemoteExecutor",
    "RemoteTraceback",
    "Retry",
    "RoundRobin",
    "RunningCall",
    "SerialExecutor",
    "SmartFuture",
    "SshSettings",
    "StatefulPool",
    "StoreFullError",
    "Stream",
    "TaskTimeoutError",
    "ThreadExecutor",
    "Trace",
    "WeightedRandom",
    "WorkerLostError",
    "WorkerStartError",
    "WorkerStatus",
    "aclose",
    "check_cancelled",
    "configure",
    "current_call",
    "distribute",
    "later",
    "load_hosts",
    "parallelize",
    "parmap",
    "split_eval",
    "wait_all",
    "wait_any",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(_HOMES[name])
    _adopt()
    return globals()[name]


def _adopt() -> None:
    """Take over the public names of all modules that have been imported by now, errors above all, and sign them."""
    for name, home in _HOMES.items():
        if name not in globals() and hasattr(sys.modules.get(home), name):
            value = globals()[name] = getattr(sys.modules[home], name)
            if value.__qualname__ == name:  # so that it is found again where it says it is
                value.__module__ = __name__


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
