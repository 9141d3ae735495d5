"""Whether there is still somebody who wants to see cancelled work stop.

At the first Ctrl-C ``asyncio.run`` cancels the main task, which then waits until its work has stopped. At the second it
cancels every task of the loop, once. To a task that owns a pool this looks as if the program had ended in peace, and
left its pool open. What tells the two apart is the task that waits: it is cancelled while it waits already, goes, and
says so here.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["go_without", "hastened", "lose_patience"]


class _Patience:
    """That of one loop."""

    def __init__(self) -> None:
        self.unseen: WeakSet[SmartFuture[Any]] = WeakSet()
        """Work whose end nobody waited for any longer; what has ended since does no harm."""
        self.closers: list[Callable[[], object]] = []
        self.is_lost = False

    @property
    def is_over(self) -> bool:
        return self.is_lost or any(not future.done() for future in self.unseen)

    def tell_closers(self) -> None:
        if self.is_over:
            for closer in list(self.closers):
                closer()


_of_loop: WeakKeyDictionary[AbstractEventLoop, _Patience] = WeakKeyDictionary()


def _here() -> _Patience:
    return _of_loop.setdefault(get_running_loop(), _Patience())


def go_without(futures: Iterable[SmartFuture[Any]]) -> None:
    """Whoever waited until these have stopped was cancelled once more, and goes."""
    patience = _here()
    patience.unseen.update(future for future in futures if not future.done())
    patience.tell_closers()


def lose_patience() -> None:
    """This loop is going to shut down, and nobody waits for anything on it."""
    patience = _here()
    patience.is_lost = True
    patience.tell_closers()


@contextmanager
def hastened(closer: Callable[[], object]) -> Generator[None]:
    """Within the block, have this called as soon as nobody has patience any more; at once, if that is so already.

    For who closes something because the loop shuts down.
    """
    patience = _here()
    patience.closers.append(closer)
    try:
        if patience.is_over:
            closer()
        yield
    finally:
        patience.closers.remove(closer)
