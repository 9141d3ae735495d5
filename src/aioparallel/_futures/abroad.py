"""Awaiting a future from another event loop than its own."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._model.errors import NotReadyError
from .._model.info import CallInfo
from .loops import at_home

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["PATIENCE", "Mirror", "check_home"]

PATIENCE = 0.5
"""Seconds after which another thread looks whether a future's loop was closed under it."""


def check_home(future: SmartFuture[Any]) -> None:
    """Raise if the future's loop was closed before the future was settled: nobody will settle it."""
    loop = future._loop
    if loop is not None and loop.is_closed() and not future.done():
        raise NotReadyError(f"{future!r} will never have a value: its event loop was closed. Await it before that.")


class Mirror:
    """The work behind a future on *this* loop that follows one of another loop.

    So everything that holds for awaiters on one loop holds across loops: the awaiters of the mirror are together
    one awaiter of the original.

    Args:
        origin: The future of the other loop.
        loop: The running loop.
        joins: Whether the mirror counts as awaiter of ``origin``; otherwise it only watches.
    """

    __slots__ = ("_joins", "_loop", "_origin", "future", "grace")

    def __init__(self, origin: SmartFuture[Any], loop: AbstractEventLoop, joins: bool) -> None:
        self.grace = origin._grace
        self.future: SmartFuture[Any] = type(origin)(self, loop)
        self._origin = origin
        self._loop = loop
        self._joins = joins
        at_home(origin._loop, origin._join if joins else origin._watch, self._on_settled)
        loop.call_later(PATIENCE, self._check)

    def cancel(self) -> bool:
        """Leave the original; if we were its last awaiter, its work is cancelled."""
        at_home(self._origin._loop, self._leave)
        return True

    def info(self) -> CallInfo:
        """How the original stands."""
        return self._origin.info

    def _leave(self) -> None:
        if self._joins and self._origin._leave(self._on_settled):
            self._origin._watch(self._on_stopped)
        else:
            self._on_stopped(self._origin)

    def _on_settled(self, origin: SmartFuture[Any]) -> None:
        self._tell(self.future._follow, origin)

    def _on_stopped(self, _: SmartFuture[Any]) -> None:
        self._tell(self.future._set_cancelled)

    def _tell(self, fn: Callable[..., object], *args: Any) -> None:
        # When our loop is closed, fn is run here: nobody is left there who could mind.
        at_home(self._loop, fn, *args)

    def _check(self) -> None:
        # What we posted to a loop that was just being closed was never run.
        if self.future.done():
            return
        if self._origin.done():
            self.future._follow(self._origin)
            return
        try:
            check_home(self._origin)
        except NotReadyError as error:
            self.future._set_exception(error)
        else:
            self._loop.call_later(PATIENCE, self._check)
