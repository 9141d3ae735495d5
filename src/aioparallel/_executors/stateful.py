"""Executors for a :class:`~aioparallel.StatefulPool` of its own: each worker builds its state before its first call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Any

from .._futures.waiting import wait_any
from .._model.errors import WorkerLostError, WorkerStartError
from .._model.hosts import Host
from .._model.options import DEFAULT_OPTIONS
from .._policy.ledger import Ledger
from .._policy.placement import placement_for
from .._policy.seats import Seat, Standing
from .._workers.stateful import StateCall
from .pool import Executor
from .process import ProcessExecutor
from .remote import RemoteExecutor
from .thread import ThreadExecutor

__all__ = ["StateHosts", "StateProcesses", "StateThreads", "close_states"]


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


class StateHosts(RemoteExecutor):
    """Processes on remote hosts that build their states as they start.

    Args:
        call: What is called for each item.
        hosts: Where: :class:`Host` objects, or their names.
        **options: Those of :class:`RemoteExecutor`.
    """

    _waits_for_all = True
    _spare = 0  # no call waits behind another: which worker takes it matters

    def __init__(self, call: StateCall, hosts: Iterable[Host | str], **options: Any) -> None:
        super().__init__(hosts, **options)
        self._state_call = call

    def _new_ledger(self) -> Ledger:
        placement = placement_for(self.policy)
        return Ledger(max_tasks=self.max_tasks_per_worker, all_or_none=True, fair=True, placement=placement)

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
        errors: list[BaseException] = []

        def build() -> None:
            try:
                self._state_call.prepare()
            except BaseException as error:
                errors.append(error)
                meeting.abort()
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait()

        try:
            async for built in wait_any([self.submit(build) for _ in range(self.max_workers)]):
                await built
                if errors:
                    reason = f"{type(errors[0]).__name__}: {errors[0]}"
                    raise WorkerStartError(f"{self.name}: a worker's state cannot be built: {reason}") from errors[0]
        finally:
            meeting.abort()


async def close_states(pool: Executor, call: StateCall) -> None:
    """Close the states that the workers of somebody else's pool keep for us."""
    call.close()
    run = pool._run
    if run is None or run.closing or not hasattr(pool, "_functions"):
        return
    seats = [seat for seat in run.ledger.seats if seat.standing is Standing.READY]
    closings = [pool._submit(call.closer(), (), {}, DEFAULT_OPTIONS, pin=seat) for seat in seats]
    for closing in closings:
        with contextlib.suppress(WorkerLostError):  # then there is nothing left to close
            await closing
