"""What maps are tested with: functions of one item."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.tools import Gate, Log, hold, hold_async, until


class ItemError(Exception):
    """What a failing item raises."""


def double(x: Any) -> Any:
    return x * 2


def fail_at(bad: int, x: int) -> int:
    if x == bad:
        raise ItemError(f"bad item {x}")
    return x


def fail_if_odd(x: int) -> int:
    if x % 2:
        raise ItemError(f"odd: {x}")
    return x


def hold_at(gate: Gate, held: int, x: int) -> int:
    """Wait at the gate with one item, return the others at once."""
    return hold(gate, x) if x == held else x


async def hold_at_async(gate: Gate, held: int, x: int) -> int:
    return await hold_async(gate, x) if x == held else x


def fail_or_hold(gate: Gate, bad: int, x: int) -> Any:
    """One item fails as soon as another waits at the gate, as all others do."""
    if x != bad:
        return hold(gate, x)
    while not gate.entered:
        time.sleep(0.002)
    raise ItemError(f"bad item {x}")


async def fail_or_hold_async(gate: Gate, bad: int, x: int) -> Any:
    if x != bad:
        return await hold_async(gate, x)
    await until(lambda: gate.entered)
    raise ItemError(f"bad item {x}")


def write(log: Log, x: Any) -> Any:
    log.write(x)
    return x


def die_at(bad: int, x: int) -> int:
    if x == bad:
        os._exit(3)
    return x


def die_or_write(log: Log, bad: int, x: int) -> int:
    log.write(x)
    if x == bad:
        os._exit(3)
    return x


def unpicklable_at(bad: int, x: int) -> Any:
    return (lambda: x) if x != bad else _unpicklable()


def _unpicklable() -> Any:
    import threading

    return threading.Lock()


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def stop_async_iteration(x: Any) -> None:
    raise StopAsyncIteration


def call_with(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


class Slots(Exception):
    """An exception that takes no attributes."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def raise_slots(x: Any) -> None:
    raise Slots
