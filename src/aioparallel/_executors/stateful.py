"""Executors for a :class:`~aioparallel.StatefulPool` of its own: each worker builds its state before its first call."""

from __future__ import annotations

import threading
from typing import Any

from .._futures.smart import SmartFuture
from .._futures.waiting import wait_all
from .._model.errors import WorkerStartError
from .._model.options import DEFAULT_OPTIONS
from .._policy.ledger import Ledger, Seat, Standing
from .._workers.stateful import StateCall
from .pool import Executor
from .process import ProcessExecutor
from .thread import ThreadExecutor

__all__ = ["StateProcesses", "StateThreads", "close_states"]


class StateProcesses(ProcessExecutor):
    """Processes that build their states as they start.

    Args:
        call: What is called for each item.
        workers: How many processes.
        **options: Those of :class:`ProcessExecutor`.
    """

    def __init__(self, call: StateCall, workers: int, **options: Any) -> None:
        super().__init__(workers, engine="resident", **options)
        self._state_call = call

    def _new_ledger(self) -> Ledger:
        return Ledger(max_tasks=self.max_tasks_per_worker, all_or_none=True, fair=True)

    def _seats(self) -> list[Seat]:
        # No call waits behind another: which worker takes it matters.
        return [Seat(index, width=self.threads_per_worker, spare=0) for index in range(self.max_workers)]

    def _packed_initializer(self) -> bytes | None:
        return self._functions.pack_state(self._state_call, "prepare")

    def _takes_chunks(self, fn: Any) -> bool:
        return False


class StateThreads(ThreadExecutor):
    """Threads that build their states when they start, and close them at their end.

    Args:
        call: What is called for each item.
        workers: How many threads.
        **options: Those of :class:`ThreadExecutor`.
    """

    def __init__(self, call: StateCall, workers: int, **options: Any) -> None:
        super().__init__(workers, finalizer=call.close_here, **options)
        self._state_call = call

    async def start(self) -> StateThreads:
        """Open the executor, and return when every thread has built its state.

        Raises:
            WorkerStartError: A state cannot be built; its cause is what building it raised.
        """
        if self._run is None:
            await super().start()
            try:
                await self._build_all()
            except BaseException:
                await self.aclose(drain=False)
                raise
        return self

    async def _build_all(self) -> None:
        """Have each thread in a call at the same time, so that each is in one."""
        meeting = threading.Barrier(self.max_workers)

        def build() -> None:
            try:
                self._state_call.prepare()
            except BaseException:
                meeting.abort()
                raise
            meeting.wait()

        builds = [self.submit(build) for _ in range(self.max_workers)]
        try:
            await wait_all(builds)
        except BaseException:
            meeting.abort()
            raise_cause(self.name, builds)
            raise


def raise_cause(name: str, builds: list[SmartFuture[None]]) -> None:
    """Raise what a builder raised, rather than that the others no longer wait for it."""
    errors = [build.exception() for build in builds if build.done()]
    for error in errors:
        if isinstance(error, Exception) and not isinstance(error, threading.BrokenBarrierError):
            raise WorkerStartError(f"{name}: the state of a worker cannot be built: {error!r}") from error


async def close_states(pool: Executor, call: StateCall) -> None:
    """Close the states that a pool of somebody else keeps for us."""
    call.close()
    run = pool._run
    if run is None or run.closing:
        return
    seats = [seat for seat in run.ledger.seats if seat.standing is Standing.READY]
    await wait_all([pool._submit(call.closer(), (), {}, DEFAULT_OPTIONS, pin=seat) for seat in seats])
