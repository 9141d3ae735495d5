"""The engine of a map: it pulls items, keeps so many of them running, and collects their results.

A map that has begun is two tasks, jobs of the loop's home. One opens the executor if that is the map's own, waits for
the end, and stops what is left; the other opens, pulls and closes the source, and hands items over as long as the
window has room. However a map ends (input exhausted, failure, cancelled, abandoned), afterwards nothing of it is left
and its results are closed.

The end of an item is noted by its future, and dealt with in the loop's next turn, together with what else has ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from .._futures.loops import soon
from .._futures.smart import SmartFuture, stopped, wrapped
from .._model.call import Call, function_name
from .._model.errors import CallCancelledError, ExecutorClosedError, WorkerLostError
from .._model.info import CallState
from .._model.options import CallOptions
from .._model.outcome import Outcome
from .chunking import Chunk, Chunker, chunker, map_target
from .mapoptions import CARRY
from .progress import Reporter, reporter
from .results import Raised, Results
from .sources import Source, open_source

if TYPE_CHECKING:
    from .mapoptions import MapOptions

__all__ = ["Flow", "Plan", "Runner"]

AHEAD = 2
"""By default, so many times what runs at a time is in flight or ready, unless the executor is far away."""
AHEAD_OF_KEYS = 1000
"""With a limit for each key, so many: the items of a key that must wait should not hide those of others."""
MAX_HELD = 10_000
"""By default, so many results are kept at most because an earlier item has not ended."""
MAX_TAKE = 10_000
"""So many items are pulled at once at most, although the window may have no bounds."""
SHOWN = 80
"""Characters of an item in an exception's note."""


class Runner(Protocol):
    """What a map asks of an executor."""

    def _capacity(self) -> int: ...

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        function: Any = None,
    ) -> SmartFuture[Any]: ...

    async def _submit_wait(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        function: Any = None,
    ) -> SmartFuture[Any]: ...


@dataclass(frozen=True)
class Plan:
    """A map before it begins.

    Attributes:
        fn: What is called for each item.
        items: The input.
        options: How.
        executor: Makes the context in which there is an executor to run on.
        total: How many items there are, if that is known.
    """

    fn: Callable[..., Any]
    items: Iterable[Any]
    options: MapOptions
    executor: Callable[[], AbstractAsyncContextManager[Runner]]
    total: int | None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.options.name or function_name(self.fn)


