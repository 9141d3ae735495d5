"""A crew without members: plain functions run where they are put, coroutine functions as tasks."""

from __future__ import annotations

import sys

from anyio.abc import TaskGroup

from .._model.call import Call, Ending
from .._model.errors import TaskTimeoutError
from .._model.shapes import Shape, shape_of
from .crew import Job, Report, job_of
from .tasks import Tasks

__all__ = ["Inline"]


class Inline(Tasks):
    """Runs a plain function inside ``put``, and reports its end before that returns."""

    def __init__(self, kind: str, name: str, group: TaskGroup, report: Report) -> None:
        super().__init__(kind, name, sys.maxsize, group, report)

    def put(self, calls: list[Call]) -> None:
        """Run these calls, one after the other; those of coroutine functions begin in the loop's next turn."""
        here = [call for call in calls if shape_of(call.fn) is not Shape.COROUTINE]
        self._waiting.update((call.seq, job_of(call)) for call in here)
        for call in calls:
            if call not in here:
                super().put([call])
            elif job := self._waiting.pop(call.seq, None):  # or an earlier one has cancelled it
                self._run_here(job)

    def stop(self, number: int) -> bool:
        """Cancel a coroutine that has begun; a function that runs here can only be cancelled by itself."""
        return number in self._running and super().stop(number)

    def _run_here(self, job: Job) -> None:
        call, number = job[0], job[0].seq
        timeout = call.options.timeout
        ending, value, took = self._call(job, 0)
        if timeout is not None and took > timeout:
            ending, value = Ending.RAISED, TaskTimeoutError(call=call.name, timeout=timeout)
        self._unfinished += 1
        self._ends.append((number, ending, value, took))
        self.collect()
