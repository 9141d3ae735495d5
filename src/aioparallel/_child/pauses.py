"""Pauses between tries of what may fail for long: those of the agent, and those of executors."""

from __future__ import annotations

import math

MAX_DOUBLINGS = 100
"""Of the first pause: more than anybody waits for, and less than a float can hold."""


def growing_pause(first: float, failures: int, longest: float = math.inf) -> float:
    """Seconds to wait after so many failures: the first pause, doubled after each further one.

    However many those are: a host that is away for a night is tried a thousand times.
    """
    return min(longest, first * 2.0 ** min(failures - 1, MAX_DOUBLINGS))
