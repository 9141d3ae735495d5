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

MANY = 10_000

_SCALE = 1 / math.log(GROWTH)


class Latencies:
    """A histogram of durations in seconds."""

    __slots__ = ("_buckets", "_fresh", "count")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._fresh: list[float] = []
        self.count = 0

    def add(self, seconds: float) -> None:
        """Remember one duration."""
        self.count += 1
        self._fresh.append(seconds)
        if len(self._fresh) > MANY:
            self._sort_in()

    def extend(self, seconds: list[float]) -> None:
        """Remember durations. They are sorted into buckets later, equal ones together."""
        self.count += len(seconds)
        self._fresh += seconds
        if len(self._fresh) > MANY:
            self._sort_in()

    def merge(self, other: Latencies) -> None:
        """Add everything that another histogram remembers."""
        other._sort_in()
        self._buckets.update(other._buckets)
        self.count += other.count

    def _sort_in(self) -> None:
        fresh, self._fresh = self._fresh, []
        for seconds, count in Counter(fresh).items():
            self._buckets[int(math.log(seconds / SMALLEST) * _SCALE) if seconds > SMALLEST else 0] += count

    def quantile(self, share: float) -> float | None:
        """The duration that *share* of all (0 to 1) do not exceed; ``None`` without data."""
        if not self.count:
            return None
        self._sort_in()
        wanted = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return _middle(bucket)
        raise AssertionError("the buckets hold fewer durations than were added")

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each bucket's middle in seconds, and how many durations fell into it, in order."""
        self._sort_in()
        for bucket in sorted(self._buckets):
            yield _middle(bucket), self._buckets[bucket]


def _middle(bucket: int) -> float:
    return float(SMALLEST * GROWTH ** (bucket + 0.5))
