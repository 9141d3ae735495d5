"""Crawl several sites at once, each politely: at most two requests at a time, and as slowly as it asks for."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import urlsplit

from aioparallel import Limit, Retry, parmap


class TooManyRequests(Exception):
    """What an HTTP client would raise for the status 429."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


open_requests: Counter[str | None] = Counter()
most: Counter[str | None] = Counter()
refused: set[str] = set()


async def fetch(url: str) -> str:
    """Stands for a request; the grumpy site refuses each page once."""
    host = urlsplit(url).hostname
    if host == "grumpy.example" and url not in refused:
        refused.add(url)
        raise TooManyRequests(retry_after=0.02)
    open_requests[host] += 1
    most[host] = max(most[host], open_requests[host])
    await asyncio.sleep(0.005)
    open_requests[host] -= 1
    return f"the page {url}"


async def main() -> None:
    hosts = ["quick.example", "grumpy.example", "other.example"]
    urls = [f"https://{host}/{page}" for host in hosts for page in range(10)]
    polite = Limit(concurrency=2, rate=200, key=lambda url: urlsplit(url).hostname)
    pages = parmap(
        fetch,
        urls,
        method="coroutine",
        ordered=False,
        limit=polite,
        retry=Retry(3, on=TooManyRequests, backoff=0),
        errors="return",
    )
    sites = [urlsplit(outcome.item).hostname async for outcome in pages if outcome.ok]
    print("pages:", dict(sorted(Counter(sites).items())))
    print("never more than two at a time:", max(most.values()) <= 2)
    print("the other sites did not wait for the grumpy one:", sites[-1] == "grumpy.example")


asyncio.run(main())
