"""The functions that workers run. Light to import: every worker of every contestant imports this module."""

from __future__ import annotations

import asyncio
import functools
import pickle
import random
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]

_adopted: dict[str, Any] = {}
_blocks: dict[str, Any] = {}
_chance = random.SystemRandom()
"""Workers are forked: with the usual one all of them would straggle at once."""


def noop() -> None:
    """Do nothing."""


def increment(number: int) -> int:
    """The tiny piece of work of the maps: something whose result can be checked."""
    return number + 1


def call(fn: Callable[[], Any]) -> Any:
    """Call what came as an argument."""
    return fn()


def call_chunk(pickled: bytes, items: Sequence[Any]) -> list[Any]:
    """Map a function that was pickled by value: what a user who knows cloudpickle writes by hand."""
    fn = pickle.loads(pickled)
    return [fn(item) for item in items]


def nap(seconds: float) -> float:
    """Take that long without using a core, so that only the schedule is measured."""
    time.sleep(seconds)
    return seconds


def spin(begun: str) -> None:
    """Python code without an end. It says that it has begun by making a file."""
    open(begun, "x").close()
    while True:
        pass


def hold(begun: str) -> None:
    """C code that does not let go of the interpreter lock for a minute; after the same sign."""
    import ctypes

    sleep = ctypes.PyDLL(None).sleep
    open(begun, "x").close()
    sleep(60)


def straggle(seconds: float, share: float) -> float:
    """Take that long, or in so many cases twenty times as long."""
    return nap(seconds * (20 if _chance.random() < share else 1))


async def tick(number: int) -> int:
    """One trip through the event loop."""
    await asyncio.sleep(0)
    return number


async def run_async(fn: Callable[..., Any], *args: Any) -> Any:
    """Call ``fn``: for the rival whose workers run coroutine functions only."""
    return fn(*args)


def swallow(array: Array) -> float:
    """Take an array; its last element proves that it came."""
    return float(array[-1])


@functools.lru_cache(maxsize=1)
def produce(count: int) -> Array:
    """Give an array of ``count`` floats, the same one each time: making it is not what is measured."""
    import numpy as np

    return np.arange(count, dtype=np.float64)


def use_constant(index: int, constant: Array) -> float:
    """Use a large constant that comes as an argument."""
    return float(constant[index])


def use_shared(constant: Array, index: int) -> float:
    """The same, for the rival that puts the constant first."""
    return float(constant[index])


def use_block(index: int, name: str) -> float:
    """Use the constant in a shared memory block, which is kept open for the next call."""
    from multiprocessing.shared_memory import SharedMemory

    if name not in _blocks:
        _blocks.clear()
        _blocks[name] = SharedMemory(name)
    with _blocks[name].buf.cast("d") as floats:
        return float(floats[index])


def adopt(constant: Array) -> None:
    """Keep a large constant in this worker: for the rivals that take an initializer."""
    _adopted["constant"] = constant


def use_adopted(index: int) -> float:
    """Use the constant that :func:`adopt` kept."""
    return float(_adopted["constant"][index])
