"""ProcessExecutor: calls run in processes of their own, without a ``__main__`` guard."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._child.cpus import available_cpus
from .._model.call import Call, function_name
from .._model.checks import checked_count
from .._model.errors import WorkerStartError
from .._model.options import CallOptions
from .._policy.ledger import Ledger
from .._policy.seats import Seat
from .._policy.steps import Spawn
from .._workers.shipping import Function
from .environment import Environment, blas_limits, variables_of
from .pool import Run
from .processes import ProcessPool
from .resident import Resident
from .stream import Stream

if TYPE_CHECKING:
    from .single import Single

__all__ = ["ProcessExecutor"]

_log = logging.getLogger("aioparallel")


class ProcessExecutor(ProcessPool):
    """Runs calls in worker processes that stay, and are replaced when they die.

    Functions may be lambdas, closures, defined in ``__main__`` or in a notebook. Workers are
    never forked from this process and never run your script's top level.

    Args:
        max_workers: How many processes; ``None`` means the CPUs this process may use.
        engine: ``"resident"``, ``"anyio"`` (each call is one ``anyio.to_process.run_sync``, which runs your script
            again in each process, so that it needs a ``__main__`` guard), or ``None`` for the best one here.
        threads_per_worker: How many calls each worker runs at a time, in threads.
        initializer: Called once in each worker before its first call.
        env: Environment variables for the workers, or a function of the worker's index that
            returns them. They are set before anything is imported; numbers become text.
        preload: Names of modules that each worker imports before its first call.
        min_workers: Start so many workers (at least one), the others when calls wait for one, and end those
            that have nothing to do. ``None``: all of them are started at once, and stay.
        idle_timeout: Seconds without a call after which a worker beyond ``min_workers`` ends.
        max_tasks_per_worker: Replace a worker after so many calls.
        max_rss_per_worker: Replace a worker, between calls, when its memory is larger (bytes); a call that
            makes it twice as large is killed (on Linux).
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.
        name: Seen in errors, logs and :meth:`~Executor.status`.
        max_pending: How many calls may wait for a worker.

    Raises:
        TypeError, ValueError: An option makes no sense.

    Cancellation:
        A cancelled call, or one that runs longer than its ``timeout``, is killed with its worker process and all that
        this has started, and the worker is replaced; calls beside it lose nothing. With ``threads_per_worker > 1`` a
        call cannot be killed alone: a cancelled one is asked to stop (:func:`check_cancelled`), and an overdue one
        takes its worker along.

    What may still be running:
        Nothing: however this program ends, workers end with it, within a second.

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
        super().__init__(
            threads_per_worker=threads_per_worker,
            initializer=initializer,
            env=env,
            preload=preload,
            max_tasks_per_worker=max_tasks_per_worker,
            max_rss_per_worker=max_rss_per_worker,
            name=name,
            max_pending=max_pending,
            grace=grace,
        )
        cpus = available_cpus() if max_workers is None else max_workers
        self.max_workers = checked_count("max_workers", cpus)
        self.engine = "anyio" if engine is None and sys.platform == "win32" else engine
        self.min_workers = min_workers
        self.idle_timeout = idle_timeout
        self._workers: Resident | Single | None = None
        self._check()

    def _check(self) -> None:
        if self.engine not in (None, "resident", "anyio"):
            raise ValueError(f"engine={self.engine!r}: expected 'resident', 'anyio', or None for the best one here")
        if self.min_workers is not None and not 0 <= self.min_workers <= self.max_workers:
            raise ValueError(f"min_workers={self.min_workers!r}: expected a number from 0 to max_workers, or None")
        if not self.idle_timeout > 0:
            raise ValueError(f"idle_timeout={self.idle_timeout!r}: expected seconds, more than 0")
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
            run.hands = self._workers = Resident(self, run)
            try:
                await self._workers.start()
            except WorkerStartError as error:
                await self._workers.close()
                self._workers = None
                if self.engine is not None:
                    raise
                _log.warning("%s: every call gets a process by anyio.to_process instead: %s", self.name, error)
        if self._workers is None:
            from .single import Single  # few use it, and it imports much

            run.hands = self._workers = Single(self, run)
        await self._workers.populate()

    async def _close(self, run: Run) -> None:
        if self._workers is not None:
            await self._workers.close()
            self._workers = None

    def _stream(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream[Any]:
        if self.engine == "anyio":
            raise TypeError(
                f"{function_name(fn)} is a generator function: with engine='anyio' nothing stays in a worker between "
                "two items. Use engine='resident', or collect the items in a list and return that"
            )
        return super()._stream(fn, args, kwargs, options)

    def _map_target(
        self, fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Function | None:
        return None if self.engine == "anyio" else super()._map_target(fn, star, kwstar, args, kwargs)

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        return self.engine != "anyio" and super()._takes_chunks(fn)

    @property
    def _hands(self) -> Resident | Single:
        assert self._workers is not None, "workers are opened before the ledger has any"
        return self._workers

    @property
    def _shared_folder(self) -> str | None:
        return self._workers.folder if isinstance(self._workers, Resident) else None

    def _spawn(self, run: Run, step: Spawn) -> None:
        self._hands.spawn(step)

    def _began(self, call: Call) -> float | None:
        return call.begun_at if self._workers is None else self._workers.began(call)

    def _setup(self) -> dict[str, Any]:
        """What each worker is told before its first call."""
        return {"path": [entry or os.getcwd() for entry in sys.path], "host": None, **self._common_setup()}

    def _environment(self, index: int) -> dict[str, str]:
        """The environment of one worker, on top of this process's own."""
        limits = blas_limits(available_cpus(), self.max_workers)
        own = {name: value for name, value in limits.items() if name not in os.environ}
        return {**own, **variables_of(self.env, index)}
