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
from .._futures.smart import SmartFuture
from .._futures.waiting import wait_all
from .._model.call import function_name
from .._model.shapes import Shape, shape_of

__all__ = ["call", "stream"]

Function = Callable[..., Any]
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def call(fn: Function, args: Args, kwargs: Kwargs, loop: AbstractEventLoop | None) -> SmartFuture[Any]:
    """Run a call here and now, as far as that is possible.

    On a thread without an event loop it is: the call has ended when this returns. On an event loop a
    coroutine, or a call that waits for its arguments, becomes a task that starts at once.

    Args:
        fn: The function.
        args: Its positional arguments, with futures among them.
        kwargs: Its keyword arguments.
        loop: Where coroutines run; without one, they run to their end on a loop made for that.
    """
    must_wait = any(not future.done() for future in pending_in(args, kwargs))
    if loop is not None and (shape_of(fn) is Shape.COROUTINE or (must_wait and loop is running_loop())):
        return _as_task(_later(fn, args, kwargs), function_name(fn), loop)
    future: SmartFuture[Any] = SmartFuture(None, running_loop())
    future._settle_by(copy_context().run, _now, fn, args, kwargs)
    return future


def stream(fn: Function, args: Args, kwargs: Kwargs) -> Stream[Any]:
    """The items of a generator function that is advanced here."""
    steps = LocalSteps(lambda step: call(step, (), {}, running_loop()), fn, args, kwargs)
    return Stream(steps, function_name(fn))


def _now(fn: Function, args: Args, kwargs: Kwargs) -> Any:
    """Wait for the arguments and run the call, blocking this thread."""
    for future in pending_in(args, kwargs):
        future.result()
    args, kwargs = substitute(args, kwargs)
    value = fn(*args, **kwargs)
    return asyncio.run(value) if isinstance(value, Coroutine) else value


async def _later(fn: Function, args: Args, kwargs: Kwargs) -> Any:
    """Await the arguments and run the call."""
    await wait_all(pending_in(args, kwargs))
    args, kwargs = substitute(args, kwargs)
    value = fn(*args, **kwargs)
    return await value if isinstance(value, Coroutine) else value


def _as_task(coroutine: Coroutine[Any, Any, Any], name: str, loop: AbstractEventLoop) -> SmartFuture[Any]:
    """A future of the coroutine, which runs on a loop that may be another thread's."""
    coroutine.__qualname__ = name
    future: SmartFuture[Any] = SmartFuture(None, loop)

    def start() -> None:
        future._source = Job(coroutine, future)

    at_home(loop, start)
    return future
