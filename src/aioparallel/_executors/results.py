"""What a map has to give: results that came back and were not taken yet, in the order of delivery."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Raised", "Results"]


class Raised(NamedTuple):
    """In the place of a result, where failures are carried: what the item raised."""

    error: BaseException


class Results:
    """Results on their way from the workers to the consumer.

    Args:
        ordered: Whether they are delivered in the order of the items; otherwise as they come.
    """

    def __init__(self, ordered: bool) -> None:
        self.ready: deque[Any] = deque()
        self.passed = 0
        """Items that the consumer has had, or that gave it nothing."""
        self.held = 0
        """Items that ended, and wait for an earlier one."""
        self.keeping = False
        """Whether the consumer takes everything at the end: results that are ready count as taken."""
        self.closed = False
        self._ordered = ordered
        self._sealed = False
        self._next = 0
        self._early: dict[int, tuple[int, Sequence[Any]]] = {}
        self._changed = asyncio.Event()

    def add(self, start: int, count: int, values: Sequence[Any]) -> None:
        """The ``count`` items from ``start`` on have ended, and give these values; or nothing, when they failed."""
        if self._sealed:
            return
        if not self._ordered:
            self._give(count, values)
            return
        if start != self._next:
            self._early[start] = count, values
            self.held += count
            return
        self._give(count, values)
        self._next += count
        while self._next in self._early:
            count, values = self._early.pop(self._next)
            self._next += count
            self.held -= count
            self._give(count, values)

    def _give(self, count: int, values: Sequence[Any]) -> None:
        self.ready.extend(values)
        self.passed += count if self.keeping else count - len(values)

    def keep(self) -> None:
        """From now on the consumer takes nothing before the end."""
        self.keeping = True
        self.passed += len(self.ready)

    def seal(self) -> None:
        """Only what is ready now will be delivered."""
        self._sealed = True

    def drop(self) -> None:
        """Nobody will take anything any more."""
        self.seal()
        self.ready.clear()
        self._early.clear()

    def close(self) -> None:
        """Nothing will be added any more."""
        self.closed = True
        self._early.clear()
        self.notify()

    def notify(self) -> None:
        """Have the consumers look again."""
        self._changed.set()

    async def change(self) -> None:
        """Wait until there is something new."""
        self._changed.clear()
        await self._changed.wait()
