"""The same program on this machine, on hosts over ssh, and on Ray: only the line that makes the pool is another one.

python anywhere.py          # the CPUs of this machine
python anywhere.py ssh      # the hosts of ~/.config/aioparallel/hosts.toml, or of the file $AIOPARALLEL_HOSTS
python anywhere.py ray      # the cluster that $RAY_ADDRESS names, or a Ray of its own on this machine
"""

from __future__ import annotations

import asyncio
import random
import sys

from aioparallel import Executor, ProcessExecutor, RayExecutor, RemoteExecutor, load_hosts

PLACES = {
    "here": ProcessExecutor,
    "ssh": lambda: RemoteExecutor(load_hosts()),
    "ray": RayExecutor,
}


def throw(seed: int, darts: int = 20_000) -> int:
    """How many darts, of so many thrown at a square, have hit the circle in it."""
    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 <= 1 for _ in range(darts))


async def estimate(pool: Executor) -> float:
    """Pi, more or less; on any executor."""
    hits = 0
    async for some in pool.map(throw, range(50), ordered=False):
        hits += some
    return 4 * hits / (50 * 20_000)


async def main(place: str) -> None:
    async with PLACES[place]() as pool:
        print(f"pi is about {await estimate(pool)}")
        try:
            await pool.submit(throw, "seed", darts="many")
        except TypeError as error:
            print(f"what fails there arrives here: {error}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "here"))
