"""The future that every parallel call returns.

Who may do what, and where:

* The *producer* (an executor, a task of ours) settles it by ``_set_result``, ``_set_exception`` or ``_set_cancelled``,
  on the thread of the future's loop. The first of them wins.
* *Awaiters* are counted (``_join``/``_leave``). When one goes away because it was cancelled and it was the last,
  the work is cancelled. *Watchers* (``_watch``/``_unwatch``) are told the end and have no say. Both are called
  within the producer's call, on the loop's thread, and must neither raise nor run user code; what follows from
  the end goes through :func:`~aioparallel._futures.loops.soon`.
* From other threads and loops one may ask for anything that has no underscore.

It is no :class:`asyncio.Future`: as one, the first cancelled awaiter would cancel it for everybody.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import threading
import time
from asyncio import AbstractEventLoop, CancelledError, get_running_loop
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, final, overload

import anyio

from .._model.errors import CallCancelledError, CallExitedError, NotReadyError, PicklingError
from .._model.info import CallInfo, CallState
from .abroad import PATIENCE, Mirror, check_home
from .expression import Expression, evaluate
from .home import Job
from .loops import at_home, running_loop, soon
from .operators import Operators
from .patience import go_without

if TYPE_CHECKING:
    from .._model.contracts import Source

__all__ = ["SmartFuture", "failed", "finished", "stopped", "wrapped"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")
Watcher = Callable[["SmartFuture[Any]"], object]

# The states, in an order that lets "settled" be one comparison.
_PENDING, _CANCELLING, _DONE, _FAILED, _CANCELLED = range(5)
_ENDS = {_DONE: CallState.DONE.value, _FAILED: CallState.FAILED.value, _CANCELLED: CallState.CANCELLED.value}

_log = logging.getLogger("aioparallel")
_ids = itertools.count(1)


@final
class SmartFuture(Operators, Generic[T_co]):
    """The result of a call that may still be running. ``await`` it.

    An expression over futures is a future; ``bool``, ``int``, ``len`` and the like answer for
    the value once it is there, and raise :exc:`NotReadyError` before. Storing, hashing and ``==``
    never wait: they are identity. Executors make futures, you do not.

    Cancellation:
        Cancelling an awaiter (``await``, ``gather``, ``wait_for``, ``timeout``, ``await wait_all(...)``, a call or
        an expression that takes the future) cancels the work if it was the last awaiter; that awaiter then waits
        until the work has really stopped, at most for the executor's ``grace``. :meth:`cancel` cancels for everybody.

    What may still be running:
        A future that nobody awaits runs to its end. If it fails and nobody looks, that is logged once.

    Example::

        total = await (crunch(1, 2) + crunch(3, 4) * 2)
    """

    __slots__ = ("__weakref__", "_awaiters", "_loop", "_source", "_state", "_value", "_watchers", "id")

    id: int
    """A number that no other future of this process has; later futures have larger ones."""

    def __init__(self, source: Source | None = None, loop: AbstractEventLoop | None = None) -> None:
        self.id = next(_ids)
        self._source = source
        self._loop = loop
        self._state = _PENDING
        self._value: Any = None  # the result, a _Failure, or why it was cancelled
        self._watchers: dict[Watcher, None] | None = None
        self._awaiters = 0

    # -- awaiting ---------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._state >= _DONE:
            return self._outcome()
        here = self._here(running_loop())
        yield from here._wait().__await__()
        try:
            return here._outcome()
        finally:
            del self, here  # a traceback refers to this frame

    async def _wait(self) -> None:
        """Be an awaiter until the end."""
        self._awaiters += 1
        try:
            await self._until_settled()
        except GeneratorExit:  # the awaiting coroutine was thrown away, which is no cancellation
            self._awaiters -= 1
            raise
        except BaseException:
            if self._release():
                await stopped((self,))
            raise

    async def _until_settled(self) -> None:
        """Watch until the end; on the future's own loop."""
        if self._state >= _DONE:
            return
        loop = get_running_loop()
        waiter = loop.create_future()

        def wake(_: SmartFuture[Any]) -> None:
            if not waiter.done() and not loop.is_closed():
                waiter.set_result(None)

        self._watch(wake)
        try:
            await waiter
        finally:
            self._unwatch(wake)

    def _here(self, loop: AbstractEventLoop | None, joins: bool = True) -> SmartFuture[T_co]:
        """This future, or its mirror on ``loop`` when it belongs to another one and is not settled."""
        if self._loop is loop or loop is None or self._loop is None or self._state >= _DONE:
            return self
        check_home(self)
        return Mirror(self, loop, joins).future

    # -- asking -----------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the call has ended: with a value, a failure, or cancelled and really stopped.

        Returns:
            ``False`` while it waits, runs, or is being stopped.
        """
        return self._state >= _DONE

    def is_ready(self) -> bool:
        """The same as :meth:`done`.

        Returns:
            Whether the value, or what there is instead, can be had without waiting.
        """
        return self._state >= _DONE

    def cancelled(self) -> bool:
        """Whether the call has ended because somebody cancelled it.

        Returns:
            ``False`` as long as it is still being stopped.
        """
        return self._state == _CANCELLED

    def result(self, timeout: float | None = None) -> T_co:
        """The value, or raise what the call raised.

        Where no event loop runs in this thread, this blocks until the call has ended. On a loop's thread it never
        blocks.

        Args:
            timeout: How long to block, in seconds; ``None`` for as long as it takes.

        Returns:
            The very object each time.

        Raises:
            NotReadyError: The call has not ended, and a loop runs here. Your code's fault: await it first.
            TimeoutError: The call has not ended in time. It runs on.
            CallCancelledError: Somebody cancelled it.
            Exception: What the call raised.

        What may still be running:
            The call, after a :exc:`TimeoutError`: whoever blocks is no awaiter.
        """
        if self._state < _DONE:
            self._block(timeout)
        return self._outcome()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, a :exc:`CallCancelledError` if it was cancelled, or ``None``.

        Args:
            timeout: As for :meth:`result`.

        Returns:
            The exception itself. Asking for it counts as having seen it: it will not be logged.

        Raises:
            NotReadyError: As for :meth:`result`.
            TimeoutError: As for :meth:`result`.
        """
        if self._state < _DONE:
            self._block(timeout)
        return None if self._state == _DONE else self._error()

    @property
    def info(self) -> CallInfo:
        """How the call stands: its state, worker, host, attempts and times."""
        info = CallInfo(CallState.WAITING) if self._source is None else self._source.info()
        state = _ENDS.get(self._state, info.state)
        return info if info.state == state else info._replace(state=state)

    def _outcome(self) -> T_co:
        """The value, or raise what there is instead."""
        if self._state == _DONE:
            return self._value  # type: ignore[no-any-return]
        error = self._error()
        try:
            raise error
        finally:
            del self, error  # the traceback refers to this frame

    def _error(self) -> BaseException:
        if self._state == _FAILED:
            return self._value.seen_error()  # type: ignore[no-any-return]
        if self._state == _CANCELLED:
            return CallCancelledError(self._value)
        return NotReadyError(f"{self!r} has no value yet: await it first.")

    def _block(self, timeout: float | None) -> None:
        if running_loop() is not None:
            raise NotReadyError(f"{self!r} has no value yet, and an event loop must not be blocked: await it first.")
        ended = threading.Event()

        def wake(_: SmartFuture[Any]) -> None:
            ended.set()

        at_home(self._loop, self._watch, wake)
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        try:
            while not ended.wait(max(0, min(PATIENCE, deadline - time.monotonic()))) and self._state < _DONE:
                check_home(self)
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{self!r} has not ended within {timeout} s")
        finally:
            at_home(self._loop, self._unwatch, wake)

    # -- cancelling -------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the call for everybody. May be called again, and from any thread.

        Queued work never begins; running work is stopped. The future is not done before that is confirmed; who
        awaits it gets :exc:`CallCancelledError`.

        Returns:
            Whether it will be cancelled; ``False`` when it is too late. From another thread than
            the loop's, ``True`` says that the wish was passed on.

        What may still be running:
            The call, until the future is done: ``await asyncio.wait([future])`` waits for that.
        """
        loop = self._loop
        if self._state >= _DONE:
            return False
        if loop is running_loop() or loop is None:
            return self._cancel()
        at_home(loop, self._cancel)
        return True

    def _cancel(self) -> bool:
        if self._state == _PENDING:
            self._state = _CANCELLING  # first, for what stops the work may ask us again, or settle us
            if self._source is None or (self._loop is not None and self._loop.is_closed()):
                self._set_cancelled()
            else:
                self._ask_source(self._source)
        return self._state in {_CANCELLING, _CANCELLED}

    def _ask_source(self, source: Source) -> None:
        accepted = False
        try:
            accepted = source.cancel()
        finally:
            if not accepted and self._state == _CANCELLING:
                self._state = _PENDING

    # -- callbacks --------------------------------------------------------------------------------

    def add_done_callback(self, fn: Callable[[SmartFuture[T_co]], object], *, context: Context | None = None) -> None:
        """Have ``fn(future)`` called on the future's loop once the call has ended. From any thread.

        What ``fn`` raises is logged. A callback only watches: it keeps nothing from being cancelled.

        Args:
            fn: A plain function.
            context: The contextvars it runs in; a copy of the current ones by default.
        """
        at_home(self._loop, self._watch, _Callback(fn, copy_context() if context is None else context))

    def remove_done_callback(self, fn: Callable[[SmartFuture[T_co]], object]) -> int:
        """Do not call ``fn`` after all.

        Args:
            fn: What was registered.

        Returns:
            How often it was registered; 0 from another thread, where the wish is passed on.
        """
        if self._loop is None or self._loop is running_loop():
            return self._remove(fn)
        at_home(self._loop, self._remove, fn)
        return 0

    @overload
    def then(self, fn: Callable[[T_co], Awaitable[R]]) -> SmartFuture[R]: ...
    @overload
    def then(self, fn: Callable[[T_co], R]) -> SmartFuture[R]: ...
    def then(self, fn: Callable[[T_co], Any]) -> SmartFuture[Any]:
        """A future of ``fn(value)``, which runs on the loop once the value is there.

        If the call fails or is cancelled, so is the new future, and ``fn`` is not called. Cancelling the new future
        stops ``fn`` and leaves this one alone.

        Args:
            fn: A plain or an ``async`` function; what it returns is awaited if it can be.

        Returns:
            A future of what ``fn`` returns.

        Example:
            ::

                size = fetch(url).then(len)
        """
        derived: SmartFuture[Any] = SmartFuture(None, self._loop or running_loop())
        context = copy_context()
        at_home(self._loop, self._watch, lambda _: soon(derived._loop, context, derived._continue, self, fn))
        return derived

    def _continue(self, source: SmartFuture[Any], fn: Callable[[Any], Any]) -> None:
        if self._state >= _DONE:  # cancelled meanwhile
            return
        if source._state != _DONE:
            self._follow(source)
            return
        try:
            value = fn(source._value)
            if inspect.isawaitable(value):
                self._source = Job(value, self)
            else:
                self._set_result(value)
        except BaseException as error:  # it belongs to whoever awaits us
            self._set_exception(error)
        finally:
            del self  # the traceback refers to this frame, and we refer to the traceback

    def _remove(self, fn: Callable[..., object]) -> int:
        found = [w for w in self._watchers or () if isinstance(w, _Callback) and w.fn == fn]
        for watcher in found:
            self._unwatch(watcher)
        return len(found)

    # -- for producers, on the loop's thread --------------------------------------------------------

    def _set_result(self, value: Any) -> bool:
        if self._state:
            return self._set_cancelled()
        self._value = value
        self._state = _DONE
        if self._watchers is not None:
            self._notify()
        return True

    def _set_exception(self, error: BaseException) -> bool:
        if self._state or isinstance(error, CancelledError):
            return self._set_cancelled()
        self._settle(_FAILED, _Failure(_presentable(error), self.id, self._source))
        return True

    def _set_cancelled(self, message: str = "the call was cancelled") -> bool:
        if self._state >= _DONE:
            return False
        self._settle(_CANCELLED, message)
        return True

    def _follow(self, other: SmartFuture[Any]) -> bool:
        """End as ``other`` has ended. A failure is shared: whoever sees it has seen it for both."""
        if self._state:
            return self._set_cancelled()
        self._settle(other._state, other._value)
        return True

    def _settle_by(self, fn: Callable[..., Any], *args: Any) -> None:
        """End with what ``fn`` returns or raises."""
        try:
            self._set_result(fn(*args))
        except BaseException as error:  # it belongs to whoever awaits us
            self._set_exception(error)
        finally:
            del self  # the traceback refers to this frame, and we refer to the traceback

    def _settle(self, state: int, value: Any) -> None:
        self._value = value
        self._state = state
        if self._watchers is not None:
            self._notify()

    def _notify(self) -> None:
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            watcher(self)

    # -- for dependents, on the loop's thread -------------------------------------------------------

    def _watch(self, watcher: Watcher) -> None:
        """Have ``watcher(self)`` called at the end, at once if that has come."""
        if self._state >= _DONE:
            watcher(self)
        elif self._watchers is None:
            self._watchers = {watcher: None}
        else:
            self._watchers[watcher] = None

    def _unwatch(self, watcher: Watcher) -> None:
        if self._watchers is not None:
            self._watchers.pop(watcher, None)

    def _join(self, watcher: Watcher) -> None:
        """Be an awaiter, and watch."""
        self._awaiters += 1
        self._watch(watcher)

    def _drop(self, watcher: Watcher) -> None:
        """No longer be an awaiter, not because one was cancelled: the work goes on."""
        self._awaiters -= 1
        self._unwatch(watcher)

    def _leave(self, watcher: Watcher) -> bool:
        """An awaiter was cancelled. True if the work is being stopped for that, and the end is worth waiting for."""
        self._unwatch(watcher)
        return self._release()

    def _release(self) -> bool:
        self._awaiters -= 1
        return self._awaiters == 0 and self._state < _DONE and self._cancel() and self._state < _DONE

    def _succeeded(self) -> bool:
        return self._state == _DONE

    @property
    def _grace(self) -> float:
        return self._source.grace if self._source is not None else 0

    # -- what Python asks ---------------------------------------------------------------------------

    def _compute(self, operation: Callable[..., Any], operands: tuple[Any, ...]) -> SmartFuture[Any]:
        futures = [operand for operand in operands if type(operand) is SmartFuture]
        loop = running_loop() or next((future._loop for future in futures if future._loop), None)
        if any(future._state < _DONE for future in futures):
            expression = Expression(operation, operands)
            derived: SmartFuture[Any] = SmartFuture(expression, loop)
            at_home(loop, expression.start, derived)
            return derived
        derived = SmartFuture(None, loop)
        unhappy = next((future for future in futures if future._state != _DONE), None)
        if unhappy is None:
            derived._settle_by(evaluate, operation, operands)
        else:
            derived._follow(unhappy)
        return derived

    def __repr__(self) -> str:
        try:
            info = self.info
        except Exception:  # a debugger shows the future although its executor is broken
            info = CallInfo(str(_ENDS.get(self._state, "pending")))
        state = "cancelling" if self._state == _CANCELLING else info.state
        return f"<SmartFuture #{self.id} {info.name}{info.name and ': '}{state}>"

    def __reduce__(self) -> NoReturn:
        raise PicklingError(f"{self!r} cannot be pickled or copied: await it first, and use its value.")


class _Failure:
    """An exception and whether anybody has seen it. It complains, once, when it is dropped unseen."""

    __slots__ = ("error", "id", "seen", "source", "traceback")

    def __init__(self, error: BaseException, number: int, source: Source | None) -> None:
        self.error = error
        self.traceback = error.__traceback__
        self.id = number
        self.source = source
        self.seen = False

    def seen_error(self) -> BaseException:
        """The exception, to be raised: with the traceback that it came with, so that it does not grow with each use."""
        self.seen = True
        return self.error.with_traceback(self.traceback)

    def __del__(self) -> None:
        # Who cancelled a call knows; the calls that depended on it need not be reported to anybody.
        if not self.seen and not isinstance(self.error, CallCancelledError):
            exc_info = (type(self.error), self.error, self.traceback)
            _log.error("A call failed and nobody looked: #%s %s", self.id, _name_of(self.source), exc_info=exc_info)


class _Callback:
    """A watcher that runs a user's function in a later turn of the loop."""

    __slots__ = ("context", "fn")

    def __init__(self, fn: Callable[[SmartFuture[Any]], object], context: Context) -> None:
        self.fn = fn
        self.context = context

    def __call__(self, future: SmartFuture[Any]) -> None:
        soon(future._loop, self.context, self._run, future)

    def _run(self, future: SmartFuture[Any]) -> None:
        try:
            self.fn(future)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            _log.exception("A callback of %r failed: %r", future, self.fn)


