"""Durations, remembered in few numbers: a histogram with logarithmic buckets.

Each bucket is 2 % wider than the one before, so a quantile is right to about 1 %,
whatever the durations are, in constant memory; two histograms can be added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

__all__ = ["Latencies"]

GROWTH = 1.02
SMALLEST = 1e-7
"""Seconds. Everything shorter shares the first bucket."""

_SCALE = 1 / math.log(GROWTH)


class Latencies:
    """A histogram of durations in seconds."""

    __slots__ = ("_buckets", "count", "total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Remember one duration."""
        self.count += 1
        self.total += seconds
        self._buckets[int(math.log(seconds / SMALLEST) * _SCALE) if seconds > SMALLEST else 0] += 1

    def merge(self, other: Latencies) -> None:
        """Add everything that another histogram remembers."""
        self._buckets.update(other._buckets)
        self.count += other.count
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """The duration that *share* of all (0 to 1) do not exceed; ``None`` without data."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(share * self.count))
        for middle, count in self.buckets():
            wanted -= count
            if wanted <= 0:
                return middle
        raise AssertionError("the buckets hold fewer durations than were added")

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each bucket's middle in seconds, and how many durations fell into it, in order."""
        for bucket in sorted(self._buckets):
            yield SMALLEST * GROWTH ** (bucket + 0.5), self._buckets[bucket]
