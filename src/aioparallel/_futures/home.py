"""Who owns the coroutines that futures wait for: one home for each event loop, open while there is something to run.

``then(async_fn)``, ``later(coroutine)`` and coroutines given to ``wait_any`` need a task, and a task needs an
owner. The home is opened by the first of them and ends with the last, so an idle loop owes us nothing
and can be closed; when a loop shuts down first, it cancels the home, and the home its jobs.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .._model.info import CallInfo, CallState
from .supervisor import Group, Supervisor

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["Job"]


class Job:
    """An awaitable that runs as a task of the loop's home and settles a future: the future's source.

    It runs in a copy of the context in which it is made.

    Args:
        awaitable: A coroutine or anything else that can be awaited; cancelling the job cancels it.
        future: What to settle.

    Raises:
        RuntimeError: No event loop runs here.
    """

    __slots__ = (
        "_awaitable",
        "_begun_at",
        "_cancelled",
        "_context",
        "_future",
        "_name",
        "_queued_at",
        "_settled_at",
        "_task",
    )

    grace = math.inf  # as when a coroutine is awaited directly: its cleanup is waited for

    def __init__(self, awaitable: Awaitable[Any], future: SmartFuture[Any]) -> None:
        self._awaitable: Awaitable[Any] | None = awaitable
        self._future: SmartFuture[Any] | None = future
        self._name = getattr(awaitable, "__qualname__", type(awaitable).__qualname__)
        self._context = copy_context()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._queued_at = time.time()
        self._begun_at: float | None = None
        self._settled_at: float | None = None
        try:
            home = _home_of_this_loop()
        except RuntimeError:
            self._close()
            raise
        home.start(self)

    def cancel(self) -> bool:
        """Cancel the coroutine; the future is settled when it has ended."""
        if self._future is None:
            return False
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()  # once, as asyncio does it: the coroutine's cleanup may await
        return True

    def info(self) -> CallInfo:
        """How the coroutine stands."""
        state = (CallState.QUEUED if self._begun_at is None else CallState.RUNNING).value
        return CallInfo(
            state,
            name=self._name,
            method="coroutine",
            attempts=int(self._begun_at is not None),
            queued_at=self._queued_at,
            begun_at=self._begun_at,
            settled_at=self._settled_at,
        )

    async def run(self) -> None:
        """Await the awaitable and settle the future."""
        future, awaitable = self._future, self._awaitable
        if future is None or awaitable is None or self._cancelled:
            self.discard()
            return
        self._task = asyncio.current_task()
        self._begun_at = time.time()
        try:
            future._set_result(await awaitable)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            future._set_exception(error)
        except asyncio.CancelledError:
            # The task is being cancelled, and ends here anyway; or the coroutine let the cancellation of something
            # else escape, for which the task group would cancel all other jobs.
            pass
        finally:
            self._end()
            del future  # the traceback refers to this frame

    def discard(self) -> None:
        """Settle the future without having begun."""
        self._close()
        self._end()

    def spawn_in(self, group: Group, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a task for this job, in the job's context."""
        self._context.run(lambda: group.start_soon(lambda: coroutine, name=self._name))

    def _close(self) -> None:
        if isinstance(self._awaitable, Coroutine):
            self._awaitable.close()  # or it would warn that it was never awaited

    def _end(self) -> None:
        future, self._future, self._awaitable, self._task = self._future, None, None, None
        self._settled_at = time.time()
        if future is not None:
            future._set_cancelled()  # nothing happens if it has ended otherwise


class _Home:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[Job, Coroutine[Any, Any, None]] = {}
        self._group: Group | None = None
        self._empty = asyncio.Event()
        self._supervisor = Supervisor(self._serve, "aioparallel home", on_done=self._on_done)

    def start(self, job: Job) -> None:
        self._jobs[job] = self._run(job)
        if self._group is not None:
            job.spawn_in(self._group, self._jobs[job])

    async def _serve(self, supervisor: Supervisor) -> None:
        self._group = supervisor.group
        assert self._group is not None, "the supervisor runs us inside its group"
        try:
            for job, coroutine in list(self._jobs.items()):
                job.spawn_in(self._group, coroutine)
            await self._empty.wait()
        finally:
            self._forget()

    async def _run(self, job: Job) -> None:
        try:
            await job.run()
        finally:
            del self._jobs[job]
            if not self._jobs:
                self._forget()  # before our task ends: whatever comes now opens a new home
                self._empty.set()

    def _on_done(self) -> None:
        self._forget()
        for job, coroutine in self._jobs.items():
            coroutine.close()  # a task that is cancelled before its first step never enters its coroutine
            job.discard()

    def _forget(self) -> None:
        if _homes.get(self._loop) is self:
            del _homes[self._loop]


_homes: dict[AbstractEventLoop, _Home] = {}
"""The loops that have something to run. An entry keeps the supervisor's task alive, and goes with it."""


def _home_of_this_loop() -> _Home:
    loop = asyncio.get_running_loop()
    home = _homes.get(loop)
    if home is None:
        home = _homes[loop] = _Home()
    return home
