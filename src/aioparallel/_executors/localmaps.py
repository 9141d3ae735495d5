"""Maps on executors whose calls run in this process: short items share a call, each still on its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ClassVar

from .._child import chunks
from .._futures.smart import SmartFuture
from .._model.call import Call, function_name
from .._model.options import CallOptions
from .._model.shapes import Shape, shape_of
from .._policy.batching import Costs
from .._workers.batches import Batch, Ended
from .local import LocalExecutor
from .pool import Run

__all__ = ["MappingExecutor"]

LOOK_SECONDS = 0.005
"""A chunk of a map that takes longer is divided if somebody has nothing to do."""
LONGEST = 0.05
"""One that takes so long, in any case."""


class MapTarget:
    """The function of a map with all that its calls have in common.

    Attributes:
        fn: A function of one item.
        costs: What its calls take.
    """

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn
        self.costs = Costs()

    def close(self) -> None:
        """Nothing is kept anywhere for its sake."""


class MappingExecutor(LocalExecutor):
    """A local executor whose members take several short items of a map at a time."""

    _batch: ClassVar[type[Batch]]
    _shape: ClassVar[Shape]

    def __init__(self, size: int, *, name: str | None, max_pending: float, grace: float) -> None:
        super().__init__(size, name=name, max_pending=max_pending, grace=grace)
        self._chunks: dict[Call, None] = {}
        """Those under way, as far as there is something in them that could go to others."""
        self._looking = False

    async def _open(self, run: Run) -> None:
        self._chunks.clear()
        self._looking = False
        await super()._open(run)

    def _map_target(
        self, fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> MapTarget:
        bound = chunks.bind(fn, star, kwstar, args, kwargs)
        if bound is not fn:
            bound.__qualname__ = function_name(fn)
        return MapTarget(bound)

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        return shape_of(fn) is self._shape

    def _chunk(
        self,
        target: MapTarget,
        fn: Callable[..., Any],
        items: tuple[Any, ...],
        options: CallOptions,
        stop_at_failure: bool,
    ) -> Call:
        call = Call(self, self._batch(target.fn, function_name(fn), items, stop_at_failure), (), {}, options)
        call.context = copy_context()
        return call

    def _send_chunk(self, run: Run, call: Call) -> None:
        future: SmartFuture[Ended] = call.future
        future._watch(lambda _: self._chunk_ended(run, call, future))
        self._chunks[call] = None
        super()._send_chunk(run, call)
        self._look_later(run)

    def _chunk_ended(self, run: Run, call: Call, future: SmartFuture[Ended]) -> None:
        self._chunks.pop(call, None)
        if future._succeeded():
            values, failures = future.result()
            counts = run.ledger.counts  # which has one for the chunk as a whole
            counts.done += len(values) - len(failures) - 1
            counts.failed += len(failures)

    def _look_later(self, run: Run) -> None:
        if self._chunks and not self._looking:
            self._looking = True
            run.loop.call_later(LOOK_SECONDS, self._look, run)

    def _look(self, run: Run) -> None:
        """Where a chunk turns out to be long, let the items in it that have not begun go to others."""
        self._looking = False
        now = time.time()
        for call in list(self._chunks):
            age = now - call.begun_at if call.begun_at is not None else 0
            is_long = age > LONGEST or (age > LOOK_SECONDS and run.ledger.running < self._capacity())
            if is_long and call.give_back is not None:
                self._chunks.pop(call, None)
                batch: Batch = call.fn  # type: ignore[assignment]
                call.give_back(batch.take_rest())
        self._look_later(run)
