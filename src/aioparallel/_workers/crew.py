"""Crews: who runs calls inside this process, on threads or as tasks of the event loop.

A crew is given calls and says how they ended; it decides nothing. What is true of every crew:

* A call begins when its number is taken out of the crew's waiting calls, which happens once: by a member, or by
  ``take_back``. So a call that was taken back never begins.
* A call runs in the contextvars of its submitter, with :data:`~aioparallel._child.current.current` set.
* Each end is reported once, on the loop, together with all others that came since the loop last looked.
* A member in a call stays in it until the call ends; that it should is all that can be said, by adding its number
  to ``asked`` (which the call can see), and by ``stop``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from time import monotonic, time
from types import CoroutineType
from typing import Any

from .._child.current import Current, current
from .._futures.supervisor import Group
from .._model.call import Call, Ending
from .._model.errors import CallExitedError
from .._model.slots import Slot, occupy
from .._policy.steps import WorkerEnd

__all__ = ["Crew", "Job", "Report", "job_of", "never_awaited", "presentable"]

Report = Callable[[list[WorkerEnd]], None]
Job = tuple[Call, int, tuple[Any, ...], dict[str, Any], Context]
"""A call, and what it needs to begin: the number of its future, its arguments and its context.

The call's own fields are cleared when it is settled, which may be in the very moment in which it begins.
"""


class Crew(ABC):
    """Members that run calls, as many at a time as there are members.

    Args:
        kind: The kind of executor it works for.
        name: Its executor's name.
        size: How many members there may be; they are hired as calls come.
        group: The task group that members belong to.
        report: Takes ends, on the loop.
    """

    def __init__(self, kind: str, name: str, size: int, group: Group, report: Report) -> None:
        self.kind = kind
        self.name = name
        self.size = size
        self.loop = asyncio.get_running_loop()
        self.asked: set[int] = set()
        """Numbers of calls that have begun and should stop."""
        self._group = group
        self._report = report
        self._members = 0
        self._indexes: list[int] = []
        """Of members that have left."""
        self._unfinished = 0
        """Calls that were put here, and neither ended nor were taken back."""
        self._ends: deque[WorkerEnd] = deque()
        self._told = False
        """Whether the loop is going to look at the ends."""
        self._slot = Slot(self.loop, frozenset({kind}))
        self._closing = False
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Return when calls can be put."""

    @abstractmethod
    def put(self, calls: list[Call]) -> None:
        """Run these calls, in this order, each as soon as a member is free."""

    @abstractmethod
    def waiting(self) -> Iterable[Call]:
        """The calls that have not begun."""

    @abstractmethod
    def take_back(self, number: int) -> bool:
        """Take a call away from the crew; ``False`` if it has begun."""

    @abstractmethod
    def is_in(self, number: int) -> bool:
        """Whether a call has begun, and not ended."""

    @abstractmethod
    def stop(self, number: int, *, once: bool = False) -> bool:
        """Ask a call that has begun to stop; with *once*, unless somebody else has; ``False`` if there is no way to."""

    @abstractmethod
    def stack(self, number: int) -> str:
        """Where a call that has begun is just now, as a traceback shows it."""

    @abstractmethod
    async def _join(self, index: int) -> None:
        """The task of a new member, which calls ``_dismiss`` in the end."""

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Let everybody go, and leave behind who has not come after ``grace`` seconds."""

    @abstractmethod
    def give_up(self) -> None:
        """Leave behind, now, whoever is in a call, and have nothing wait for him."""

    def collect(self) -> None:
        """Report the ends that are there."""
        self._told = False
        ends: list[WorkerEnd] = []
        while self._ends:
            ends.append(self._ends.popleft())
        if ends:
            self._unfinished -= len(ends)
            self._report(ends)

    def _enter(self, job: Job, member: int) -> Context:
        """The context that a call runs in: its submitter's, or a copy of that if it may begin again."""
        call, id, _, _, context = job
        if call.options.retry is not None:
            context = context.copy()
        number, asked = call.seq, self.asked
        here = Current(id, call.name, call.attempts, member, None, lambda: number in asked)
        context.run(_take_place, here, self._slot)
        return context

    def _call(self, job: Job, member: int) -> tuple[Ending, Any, float]:
        """Run a plain function, here and now: how it ended, its value or error, and the seconds it took."""
        call, _, args, kwargs, _ = job
        context = self._enter(job, member)
        call.begun_at = time()
        began = monotonic()
        ending = Ending.OK
        try:
            value = context.run(call.fn, *args, **kwargs)
        except BaseException as error:
            ending, value = Ending.RAISED, presentable(error, call.name, f"{self.name}-{member}")
        took = monotonic() - began
        if type(value) is CoroutineType:
            value.close()
            ending, value = Ending.RAISED, never_awaited(call.name)
        return ending, value, took

    def _hire(self) -> None:
        index = self._indexes.pop() if self._indexes else self._members
        self._members += 1
        name = f"aioparallel {self.name} {index}"
        # In no context: not in that of whoever happens to submit a call.
        Context().run(lambda: self._group.start_soon(self._join, index, name=name))

    def _dismiss(self, index: int) -> None:
        self._indexes.append(index)
        self._members -= 1
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _take_place(call: Current, slot: Slot) -> None:
    current.set(call)
    occupy(slot)


def never_awaited(name: str) -> TypeError:
    """The error for a plain function that returned a coroutine."""
    return TypeError(
        f"{name} returned a coroutine, and nobody here awaits it: "
        "submit the coroutine function itself to a CoroutineExecutor"
    )


def presentable(error: BaseException, name: str, where: str) -> BaseException:
    """What a call raised, without our frames at the top of its traceback, which would keep the call alive."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    if not isinstance(error, (SystemExit, KeyboardInterrupt)):
        return error
    code = getattr(error, "code", None)
    how = f"sys.exit({code!r})" if isinstance(error, SystemExit) else type(error).__name__
    exited = CallExitedError(f"{name} ended by {how} on {where}; the worker lives on", code=code)
    exited.__cause__ = error
    return exited


def job_of(call: Call) -> Job:
    """What is needed to run a call that is on its way to a crew."""
    assert call.context is not None, "it was captured when the call was submitted"
    return call, call.future.id, call.args, call.kwargs, call.context
