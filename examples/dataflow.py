"""A small computation graph: calls that take calls as arguments, and expressions over calls. Nothing blocks."""

from __future__ import annotations

import asyncio
import time

from aioparallel import parallelize


@parallelize(method="process")
def load(name: str) -> list[int]:
    time.sleep(0.1)
    return [len(name), len(set(name))]


@parallelize(method="process")
def merge(parts: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*parts, strict=True)]


@parallelize
def mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers)


async def main() -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    merged = merge([load(name) for name in names])  # waits for four calls, which run side by side
    score = mean(merged) * 10 + merged[0]  # an expression over calls
    print("there yet:", merged.done(), score.done())
    print(await merged, await score)

    broken = merge([load("alpha"), load(None)])  # type: ignore[arg-type]
    try:
        await (broken[0] + 1)
    except TypeError as error:
        print("what fails in one place arrives where it is awaited:", error)


asyncio.run(main())
