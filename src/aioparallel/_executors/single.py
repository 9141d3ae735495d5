"""The anyio engine: each call is one ``anyio.to_process.run_sync``.

The portable reference: it works wherever anyio does. Its processes belong to anyio, which
keeps idle ones until the event loop's root task ends, and shows nothing that they print.
"""

from __future__ import annotations

import pickle
import os
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_process

from .._child import single, wire
from .._model.call import Call, Ending
from .._model.errors import WorkerLostError
from .._policy.ledger import Halt, Place, Retire, Seat, Spawn
from .._workers.returning import cannot_be_rebuilt, unpack_failure
from .._workers.shipping import pack_arguments

if TYPE_CHECKING:
    from .pool import Run
    from .process import ProcessExecutor


class Single:
    """The calls of one run of a process pool, a task each."""

    def __init__(self, pool: ProcessExecutor, run: Run) -> None:
        self.pool = pool
        self.run = run
        self._key = os.urandom(8).hex()
        self._seat = Seat(0, width=pool.max_workers)
        self._seat.carrier = pool.name
        self._limiter = anyio.CapacityLimiter(pool.max_workers)
        self._scopes: dict[Call, anyio.CancelScope] = {}
        self._indexes = list(reversed(range(pool.max_workers)))
        self._initializer = pool._packed_initializer()

    async def populate(self) -> None:
        """There is nothing to start: anyio starts a process when a call needs one."""
        self.run.ledger.add(self._seat)
        self.run.ledger.ready(self._seat)

    async def close(self) -> None:
        """Every call has ended, and its process belongs to anyio."""
        self.run.ledger.seats.clear()

    def spawn(self, step: Spawn) -> None:
        """Nothing to do: the seat stands for anyio's processes."""

    def retire(self, step: Retire) -> None:
        """Never asked: without ``max_tasks_per_worker`` nothing retires."""

    def began(self, call: Call) -> float | None:
        """Calls begin when they are placed, or as soon as anyio has a process."""
        return call.begun_at

    def place(self, step: Place) -> None:
        """Start a task for each call."""
        group = self.run.supervisor.group
        assert group is not None, "the pool's group is open as long as its supervisor's body runs"
        for call in step.calls:
            self._scopes[call] = anyio.CancelScope()
            group.start_soon(self._run, call, self._scopes[call])

    def halt(self, step: Halt) -> None:
        """Cancelling the task makes anyio kill the process."""
        self._scopes[step.call].cancel()

    async def _run(self, call: Call, scope: anyio.CancelScope) -> None:
        index = self._indexes.pop()
        ended = Ending.WITHDRAWN, None
        lost: str | None = None
        call.begun_at = time.time()
        timer = self._set_timer(call)
        try:
            with scope:
                ended = await self._answer(call, index)
        except anyio.BrokenWorkerProcess as error:
            lost = str(error) or "its process ended"
        finally:
            if timer is not None:
                timer.cancel()
            self._indexes.append(index)
            del self._scopes[call]
        self._report(call, ended, scope.cancelled_caught, lost)

    async def _answer(self, call: Call, index: int) -> tuple[Ending, Any]:
        who = (call.future.id, call.name, call.attempts, index)
        setup = (self._key, self.pool._environment(index), self.pool.preload, self._initializer)
        ending, payload = await anyio.to_process.run_sync(
            single.run, setup, who, call.function.packed, _arguments(call), cancellable=True, limiter=self._limiter
        )
        if ending == wire.RAISED:
            return Ending.RAISED, unpack_failure(payload, call.name, f"{self.pool.name}, attempt {call.attempts}")
        try:
            return Ending.OK, pickle.loads(payload)
        except Exception as error:
            return Ending.RAISED, cannot_be_rebuilt(error, call.name)

    def _report(self, call: Call, ended: tuple[Ending, Any], killed: bool, lost: str | None) -> None:
        seconds = time.time() - (call.begun_at or time.time())
        pool, ledger = self.pool, self.run.ledger
        if killed or lost is not None:
            error = WorkerLostError(
                f"{self.pool.name}: the process that ran {call.name} went away, {seconds:.1f} s in ({lost}); "
                "anyio does not say why, engine='resident' would",
                call=call.name,
                worker=self.pool.name,
                running_for=seconds,
            )
            pool._carry_out(self.run, ledger.lost(self._seat, call, error, time.time()))
            pool._pump(self.run)
        else:
            pool._answered(self.run, self._seat, [(call.seq, *ended, seconds)])

    def _set_timer(self, call: Call) -> Any:
        timeout = call.options.timeout
        return None if timeout is None else self.run.loop.call_later(timeout, self._time_up, call)

    def _time_up(self, call: Call) -> None:
        self.pool._carry_out(self.run, self.run.ledger.overdue(call))


def _arguments(call: Call) -> bytes:
    """The arguments in one piece: anyio's pipe carries no buffers beside the pickle."""
    payload, buffers = call.payload
    if buffers:
        payload, _ = pack_arguments(call.args, call.kwargs, call.name, out_of_band=False)
    return bytes(payload)
