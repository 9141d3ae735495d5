"""Calls that run in place, without a slot: those made in workers, and to a kind that a caller holds already."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from .._executors.stream import LocalSteps, Stream
from .._futures.dataflow import pending_in, substitute
from .._futures.home import Job
from .._futures.loops import at_home, running_loop
from .._futures.smart import SmartFuture, failed, finished
from .._futures.waiting import wait_all
from .._model.call import function_name

__all__ = ["run_inline", "stream_inline"]

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def run_inline(fn: Function, args: Args, kwargs: Kwargs, loop: AbstractEventLoop | None = None) -> SmartFuture[Any]:
    """Run a call here and now, as far as that is possible.

    A plain function has ended when this returns, and so has a coroutine where there is no event loop. On an
    event loop coroutines, and calls that wait for their arguments, become tasks.

    Args:
        fn: The function.
        args: Its positional arguments; futures among them are awaited.
        kwargs: Its keyword arguments.
        loop: The event loop for coroutines, by default the one that runs here.
    """
    loop = loop or running_loop()
    futures = pending_in(args, kwargs)
    if loop is not None and not all(future.done() for future in futures):
        return _as_task(_later(fn, args, kwargs), fn, loop)
    try:
        value = copy_context().run(_begin, fn, args, kwargs)
    except BaseException as error:  # it belongs to whoever awaits the call
        return failed(error, loop)
    if not isinstance(value, Coroutine):
        return finished(value, loop)
    return _as_task(value, fn, loop) if loop is not None else _to_the_end(value)


def stream_inline(fn: Function, args: Args, kwargs: Kwargs) -> Stream[Any]:
    """The items of a generator function that is advanced here."""
    return Stream(LocalSteps(run_inline, fn, args, kwargs), function_name(fn))


def _begin(fn: Function, args: Args, kwargs: Kwargs) -> Any:
    for future in pending_in(args, kwargs):
        future.result()  # blocks, where there is no event loop to wait on
    args, kwargs = substitute(args, kwargs)
    return fn(*args, **kwargs)


async def _later(fn: Function, args: Args, kwargs: Kwargs) -> Any:
    await wait_all(pending_in(args, kwargs))
    value = _begin(fn, args, kwargs)
    return await value if isinstance(value, Coroutine) else value


def _as_task(coroutine: Coroutine[Any, Any, Any], fn: Function, loop: AbstractEventLoop) -> SmartFuture[Any]:
    """A future of the coroutine, which runs on a loop that may be another thread's."""
    coroutine.__qualname__ = function_name(fn)  # type: ignore[attr-defined]
    future: SmartFuture[Any] = SmartFuture(None, loop)

    def start() -> None:
        future._source = Job(coroutine, future)

    at_home(loop, start)
    return future


def _to_the_end(coroutine: Coroutine[Any, Any, Any]) -> SmartFuture[Any]:
    future: SmartFuture[Any] = SmartFuture()
    future._settle_by(asyncio.run, coroutine)
    return future
