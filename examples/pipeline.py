"""Download with coroutines, parse in processes, write in threads: three maps, one of which feeds the next.

Each stage pulls only what the next one needs. The slow writer at the end holds back the downloads at the beginning.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aioparallel import parmap

PAGES = 200
pulled: list[str] = []


def urls() -> Iterator[str]:
    for number in range(PAGES):
        pulled.append(f"https://example.org/{number}")
        yield pulled[-1]


async def download(url: str) -> str:
    await asyncio.sleep(0.001)  # stands for the network
    return f"<html><title>{url.rpartition('/')[2]}</title></html>"


def parse(page: str) -> int:
    """Runs in a process: parsing computes."""
    return int(page.partition("<title>")[2].partition("</title>")[0])


def write(folder: str, number: int) -> str:
    """Runs in a thread: writing waits for a disk."""
    path = Path(folder) / f"{number}.txt"
    path.write_text(str(number))
    return path.name


async def main() -> None:
    names: list[str] = []
    furthest = 0
    with tempfile.TemporaryDirectory() as folder:
        downloaded = parmap(download, urls(), method="coroutine", prefetch=10)
        parsed = parmap(lambda page: (folder, parse(page)), downloaded, method="process", prefetch=10)
        async with parmap(write, parsed, method="thread", star=True, prefetch=10, progress=True) as written:
            async for name in written:
                names.append(name)
                furthest = max(furthest, len(pulled) - len(names))
    print("written:", len(names), "the last one:", names[-1])
    print("the downloads were never more than 30 pages ahead:", furthest <= 30)


asyncio.run(main())
