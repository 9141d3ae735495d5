"""Streams: generator functions on an executor, advanced step by step.

A step is an ordinary call that makes items for a few milliseconds and returns them. The
next step is submitted when the consumer has used them up, so a stream whose consumer is
slow holds no slot, and whatever is true of calls (order, cancellation, blame) is true of
steps.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from .._child.streams import STEP_ITEMS, STEP_SECONDS
from .._futures.smart import SmartFuture
from .._model.call import function_name

__all__ = ["LocalSteps", "Stepper", "Stream"]

T = TypeVar("T")
Step = tuple[list[Any], bool, BaseException | None]
"""Items, whether the stream has ended, and what it raised."""


class Stepper(Protocol):
    """Where a generator lives, and how it is advanced there."""

    def advance(self) -> SmartFuture[Step]:
        """Make some items; the first time, begin."""
        ...

    def close(self) -> SmartFuture[Any] | None:
        """Close the generator, if it was begun and has not ended."""
        ...


class Stream(Generic[T]):
    """The items that a generator makes on an executor: ``async for item in f(...)``.

    Nothing happens before the first item is asked for. Items are made only as the consumer takes
    them, a few milliseconds' worth at a time.

    Cancellation:
        Cancelling who waits for an item stops the generator, as cancelling who awaits a
        call stops the call.

    What may still be running:
        Nothing once the stream has ended, was left by ``async with``, or ``aclose`` returned. A stream that
        is dropped half-way is closed soon.
    """

    def __init__(self, stepper: Stepper, name: str) -> None:
        self.name = name
        self._core = _Core(stepper)
        self._finalizer = weakref.finalize(self, self._core.abandon, asyncio.get_running_loop())
        self._finalizer.atexit = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._core.next()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Close the generator where it lives, and wait until it has closed."""
        self._finalizer.detach()
        closing = self._core.close()
        if closing is not None:
            await closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Stream {self.name} {'ended' if self._core.ended else 'open'}>"


class _Core:
    """What a stream is made of, apart from the object that the consumer holds and may drop."""

    def __init__(self, stepper: Stepper) -> None:
        self.ended = False
        self._stepper = stepper
        self._items: deque[Any] = deque()
        self._error: BaseException | None = None
        self._busy = False

    async def next(self) -> Any:
        while not self._items:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self.ended:
                raise StopAsyncIteration
            await self._step()
        return self._items.popleft()

    async def _step(self) -> None:
        if self._busy:
            raise RuntimeError("two consumers ask the same stream for its next item; give each a stream of its own")
        self._busy = True
        ended = True
        try:
            items, ended, self._error = await self._stepper.advance()
            self._items.extend(items)
        finally:
            self._busy = False
            self.ended = self.ended or ended

    def close(self) -> SmartFuture[Any] | None:
        """Close the generator unless it has ended."""
        if self.ended:
            return None
        self.ended = True
        self._items.clear()
        return self._stepper.close()

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """The consumer dropped the stream."""
        if not self.ended and not loop.is_closed():
            loop.call_soon_threadsafe(self.close)


class LocalSteps:
    """A generator in this process, advanced on an executor's threads or as its coroutines.

    Args:
        submit: Hands a function to the executor.
        fn: The generator function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    def __init__(
        self,
        submit: Callable[[Callable[[], Any]], SmartFuture[Any]],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._submit = submit
        self._call = (fn, args, kwargs)
        self._context = copy_context()
        self._generator: Any = None

    def advance(self) -> SmartFuture[Step]:
        """Make some items; the first time, begin."""
        fn, args, kwargs = self._call
        if self._generator is None:
            self._generator = fn(*args, **kwargs)
        return self._submit(self._named(_advance_async if inspect.isasyncgen(self._generator) else self._advance))

    def close(self) -> SmartFuture[Any] | None:
        """Close the generator, if it was begun."""
        if self._generator is None:
            return None
        if inspect.isasyncgen(self._generator):
            return self._submit(self._named(_close_async))
        return self._submit(self._named(lambda generator: self._context.run(generator.close)))

    def _advance(self, generator: Any) -> Step:
        """Every step of a plain generator sees the same context, as it would in a plain loop."""
        return self._context.run(_advance, generator)

    def _named(self, step: Callable[[Any], Any]) -> Callable[[], Any]:
        """The step as a function of no arguments, under the generator function's name."""
        generator = self._generator
        if step is _advance_async or step is _close_async:

            async def run() -> Any:
                return await step(generator)
        else:

            def run() -> Any:  # type: ignore[misc]
                return step(generator)

        run.__qualname__ = function_name(self._call[0])
        return run


def _advance(generator: Any) -> Step:
    items: list[Any] = []
    started = monotonic()
    try:
        while len(items) < STEP_ITEMS and (not items or monotonic() - started < STEP_SECONDS):
            items.append(next(generator))
    except StopIteration:
        return items, True, None
    except Exception as error:
        return items, True, error
    return items, False, None


async def _advance_async(generator: Any) -> Step:
    items: list[Any] = []
    started = monotonic()
    try:
        while len(items) < STEP_ITEMS and (not items or monotonic() - started < STEP_SECONDS):
            items.append(await anext(generator))
    except StopAsyncIteration:
        return items, True, None
    except Exception as error:
        return items, True, error
    return items, False, None


async def _close_async(generator: Any) -> None:
    await generator.aclose()
