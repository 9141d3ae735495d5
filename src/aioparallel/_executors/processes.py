"""What executors share whose workers are processes of their own: how calls are packed, mapped and streamed."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._child import wire
from .._child.page import MAX_THREADS
from .._futures.smart import SmartFuture
from .._model.call import Call, function_name
from .._model.checks import checked_count
from .._model.options import CallOptions
from .._model.shapes import Shape, shape_of
from .._policy.steps import Halt, Place, Retire
from .._workers import logs
from .._workers.shipping import HERE, Function, Functions, Reach, pack_arguments
from .environment import Environment, checked_environment, checked_modules
from .pool import Executor, Run
from .stream import Step, Stream

__all__ = ["ProcessPool", "WorkerSteps", "packed_chunk"]


class Hands(Protocol):
    """Who carries out what the ledger says."""

    def place(self, step: Place) -> None:
        """Send calls to a worker."""

    def halt(self, step: Halt) -> None:
        """Take a call back, or stop it."""

    def retire(self, step: Retire) -> None:
        """Let an idle worker end."""

    def began(self, call: Call) -> float | None:
        """When a call that a worker holds began (``time.time``), or ``None`` if it waits there."""


class ProcessPool(Executor):
    """Packs calls for workers that stay; a subclass says which those are."""

    def __init__(
        self,
        reach: Reach = HERE,
        *,
        threads_per_worker: int,
        initializer: Callable[[], object] | None,
        env: Environment | None,
        preload: Sequence[str],
        max_tasks_per_worker: int | None,
        max_rss_per_worker: int | None,
        name: str | None,
        max_pending: float,
        grace: float,
    ) -> None:
        super().__init__(name=name, max_pending=max_pending, grace=grace)
        self.threads_per_worker = checked_count("threads_per_worker", threads_per_worker)
        if threads_per_worker > MAX_THREADS:
            raise ValueError(f"threads_per_worker={threads_per_worker}: at most {MAX_THREADS}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer={initializer!r}: expected a function of no arguments")
        self.initializer = initializer
        self.env = checked_environment(env)
        self.preload = checked_modules(preload)
        self.max_tasks_per_worker = _count_or_none("max_tasks_per_worker", max_tasks_per_worker)
        self.max_rss_per_worker = _count_or_none("max_rss_per_worker", max_rss_per_worker)
        self._reach = reach
        self._functions = Functions(reach)

    def _common_setup(self) -> dict[str, Any]:
        """What each worker is told before its first call, wherever it is."""
        return {
            "argv": list(sys.argv),
            "levels": logs.levels(),
            "preload": self.preload,
            "threads": self.threads_per_worker,
            "max_memory": self.max_rss_per_worker,
            "initializer": self._packed_initializer(),
        }

    def _packed_initializer(self) -> bytes | None:
        return None if self.initializer is None else self._functions.get(self.initializer).packed

    @property
    @abstractmethod
    def _hands(self) -> Hands:
        """Those of the run, while the pool is open."""

    @property
    def _shared_folder(self) -> str | None:
        """Where workers can map what all of them need, if there is such a place."""
        return None

    def _prepare(self, call: Call) -> None:
        function = call.function
        if function is None:
            function = call.function = self._functions.get(call.fn)
        call.payload = pack_arguments(call.args, call.kwargs, function.name, reach=self._reach)

    def _stream(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream[Any]:
        return Stream(WorkerSteps(self, fn, args, kwargs, options), function_name(fn))

    def _map_target(
        self, fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Function | None:
        """A function of one item, which holds all that the calls of a map have in common; sent once per worker."""
        return self._functions.for_map(fn, star, kwstar, args, kwargs, self._shared_folder)

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        """Whether items of a map of this function may travel together."""
        return self.threads_per_worker == 1 and shape_of(fn) is Shape.PLAIN

    def _chunk(
        self,
        target: Function,
        fn: Callable[..., Any],
        items: tuple[Any, ...],
        options: CallOptions,
        stop_at_failure: bool,
    ) -> Call:
        payload = pack_arguments(items, {}, target.name, reach=self._reach)
        return packed_chunk(self, target, fn, payload, options, stop_at_failure)

    def _place(self, run: Run, step: Place) -> None:
        self._hands.place(step)

    def _halt(self, run: Run, step: Halt) -> None:
        self._hands.halt(step)

    def _retire(self, run: Run, step: Retire) -> None:
        self._hands.retire(step)

    def _began(self, call: Call) -> float | None:
        return call.begun_at if self._run is None else self._hands.began(call)


def packed_chunk(
    pool: Executor, target: Function, fn: Callable[..., Any], payload: Any, options: CallOptions, stop_at_failure: bool
) -> Call:
    """The call for a chunk whose items were packed for a worker process."""
    call = Call(pool, fn, (), {}, options)
    call.kind = wire.CHUNK_TO_FAILURE if stop_at_failure else wire.CHUNK
    call.function, call.payload = target, payload
    return call


class WorkerSteps:
    """A generator that lives in one worker; every step after the first goes there."""

    def __init__(
        self,
        pool: Executor,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> None:
        self._pool = pool
        self._fn = fn
        self._arguments = (args, kwargs)
        self._options = options
        self._opened: SmartFuture[Step] | None = None

    def advance(self) -> SmartFuture[Step]:
        """Make some items; the first time, begin, on any worker."""
        if self._opened is None:
            self._opened = self._pool._submit(self._fn, *self._arguments, self._options, verb=wire.STREAM_OPEN)
            return self._opened
        return self._again(wire.STREAM_NEXT)

    def close(self) -> SmartFuture[Any] | None:
        """Close the generator, if it was begun and its worker lives."""
        run = self._pool._run
        if self._opened is None or run is None or run.closing:
            return None
        seat = self._opened._source.worker  # type: ignore[union-attr]
        return self._again(wire.STREAM_CLOSE) if seat in run.ledger.seats else None

    def interrupted(self, step: SmartFuture[Step]) -> None:
        """A step that began took its worker along, or was reported; one that never did left the generator as it was."""
        if step.cancelled() and not step.info.attempts:
            self.close()

    def _again(self, verb: int) -> SmartFuture[Any]:
        assert self._opened is not None, "it was begun"
        opened = self._opened._source
        assert isinstance(opened, Call), "the pool made that future"
        return self._pool._submit(self._fn, (self._opened.id,), {}, self._options, verb=verb, pin=opened.worker)


def _count_or_none(name: str, value: int | None) -> int | None:
    return None if value is None else checked_count(name, value)
