"""Lanes: where the calls of one worker are drawn, so that no two on one lane overlap.

A call is told of when it has ended, by ``add``. One that runs long may be told of before, by ``begin``: from then on it
has its lane, until its ``end``. What was added is given its place by ``settle``, which comes before both.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["ManyLanes", "OneLane", "Span"]

Span: TypeAlias = tuple[float, float, str, int]
"""A call: its beginning, its duration, what is to be written of it, and the lane that it is on."""


class OneLane:
    """The lane of a worker that runs one call at a time.

    Of such a one it is known how long each call took, but not exactly when: its answers come several at once, and late
    when this program is busy. But it ran them one after the other. So they are held back for a while, and laid out from
    the last to the first, each ending when its answer came or when the next one began, whichever is earlier.

    Args:
        machine: The number of the machine that the worker is on.
        new_lane: Makes a lane, given its number at this worker, from 0 on; returns what it is called in the file.
        since: When the trace began: what began before is drawn from there on.
    """

    def __init__(self, machine: int, new_lane: Callable[[int], int], since: float = 0.0) -> None:
        self.machine = machine
        self.first = new_lane(0)
        self._held: list[Span] = []
        self._last = since
        """When the last call ended that has its place."""
        self._next = math.inf
        """When the call began that is seen to run."""

    def add(self, begun_at: float, duration: float, text: str) -> None:
        """A call has ended."""
        self._held.append((begun_at, max(0.0, duration), text, self.first))

    def settle(self) -> list[Span]:
        """Give what was added its place: after what has one, and before what runs."""
        last, latest, placed = self._last, self._next, self._held
        self._held = []
        for number in range(len(placed) - 1, -1, -1):
            begun_at, duration, text, lane = placed[number]
            end = begun_at + duration
            if last <= begun_at and end <= latest:  # as it is most of the time
                latest = begun_at
                continue
            end = min(end, latest)
            end = max(end, last)
            if begun_at + duration > end:
                begun_at = end - duration
            begun_at = max(begun_at, last)
            placed[number] = (begun_at, end - begun_at, text, lane)
            latest = begun_at
        if placed:
            begun_at, duration, _, _ = placed[-1]
            self._last = begun_at + duration
        return placed

    def begin(self, begun_at: float) -> tuple[float, int] | None:
        """A call runs: when it began, on which lane; ``None`` as long as another one is to end there."""
        if self._next < math.inf:
            return None
        self._next = max(self._last, begun_at)
        return self._next, self.first

    def end(self, lane: int, at: float) -> float:
        """A call that was seen to run has ended; when, on its lane."""
        self._last = max(self._next, at)
        self._next = math.inf
        return self._last


class ManyLanes:
    """The lanes of a worker that runs several calls at a time: as many as are needed for calls not to overlap.

    Args:
        machine: The number of the machine that the worker is on.
        new_lane: Makes a lane, given its number at this worker, from 0 on; returns what it is called in the file.
        since: When the trace began: what began before is drawn from there on.
    """

    def __init__(self, machine: int, new_lane: Callable[[int], int], since: float = 0.0) -> None:
        self.machine = machine
        self.first = new_lane(0)
        self._new_lane = new_lane
        self._count = 1
        self._since = since
        self._free = [(since, self.first)]
        """Of each lane where no call is seen to run: when its last one ended; the earliest comes first."""
        self._begun: dict[int, float] = {}
        """Of the others: when their call began."""
        self._placed: list[Span] = []

    def add(self, begun_at: float, duration: float, text: str) -> None:
        """A call has ended."""
        if begun_at < self._since:
            begun_at, duration = self._since, duration - (self._since - begun_at)
        duration = max(duration, 0.0)
        free = self._free
        if free and free[-1][0] <= begun_at:  # as it is most of the time
            lane = free[-1][1]
            free[-1] = (begun_at + duration, lane)
        else:
            lane = self._take(begun_at)
            insort(free, (begun_at + duration, lane))
        self._placed.append((begun_at, duration, text, lane))

    def settle(self) -> list[Span]:
        """What was added since; it has its place from the beginning."""
        placed, self._placed = self._placed, []
        return placed

    def begin(self, begun_at: float) -> tuple[float, int] | None:
        """A call runs: when it began, and on which lane."""
        begun_at = max(begun_at, self._since)
        lane = self._take(begun_at)
        self._begun[lane] = begun_at
        return begun_at, lane

    def end(self, lane: int, at: float) -> float:
        """A call that was seen to run has ended; when, on its lane."""
        at = max(self._begun.pop(lane), at)
        insort(self._free, (at, lane))
        return at

    def _take(self, begun_at: float) -> int:
        """The lane that became free last before the call began, so that few lanes are enough."""
        place = bisect_right(self._free, (begun_at, math.inf))
        if place:
            return self._free.pop(place - 1)[1]
        self._count += 1
        return self._new_lane(self._count - 1)
