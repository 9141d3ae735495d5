"""The anyio engine: each call is one ``anyio.to_process.run_sync``.

The portable reference: it works wherever anyio does. Its processes belong to anyio, which
keeps idle ones until the event loop's root task ends, and shows nothing that they print.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_process

from .._child import single, wire
from .._model.call import Call, Ending
from .._model.errors import WorkerLostError
from .._policy.seats import Seat
from .._policy.steps import Halt, Place, Retire, Spawn
from .._workers.returning import cannot_be_rebuilt, unpack_failure
from .._workers.shipping import pack_arguments

if TYPE_CHECKING:
    from .pool import Run
    from .process import ProcessExecutor


class Single:
    """The calls of one run of a process pool, taken by as many tasks as may run at a time.

    These stay, because calls are placed from callbacks too, where no task can be started.
    """

    def __init__(self, pool: ProcessExecutor, run: Run) -> None:
        self.pool = pool
        self.run = run
        self._key = os.urandom(8).hex()
        self._seat = Seat(0, width=pool.max_workers)
        self._seat.carrier = pool.name
        self._limiter = anyio.CapacityLimiter(pool.max_workers)
        self._scopes: dict[Call, anyio.CancelScope] = {}
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        self._initializer = pool._packed_initializer()
        self._environments = [pool._environment(index) for index in range(pool.max_workers)]

    async def populate(self) -> None:
        """Start the tasks; anyio starts a process when a call needs one."""
        group = self.run.supervisor.group
        assert group is not None, "the pool's group is open as long as its supervisor's body runs"
        for index in range(self.pool.max_workers):
            group.start_soon(self._serve, index)
        self.run.ledger.add(self._seat)
        self.run.ledger.ready(self._seat)

    async def close(self) -> None:
        """Nothing to do: the tasks end with the pool's group, and the processes belong to anyio."""

    async def give_up(self) -> None:
        """Nothing to do: what ends with the pool's group is killed."""

    def spawn(self, step: Spawn) -> None:
        """Nothing to do: the seat stands for anyio's processes."""

    def retire(self, step: Retire) -> None:
        """Never asked: without ``max_tasks_per_worker`` nothing retires."""

    def began(self, call: Call) -> float | None:
        """Calls begin when they are placed, or as soon as anyio has a process."""
        return call.begun_at

    def place(self, step: Place) -> None:
        """Give each call to a task; there are as many as the seat is wide, so none waits."""
        for call in step.calls:
            self._calls.put_nowait(call)

    def halt(self, step: Halt) -> None:
        """Cancelling the scope makes anyio kill the process."""
        scope = self._scopes.get(step.call)
        if scope is not None:
            scope.cancel()

    async def _serve(self, index: int) -> None:
        """Run one call after the other."""
        try:
            while True:
                call = await self._calls.get()
                if call.stop is None:
                    await self._run(call, index)
                else:  # it was stopped in the turn in which it was placed
                    self._answered(call, Ending.WITHDRAWN, None)
        finally:  # the pool has ended, or its loop shuts down and cancels all tasks, of which we happen to be the first
            self._seat.width = 0
            while not self._calls.empty():
                self._drop(self._calls.get_nowait())

    async def _run(self, call: Call, index: int) -> None:
        call.begun_at = time.time()
        timer = self._set_timer(call)
        ended: tuple[Ending, Any] | None = None
        lost = "it was stopped"
        try:
            with anyio.CancelScope() as scope:
                self._scopes[call] = scope
                ended = await self._answer(call, index)
        except (anyio.BrokenWorkerProcess, OSError) as error:
            lost = _reason(error)
        except asyncio.CancelledError:
            self._drop(call)
            raise
        finally:
            del self._scopes[call]
            if timer is not None:
                timer.cancel()
        if ended is None:
            self._lost(call, lost)
        else:
            self._answered(call, *ended)

    async def _answer(self, call: Call, index: int) -> tuple[Ending, Any]:
        who = (call.future.id, call.name, call.attempts, index)
        setup = (self._key, self._environments[index], self.pool.preload, self._initializer)
        ending, payload = await anyio.to_process.run_sync(
            single.run, setup, who, call.function.packed, _arguments(call), cancellable=True, limiter=self._limiter
        )
        if ending == wire.RAISED:
            return Ending.RAISED, unpack_failure(payload, call.name, f"{self.pool.name}, attempt {call.attempts}")
        try:
            return Ending.OK, pickle.loads(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return Ending.RAISED, cannot_be_rebuilt(error, call.name)

    def _answered(self, call: Call, ending: Ending, value: Any) -> None:
        seconds = time.time() - (call.begun_at or time.time())
        self.pool._answered(self.run, self._seat, [(call.seq, ending, value, seconds)])

    def _lost(self, call: Call, reason: str) -> None:
        seconds = time.time() - (call.begun_at or time.time())
        error = WorkerLostError(
            f"{self.pool.name}: the process that ran {call.name} went away, {seconds:.1f} s in ({reason}); "
            "anyio does not say why, engine='resident' would",
            call=call.name,
            worker=self.pool.name,
            running_for=seconds,
        )
        self.pool._carry_out(self.run, self.run.ledger.lost(self._seat, call, error, time.time()))
        self.pool._pump(self.run)

    def _drop(self, call: Call) -> None:
        """Cancel a call that nobody will run any more."""
        ledger = self.run.ledger
        ledger.cancel(call)
        self.pool._carry_out(self.run, ledger.lost(self._seat, call, WorkerLostError(), time.time()))

    def _set_timer(self, call: Call) -> Any:
        timeout = call.options.timeout
        return None if timeout is None else self.run.loop.call_later(timeout, self._time_up, call)

    def _time_up(self, call: Call) -> None:
        self.pool._carry_out(self.run, self.run.ledger.overdue(call))


def _reason(error: Exception) -> str:
    """Why a process went away, as far as AnyIO knows."""
    if error.__cause__ is not None and "initialization" in str(error):
        return (
            f"AnyIO runs the main script again in each process, and there it raised {error.__cause__!r}: put what "
            "starts the program under `if __name__ == '__main__':`"
        )
    return str(error) or "its process ended"


def _arguments(call: Call) -> bytes:
    """The arguments in one piece: anyio's pipe carries no buffers beside the pickle."""
    payload, buffers = call.payload
    if buffers:
        payload, _ = pack_arguments(call.args, call.kwargs, call.name, out_of_band=False)
    return bytes(payload)
