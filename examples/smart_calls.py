"""Decorate a function and its calls run elsewhere; use the futures almost like their values: what pyutils was for."""

from __future__ import annotations

import asyncio
import os
import threading

from aioparallel import Method, parallelize, wait_all, wait_any

PARENT = os.getpid(), threading.get_ident()


@parallelize  # a thread
def my_function(a: int, b: int, c: int) -> int:
    assert os.getpid() == PARENT[0]
    assert threading.get_ident() != PARENT[1]
    return a + b + c


@parallelize(method=Method.PROCESS)
def my_other_function(d: int, e: int, f: int) -> str:
    assert os.getpid() != PARENT[0]
    return f"{d}{e}{f}"


async def main() -> None:
    # A call returns at once. Its future may be stored anywhere without waiting.
    future = my_function(1, 2, 3)
    table = {"sum": future, "text": my_other_function(4, 5, 6)}
    print("stored:", len({future, *table.values()}))

    # Its value is there when it is awaited; an expression over futures is a future.
    print("values:", await future, await table["text"])
    print("expression:", await (my_function(1, 2, 3) * 10 + my_function(4, 5, 6)))

    # A future may be an argument of another call, also deep inside of one.
    print("dataflow:", await my_function(my_function(1, 1, 1), future, 0))

    # As they end, or all of them in order.
    futures = [my_other_function(n, n, n) for n in range(4)]
    print("any:", sorted([await each async for each in wait_any(futures, heartbeat=1.0)]))
    print("all:", await wait_all(futures))


asyncio.run(main())
