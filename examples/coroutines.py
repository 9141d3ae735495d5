"""Ask many servers, a few at a time, none too often, and again when they are busy."""

from __future__ import annotations

import asyncio
from collections import Counter

from aioparallel import Limit, Retry, parallelize, wait_all

asked: Counter[str] = Counter()
at_once: Counter[str] = Counter()
most: Counter[str] = Counter()


class Busy(Exception):
    """What a server says that wants to be asked again a little later."""

    retry_after = 0.02


def host_of(url: str) -> str:
    return url.partition("/")[0]


@parallelize(limit=Limit(concurrency=2, key=host_of), retry=Retry(3, on=Busy, backoff=0.01))
async def fetch(url: str) -> str:
    host = host_of(url)
    at_once[host] += 1
    most[host] = max(most[host], at_once[host])
    try:
        await asyncio.sleep(0.005)  # stands for the request
    finally:
        at_once[host] -= 1
    asked[url] += 1
    if asked[url] == 1 and url.endswith("/0"):
        raise Busy(url)
    return f"page {url}"


async def main() -> None:
    urls = [f"{host}/{page}" for host in ("a.example", "b.example") for page in range(5)]
    pages = await wait_all([fetch(url) for url in urls])
    print(len(pages), "pages, the first:", pages[0])
    print("asked twice:", [url for url, times in asked.items() if times > 1])
    print("at once:", dict(most))


asyncio.run(main())
