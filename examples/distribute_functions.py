"""Functions of single values, called with whole sequences: what just_distribute was for."""

from __future__ import annotations

import asyncio
from itertools import product

from aioparallel import distribute


@distribute(job="compute", workers=2)
def cpu_intensive(x: int, y: int) -> int:
    return x * y


@distribute(job="io", workers=8)
def io_intensive(data_to_write: bytes, filename: str, verbose: bool = True) -> str:
    return f"{len(data_to_write)} bytes to {filename}"


@distribute(job="web", workers=8)
def web_requesting(data_to_send: dict[str, int], url: str, api_key: str) -> str:
    """A plain function: it runs in threads."""
    return f"{url}?n={data_to_send['n']}"


@distribute(job="web", workers=8)
async def web_requesting_async(data_to_send: dict[str, int], url: str) -> str:
    """A coroutine function: it runs on this event loop."""
    await asyncio.sleep(0.001)
    return f"{url}?n={data_to_send['n']}"


@distribute(job="compute", workers=2)
def batches(numbers: list[int]) -> int:
    """It takes a list, so it gets one: a part of the numbers."""
    return sum(numbers)


@distribute(job="compute", workers=2, autobatch=False)
def by_hand(numbers1: list[int], numbers2: list[int]) -> int:
    return sum(a * b for a in numbers1 for b in numbers2)


@distribute(job="compute", workers=2)
def products(numbers1: list[int], numbers2: list[int]) -> int:
    """With one of them as a constant, their lengths may differ."""
    return sum(a * b for a, b in product(numbers1, numbers2))


@distribute(job="compute", workers=2)
def pairs(numbers: list[int], power: int, verbose: bool = True) -> int:
    """Each power gets its run of the numbers."""
    return sum(number**power for number in numbers)


async def main() -> None:
    results = await cpu_intensive(range(1000), range(4000, 2000, -2))
    print("compute:", len(results), results[:3])

    store = {"a.bin": b"1", "b.bin": b"22"}
    print("io:", await io_intensive(store.values(), store.keys(), verbose=False))

    data = [{"n": n} for n in range(3)]
    print("web:", await web_requesting(data, url="https://api.example", api_key="***"))
    print("web, async:", await web_requesting_async(data, url="https://api.example"))

    numbers = list(range(1000))
    print("batches:", sum(await batches(numbers)) == sum(numbers))
    print("by hand:", await by_hand([[1, 2], [3]], [[4], [5, 6]]))
    print("one is constant:", sum(await products(numbers, numbers2=[1, 2])) == 3 * sum(numbers))
    print("pairs:", await pairs(numbers, range(1, 5), verbose=False))

    try:
        await pairs([1, 2, 3], [1, 2])
    except ValueError as error:
        print("lengths:", error)


asyncio.run(main())
