"""Which calls are late, and deserve a backup copy.

Lateness is told from the durations of finished calls of the same function, and not before there are enough of them.
The score is in the spirit of the ancestor's (pyutils.parallelize): the longer a call is over its time, the lighter its
host and the fewer copies there are of it, the sooner it gets another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from .._model.call import Call
from .._model.options import Backups
from .latency import Latencies

__all__ = ["BackupDesk"]

MANY = 1000
"""So many functions are remembered, beside some for each that has calls at a worker."""
TAIL = 5.0
"""What takes so many times the median is late, whatever the quantile: the tail of most functions is shorter."""
COLD_SECONDS = 1.0
"""So much longer the first call of a worker may take, while it is not known how long it does."""
FACTORS = (1.0, 0.25, 0.0625)
"""Of the score, for each copy that there is already; beyond, it shrinks as much again for each."""


class _Function:
    """The copyable calls of one function: what finished ones took, and those that a worker holds."""

    def __init__(self) -> None:
        self.took = Latencies()
        self.cold = Latencies()
        """What the first calls of workers took, who had to import everything first."""
        self.held: dict[Call, None] = {}
        """In the order in which they were placed: the oldest come first."""


class BackupDesk:
    """Decides which calls get a copy.

    Args:
        backups: When, and how many.
    """

    def __init__(self, backups: Backups) -> None:
        self.backups = backups
        self.begun = 0
        """How many calls were placed that may be copied, copies not counted."""
        self.copies = 0
        """How many copies were made."""
        self._functions: dict[Any, _Function] = {}
        self._room = MANY
        """At so many functions it is looked which can be forgotten."""

    def placed(self, calls: list[Call]) -> None:
        """Calls were given to a worker; some of them may be copied."""
        for call in calls:
            if not _may_be_copied(call):
                continue
            self.begun += 1
            function = self._functions.get(call.function)
            if function is None:
                function = self._new(call.function)
            function.held[call] = None

    def _new(self, key: Any) -> _Function:
        if len(self._functions) >= self._room:  # lambdas made by the thousand, say
            self._functions = {each: found for each, found in self._functions.items() if found.held}
            self._room = MANY + 2 * len(self._functions)  # so that it need not be done again for each
        function = self._functions[key] = _Function()
        return function

    def taken_back(self, call: Call) -> None:
        """Such a call did not begin: it will be placed, and counted, again."""
        function = self._functions.get(call.function)
        if function is not None and call in function.held:
            del function.held[call]
            self.begun -= 1

    def ended(self, call: Call, seconds: float | None, *, is_cold: bool = False) -> None:
        """Such a call has ended; it took so long if it succeeded, perhaps as its worker's first."""
        function = self._functions.get(call.function)
        if function is not None:
            function.held.pop(call, None)
            if seconds is not None:
                (function.cold if is_cold else function.took).add(seconds)

    def late(self, now: float, since: Callable[[Call], float | None], slots: int, crowded: float = 1.0) -> list[Call]:
        """The calls that deserve a copy now, the most deserving first.

        Args:
            now: ``time.time()``.
            since: When a call began, or the one that it waits behind; ``None``: that cannot be told.
            slots: How many calls the pool runs at a time.
            crowded: How many times longer than late they must be.
        """
        found: list[tuple[float, Call]] = []
        held: Counter[Any] = Counter()
        for function in self._functions.values():
            limit = self._limit(function.took)
            if limit is None:
                continue
            limits = limit, max(limit, self._limit(function.cold) or limit + COLD_SECONDS)
            for call in function.held:
                begun = since(call)
                age = 0.0 if begun is None else now - begun
                if age <= limits[0] + call.worker.site.trip:
                    if begun is not None:
                        break  # those after it are younger
                    continue
                limit = limits[call.worker.ended == 0]
                if age <= limit:
                    continue
                held[call.worker] += 1
                if age > crowded * limit and self._is_late(call, now, since, limits):
                    found.append((self._score(call, age / limit), call))
        late = sum(min(seat.width, calls) for seat, calls in held.items())
        if 2 * late > slots > 1:
            return []
        found.sort(key=lambda entry: -entry[0])
        return [call for _, call in found]

    def _is_late(
        self, call: Call, now: float, since: Callable[[Call], float | None], limits: tuple[float, float]
    ) -> bool:
        """Whether the newest copy of a late call is late as well: before that there is no further one."""
        newest = call if call.race is None else call.race.newest
        begun = since(newest)
        return begun is not None and now - begun > limits[newest.worker.ended == 0] + newest.worker.site.trip

    @property
    def budget(self) -> int:
        """How many copies may still be made."""
        return int(self.backups.max_extra * self.begun) - self.copies

    def _limit(self, took: Latencies) -> float | None:
        """How long a call may take before it is late, if others took so long; ``None`` while that cannot be told."""
        quantile = self.backups.quantile
        if quantile is None:
            return float(self.backups.after)
        if took.count < self.backups.min_completed:
            return None
        limit = took.quantile(quantile)
        median = took.quantile(0.5)
        if limit is None or median is None:
            return None
        # Where so many straggle that the quantile is theirs, none would ever be late. And where all take nearly the
        # same, five of a hundred are over it, but not for long: who is still there at the next look is late.
        return min(limit, TAIL * median) + self.backups.interval

    def _score(self, call: Call, lateness: float) -> float:
        copies = call.copies
        factor = FACTORS[copies] if copies < len(FACTORS) else FACTORS[-1] / 4.0 ** (copies - len(FACTORS) + 1)
        return lateness * factor / float(call.worker.site.weight or 1.0)


def _may_be_copied(call: Call) -> bool:
    """Whether a call may have backup copies: no step of a stream, no chunk of a map, and no copy."""
    return call.options.idempotent and not call.kind and call.pin is None and call.race is None
