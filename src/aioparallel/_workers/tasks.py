"""A crew of tasks that stay: each runs one coroutine after another, every one in the context of its own call.

Starting a task costs more than running a short coroutine, so tasks stay. A coroutine is driven
inside its call's context by stepping it there, and what it awaits is handed on to the task; so to
asyncio and anyio it is as if it ran in the task itself.

To cancel one call, its task is cancelled while it is in that call. What a call leaves behind, be it a
cancellation that nobody took back or one that came too late, is cleared before the next one begins.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from asyncio import CancelledError, Future, Task
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context
from time import monotonic, time
from types import CoroutineType, coroutine
from typing import Any

from .._child.stacks import frames
from .._futures.supervisor import Group
from .._model.call import Call, Ending
from .crew import Crew, Job, Report, job_of, presentable

__all__ = ["Tasks", "in_context"]

TURN_SECONDS = 0.005
"""Coroutines that never wait run one after another for so long, until the loop gets a turn."""

_log = logging.getLogger("aioparallel")


class Tasks(Crew):
    """Tasks that stay until the crew is closed; made of the same arguments as every crew."""

    def __init__(self, kind: str, name: str, size: int, group: Group, report: Report) -> None:
        super().__init__(kind, name, size, group, report)
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._running: dict[int, tuple[Call, Task[Any], Coroutine[Any, Any, Any]]] = {}
        self._idle: list[Future[None]] = []
        self._told_at = 0.0
        self._hogging = False
        """Whether calls have been running for too long without a turn for the rest of the loop."""
        self._giving_up = False
        """Whether a coroutine that is cancelled is closed instead."""

    def put(self, calls: list[Call]) -> None:
        """Run these calls, in this order, each as soon as a task is free."""
        for call in calls:
            self._waiting[call.seq] = job_of(call)
            if self._idle:
                self._wake_one()
        self._unfinished += len(calls)
        while self._members < min(self.size, self._unfinished):
            self._hire()

    def waiting(self) -> Iterable[Call]:
        """The calls that have not begun."""
        return [job[0] for job in self._waiting.values()]

    def take_back(self, number: int) -> bool:
        """Take a call away from the crew; ``False`` if it has begun."""
        taken = self._waiting.pop(number, None) is not None
        self._unfinished -= taken
        return taken

    def is_in(self, number: int) -> bool:
        """Whether a call has begun, and not ended."""
        return number in self._running

    def stop(self, number: int, *, once: bool = False) -> bool:
        """Cancel the coroutine of a call that has begun; ``False`` if it is no coroutine yet."""
        if number not in self._running:
            return False
        call, task, _ = self._running[number]
        return (once and task.cancelling() > 0) or task.cancel(f"{call.name} was cancelled")

    def stack(self, number: int) -> str:
        """Where a call that has begun is just now, as a traceback shows it."""
        if number not in self._running:
            return ""
        found = ((frame, frame.f_lineno) for frame in frames(self._running[number][2]))
        return "".join(traceback.StackSummary.extract(found).format())

    async def close(self, grace: float) -> None:
        """Let all tasks end; coroutines that go on although they were cancelled are closed."""
        self.give_up()
        await self._until(lambda: not self._members)

    def give_up(self) -> None:
        """Have coroutines closed that go on although they were cancelled."""
        self._closing = self._giving_up = True
        while self._idle:
            self._wake_one()
        for call, task, _ in list(self._running.values()):
            _log.warning("%s: %s did not stop when it was cancelled; it is closed", self.name, call.name)
            task.cancel()

    def _wake_one(self) -> None:
        waiter = self._idle.pop()
        if not waiter.done():
            waiter.set_result(None)

    async def _join(self, index: int) -> None:
        task = asyncio.current_task()
        assert task is not None, "we run on an event loop"
        waiting = self._waiting
        try:
            while waiting or await self._called(task):
                if waiting:
                    number, job = waiting.popitem(last=False)
                    await self._run(number, job, index, task)
                    del job  # an idle task keeps nothing alive
                if task.cancelling() or self._hogging:
                    await self._take_turns(task)
        finally:
            self._dismiss(index)

    async def _called(self, task: Task[Any]) -> bool:
        """Wait until there may be something to do; ``False`` if it is time to go."""
        if self._closing:
            return False
        waiter = self.loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except CancelledError:
            # Either the loop shuts down, or somebody kept hold of the task that once ran his call. Ending by this error
            # would end the group.
            _uncancel(task)
            return bool(self._waiting)
        return True

    def _has_given_up(self) -> bool:
        return self._giving_up

    async def _take_turns(self, task: Task[Any]) -> None:
        """Let the loop do something else, and no cancellation that was meant for one call reach the next."""
        self._hogging = False
        try:
            await asyncio.sleep(0)  # a cancellation that is under way arrives here
        except CancelledError:
            pass
        _uncancel(task)

    @coroutine
    def _run(self, number: int, job: Job, index: int, task: Task[Any]) -> Generator[Any, Any, None]:
        """Run a coroutine inside its call's context, and note how it ends."""
        call, _, args, kwargs, _ = job
        context = self._enter(job, index)
        call.begun_at = time()
        began = monotonic()
        ending = Ending.OK
        try:
            started = _coroutine(context.run(call.fn, *args, **kwargs))
            self._running[number] = call, task, started
            value = yield from drive(started, context, self._has_given_up)
        except GeneratorExit:
            raise
        except BaseException as error:
            ending, value = Ending.RAISED, presentable(error, call.name, f"{self.name}-{index}")
        finally:
            self._running.pop(number, None)
        now = monotonic()
        self._ends.append((number, ending, value, now - began))
        if not self._told:
            self._told = True
            self._told_at = now
            self.loop.call_soon(self.collect)
        elif now - self._told_at > TURN_SECONDS:
            self._hogging = True


def drive(
    started: Coroutine[Any, Any, Any], context: Context, given_up: Callable[[], bool]
) -> Generator[Any, Any, Any]:
    """Step a coroutine inside a context, and hand on what it awaits.

    Args:
        started: The coroutine.
        context: Where it runs.
        given_up: Asked when it would be cancelled; if so, it is closed instead.
    """
    run, step = context.run, started.send
    given: Any = None
    try:
        while True:
            wanted = run(step, given)
            try:
                given = yield wanted
                step = started.send
            except BaseException as error:
                if given_up():
                    run(started.close)
                    raise
                step, given = started.throw, error
    except StopIteration as end:
        return end.value
    finally:
        given = None  # an exception that was thrown refers to this frame


@coroutine
def in_context(context: Context, fn: Callable[[Any], Any], item: Any) -> Generator[Any, Any, Any]:
    """Await ``fn(item)`` inside a context."""
    started = _coroutine(context.run(fn, item))
    return (yield from drive(started, context, lambda: False))


def _uncancel(task: Task[Any]) -> None:
    while task.cancelling():
        task.uncancel()


def _coroutine(awaitable: Any) -> Coroutine[Any, Any, Any]:
    return awaitable if type(awaitable) is CoroutineType else _awaiting(awaitable)


async def _awaiting(awaitable: Any) -> Any:
    return await awaitable
