"""How many calls travel in one frame.

Two wishes pull in opposite directions. A frame costs two system calls and a wake-up on
each side (about 40 us), so calls that take microseconds should travel by the hundred.
But a call that sits in a worker's frame behind a long one waits although another worker
may be idle. So a frame holds about ``FRAME_SECONDS`` of work, by what the last calls of
that function took; a function that nobody has seen yet travels alone.
"""

from __future__ import annotations

__all__ = ["FRAME_SECONDS", "MAX_CALLS", "Costs"]

FRAME_SECONDS = 0.002
MAX_CALLS = 256
"""In one frame."""

_WEIGHT = 0.25


class Costs:
    """What one function's calls take: a moving average that forgets quickly.

    Longer calls than before count at once, shorter ones by a quarter: sending too few
    calls costs microseconds, sending too many makes others wait. One long call among
    short ones counts for all of them.
    """

    __slots__ = ("calls_per_frame", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.calls_per_frame = 1
        """How many calls fill a frame: 1 while nothing is known."""

    def add(self, average: float, longest: float) -> None:
        """Remember what some calls took that ended together (seconds)."""
        if longest > FRAME_SECONDS:
            average = longest
        if self.seconds is None or average > self.seconds:
            self.seconds = average
        else:
            self.seconds += _WEIGHT * (average - self.seconds)
        self.calls_per_frame = max(1, min(MAX_CALLS, int(FRAME_SECONDS / max(self.seconds, 1e-7))))
