"""Items of a map that travel together: how many, and what becomes of each.

Only a process pool takes chunks, and only of plain functions, without ``timeout``, ``retry``
or ``limit``, which are promises to single items. Whatever else holds for items (their errors,
blame, order, progress) holds in a chunk as well: a chunk that ends early gives back the
items that have not begun, and they are sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._child.page import NOTES
from .._futures.smart import SmartFuture
from .._model.call import Call
from .._model.errors import PicklingError, WorkerLostError
from .mapoptions import CARRY

if TYPE_CHECKING:
    from .flow import Flow
    from .mapoptions import MapOptions

__all__ = ["Chunk", "Chunker", "chunker", "map_target"]

CHUNK_SECONDS = 0.002
"""So long a chunk takes, by what the last items took, unless its executor knows better."""
FASTER = 0.3
"""What one measurement counts when items become quicker; when they become slower, it counts at once."""
SHARES = 4
"""No chunk is larger than this part of a worker's share of what is left, so that all workers end together."""


class Chunker:
    """Decides how many items the next chunk has, and sends it.

    Args:
        flow: The map.
        submit: Sends a chunk: (items, what to call when some are given back) to the future of its end.
        workers: How many workers share the items.
        fixed: The number of items that the user asked for, or ``None`` to decide by what they take.
        seconds: So much work is in a chunk, by what the last items took.
    """

    def __init__(
        self,
        flow: Flow,
        submit: Callable[[tuple[Any, ...], Callable[[int], None]], SmartFuture[Any]],
        workers: int,
        fixed: int | None,
        seconds: float,
    ) -> None:
        self._flow = flow
        self._submit = submit
        self._workers = workers
        self._fixed = min(fixed, NOTES) if fixed is not None else None
        self._budget = seconds
        self._seconds: float | None = None

    def learn(self, seconds: float, items: int) -> None:
        """So many items took so long."""
        each = seconds / items
        if self._seconds is None or each > self._seconds:
            self._seconds = each
        else:
            self._seconds += FASTER * (each - self._seconds)

    def size(self) -> int:
        """How many items the next chunk has; 1 while nothing is known of them."""
        if self._fixed is not None:
            return self._fixed
        if self._seconds is None:
            return 1
        size = min(NOTES, int(self._budget / max(self._seconds, 1e-7)))
        left = self._flow.left()
        if left is not None:
            size = min(size, -(-left // (SHARES * self._workers)))
        return max(1, size)

    def send(self, start: int, items: tuple[Any, ...]) -> Chunk | None:
        """Send a chunk; ``None`` when an item among them cannot travel, which single calls will tell."""
        chunk = Chunk(self._flow, self, start, items)
        try:
            chunk.future = self._submit(items, chunk.give_back)
        except PicklingError:
            return None
        return chunk


class Chunk:
    """Some items in flight as one call; it watches the call's future."""

    __slots__ = ("_chunker", "count", "flow", "future", "index", "items")

    future: SmartFuture[Any]

    def __init__(self, flow: Flow, chunker: Chunker, index: int, items: tuple[Any, ...]) -> None:
        self.flow = flow
        self._chunker = chunker
        self.index = index
        self.items = items
        self.count = len(items)

    def __call__(self, _: SmartFuture[Any]) -> None:
        if isinstance(call := self.future._source, Call):
            call.give_back = None  # it refers to this chunk: both, and the items, would wait for the garbage collector
        self.flow.on_ended(self)

    def give_back(self, start: int) -> None:
        """The worker is stuck in an item: those from ``start`` on run elsewhere."""
        if start < self.count:
            rest, self.count = self.items[start : self.count], start
            self.flow.again(self.index + start, rest)

    def is_waiting(self) -> bool:
        """Whether it has certainly not begun."""
        source = self.future._source
        return isinstance(source, Call) and source.owner._is_waiting(source)

    def land(self, unwanted: bool) -> None:
        """Tell the flow how the items ended; asking for the exception says that it was seen."""
        error = self.future.exception()
        if unwanted:
            return
        if error is None:
            self._ended(*self.future.result())
        elif isinstance(error, WorkerLostError):
            self._lost(error)
        elif isinstance(error, PicklingError):
            self.flow.one_by_one(self.index, self.items[: self.count])
        else:
            for offset, item in enumerate(self.items[: self.count]):
                self.flow.failed(self.index + offset, item, error, self.future)

    def _lost(self, error: WorkerLostError) -> None:
        """The worker died in one item; what came before has ended, what comes after has not begun.

        Unless nobody knows in which item: then each of them may be the one.
        """
        if error.ended is None:
            for offset, item in enumerate(self.items[: self.count]):
                self.flow.lost(self.index + offset, item, error, self.future)
            return
        values, failures = error.ended
        ended = min(len(values), self.count)
        self._tell(values[: self.count], failures)
        if ended < self.count:
            self.flow.lost(self.index + ended, self.items[ended], error, self.future)
            self.flow.again(self.index + ended + 1, self.items[ended + 1 : self.count])

    def _ended(self, values: Sequence[Any], failures: dict[int, BaseException]) -> None:
        source = self.future._source
        if isinstance(source, Call) and source.duration is not None and values:
            self._chunker.learn(source.duration, len(values))
        self._tell(values[: self.count], failures)
        if len(values) < self.count:
            self.flow.again(self.index + len(values), self.items[len(values) : self.count])

    def _tell(self, values: Sequence[Any], failures: dict[int, BaseException]) -> None:
        if not failures:
            self.flow.all_succeeded(self, values)
            return
        for offset, value in enumerate(values):
            index, item = self.index + offset, self.items[offset]
            if offset in failures:
                self.flow.failed(index, item, failures[offset], self.future, len(values))
            else:
                self.flow.one_succeeded(index, item, value, self.future, len(values))


def map_target(pool: Any, fn: Callable[..., Any], options: MapOptions) -> Any:
    """What a process pool sends instead of the function, so that constants travel once; ``None`` elsewhere."""
    return pool._map_target(fn, *options.form()) if hasattr(pool, "_map_target") else None


def chunker(flow: Flow, pool: Any, target: Any, fn: Callable[..., Any], options: MapOptions) -> Chunker | None:
    """What sends the items of a map in chunks, or ``None`` when they travel alone."""
    calls = options.call_options()
    if target is None or options.chunksize == 1 or not pool._takes_chunks(fn):
        return None
    if calls.timeout is not None or calls.retry is not None or calls.limit is not None:
        return None
    if calls.idempotent and getattr(pool, "backups", None) is not None:
        return None  # so that each item may have copies
    # A chunk is never begun again as a whole: of its items, only the one to blame may be.
    calls = replace(calls, idempotent=False)
    stop = options.errors not in {"return", CARRY}

    def submit(items: tuple[Any, ...], give_back: Callable[[int], None]) -> SmartFuture[Any]:
        future: SmartFuture[Any] = pool._submit_chunk(
            target, fn, items, calls, stop_at_failure=stop, give_back=give_back
        )
        return future

    fixed = None if options.chunksize == "auto" else int(options.chunksize)
    return Chunker(flow, submit, pool._capacity(), fixed, getattr(pool, "_chunk_seconds", CHUNK_SECONDS))
