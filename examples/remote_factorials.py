"""Factorials on remote hosts: the test by which pyutils showed its remote workers, without a machine to set up.

The hosts run in this process (a real ssh server on the loopback interface, with throwaway keys). Put your own in their
place: ``RemoteExecutor(load_hosts())``.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter

from aioparallel import Method, RemoteExecutor, RoundRobin, configure, current_call, parallelize, wait_all, wait_any
from aioparallel.testing import ssh_hosts


@parallelize(method=Method.REMOTE)
def factorial(n: int) -> int:
    total = 1
    for x in range(2, n + 1):
        total *= x
    return total


@parallelize(method=Method.REMOTE)
def where() -> str | None:
    return current_call().host


async def main() -> None:
    async with ssh_hosts(2, slots=1) as hosts, configure(remote=RemoteExecutor(hosts, policy=RoundRobin())):
        # Fifty calls; each is there at once, as a future.
        calls = [factorial(n) for n in range(50)]
        print("all of them, in order:", await wait_all(calls) == [math.factorial(n) for n in range(50)])

        ended = [await call async for call in wait_any([factorial(n) for n in (3, 4, 5)])]
        print("as they end:", sorted(ended))

        # The result of one call may be the argument of another, wherever both run.
        print("of a factorial:", await factorial(factorial(3)))

        seen = Counter(await wait_all([where() for _ in range(20)]))
        print("hosts that had a share:", len(seen))


asyncio.run(main())
