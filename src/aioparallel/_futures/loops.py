"""Running a plain function in the turn of an event loop, from wherever one happens to be."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["at_home", "running_loop", "soon"]


def soon(loop: AbstractEventLoop | None, context: Context, fn: Callable[..., object], *args: Any) -> None:
    """Run ``fn`` in the loop's next turn; at once when there is no loop (any more).

    To be called on the loop's thread. Whatever follows from a future's end goes through
    here, so a chain of ten thousand futures costs turns of the loop, not stack frames.
    """
    if loop is None or loop.is_closed():
        context.run(fn, *args)
    else:
        loop.call_soon(fn, *args, context=context)


def at_home(loop: AbstractEventLoop | None, fn: Callable[..., object], *args: Any) -> None:
    """Run ``fn`` on the loop's thread: at once when we are there, or when the loop is gone."""
    if loop is None or loop is running_loop() or not _posted(loop, fn, *args):
        fn(*args)


def _posted(loop: AbstractEventLoop, fn: Callable[..., object], *args: Any) -> bool:
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:  # closed, and no other way to ask without a race
        return False
    return True
