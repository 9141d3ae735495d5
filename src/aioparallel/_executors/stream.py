"""Streams: generator functions on an executor, advanced step by step.

A step is an ordinary call that makes items for a few milliseconds and returns them. The
next step is submitted when the consumer has used them up, so a stream whose consumer is
slow holds no slot, and whatever is true of calls (order, cancellation, blame) is true of
steps.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from .._child.current import Current, current
from .._child.streams import STEP_ITEMS, STEP_SECONDS
from .._futures.smart import SmartFuture
from .._model.call import function_name
from .._model.errors import ExecutorClosedError
from .._model.shapes import Shape, shape_of
from .._model.slots import Slot, occupied, take

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

    def interrupted(self, step: SmartFuture[Step]) -> None:
        """A step was cancelled, or failed as a whole: close what may be left of the generator."""
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
        is dropped half-way is closed soon. A generator in a thread cannot be stopped while it makes an item: if it
        was cancelled there, it is closed when it yields.

    Example:
        ::

            @parallelize(method="process")
            def rows(path: str) -> Iterator[Row]: ...

            async with rows("large.csv") as stream:
                async for row in stream:
                    ...
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

    async def _some(self) -> list[T]:
        """What a step has made, or is left of one; none at the end."""
        return await self._core.some()

    async def aclose(self) -> None:
        """Close the generator where it lives, and wait until it has closed.

        Raises:
            Exception: What closing it raised.

        Cancellation:
            Stops the generator's clean-up as it would stop a call.

        What may still be running:
            A step in a thread, if one was cancelled there: it closes the generator when that yields.
        """
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

    async def some(self) -> list[Any]:
        try:
            items = [await self.next(), *self._items]
        except StopAsyncIteration:
            return []
        self._items.clear()
        return items

    async def _step(self) -> None:
        if self._busy:
            raise RuntimeError("two consumers ask the same stream for its next item; give each a stream of its own")
        self._busy = True
        ended = True
        step = self._stepper.advance()
        try:
            items, ended, self._error = await step
            self._items.extend(items)
        except BaseException:
            self._stepper.interrupted(step)
            raise
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
        submit: Hands a function and its arguments to the executor.
        fn: The generator function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    def __init__(
        self,
        submit: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], SmartFuture[Any]],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._submit = submit
        self._fn = fn
        self._arguments = args, kwargs
        self._is_async = shape_of(fn) is Shape.ASYNC_GENERATOR
        self._context = copy_context()
        self._generator: Any = None
        self._lock = threading.Lock()
        self._stepping = False
        """Whether a step is in the generator, which nobody else may touch then."""
        self._unwanted = False
        """Whether no step may begin any more, and one that is in the generator closes it."""

    def advance(self) -> SmartFuture[Step]:
        """Make some items; the first time, begin."""
        args, kwargs = self._arguments if self._generator is None else ((), {})
        step = self._advance_async if self._is_async else self._advance
        return self._submit(self._named(step), args, kwargs)

    def close(self) -> SmartFuture[Any] | None:
        """Close the generator, if it was begun; a step that is in it does that itself."""
        with self._lock:
            self._unwanted = True
            if self._stepping:
                return None
            generator, self._generator = self._generator, None
        if _has_ended(generator):
            return None
        close = generator.aclose if self._is_async else partial(self._context.run, generator.close)
        try:
            return self._submit(self._named(close), (), {})
        except ExecutorClosedError:
            return None  # and the generator, which nobody refers to any more, closes itself

    def interrupted(self, step: SmartFuture[Step]) -> None:
        """A thread cannot be stopped, so a step may be in the generator although it was cancelled."""
        self.close()

    def _advance(self, /, *args: Any, **kwargs: Any) -> Step:
        """Every step of a plain generator sees the same context, as it would in a plain loop."""
        if not self._enter(args, kwargs):
            return [], True, None
        try:
            self._context.run(_enter_as, current.get(), occupied())
            return self._context.run(_advance, self._generator)
        finally:
            if self._leave():
                self._context.run(self._generator.close)

    async def _advance_async(self, /, *args: Any, **kwargs: Any) -> Step:
        if not self._enter(args, kwargs):
            return [], True, None
        try:
            return await _advance_async(self._generator)
        finally:
            if self._leave():
                await self._generator.aclose()

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Begin a step, the first time with a new generator; ``False`` if none is wanted any more."""
        with self._lock:
            if self._unwanted:
                return False
            if self._generator is None:
                self._generator = self._fn(*args, **kwargs)
            self._stepping = True
        return True

    def _leave(self) -> bool:
        """End a step; ``True`` if the generator is to be closed now."""
        with self._lock:
            self._stepping = False
            return self._unwanted

    def _named(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step under the generator function's name."""

        def run(*args: Any, **kwargs: Any) -> Any:
            return step(*args, **kwargs)

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            return await step(*args, **kwargs)

        run.__qualname__ = run_async.__qualname__ = function_name(self._fn)
        return run_async if self._is_async else run


def _has_ended(generator: Any) -> bool:
    """Whether there is nothing to close: a generator that has come to its end has no frame."""
    return getattr(generator, "gi_frame", None) is None and getattr(generator, "ag_frame", None) is None


def _enter_as(call: Current | None, slot: Slot | None) -> None:
    """In a generator's context: it runs as this call now, and in this slot."""
    current.set(call)
    take(slot)


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
