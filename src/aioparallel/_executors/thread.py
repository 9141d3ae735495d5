"""ThreadExecutor: calls run in threads of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from types import FunctionType
from typing import Any

from .._child.cpus import available_cpus
from .._futures.smart import SmartFuture
from .._model.call import Call, Phase, function_name
from .._model.checks import checked_count
from .._model.shapes import Shape, shape_of
from .._workers.batches import Batch
from .._workers.threads import Threads
from .local import Foreman, check_callable, group_of
from .localmaps import MappingExecutor
from .pool import Run

__all__ = ["ThreadExecutor"]

_ASYNC = CO_COROUTINE | CO_ASYNC_GENERATOR


class ThreadExecutor(MappingExecutor):
    """Runs calls in threads that stay, and that nobody else uses.

    For functions that wait (files, databases, libraries without ``async``), and for code that releases the
    interpreter lock. Each call sees the contextvars of whoever submitted it. Threads are started when calls need them.

    Args:
        max_workers: How many threads at most; ``None`` means 4 more than the CPUs this process may use, but no more
            than 32, as calls in threads mostly wait.
        name: Seen in errors, logs, :meth:`~Executor.status` and, while they work here, the names of threads.
        max_pending: How many calls may wait for a thread.
        grace: Seconds that closing waits for threads whose calls were cancelled or timed out.
        initializer: Called once in each thread before its first call.
        finalizer: Called once in each thread after its last call.

    Raises:
        ValueError: ``max_workers`` makes no sense.

    Cancellation:
        A thread cannot be stopped. A call that is cancelled, or runs longer than its ``timeout``, ends at once for
        whoever awaits it, and its result is dropped; its function goes on in its thread, which takes no other call
        before it returns. It may look whether that has happened: :func:`aioparallel.check_cancelled`.

    What may still be running:
        Threads whose function has not returned ``grace`` seconds after the executor was closed; a warning in the log
        names them. Python itself waits for them at the end of the program.

    Example:
        ::

            async with ThreadExecutor() as pool:
                text = await pool.submit(Path("notes.txt").read_text)
    """

    kind = "thread"
    _batch = Batch
    _shape = Shape.PLAIN

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
        initializer: Callable[[], object] | None = None,
        finalizer: Callable[[], object] | None = None,
    ) -> None:
        for option, hook in (("initializer", initializer), ("finalizer", finalizer)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{option}={hook!r}: expected a function of no arguments")
        default = min(32, available_cpus() + 4)
        self.max_workers = default if max_workers is None else checked_count("max_workers", max_workers)
        self.initializer = initializer
        self.finalizer = finalizer
        self._foremen: list[Foreman] = []
        """Of this run, and of earlier ones whose threads have not ended."""
        super().__init__(self.max_workers, name=name, max_pending=max_pending, grace=grace)

    def _check(self, fn: Any) -> None:
        if type(fn) is FunctionType and not fn.__code__.co_flags & _ASYNC:
            return  # most are; shape_of would say the same, but takes longer
        check_callable(fn)
        if shape_of(fn).is_async:
            raise TypeError(
                f"{function_name(fn)} is an `async def`, which a thread cannot run: `await` it, "
                "or submit it to a CoroutineExecutor"
            )

    async def _open(self, run: Run) -> None:
        await super()._open(run)
        assert self._foreman is not None, "it has just been made"
        self._foremen = [*(each for each in self._foremen if each.abandoned), self._foreman]

    async def _close(self, run: Run) -> None:
        await super()._close(run)
        self._foremen = [each for each in self._foremen if each.abandoned]  # the others refer to an old loop

    @property
    def _abandoned(self) -> int:
        return sum(foreman.abandoned for foreman in tuple(self._foremen))

    def _recall(self, future: SmartFuture[Any]) -> bool:
        call = future._source
        if isinstance(call, Call) and call.phase is Phase.PLACED and self._foreman is not None:
            return self._foreman.withdraw(call)
        return super()._recall(future)

    def _crew(self, run: Run, foreman: Foreman) -> Threads:
        report, broken = foreman.ended, foreman.broken
        hooks = self.initializer, self.finalizer
        return Threads(self.kind, self.name, self.max_workers, group_of(run), report, broken, *hooks)
