"""A model that is loaded once in each worker, and a progress bar: what py_stateful_map was for."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aioparallel import StatefulPool, WorkerStartError

PARENT = os.getpid()


class SimpleArithmetic:
    """A state: built in a worker, called for every item, closed when the worker ends."""

    def __init__(self, modulus: int, worker: int) -> None:
        print(f"worker {worker} is set up in a process of its own: {os.getpid() != PARENT}")
        self.modulus = modulus
        self.worker = worker
        self.calls = 0

    def __call__(self, start: int, rounds: int = 1000) -> int:
        self.calls += 1
        value = start
        for _ in range(rounds):
            value = (value * value) % self.modulus
        if start == 40:
            raise ValueError("no luck with 40")
        return value

    def close(self) -> None:
        print(f"worker {self.worker} has ended {'some' if self.calls else 'no'} calls")


class NoSuchModel:
    def __init__(self) -> None:
        raise FileNotFoundError("model.bin")

    def __call__(self, item: Any) -> None: ...


async def main() -> None:
    options: dict[str, Any] = {"kwargs": {"modulus": 337}, "worker_kwargs": [{"worker": 0}, {"worker": 1}]}
    async with StatefulPool(SimpleArithmetic, **options) as pool:
        items = [10 * k for k in range(100)]
        results = pool.map(items, errors="return", progress=True)
        print("items:", len(results))
        total = 0
        async for outcome in results:
            if outcome.ok:
                total += outcome.value
            else:
                print(f"item {outcome.index} failed: {outcome.error}")
        print("total:", total)

        # The same pool again, with other ways to pass items.
        print(await pool.map([(3, 5), (4, 5)], passing="args"))
        print(await pool.map([{"start": 3, "rounds": 5}], passing="kwargs"))
        print("one call:", await pool.submit(3, rounds=5))

    try:
        async with StatefulPool(NoSuchModel, workers=2):
            pass
    except WorkerStartError as error:
        print("says so at once:", "FileNotFoundError: model.bin" in str(error))


asyncio.run(main())
