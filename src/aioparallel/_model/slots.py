"""Slots: where the current code runs in this process, so that the calls it makes never wait for each other.

An executor that runs calls in this process occupies a slot in the context of each call. That is a copy of the
submitter's context, so a slot knows what its callers hold: a call to one of these kinds runs in place, without
a slot of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Slot", "occupied", "occupy", "take"]


class Slot(NamedTuple):
    """What the current code occupies."""

    loop: AbstractEventLoop
    """The loop of the executor, on which calls made from a thread are dispatched."""

    held: frozenset[str]
    """The kinds of executors of which this code, or one of its callers, holds a slot."""


_slot: ContextVar[Slot | None] = ContextVar("aioparallel_slot", default=None)


def occupy(slot: Slot) -> None:
    """Say that the current context, which is a call's own, runs in this slot, and in those of its callers."""
    outer = _slot.get()
    _slot.set(slot if outer is None or outer == slot else Slot(slot.loop, outer.held | slot.held))


def take(slot: Slot | None) -> None:
    """Say that the current context, which is a generator's own, runs in this very slot from now on."""
    _slot.set(slot)


def occupied() -> Slot | None:
    """The slot in which the current code runs, if any."""
    return _slot.get()
