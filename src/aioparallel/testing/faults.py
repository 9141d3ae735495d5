"""Faults on request: items that are slow, fail, or take their worker along; killed workers; hosts that vanish."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aioparallel import Executor, current_call

from .hosts import SshHost

__all__ = ["Die", "Exit", "Fault", "Faulty", "Once", "Raise", "Slow", "Unpicklable", "drop_host", "kill_worker"]


class Fault(Protocol):
    """What goes wrong with an item."""

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Called in place of the function; *call* makes the call as it should be."""
        ...


@dataclass(frozen=True)
class Slow:
    """It takes so many seconds longer."""

    seconds: float

    def __call__(self, call: Callable[[], Any]) -> Any:
        time.sleep(self.seconds)
        return call()


@dataclass(frozen=True)
class Raise:
    """It raises this."""

    error: Exception

    def __call__(self, call: Callable[[], Any]) -> Any:
        raise self.error


@dataclass(frozen=True)
class Die:
    """Its worker process dies by a signal. Only for workers that are processes of their own!"""

    signal: int = signal.SIGKILL

    def __call__(self, call: Callable[[], Any]) -> Any:
        os.kill(os.getpid(), self.signal)
        time.sleep(60)  # until it arrives
        raise AssertionError(f"the signal {self.signal} did not end the process")


@dataclass(frozen=True)
class Exit:
    """It calls ``sys.exit``."""

    code: int = 1

    def __call__(self, call: Callable[[], Any]) -> Any:
        sys.exit(self.code)


@dataclass(frozen=True)
class Unpicklable:
    """It returns something that cannot travel home."""

    def __call__(self, call: Callable[[], Any]) -> Any:
        return (value for value in [call()])


@dataclass(frozen=True)
class Once:
    """The fault happens at the first attempt only."""

    fault: Fault

    def __call__(self, call: Callable[[], Any]) -> Any:
        return self.fault(call) if current_call().attempt == 1 else call()


class Faulty:
    """A function with faults: it does what it should, but for these items.

    Args:
        fn: The function.
        faults: For each item, by its value, what goes wrong. The item is the first argument.

    Example:
        ::

            crunch = Faulty(crunch, {3: Slow(10), 5: Die(), 7: Once(Raise(OSError("try again")))})
    """

    def __init__(self, fn: Callable[..., Any], faults: Mapping[Any, Fault]) -> None:
        self.fn = fn
        self.faults = dict(faults)
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.__qualname__ = getattr(fn, "__qualname__", self.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fault = self.faults.get(args[0]) if args else None
        return self.fn(*args, **kwargs) if fault is None else fault(lambda: self.fn(*args, **kwargs))


def kill_worker(pool: Executor, index: int = 0) -> int:
    """Kill a worker process of an executor, as the kernel does when memory runs out.

    Args:
        pool: The executor. Of a remote one, hosts must be on this machine, as those of :func:`ssh_host` are.
        index: The worker's place in the pool.

    Returns:
        The number of the process that was killed.

    Raises:
        LookupError: There is no such worker that is a process, at least not yet.
    """
    for worker in pool.status(per_worker=True).per_worker:
        if worker.index == index and worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)
            return worker.pid
    raise LookupError(f"{pool.name} has no worker process with index {index}: {pool!r}")


def drop_host(host: SshHost) -> None:
    """Let a host vanish: its connections are reset, and new ones refused, until ``host.heal()``.

    Args:
        host: One that :func:`ssh_host` or :func:`ssh_hosts` made.
    """
    host.refuse()
    host.cut()
