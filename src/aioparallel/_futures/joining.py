"""Waiting for several futures as *one* awaiter, without a task."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .._model.errors import NotReadyError
from .loops import running_loop, soon

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["Join"]


class Join:
    """Awaits futures on behalf of something that depends on them all.

    To be made and abandoned on the loop's thread.

    Args:
        futures: What to await; may belong to other loops, may be settled.
        callback: Called once, in a later turn of the loop and in the context of whoever made the join:
            with ``None`` when all have succeeded, or with the first failure, as soon as there is one. The other futures
            then run on, without this awaiter.
        loop: Where the dependent lives; by default the running loop.
    """

    __slots__ = ("_callback", "_context", "_loop", "_pending")

    def __init__(
        self,
        futures: Iterable[SmartFuture[Any]],
        callback: Callable[[BaseException | None], object],
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._callback: Callable[[BaseException | None], object] | None = callback
        self._context = copy_context()
        self._loop = loop or running_loop()
        self._pending: dict[SmartFuture[Any], None] = {}
        try:
            here = [future._here(self._loop) for future in futures]
        except NotReadyError as error:  # the loop of one of them was closed
            self._report(error)
            return
        failed = next((future for future in here if future.done() and not future._succeeded()), None)
        if failed is None:
            self._pending = dict.fromkeys(future for future in here if not future.done())
            for future in self._pending:
                future._join(self._on_settled)
        if not self._pending:
            self._report(None if failed is None else failed._error())

    def abandon(self, stopped: Callable[[], object] | None = None) -> None:
        """Stop depending: the callback will not be called, and what nobody else awaits is cancelled.

        Args:
            stopped: Called once all that this cancelled has really stopped.
        """
        self._callback = None
        soon(self._loop, self._context, self._leave, stopped)

    def _on_settled(self, future: SmartFuture[Any]) -> None:
        if self._callback is None or future not in self._pending:
            return  # we were abandoned, or a failure has been reported
        del self._pending[future]
        if not future._succeeded():
            others, self._pending = self._pending, {}
            for other in others:
                other._drop(self._on_settled)
            self._report(future._error())
        elif not self._pending:
            self._report(None)

    def _report(self, error: BaseException | None) -> None:
        soon(self._loop, self._context, self._call, error)

    def _call(self, error: BaseException | None) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:  # not abandoned in the meantime
            callback(error)

    def _leave(self, stopped: Callable[[], object] | None) -> None:
        pending, self._pending = self._pending, {}
        stopping = [future for future in pending if future._leave(self._on_settled)]
        running = len(stopping) + 1

        def one_less(_: object = None) -> None:
            nonlocal running
            running -= 1
            if not running and stopped is not None:
                soon(self._loop, self._context, stopped)

        for future in stopping:
            future._watch(one_less)
        one_less()
