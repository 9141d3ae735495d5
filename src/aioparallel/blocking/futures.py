"""The futures of blocking executors: those of the standard library, each settled by a SmartFuture on the portal's loop.

Only the loop's thread changes their state, so there is no race to decide: ``cancel`` asks there, and waits for the
answer. What it means to be cancelled comes in two steps, for which :mod:`concurrent.futures` happens to have the
states:

1. ``cancel()`` has returned ``True``: the future is CANCELLED. ``done()`` and ``cancelled()`` say so, ``result()``
   raises, callbacks run. A call that has not begun never will; one that a process runs is being killed.
2. The call has stopped for certain: the future is CANCELLED_AND_NOTIFIED, which is what ``concurrent.futures.wait``
   and ``as_completed`` wait for. (So do ``shutdown()`` and the end of ``with``.)
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from .._futures.loops import running_loop
from .._futures.smart import SmartFuture
from .._model.errors import NotReadyError, PicklingError
from .._model.info import CallState
from .portal import Portal

__all__ = ["Future"]

T = TypeVar("T")

_log = logging.getLogger("aioparallel")


class Future(concurrent.futures.Future[T]):
    """The future of a call, as :mod:`concurrent.futures` has it; executors make it.

    On the thread that runs the executors (in a callback of a future, or in a coroutine) nothing waits for it:
    ``result``, ``exception``, ``concurrent.futures.wait`` and ``as_completed`` raise :exc:`~aioparallel.NotReadyError`
    there, instead of waiting for ever.

    Cancellation:
        :meth:`cancel` also cancels what runs, where that can be stopped: a process is killed, and replaced. What
        runs in a thread cannot be stopped, and ``cancel`` returns ``False``, as in the standard library.

    Args:
        portal: Where what settles it runs; ``None`` where everything runs in place.
    """

    def __init__(self, portal: Portal | None) -> None:
        super().__init__()
        self._portal = portal
        self._smart: SmartFuture[T] | None = None
        """What settles us."""
        self._waiters = _Waiters(self._check_wait) if portal is None else _Waiters(portal.check_wait)

    def cancel(self) -> bool:
        """Cancel the call, if it has not begun or can be stopped.

        Returns:
            Whether it is cancelled. If so, ``concurrent.futures.wait`` tells when it has really stopped.
        """
        return self.cancelled() if self._is_settled else self._do(self._cancel)

    def running(self) -> bool:
        """Whether the call has begun and not ended."""
        return not self._is_settled and self._do(self._is_running)

    def result(self, timeout: float | None = None) -> T:
        """The value, or raise what the call raised; blocks until it has ended.

        Args:
            timeout: How long to block, in seconds; ``None`` for as long as it takes.

        Raises:
            TimeoutError: The call has not ended in time. It runs on.
            concurrent.futures.CancelledError: It was cancelled.
            NotReadyError: It has not ended, and to wait for it here would be for ever. Your code's fault.
        """
        self._check_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or ``None``; otherwise as :meth:`result`."""
        self._check_wait()
        return super().exception(timeout)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing that happens here can change it any more."""
        return self.done() or (self._portal is not None and self._portal.is_foreign)

    def _check_wait(self) -> None:
        if self.done():
            return
        if self._portal is not None:
            self._portal.check_wait()
        elif self._smart is not None and self._smart._loop is running_loop():
            raise NotReadyError("the result is not there yet, and comes when this coroutine lets its event loop go on")

    def _do(self, fn: Callable[[], bool]) -> bool:
        return fn() if self._portal is None else self._portal.do(fn)

    # On the portal's thread

    def _cancel(self) -> bool:
        smart = self._smart
        if smart is not None and not self.done():
            owner: Any = getattr(smart._source, "owner", None)
            if smart.cancel() if owner is None else owner._recall(smart):
                super().cancel()
        return self.cancelled()

    def _is_running(self) -> bool:
        return self._smart is not None and self._smart.info.state == CallState.RUNNING

    def _follow(self, smart: SmartFuture[T]) -> None:
        """The call has ended. Watches the SmartFuture."""
        if self._done_callbacks and smart._loop is not None:  # type: ignore[attr-defined]
            smart._loop.call_soon(self._end, smart)  # no user code runs in a watcher
        else:
            self._end(smart)

    def _end(self, smart: SmartFuture[T]) -> None:
        if self.cancelled() or smart.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif smart._succeeded():
            self.set_result(smart.result())
        else:
            self.set_exception(smart.exception())

    def _invoke_callbacks(self) -> None:
        try:
            super()._invoke_callbacks()  # type: ignore[misc]
        except BaseException:  # it logs exceptions, and would let these end the portal
            _log.exception("A callback of %r failed", self)

    def __reduce__(self) -> NoReturn:
        raise PicklingError(f"{self!r} cannot be pickled or copied: take its result() and use that.")


class _Waiters(list[Any]):
    """Who waits for a future by functions of :mod:`concurrent.futures`: nobody may where it would be for ever."""

    __slots__ = ("_check",)

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def append(self, waiter: Any) -> None:
        """Somebody begins to wait."""
        self._check()
        super().append(waiter)
