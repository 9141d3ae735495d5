"""Waiting until something is so."""

from __future__ import annotations

import asyncio

from aioparallel._futures.news import News


async def test_everybody_is_woken() -> None:
    """Whoever waits looks again whenever there are news, and goes on when it is so for him."""
    news, seen = News(), 0
    waiting = [asyncio.ensure_future(news.until(lambda wanted=wanted: seen >= wanted)) for wanted in (1, 2, 2)]  # type: ignore[misc]
    await asyncio.sleep(0)
    for seen, done in ((1, [True, False, False]), (2, [True, True, True])):  # noqa: B007
        news.tell()
        for _ in range(3):
            await asyncio.sleep(0)
        assert [each.done() for each in waiting] == done


async def test_what_is_so_already() -> None:
    """Nobody waits for what is so already."""
    await News().until(lambda: True)
