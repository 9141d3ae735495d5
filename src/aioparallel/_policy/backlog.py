"""Calls that wait for any worker: by priority, then in the order in which they came."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from .._model.call import Call, Phase

__all__ = ["Backlog"]

MANY = 1000
"""So many cancelled calls may lie in the queues, beside as many as those that wait there."""


class Backlog:
    """The queues.

    A call that is cancelled stays in its queue, settled, and is skipped there: to take it out, one would have to look
    for it.
    """

    def __init__(self) -> None:
        self.count = 0
        """How many calls wait."""
        self._queues: dict[int, deque[Call]] = {0: deque()}
        self._order = [0]
        """A heap of the negated priorities that have a queue."""
        self._skipped = 0
        """How many cancelled calls are still in a queue, at most."""

    def push(self, call: Call, *, front: bool = False) -> None:
        """A call waits: behind all others of its priority, or before them."""
        self.count += 1
        queue = self._queue(call.options.priority)
        if front:
            queue.appendleft(call)
        else:
            queue.append(call)

    def drop(self, call: Call) -> None:
        """A call waits no longer; its phase must have been changed."""
        self.count -= 1
        self._skipped += 1
        if self._skipped > self.count + MANY:
            self._sweep()

    def first(self) -> deque[Call]:
        """The queue of the call that goes first, which is its first one; to be asked only while some wait."""
        while True:  # it ends: calls are counted that are in a queue
            queue = self._queues[-self._order[0]]
            while queue and queue[0].phase is not Phase.QUEUED:
                queue.popleft()
            if queue:
                return queue
            del self._queues[-heappop(self._order)]

    def take(self, queue: deque[Call], most: int, *, alike: bool) -> list[Call]:
        """The next calls of the queue that goes first: at most so many, and of one function if they are to be alike."""
        if most == 1:
            self.count -= 1
            return [queue.popleft()]
        function = queue[0].function
        calls: list[Call] = []
        while queue and len(calls) < most and (not alike or queue[0].function is function):
            call = queue.popleft()
            if call.phase is Phase.QUEUED:
                calls.append(call)
        self.count -= len(calls)
        return calls

    def waiting(self) -> list[Call]:
        """Every call that waits, in no particular order."""
        return [call for queue in self._queues.values() for call in queue if call.phase is Phase.QUEUED]

    def clear(self) -> None:
        """Nothing waits any more."""
        self.count = self._skipped = 0
        for queue in self._queues.values():
            queue.clear()

    def _queue(self, priority: int) -> deque[Call]:
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
            heappush(self._order, -priority)
        return queue

    def _sweep(self) -> None:
        """Let go of the cancelled calls: it may be long before a worker comes to skip them."""
        for queue in self._queues.values():
            live = [call for call in queue if call.phase is Phase.QUEUED]
            queue.clear()
            queue.extend(live)
        self._skipped = 0
