"""Every executor that the contract holds for: a name, how to make one, and what it can do.

To add an executor, add a line to ``KINDS``. What a kind cannot do by its nature is said by a flag, never by
an exception in a test.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.tools import hold, hold_async

HERE = {hold: hold_async}
"""Functions that wait, and what to use where a call must not block the loop."""


@dataclass(frozen=True)
class Kind:
    """One kind of executor.

    Attributes:
        name: What tests are called by.
        factory: Module and class.
        options: What tells it from other kinds of the same class.
        workers: The option that says how many calls run at a time.
        coroutines: It takes ``async def`` functions only.
        later: Calls run after ``submit`` has returned.
        pickles: Arguments and results travel by pickle.
        separate: Calls run in processes of their own, which may die, and can be killed.
        stops: A running call that is cancelled is stopped at once.
        confirms: When it has been stopped, its process is gone; otherwise that takes another moment.
        stays: Its workers survive the end of one ``run`` of the loop.
        contexts: Calls see the caller's context variables.
        streams: It runs generator functions.
        loops: It runs ``async def`` functions.
        told: It knows when a call begins; otherwise starting a process counts as running the call.
        checks: Which checks for leaks do not apply, and whose fault that is.
        mark: Says what its tests need.
    """

    name: str
    factory: str
    options: tuple[tuple[str, Any], ...] = ()
    workers: str | None = "max_workers"
    coroutines: bool = False
    later: bool = True
    pickles: bool = False
    separate: bool = False
    stops: bool = True
    confirms: bool = True
    stays: bool = True
    contexts: bool = False
    streams: bool = True
    loops: bool = True
    told: bool = True
    checks: tuple[tuple[str, bool], ...] = ()
    mark: str | None = None

    def make(self, workers: int = 2, **options: Any) -> Any:
        """A new executor, not started."""
        if self.workers is not None:
            options[self.workers] = workers
        module, _, name = self.factory.partition(":")
        return getattr(importlib.import_module(module), name)(**{**dict(self.options), **options})

    def fit(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function in a form that this kind takes."""
        if not self.coroutines or inspect.iscoroutinefunction(fn):
            return fn
        return HERE.get(fn) or _as_coroutine(fn)

    def __str__(self) -> str:
        return self.name


def _as_coroutine(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*args, **kwargs)

    return run


KINDS = [
    Kind("serial", "aioparallel:SerialExecutor", workers=None, later=False, contexts=True),
    Kind(
        "serial-pickle",
        "aioparallel:SerialExecutor",
        (("pickle", True),),
        workers=None,
        later=False,
        pickles=True,
        contexts=True,
        streams=False,
    ),
    Kind("coroutine", "aioparallel:CoroutineExecutor", workers="max_concurrency", coroutines=True, contexts=True),
    Kind("thread", "aioparallel:ThreadExecutor", stops=False, contexts=True, loops=False),
    Kind("process-resident", "aioparallel:ProcessExecutor", (("engine", "resident"),), pickles=True, separate=True),
    Kind(
        "process-anyio",
        "aioparallel:ProcessExecutor",
        (("engine", "anyio"),),
        pickles=True,
        separate=True,
        stays=False,
        streams=False,
        told=False,
        # anyio keeps its processes, and the task that ends them, for as long as the loop's root task runs.
        checks=(("tasks", False), ("processes", False), ("fds", False)),
    ),
    Kind("remote", "tests.contract.remote:RemotePool", pickles=True, separate=True, mark="one_host"),
    Kind(
        "ray",
        "aioparallel:RayExecutor",
        (("grace", 30.0),),  # on a busy machine Ray takes seconds to kill a worker
        workers="max_workers",
        pickles=True,
        separate=True,
        told=False,
        confirms=False,
        # Ray's processes come and go as it likes.
        checks=(("processes", False), ("fds", False)),
        mark="ray",
    ),
]


def every(condition: Callable[[Kind], object] = lambda kind: True) -> pytest.MarkDecorator:
    """Run a test for every kind of executor that the condition holds for."""
    return pytest.mark.parametrize("kind", [_param(kind) for kind in KINDS if _is_there(kind) and condition(kind)])


def _param(kind: Kind) -> Any:
    marks = [pytest.mark.leak_check(**dict(kind.checks))] if kind.checks else []
    marks += [getattr(pytest.mark, kind.mark)] if kind.mark else []
    return pytest.param(kind, id=kind.name, marks=marks)


def _is_there(kind: Kind) -> bool:
    module, _, name = kind.factory.partition(":")
    return hasattr(importlib.import_module(module), name)