def finished(value: T, loop: AbstractEventLoop | None = None) -> SmartFuture[T]:
    """A future that has ended with a value. It works where there is no event loop at all."""
    future: SmartFuture[T] = SmartFuture(None, loop)
    future._set_result(value)
    return future


def failed(error: BaseException, loop: AbstractEventLoop | None = None) -> SmartFuture[Any]:
    """A future that has ended with an exception."""
    future: SmartFuture[Any] = SmartFuture(None, loop)
    future._set_exception(error)
    return future


def wrapped(awaitable: Awaitable[T]) -> SmartFuture[T]:
    """A future of what any awaitable gives, which runs as a task of its own; a SmartFuture is returned as it is.

    Raises:
        RuntimeError: No event loop runs here.
    """
    if isinstance(awaitable, SmartFuture):
        return awaitable
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"expected something that can be awaited, got {awaitable!r}")
    future: SmartFuture[T] = SmartFuture(None, running_loop())
    future._source = Job(awaitable, future)
    return future


async def stopped(futures: Iterable[SmartFuture[Any]]) -> None:
    """Wait until cancelled work has really stopped, at most for its grace.

    Cancellation:
        Shielded: this is what a cancelled awaiter does before it goes. If its task is cancelled all the same, which
        only asyncio does, it goes at once, and everybody may know that it had no patience.
    """
    pending = [future._here(running_loop(), joins=False) for future in futures if future._state < _DONE]
    try:
        with anyio.move_on_after(max((future._grace for future in pending), default=0), shield=True):
            for future in pending:
                await future._until_settled()
    except CancelledError:
        go_without(pending)
        raise


def _name_of(source: Source | None) -> str:
    try:
        return "" if source is None else source.info().name
    except Exception:  # a debugger or a log shows the future although an executor is broken
        return ""


def _presentable(error: BaseException) -> BaseException:
    """The exception, or what stands for it when raising it would do more than fail the awaiter."""
    if isinstance(error, (SystemExit, KeyboardInterrupt, GeneratorExit)):
        stand_in: Exception = CallExitedError(f"the call ended by {error!r}", code=getattr(error, "code", None))
    elif isinstance(error, StopIteration):
        stand_in = RuntimeError("the call raised StopIteration")
    else:
        return error
    stand_in.__cause__ = error
    return stand_in
