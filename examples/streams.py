"""Generators in workers: items come as they are made, and no faster than they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from aioparallel import parallelize


@parallelize(method="process")
def primes() -> Iterator[int]:
    """All prime numbers, from a process."""
    found: list[int] = []
    number = 1
    try:
        while True:
            number += 1
            if all(number % prime for prime in found):
                found.append(number)
                yield number
    finally:
        print("the generator was closed")


@parallelize
def lines(path: str) -> Iterator[str]:
    """The lines of a file, from a thread."""
    with open(path, encoding="utf-8") as file:
        yield from file


@parallelize
async def countdown(start: int) -> AsyncIterator[int]:
    """Numbers, from a coroutine."""
    for number in range(start, 0, -1):
        await asyncio.sleep(0)
        yield number


async def main() -> None:
    async with primes() as stream:  # leaving closes the generator where it lives
        async for prime in stream:
            if prime > 30:
                print("the first prime number above 30 is", prime)
                break

    count = 0
    async for _ in lines(__file__):
        count += 1
    print("this file has some lines:", count > 10)
    print([number async for number in countdown(3)])


asyncio.run(main())
