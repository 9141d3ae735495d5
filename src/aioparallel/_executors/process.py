"""ProcessExecutor: calls run in processes of their own, without a ``__main__`` guard."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._model.call import Call
from .._policy.ledger import Halt, Ledger, Place, Retire, Spawn
from .._workers.cpus import available_cpus
from .._workers.shipping import Functions, pack_arguments
from .pool import Executor, Run
from .resident import Resident, default_setup

__all__ = ["ProcessExecutor"]

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
        max_tasks_per_worker: Replace a worker after so many calls.
        max_rss_per_worker: Replace a worker, between calls, when its memory is larger (bytes).
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
        max_tasks_per_worker: int | None = None,
        max_rss_per_worker: int | None = None,
        grace: float = 5.0,
        name: str | None = None,
        max_pending: float = math.inf,
    ) -> None:
        super().__init__(name=name, max_pending=max_pending, grace=grace)
        self.max_workers = available_cpus() if max_workers is None else max_workers
        self.engine = engine or ("anyio" if sys.platform == "win32" else "resident")
        self.threads_per_worker = threads_per_worker
        self.initializer = initializer
        self.env = env
        self.preload = tuple(preload)
        self.max_tasks_per_worker = max_tasks_per_worker
        self.max_rss_per_worker = max_rss_per_worker
        self._functions = Functions()
        self._workers: Resident | None = None

    def _new_ledger(self) -> Ledger:
        return Ledger(max_tasks=self.max_tasks_per_worker)

    async def _open(self, run: Run) -> None:
        self._functions = Functions()
        self._workers = Resident(self, run)
        await self._workers.open()

    async def _close(self, run: Run) -> None:
        if self._workers is not None:
            await self._workers.close()
            self._workers = None

    def _prepare(self, call: Call) -> None:
        call.function = self._functions.get(call.fn)
        call.payload = pack_arguments(call.args, call.kwargs, call.function.name)

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
        self._workers.retire(step.seat.carrier)

    def _began(self, call: Call) -> float | None:
        return None if self._workers is None else self._workers.began(call)

    def _setup(self) -> dict[str, Any]:
        """What each worker is told before its first call."""
        initializer = None if self.initializer is None else _pack_initializer(self._functions, self.initializer)
        return {
            **default_setup(),
            "preload": self.preload,
            "threads": self.threads_per_worker,
            "initializer": initializer,
        }

    def _environment(self, index: int) -> dict[str, str]:
        """The environment of one worker, on top of this process's own."""
        share = max(1, available_cpus() // self.max_workers)
        env = {name: str(share) for name in BLAS_VARIABLES if name not in _inherited()}
        chosen = self.env(index) if callable(self.env) else self.env
        return {**env, **(chosen or {})}


def _inherited() -> Mapping[str, str]:
    import os

    return os.environ


def _pack_initializer(functions: Functions, initializer: Callable[[], object]) -> bytes:
    return functions.get(initializer).packed
