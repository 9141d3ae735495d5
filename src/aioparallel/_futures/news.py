"""Waiting until something is so, when others say that it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["News"]


class News:
    """Wakes whoever waits, however many there are. Belongs to one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something has changed: everybody who waits looks again."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is true, which is looked at now and whenever there are news."""
        while not condition():
            await self._event.wait()
