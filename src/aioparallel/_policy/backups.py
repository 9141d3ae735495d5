"""Which calls are late, and deserve a backup copy.

Lateness is told from the durations of finished calls of the same function, and not before there are enough of them.
The score is in the spirit of the ancestor's (pyutils.parallelize): the longer a call is over its time, the lighter its
host and the fewer copies there are of it, the sooner it gets another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._model.call import Call
from .._model.options import Backups
from .latency import Latencies

__all__ = ["BackupDesk"]

FACTORS = (1.0, 0.25, 0.0625)
"""Of the score, for each copy that there is already; beyond, it shrinks as much again for each."""


class _Function:
    """The copyable calls of one function: what finished ones took, and those that a worker holds."""

    def __init__(self) -> None:
        self.took = Latencies()
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

    def placed(self, call: Call) -> None:
        """A call that may be copied was given to a worker."""
        self.begun += 1
        self._functions.setdefault(call.function, _Function()).held[call] = None

    def ended(self, call: Call, seconds: float | None) -> None:
        """Such a call has ended, or was taken back; it took so long if it succeeded."""
        function = self._functions.get(call.function)
        if function is not None:
            function.held.pop(call, None)
            if seconds is not None:
                function.took.extend([seconds])

    def late(self, now: float, began: Callable[[Call], float | None], slots: int) -> list[Call]:
        """The calls that deserve a copy now, the most deserving first.

        Args:
            now: ``time.time()``.
            began: When a call began, or ``None`` if it waits at its worker.
            slots: How many calls the pool runs at a time.
        """
        found: list[tuple[float, Call]] = []
        for function in self._functions.values():
            limit = self._limit(function)
            if limit is None:
                continue
            for call in function.held:
                since = began(call)
                age = 0.0 if since is None else now - since
                if age <= limit:
                    if since is not None:
                        break  # those after it are younger
                    continue
                found.append((self._score(call, age / limit), call))
        if 2 * len(found) > slots > 1:
            return []
        found.sort(key=lambda entry: -entry[0])
        return [call for _, call in found]

    @property
    def budget(self) -> int:
        """How many copies may still be made."""
        return int(self.backups.max_extra * self.begun) - self.copies

    def _limit(self, function: _Function) -> float | None:
        """How long a call may take before it is late; ``None`` while that cannot be told."""
        quantile = self.backups.quantile
        if quantile is None:
            return float(self.backups.after)
        return function.took.quantile(quantile) if function.took.count >= self.backups.min_completed else None

    def _score(self, call: Call, lateness: float) -> float:
        copies = call.race.number if call.race is not None else 0
        factor = FACTORS[copies] if copies < len(FACTORS) else FACTORS[-1] / 4.0 ** (copies - len(FACTORS) + 1)
        return lateness * factor / float(call.worker.site.weight or 1.0)
