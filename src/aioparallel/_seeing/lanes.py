"""Lanes: where the calls of one worker are drawn, so that no two on one lane overlap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Lanes", "Span"]


class Span(NamedTuple):
    """A call from its beginning to its end, and what is to be written of it."""

    begun_at: float
    duration: float
    text: str


HELD = 500
"""So many calls of a worker are held back at most."""


class Lanes:
    """The lanes of one worker.

    Calls are told of when they end, which need not be in the order in which they began. And of a worker that runs one
    call at a time it is known how long each took, but not exactly when: its answers come several at once, and late when
    this program is busy. But it ran them one after the other. So they are held back for a while, and laid out from the
    last to the first, each ending when its answer came or when the next one began, whichever is earlier.

    Args:
        machine: The number of the machine that the worker is on.
        width: How many calls it runs at a time.
        new_lane: Makes one more lane, the first of which has number 0; returns what it is called in the file.
        write: Takes each span, when its place is known, and the lane that it is on.
    """

    def __init__(
        self, machine: int, width: int, new_lane: Callable[[int], int], write: Callable[[Span, int], None]
    ) -> None:
        self.machine = machine
        self._is_wide = width > 1
        self._new_lane = new_lane
        self._write = write
        self.first = new_lane(0)
        self._ends: dict[int, float] = {self.first: 0.0}
        """Of each lane: when its last call ended."""
        self._held: list[Span] = []

    def add(self, begun_at: float, duration: float, text: str) -> None:
        """A call has ended."""
        span = Span(begun_at, max(0.0, duration), text)
        if self._is_wide:
            self._put(span)
            return
        self._held.append(span)
        if len(self._held) >= HELD:
            self.settle()

    def settle(self) -> None:
        """Give what is held back its place."""
        held, self._held = self._held, []
        for span in self._in_line(held):
            self._write(span, self.first)

    def _put(self, span: Span) -> None:
        """On the lane that became free last before the call began, so that few lanes are enough."""
        free = [lane for lane, end in self._ends.items() if end <= span.begun_at]
        lane = max(free, key=self._ends.__getitem__) if free else self._new_lane(len(self._ends))
        self._ends[lane] = span.begun_at + span.duration
        self._write(span, lane)

    def _in_line(self, held: list[Span]) -> list[Span]:
        """One after the other, and none before the last that was written."""
        last, latest = self._ends[self.first], math.inf
        placed: list[Span] = []
        for span in reversed(held):
            end = max(last, min(latest, span.begun_at + span.duration))
            begun_at = max(last, min(span.begun_at, end - span.duration))
            placed.append(Span(begun_at, end - begun_at, span.text))
            latest = begun_at
        if placed:
            self._ends[self.first] = placed[0].begun_at + placed[0].duration
        placed.reverse()
        return placed
