"""The one place that creates tasks: a supervisor owns a task group for as long as its owner lives.

A task group must be left by the task that entered it, but a pool is opened in one
notebook cell, fixture or lifespan step and closed in another. So whatever runs belongs
to the task group of a supervisor: one task of our own, in an empty context, which the
owner asks to end and then awaits.

Guarantees:

* ``open`` is synchronous; ``body`` runs later. A failing ``body`` is remembered and
  raised by every ``wait_ready``.
* However the supervisor ends (asked, body failed, or its loop cancels all tasks when
  it shuts down), the task group is left, with all its tasks ended, before ``done``.
* The loop holds only weak references to tasks; the supervisor's owner holds this one.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .._model.errors import ExecutorClosedError

__all__ = ["Group", "Supervisor"]


class Group:
    """A supervisor's task group. It also takes tasks from where no task runs: in callbacks of the loop."""

    def __init__(self, group: TaskGroup, owner: asyncio.Task[None]) -> None:
        self._group = group
        self._owner = owner

    def start_soon(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a task, in the current context."""
        if asyncio.current_task() is not None:
            self._group.start_soon(fn, *args, name=name)
            return
        # anyio asks which task starts another, and finds none in a callback. It is the supervisor that does it, then.
        loop = self._owner.get_loop()
        enter_task(loop, self._owner)
        try:
            self._group.start_soon(fn, *args, name=name)
        finally:
            leave_task(loop, self._owner)


class Supervisor:
    """A task that owns a task group and outlives the task which started it.

    Args:
        body: Runs inside the group. It calls :meth:`set_ready` when the owner may go on,
            and cleans up in ``finally`` (shielded). When it returns, whatever else runs in the group
            is cancelled.
        name: The task's name, seen in debuggers.
        on_done: Called when all has ended, even if the body never ran: a task that is cancelled before its first
            step never enters its coroutine.
    """

    def __init__(
        self,
        body: Callable[[Supervisor], Awaitable[None]],
        name: str,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.group: Group | None = None
        self.error: BaseException | None = None
        self._body = body
        self._on_done = on_done
        self._ready = asyncio.Event()
        # Not by the loop's task factory: an eager one would run the body before its owner has the supervisor.
        self._task = asyncio.Task(self._run(), loop=self.loop, name=name, context=Context())
        self._task.add_done_callback(self._ended)

    @property
    def done(self) -> bool:
        """Whether the supervisor and everything in its group has ended."""
        return self._task.done()

    def set_ready(self) -> None:
        """Let :meth:`wait_ready` return."""
        self._ready.set()

    async def wait_ready(self) -> None:
        """Wait until the body is ready; raise what it raised if it never will be."""
        await self._ready.wait()
        if self.error is None:
            return
        if isinstance(self.error, asyncio.CancelledError):  # the supervisor's, not the waiting task's
            raise ExecutorClosedError("it was closed, or its event loop shut down, before it was ready")
        raise self.error

    async def wait_done(self) -> None:
        """Wait until the supervisor and its group have ended.

        Cancellation:
            Stops the waiting only; the supervisor goes on ending.
        """
        if not self._task.done():
            await asyncio.wait([self._task])

    def cancel(self) -> None:
        """Cancel the body and everything in the group; :meth:`wait_done` tells when that is over."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self.group = Group(group, self._task)
                try:
                    await self._body(self)
                except Exception as error:  # kept bare: leaving the group would wrap it
                    self.error = error
                finally:
                    group.cancel_scope.cancel()
        except BaseException as error:
            self.error = self.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            self.group = None
            self._ready.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.error is None and task.cancelled():
            self.error = asyncio.CancelledError()
        self._ready.set()
        if self._on_done is not None:
            self._on_done()
