"""Where a call of a decorated function goes: to an executor, or nowhere, when it runs in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._executors.stream import Stream
from .._futures.loops import running_loop
from .._futures.smart import SmartFuture
from .._model.call import function_name
from .._model.info import Method
from .._model.slots import occupied
from .ambient import executor_for, home_loop
from .inline import Args, Function, Kwargs, run_inline, stream_inline

if TYPE_CHECKING:
    from .parallel import Settings

__all__ = ["call", "stream"]


def call(fn: Function, args: Args, kwargs: Kwargs, settings: Settings) -> SmartFuture[Any]:
    """Start a call. Its options do not apply where it runs in place: there is nothing to queue, to kill or to retry."""
    pool = executor_for(settings.method, settings.on)
    if pool is not None:
        return pool._submit(fn, args, kwargs, settings.options)
    slot = occupied()
    is_coroutine = settings.kind == Method.COROUTINE and slot is not None
    return run_inline(fn, args, kwargs, home_loop(slot) if is_coroutine else None)


def stream(fn: Function, args: Args, kwargs: Kwargs, settings: Settings) -> Stream[Any]:
    """The items of a generator function; nothing happens before the first is asked for."""
    if running_loop() is None:
        raise RuntimeError(
            f"no event loop runs here, and the items of {function_name(fn)} are taken with `async for`: call it in a "
            "coroutine, or take them in a plain loop from `.local(...)`; `aioparallel.blocking` needs no event loop"
        )
    pool = executor_for(settings.method, settings.on)
    return stream_inline(fn, args, kwargs) if pool is None else pool._stream(fn, args, kwargs, settings.options)
