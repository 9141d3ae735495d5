"""Inside a call: which one it is, and whether somebody cancelled it."""

from __future__ import annotations

import sys
from typing import Any

from .._child import current as here
from .._model.errors import CallCancelledError
from .._model.info import CurrentCall

__all__ = ["check_cancelled", "current_call", "in_worker"]

TRAVELLED = "_aioparallel_child.current"
"""The same module under the name that it has in workers, where no module of ours need be installed."""


def current_call() -> CurrentCall:
    """The call that the current code runs in.

    Works on every executor, in whatever the function calls, awaits or starts as a task; not in threads
    that it starts by itself, which do not inherit the context.

    Returns:
        A frozen record: the call's id, name, attempt, worker index and host.

    Raises:
        RuntimeError: The current code does not run in a call. Your code's fault.

    Example:
        ::

            @parallelize(method="process", retry=3)
            def simulate(seed: int) -> float:
                print("attempt", current_call().attempt)
    """
    call = _current()
    if call is None:
        raise RuntimeError("current_call() was asked outside of a call: only what an executor runs is one")
    return CurrentCall(call.id, call.name, call.attempt, call.worker_index, call.host)


def check_cancelled() -> None:
    """Raise if the call that the current code runs in was cancelled; otherwise, and outside of calls, do nothing.

    A thread cannot be stopped from outside. A function that runs long in one asks now and then whether
    anybody still wants its result.

    Raises:
        CallCancelledError: The call was cancelled. Let it pass: nobody waits for a result.

    Example:
        ::

            @parallelize
            def search(folder: Path) -> list[Path]:
                for path in folder.rglob("*"):
                    check_cancelled()
    """
    call = _current()
    if call is not None and call.is_cancelled():
        raise CallCancelledError(f"{call.name} was cancelled")


def in_worker() -> bool:
    """Whether this process runs calls for an executor in another one."""
    return here.borrowed or TRAVELLED in sys.modules


def _current() -> here.Current | None:
    # A call on an executor that was opened inside a worker is nearer than the worker's own.
    travelled: Any = sys.modules.get(TRAVELLED)
    call = here.current.get()
    return travelled.current.get() if call is None and travelled is not None else call
