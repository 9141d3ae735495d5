"""Where a call of a decorated function goes: to an executor, or nowhere, when it runs in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._executors.pool import Executor
from .._executors.stream import Stream
from .._futures.loops import running_loop
from .._futures.smart import SmartFuture
from .._model.info import Method
from .._model.options import CallOptions
from .._model.slots import occupied
from .ambient import executor_for, home_loop
from .inline import run_inline, stream_inline

__all__ = ["call", "stream"]


def call(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: CallOptions,
    method: Method,
    on: Executor | None,
) -> SmartFuture[Any]:
    """Start a call. Its options do not apply where it runs in place: there is nothing to queue, to kill or to retry."""
    pool = executor_for(method, on)
    if pool is not None:
        return pool._submit(fn, args, kwargs, options)
    slot = occupied()
    is_coroutine = method is Method.COROUTINE and slot is not None
    return run_inline(fn, args, kwargs, home_loop(slot) if is_coroutine else None)


def stream(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: CallOptions,
    method: Method,
    on: Executor | None,
) -> Stream[Any]:
    """The items of a generator function; nothing happens before the first is asked for."""
    if running_loop() is None:
        raise RuntimeError(
            f"{fn!r} is a generator function, whose items are taken with `async for`: call it where an event loop runs"
        )
    pool = executor_for(method, on)
    return stream_inline(fn, args, kwargs) if pool is None else pool._stream(fn, args, kwargs, options)
