"""Executors, maps and decorators for code without an event loop.

The executors are those of :mod:`concurrent.futures`: what takes such a one takes these. The verbs are those of
aioparallel, and block: ``parmap`` returns an iterator, a function with ``@distribute`` a list, and one with
``@parallelize`` a :class:`concurrent.futures.Future`. They work in any thread, also beside a running event loop, and in
notebooks::

    from aioparallel.blocking import ProcessExecutor, parmap

    with ProcessExecutor(4) as pool:
        print(pool.submit(pow, 2, 100).result())
    print(list(parmap(len, ["a", "bc"])))

All of it is a thin door: one thread of its own runs an event loop for it, with the executors of aioparallel on it, and
ends with the last of them. Nothing has to be closed for a program to end.
"""

from __future__ import annotations

from .executors import Executor, ProcessExecutor, RemoteExecutor, ThreadExecutor
from .futures import Future
from .results import Results
from .verbs import Distributed, Parallel, close, distribute, parallelize, parmap

__all__ = [
    "Distributed",
    "Executor",
    "Future",
    "Parallel",
    "ProcessExecutor",
    "RemoteExecutor",
    "Results",
    "ThreadExecutor",
    "close",
    "distribute",
    "parallelize",
    "parmap",
]
