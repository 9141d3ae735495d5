"""One function over many items, in every way that parmapper had: arguments, progress, arrays, pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np

from aioparallel import ProcessExecutor, parmap, split_eval


def slow_sum(a: int, b: int = 0, c: int = 0, *, scale: int = 1, offset: int = 0) -> int:
    return scale * (a + b + c) + offset


def load() -> Iterator[int]:
    """Data that is made as it is needed; it is read by a thread, so it may wait."""
    yield from range(5)


async def main() -> None:
    # A loop, replaced.
    print("loop:", await parmap(slow_sum, range(5)))

    # Lambdas and closures are fine.
    factor = 3
    print("lambda:", await parmap(lambda x: factor * x, range(5)))

    # Several arguments for each item, fixed ones, and keywords that change.
    print("star:", await parmap(slow_sum, zip([1, 2], [3, 4], strict=True), star=True, args=(10,)))
    print("kwstar:", await parmap(slow_sum, [(1, {"scale": 2}), (1, {})], kwstar=True, kwargs={"offset": 100}))
    items = zip([(1, 2), (3, 4)], [{"scale": 2}, {}], strict=True)
    print("both:", await parmap(slow_sum, items, star=True, kwstar=True, args=(5,), kwargs={"offset": 100}))
    print("none:", await parmap(slow_sum, range(3), star=None, args=(7,)))

    # Processes, with threads in each of them.
    print("threads:", sum(await parmap(slow_sum, range(100), workers=2, threads_per_worker=4)))

    # As it comes, with a bar; an error names its item.
    try:
        async for _ in parmap(lambda x: 1 / x, [2, 1, 0], ordered=False, progress="dividing"):
            pass
    except ZeroDivisionError as error:
        print("error:", error, "at", error.seq_index)  # type: ignore[attr-defined]

    # A pipeline: what is done before and after a map needs no list in between.
    prepared = (x + 1 for x in load())
    print("pipeline:", [f"<{result}>" async for result in parmap(slow_sum, prepared)])

    # A function of a whole array.
    array = np.arange(12.0).reshape(6, 2)
    parfun = split_eval(lambda rows: rows.sum(axis=1), chunks=3)
    print("array:", (await parfun(array)).tolist())

    # Two different functions at the same time.
    async with ProcessExecutor(2) as pool:
        first, second = pool.submit(slow_sum, 1, 2), pool.submit(max, [3, 9, 4])
        print("calls:", await first, await second)


asyncio.run(main())
