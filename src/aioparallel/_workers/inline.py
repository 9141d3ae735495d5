"""A crew without members: plain functions run where they are put, coroutine functions as tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .._futures.supervisor import Group
from .._model.call import Call, Ending
from .._model.errors import TaskTimeoutError
from .._model.shapes import Shape, shape_of
from .crew import Job, Report, job_of
from .tasks import Tasks

__all__ = ["Inline"]


class Inline(Tasks):
    """Runs a plain function inside ``put``, and reports its end before that returns."""

    def __init__(self, kind: str, name: str, group: Group, report: Report) -> None:
        super().__init__(kind, name, sys.maxsize, group, report)
        self._next: dict[int, Job] = {}
        """Plain functions that were put together with the one that is running."""

    def put(self, calls: list[Call]) -> None:
        """Run these calls, one after the other; coroutine functions begin in the loop's next turn."""
        coroutines = [call for call in calls if shape_of(call.fn) is Shape.COROUTINE]
        if coroutines:
            super().put(coroutines)
        self._next.update((call.seq, job_of(call)) for call in calls if call not in coroutines)
        for call in calls:
            job = self._next.pop(call.seq, None)
            if job is not None:  # or it is a coroutine's, or was cancelled by an earlier one
                self._run_here(job)

    def waiting(self) -> Iterable[Call]:
        """The calls that have not begun."""
        return [*(job[0] for job in self._next.values()), *super().waiting()]

    def take_back(self, number: int) -> bool:
        """Take a call away from the crew; ``False`` if it has begun."""
        return self._next.pop(number, None) is not None or super().take_back(number)

    def _run_here(self, job: Job) -> None:
        call, number = job[0], job[0].seq
        timeout = call.options.timeout
        ending, value, took = self._call(job, 0)
        if timeout is not None and took > timeout:
            ending, value = Ending.RAISED, TaskTimeoutError(call=call.name, timeout=timeout)
        self._unfinished += 1
        self._ends.append((number, ending, value, took))
        self.collect()
