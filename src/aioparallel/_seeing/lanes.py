"""Lanes: where the calls of one worker are drawn, so that no two on one lane overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Lanes", "Span"]


class Span(NamedTuple):
    """A call from its beginning to its end, and what is to be written of it."""

    begun_at: float
    duration: float
    text: str


class Lanes:
    """The lanes of one worker.

    Calls are told of when they end, which need not be in the order in which they began, and a worker that answers for
    several calls at once says only how long each took: it ran them one after the other, the last one up to now. So
    those of one answer are held back until it is complete, and laid out backwards from its time.

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
        self._held_at = 0.0

    def add(self, begun_at: float, duration: float, at: float, text: str) -> None:
        """A call has ended, which was heard at that time."""
        if self._held and at != self._held_at:
            self.settle()
        self._held.append(Span(begun_at, max(0.0, duration), text))
        self._held_at = at

    def settle(self) -> None:
        """Give what is held back its place."""
        held, self._held = self._held, []
        if self._is_wide:
            for span in held:
                self._put(span)
        elif held:
            for span in self._in_line(held):
                self._write(span, self.first)

    def _put(self, span: Span) -> None:
        """On the lane that became free last before the call began, so that few lanes are enough."""
        free = [lane for lane, end in self._ends.items() if end <= span.begun_at]
        lane = max(free, key=self._ends.__getitem__) if free else self._new_lane(len(self._ends))
        self._ends[lane] = span.begun_at + span.duration
        self._write(span, lane)

    def _in_line(self, held: list[Span]) -> list[Span]:
        """One after the other, each ending before the next one begins, and none before the last that was written."""
        last, latest = self._ends[self.first], self._held_at
        placed: list[Span] = []
        for span in reversed(held):
            end = max(last, min(latest, span.begun_at + span.duration))
            begun_at = max(last, min(span.begun_at, end - span.duration))
            placed.append(Span(begun_at, end - begun_at, span.text))
            latest = begun_at
        self._ends[self.first] = placed[0].begun_at + placed[0].duration
        placed.reverse()
        return placed