class Flow:
    """One map that will run, runs, or did.

    It does not know the object that the consumer holds, so that the consumer can drop that.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.results = Results(plan.options.ordered)
        self.error: BaseException | None = None
        self.pulled = 0
        self.hungry = False
        """Whether intake waits for room in the window."""
        self._form = plan.options.form()
        self._call_options = plan.options.call_options()
        self._ahead = 1
        self._most_flying = math.inf
        """So many calls are in flight at most, where each of them is dear."""
        self._flying: set[_Item | Chunk] = set()
        self._landed: list[_Item | Chunk] = []
        self._pool: Runner | None = None
        self._chunker: Chunker | None = None
        self._target: Any = None
        self._reporter: Reporter | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        self._job: SmartFuture[None] | None = None
        self._feeding: SmartFuture[None] | None = None
        self._room_news = asyncio.Event()
        self._end_news = asyncio.Event()
        self._first_failed: int | None = None
        self._no_more_input = False
        self._prompt = False
        """An error is to be raised as soon as what runs has stopped."""
        self._stopping = False
        self._complete = False

    # Life

    @property
    def begun(self) -> bool:
        """Whether it was started, or closed before that."""
        return self._job is not None or self.results.closed

    def begin(self) -> None:
        """Start, on the running loop."""
        self.loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._job = wrapped(self._run())
        self._job._watch(lambda _: self._end())

    def cancel(self) -> None:
        """End it now: nobody wants more."""
        self.results.drop()
        if self._job is None:
            self.results.close()
        elif not self._job.done():
            self._complete = True  # as far as anybody wanted
            if not self._stopping:  # or it would no longer wait for what it has cancelled already
                self._job.cancel()

    async def _run(self) -> None:
        plan = self.plan
        try:
            self._reporter = reporter(plan.options.progress, plan.name, plan.total)
            async with plan.executor() as pool:
                await self._run_on(pool)
            self._complete = True
        except Exception as error:
            self._blame(error)
        finally:
            if self._reporter is not None:
                self._reporter.close()

    async def _run_on(self, pool: Runner) -> None:
        self._pool = pool
        self._target = map_target(pool, self.plan.fn, self.plan.options)
        self._chunker = chunker(self, pool, self._target, self.plan.fn, self.plan.options)
        self._feeding = wrapped(self._feed(pool))
        self._feeding._watch(self._on_fed)
        try:
            while not self._prompt and (self._flying or not self._feeding.done()):
                self._end_news.clear()
                await self._end_news.wait()
        finally:
            self._close_intake()
            with anyio.CancelScope(shield=True):
                await self._stop()
                await stopped([self._feeding])
            if self._target is not None:
                self._target.close()

    def _end(self) -> None:
        """The task has ended, or the loop was shut down before its first step."""
        if not self._complete:
            self._blame(CallCancelledError("the map was cancelled by the end of its event loop"))
        self.results.close()

    def _blame(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    # Intake

    async def _feed(self, pool: Runner) -> None:
        """Hand items over until there are no more."""
        source = open_source(self.plan.items)
        try:
            while not self._no_more_input:
                items = await source.take(await self._until_room(pool))
                if not items:
                    break
                await self._hand_over(pool, items)
        except (Exception, BaseExceptionGroup) as error:
            self._blame(error)
        finally:
            await self._put_away(source)

    async def _put_away(self, source: Source) -> None:
        try:
            await source.aclose()
        except (Exception, BaseExceptionGroup) as error:
            self._blame(error)

    def _close_intake(self) -> None:
        """Take no more input, and close it."""
        self._no_more_input = True
        if self._feeding is not None:
            self._feeding.cancel()

    def _on_fed(self, feeding: SmartFuture[None]) -> None:
        error = feeding.exception()
        if feeding.cancelled():
            error = None if self._no_more_input else CallCancelledError("the input of the map was cancelled")
        if error is not None:
            self._blame(error)
        self._end_news.set()

    async def _hand_over(self, pool: Runner, items: Sequence[Any]) -> None:
        position = 0
        while position < len(items) and not self._no_more_input:
            size = 1 if self._chunker is None else min(self._chunker.size(), len(items) - position)
            index = self.pulled
            self.pulled += size
            if size > 1:
                self._send_chunk(index, tuple(items[position : position + size]))
            else:
                await self._send(pool, index, items[position])
            position += size

    async def _send(self, pool: Runner, index: int, item: Any) -> None:
        try:
            args, kwargs = self._arguments(item)
            future = await pool._submit_wait(self.plan.fn, args, kwargs, self._options_for(item), function=self._target)
        except ExecutorClosedError:
            raise
        except Exception as error:
            self.failed(index, item, error)
            self._show()
        else:
            self._launch(_Item(self, index, item, future))

    def _arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self._form.arguments(item) if self._target is None else ((item,), {})

    def _launch(self, flying: _Item | Chunk) -> None:
        if flying.future.done():  # it ran here and now, and those behind it need not if it failed
            self._landed.append(flying)
            self._land()
        else:
            self._flying.add(flying)
            flying.future._watch(flying)

    # Chunks

    def _send_chunk(self, index: int, items: tuple[Any, ...]) -> None:
        chunk = None if self._chunker is None else self._chunker.send(index, items)
        if chunk is None:
            self.one_by_one(index, items)
        else:
            self._launch(chunk)

    def again(self, index: int, items: Sequence[Any]) -> None:
        """Send items that were in a chunk, and did not begin there; if anything may begin at all."""
        if not items or self._stopping or self._prompt:
            return
        if self._first_failed is not None:
            self.results.add(index, len(items), ())
        else:
            self._send_chunk(index, tuple(items))

    def one_by_one(self, index: int, items: Sequence[Any]) -> None:
        """Send items alone that cannot travel together, so that each has its own error."""
        assert self._pool is not None, "there were chunks, so there is an executor"
        for offset, item in enumerate(items):
            try:
                args, kwargs = self._arguments(item)
                future = self._pool._submit(self.plan.fn, args, kwargs, self._options_for(item), function=self._target)
            except Exception as error:
                self.failed(index + offset, item, error)
            else:
                self._launch(_Item(self, index + offset, item, future))

    def lost(self, index: int, item: Any, error: WorkerLostError, future: SmartFuture[Any]) -> None:
        """The worker of a chunk died in this item."""
        if self._call_options.idempotent and not self._stopping:
            self.one_by_one(index, (item,))
        else:
            self.failed(index, item, error, future)

    def left(self) -> int | None:
        """How many items have not been pulled, if that is known."""
        return None if self.plan.total is None else max(0, self.plan.total - self.pulled)

    def _options_for(self, item: Any) -> CallOptions:
        options = self._call_options
        return options if options.limit is None else replace(options, limit=options.limit.for_item(item))

    async def _until_room(self, pool: Runner) -> int:
        keyed = getattr(self._call_options.limit, "key", None) is not None
        chunk = 1 if self._chunker is None else self._chunker.size()
        capacity, calls = pool._capacity(), getattr(pool, "ahead", None)
        self._ahead = max(AHEAD * capacity * chunk, (calls or 1) * capacity, AHEAD_OF_KEYS if keyed else 1)
        self._most_flying = math.inf if calls is None else calls * capacity
        while (room := self.room()) < 1:
            self.hungry = True
            self._room_news.clear()
            await self._room_news.wait()
        self.hungry = False
        return room

    def room(self) -> int:
        """How many items may be pulled now."""
        if len(self._flying) >= self._most_flying:
            return 0
        results = self.results
        outstanding = self.pulled - results.passed
        prefetch = self.plan.options.prefetch
        if prefetch is not None:
            return int(min(prefetch - outstanding, MAX_TAKE))
        held = results.held if results.keeping else min(results.held, MAX_HELD)
        return self._ahead - outstanding + held

    def nudge(self) -> None:
        """Something changed: go on where that makes a difference."""
        if self.hungry and self.room() > 0:
            self._room_news.set()
        if not self._flying or self._prompt:
            self._end_news.set()

    # Ends

    def on_ended(self, item: _Item | Chunk) -> None:
        """The future of an item or a chunk was settled."""
        if not self._landed:
            soon(self.loop, self._context, self._land)
        self._landed.append(item)

    def _land(self) -> None:
        landed, self._landed = self._landed, []
        landed.sort(key=_is_bad)
        try:
            for item in landed:
                self._flying.discard(item)
                item.land(self._stopping)
        except Exception as error:  # of a progress callable
            self._blame(error)
            self._stop_early()
        self._show()

    def learned(self, future: SmartFuture[Any]) -> None:
        """What a single item took says how many the next chunk may have."""
        source = future._source
        if self._chunker is not None and isinstance(source, Call) and source.duration is not None:
            self._chunker.learn(source.duration, 1)

    def _show(self) -> None:
        self.results.notify()
        self.nudge()

    def one_succeeded(self, index: int, item: Any, value: Any, future: SmartFuture[Any], shared: int = 1) -> None:
        """An item has its value; so many items shared the call behind the future."""
        if self.plan.options.errors == "return":
            value = Outcome(index, item, value, None, *_where(future, shared))
        self.results.add(index, 1, (value,))
        self._count(0)

    def all_succeeded(self, chunk: Chunk, values: Sequence[Any]) -> None:
        """The items of a chunk, from its first on, have these values."""
        if self.plan.options.errors == "return":
            for offset, value in enumerate(values):
                self.one_succeeded(chunk.index + offset, chunk.items[offset], value, chunk.future, len(values))
        elif values:
            self.results.add(chunk.index, len(values), values)
            self._count(0, len(values))

    def failed(
        self, index: int, item: Any, error: BaseException, future: SmartFuture[Any] | None = None, shared: int = 1
    ) -> None:
        """An item has failed; so many items shared the call behind the future."""
        _describe(error, index, item)
        errors = self.plan.options.errors
        if errors == "return":
            worker, duration = (None, None) if future is None else _where(future, shared)
            self.results.add(index, 1, (Outcome(index, item, None, error, worker, duration),))
        elif errors == CARRY:
            self.results.add(index, 1, (Raised(error),))
        elif errors == "finish":
            self.results.add(index, 1, ())
            self._finish_early(index, error)
        else:
            self._blame(error)
            self._stop_early()
        self._count(1)

    def _count(self, failed: int, items: int = 1) -> None:
        if self._reporter is not None:
            self._reporter.count(items, failed)

    def _stop_early(self) -> None:
        """Cancel what is left, and raise."""
        self._prompt = True
        self.results.seal()
        self._close_intake()

    def _finish_early(self, index: int, error: BaseException) -> None:
        """Let what runs end, and then raise: of several failures the one of the earliest item."""
        if self._first_failed is None or index < self._first_failed:
            self._first_failed, self.error = index, error
        self._close_intake()
        for item in [item for item in self._flying if item.is_waiting()]:
            self._flying.discard(item)
            item.future._unwatch(item)
            item.future.cancel()
            self.results.add(item.index, item.count, ())

    async def _stop(self) -> None:
        """Cancel whatever is in flight, and wait until it has stopped."""
        self._stopping = True
        futures = [item.future for item in self._flying]
        for future in futures:
            future.cancel()
        await stopped(futures)


class _Item:
    """One item in flight; it watches its call's future."""

    __slots__ = ("flow", "future", "index", "item")

    count = 1

    def __init__(self, flow: Flow, index: int, item: Any, future: SmartFuture[Any]) -> None:
        self.flow = flow
        self.index = index
        self.item = item
        self.future = future

    def __call__(self, _: SmartFuture[Any]) -> None:
        self.flow.on_ended(self)

    def land(self, unwanted: bool) -> None:
        """Tell the flow how it ended; asking for the exception says that it was seen."""
        error = self.future.exception()
        if unwanted:
            return
        if error is None:
            self.flow.learned(self.future)
            self.flow.one_succeeded(self.index, self.item, self.future.result(), self.future)
        else:
            self.flow.failed(self.index, self.item, error, self.future)

    def is_waiting(self) -> bool:
        """Whether it has certainly not begun."""
        source = self.future._source
        if isinstance(source, Call):
            return source.owner._is_waiting(source)
        return self.future.info.state in {CallState.WAITING, CallState.QUEUED}


def _is_bad(item: _Item | Chunk) -> bool:
    return not item.future._succeeded()


def _where(future: SmartFuture[Any], shared: int) -> tuple[str | None, float | None]:
    """Who ran an item, and for how long: one of so many that shared a call."""
    source = future._source
    if isinstance(source, Call):
        duration = None if source.duration is None else source.duration / shared
        return None if source.worker is None else str(source.worker), duration
    return future.info.worker, None


def _describe(error: BaseException, index: int, item: Any) -> None:
    """Say of an exception which item it belongs to."""
    try:
        error.seq_index = index  # type: ignore[attr-defined]
        error.add_note(f"item {index} of the map: {_shown(item)}")
    except (AttributeError, TypeError):
        pass  # a class that takes no attributes


def _shown(item: Any) -> str:
    try:
        text = repr(item)
    except Exception as error:
        text = f"<{type(item).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
