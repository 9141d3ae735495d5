"""ProcessExecutor: calls run in processes of their own, without a ``__main__`` guard."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._child import wire
from .._child.page import MAX_THREADS
from .._futures.smart import SmartFuture
from .._model.call import Call, function_name
from .._model.errors import WorkerStartError
from .._model.options import CallOptions
from .._model.shapes import Shape, shape_of
from .._policy.ledger import Halt, Ledger, Place, Retire, Seat, Spawn
from .._workers.cpus import available_cpus
from .._workers.shipping import Function, Functions, pack_arguments
from .pool import Executor, Run
from .resident import Resident, default_setup
from .single import Single
from .stream import Step, Stream

__all__ = ["ProcessExecutor"]

_log = logging.getLogger("aioparallel")

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

Environment = Mapping[str, str] | Callable[[int], Mapping[str, str]]


class ProcessExecutor(Executor):
    """Runs calls in worker processes that stay, and are replaced when they die.

    Functions may be lambdas, closures, defined in ``__main__`` or in a notebook. Workers are
    never forked from this process and never run your script's top level.

    Args:
        max_workers: How many processes; ``None`` means the CPUs this process may use.
        engine: ``"resident"``, ``"anyio"`` (each call is one ``anyio.to_process.run_sync``), or
            ``None`` for the best one here.
        threads_per_worker: How many calls each worker runs at a time, in threads.
        initializer: Called once in each worker before its first call.
        env: Environment variables for the workers, or a function of the worker's index that
            returns them. They are set before anything is imported.
        preload: Names of modules that each worker imports before its first call.
        min_workers: Start so many workers (at least one), the others when calls wait for one, and end those
            that have nothing to do. ``None``: all of them are started at once, and stay.
        idle_timeout: Seconds without a call after which a worker beyond ``min_workers`` ends.
        max_tasks_per_worker: Replace a worker after so many calls.
        max_rss_per_worker: Replace a worker, between calls, when its memory is larger (bytes); a call that
            makes it twice as large is killed (on Linux).
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.
        name: Seen in errors, logs and :meth:`status`.
        max_pending: How many calls may wait for a worker.

    Example:
        ::

            async with ProcessExecutor(max_workers=4) as pool:
                print(await pool.submit(pow, 2, 100))
    """

    kind = "process"

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        engine: str | None = None,
        threads_per_worker: int = 1,
        initializer: Callable[[], object] | None = None,
        env: Environment | None = None,
        preload: Sequence[str] = (),
        min_workers: int | None = None,
        idle_timeout: float = 60.0,
        max_tasks_per_worker: int | None = None,
        max_rss_per_worker: int | None = None,
        grace: float = 5.0,
        name: str | None = None,
        max_pending: float = math.inf,
    ) -> None:
        super().__init__(name=name, max_pending=max_pending, grace=grace)
        self.max_workers = available_cpus() if max_workers is None else max_workers
        self.engine = "anyio" if engine is None and sys.platform == "win32" else engine
        self.threads_per_worker = threads_per_worker
        self.initializer = initializer
        self.env = env
        self.preload = tuple(preload)
        self.min_workers = min_workers
        self.idle_timeout = idle_timeout
        self.max_tasks_per_worker = max_tasks_per_worker
        self.max_rss_per_worker = max_rss_per_worker
        self._functions = Functions()
        self._workers: Resident | Single | None = None
        self._check()

    def _check(self) -> None:
        if self.engine not in (None, "resident", "anyio"):
            raise ValueError(f"engine={self.engine!r}: expected 'resident', 'anyio', or None for the best one here")
        for option in ("max_workers", "threads_per_worker"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{option}={value!r}: expected a whole number of at least 1")
        if self.threads_per_worker > MAX_THREADS:
            raise ValueError(f"threads_per_worker={self.threads_per_worker}: at most {MAX_THREADS}")
        if self.min_workers is not None and not 0 <= self.min_workers <= self.max_workers:
            raise ValueError(f"min_workers={self.min_workers!r}: expected a number from 0 to max_workers, or None")
        if not self.idle_timeout > 0:
            raise ValueError(f"idle_timeout={self.idle_timeout!r}: expected seconds, more than 0")
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError(f"initializer={self.initializer!r}: expected a function of no arguments")
        unsupported = self.threads_per_worker > 1 or self.max_tasks_per_worker or self.max_rss_per_worker
        if self.engine == "anyio" and unsupported:
            raise ValueError(
                "engine='anyio' has no workers of its own, so it cannot do threads_per_worker, max_tasks_per_worker "
                "or max_rss_per_worker: leave them out, or use engine='resident'"
            )

    def _new_ledger(self) -> Ledger:
        return Ledger(max_tasks=self.max_tasks_per_worker, vacant=self._seats()[self.first_workers :])

    @property
    def first_workers(self) -> int:
        """How many workers are started when the pool opens."""
        return self.max_workers if self.min_workers is None else max(1, self.min_workers)

    def _seats(self) -> list[Seat]:
        return [Seat(index, width=self.threads_per_worker, spare=None) for index in range(self.max_workers)]

    async def _open(self, run: Run) -> None:
        if self.engine != "anyio":
            self._workers = Resident(self, run)
            try:
                await self._workers.start()
            except WorkerStartError as error:
                await self._workers.close()
                self._workers = None
                if self.engine is not None:
                    raise
                _log.warning("%s: every call gets a process by anyio.to_process instead: %s", self.name, error)
        if self._workers is None:
            self._workers = Single(self, run)
        await self._workers.populate()

    async def _close(self, run: Run) -> None:
        if self._workers is not None:
            await self._workers.close()
            self._workers = None

    def _prepare(self, call: Call) -> None:
        function = call.function
        if function is None:
            function = call.function = self._functions.get(call.fn)
        call.payload = pack_arguments(call.args, call.kwargs, function.name)

    def _stream(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream[Any]:
        if self.engine == "anyio":
            raise TypeError(
                f"{function_name(fn)} is a generator function: with engine='anyio' nothing stays in a worker between "
                "two items. Use engine='resident', or collect the items in a list and return that"
            )
        return Stream(WorkerSteps(self, fn, args, kwargs, options), function_name(fn))

    def _map_target(
        self, fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Function | None:
        """A function of one item, which holds all that the calls of a map have in common; sent once per worker."""
        if self.engine == "anyio":
            return None
        return self._functions.for_map(fn, star, kwstar, args, kwargs, self._folder)

    @property
    def _folder(self) -> str | None:
        """Where files may be put that workers are to map: in memory if possible; it goes with the pool."""
        return self._workers.folder if isinstance(self._workers, Resident) else None

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        """Whether items of a map of this function may travel together."""
        return self.engine != "anyio" and self.threads_per_worker == 1 and shape_of(fn) is Shape.PLAIN

    def _submit_chunk(
        self,
        target: Function,
        fn: Callable[..., Any],
        items: tuple[Any, ...],
        options: CallOptions,
        *,
        stop_at_failure: bool,
        give_back: Callable[[int], None],
    ) -> SmartFuture[Any]:
        """Hand over a chunk of a map, on the loop's thread.

        Returns:
            The future of (values, failures by index), for as many of the items as have ended; the others did
            not begin. If it fails with a :exc:`WorkerLostError`, ``error.ended`` is the same for the items before the
            one that ran.
        """
        run = self._run
        if run is None or run.closing:
            raise self._closed()
        call = Call(self, fn, (), {}, options)
        call.kind = wire.CHUNK_TO_FAILURE if stop_at_failure else wire.CHUNK
        call.function, call.give_back = target, give_back
        call.payload = pack_arguments(items, {}, target.name, out_of_band=False)
        call.future = SmartFuture(call, run.loop)
        self._enqueue(run, call)
        return call.future

    def _place(self, run: Run, step: Place) -> None:
        assert self._workers is not None, "workers are opened before calls are placed"
        self._workers.place(step)

    def _halt(self, run: Run, step: Halt) -> None:
        assert self._workers is not None, "workers hold the call"
        self._workers.halt(step)

    def _spawn(self, run: Run, step: Spawn) -> None:
        assert self._workers is not None, "workers are opened before the ledger wants some"
        self._workers.spawn(step)

    def _retire(self, run: Run, step: Retire) -> None:
        assert self._workers is not None, "workers are opened before one retires"
        self._workers.retire(step)

    def _began(self, call: Call) -> float | None:
        return None if self._workers is None else self._workers.began(call)

    def _setup(self) -> dict[str, Any]:
        """What each worker is told before its first call."""
        return {
            **default_setup(),
            "preload": self.preload,
            "threads": self.threads_per_worker,
            "max_memory": self.max_rss_per_worker,
            "initializer": self._packed_initializer(),
        }

    def _packed_initializer(self) -> bytes | None:
        return None if self.initializer is None else self._functions.get(self.initializer).packed

    def _environment(self, index: int) -> dict[str, str]:
        """The environment of one worker, on top of this process's own."""
        share = max(1, available_cpus() // self.max_workers)
        env = {name: str(share) for name in BLAS_VARIABLES if name not in os.environ}
        chosen = self.env(index) if callable(self.env) else self.env
        return {**env, **(chosen or {})}


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

    def _again(self, verb: int) -> SmartFuture[Any]:
        assert self._opened is not None, "it was begun"
        opened = self._opened._source
        assert isinstance(opened, Call), "the pool made that future"
        return self._pool._submit(self._fn, (self._opened.id,), {}, self._options, verb=verb, pin=opened.worker)
