"""Crack a (very weak) password hash with all CPUs, and stop as soon as one of them has it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import string

from aioparallel import ProcessExecutor, wait_any

SECRET = hashlib.sha256(b"lime").hexdigest()


def search(first: str) -> str | None:
    """The word with this first letter whose hash is the one that is looked for."""
    for rest in itertools.product(string.ascii_lowercase, repeat=3):
        word = first + "".join(rest)
        if hashlib.sha256(word.encode()).hexdigest() == SECRET:
            return word
    return None


async def main() -> None:
    async with ProcessExecutor() as pool:
        calls = [pool.submit(search, letter) for letter in string.ascii_lowercase]
        async with wait_any(calls, cancel_pending=True) as ended:  # leaving stops the other searches
            async for call in ended:
                if word := await call:
                    print(f"found {word!r}")
                    break
        print("searches were stopped:", any(call.cancelled() for call in calls))


asyncio.run(main())
