"""The executor for a :class:`~aioparallel.StatefulPool` on Ray: each of its workers is an actor.

To the ledger an actor is a worker like a process of ours: it starts (and builds its state), takes one call after the
other, and may die, upon which the call that it ran fails and another actor takes its place. Only that it is Ray that
finds a place for it, and says that it is gone.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

from .._child import wire
from .._model.call import Call
from .._model.errors import WorkerLostError
from .._policy.ledger import Ledger
from .._policy.seats import Seat
from .._policy.steps import Retire, Spawn
from .._workers.rayerrors import translated
from .._workers.returning import unpack_failure
from .._workers.stateful import StateCall
from .pool import Run
from .ray import RayExecutor
from .rayerrands import Errands, farewell, kill

__all__ = ["StateActors"]


class StateActors(RayExecutor):
    """Actors that build their states as they start.

    Args:
        call: What is called for each item.
        workers: How many actors.
        **options: Those of :class:`RayExecutor`; resources are for each actor.
    """

    def __init__(self, call: StateCall, workers: int, **options: Any) -> None:
        super().__init__(**options)
        self._state_call = call
        self._workers = workers

    def _new_ledger(self) -> Ledger:
        return Ledger(all_or_none=True, fair=True)

    async def _open(self, run: Run) -> None:
        await self._enter_link()
        actors = Actors(self, run, self._functions.pack_state(self._state_call, "prepare"))
        self._errands = actors
        for index in range(self._workers):
            self._carry_out(run, run.ledger.add(Seat(index)))
        await actors.until_up()

    def _capacity(self) -> int:
        return self._workers

    def _takes_chunks(self, fn: Any) -> bool:
        return False

    def _retire(self, run: Run, step: Retire) -> None:
        assert isinstance(self._errands, Actors), "they are there before one retires"
        self._errands.retire(step.seat)

    def _spawn(self, run: Run, step: Spawn) -> None:
        assert isinstance(self._errands, Actors), "they are there before the ledger wants some"
        self._errands.spawn(step)


class Actor:
    """An actor of Ray's, as what a seat stands for."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self.handle = handle

    def __str__(self) -> str:
        return self.name


class Actors(Errands):
    """Carries calls to the actors that they were given to.

    Args:
        pool: The executor.
        run: Its run.
        prepare: The packed function that builds a worker's state.
    """

    def __init__(self, pool: StateActors, run: Run, prepare: bytes) -> None:
        super().__init__(pool, run)
        self._prepare = prepare
        self._demands = pool._defaults.demands()
        self._changed = anyio.Event()

    async def until_up(self) -> None:
        """Return when every actor has built its state.

        Raises:
            WorkerStartError: One cannot.
        """
        ledger = self.run.ledger
        while ledger.start_error is None and not ledger.is_up:
            self._changed = anyio.Event()
            await self._changed.wait()
        if ledger.start_error is not None:
            raise ledger.start_error

    async def close(self) -> None:
        """Have the actors close their states, and end them."""
        handles = [seat.carrier.handle for seat in self.run.ledger.seats if seat.carrier is not None]
        with anyio.move_on_after(self.pool.grace):
            await farewell(handles)
        for handle in handles:
            kill(handle)

    def spawn(self, step: Spawn) -> None:
        """Have Ray start an actor; after failures, a little later."""
        if step.failures:
            self.run.loop.call_later(step.pause, self._start, step.seat)
        else:
            self._start(step.seat)

    def _start(self, seat: Seat) -> None:
        if self.run.ledger.closing:
            return
        seat.carrier = Actor(f"{self.pool.name}-{seat.index}", self._resident.options(**self._demands).remote())
        who = (0, "the initializer", 1, seat.index, self._path)
        envelope = pickle.dumps((who, wire.RUN, f"{self._key}-prepare", self._prepare, 0, b""))
        self._ask(partial(self._prepared, seat), seat.carrier.handle.answer.remote(envelope))

    def _prepared(self, seat: Seat, answer: Any, error: BaseException | None) -> None:
        """An actor has built its state, or could not."""
        failure = error
        if answer is not None and answer[0] == wire.RAISED:
            failure = unpack_failure(answer[2], "the state", str(seat))
        if failure is None:
            self.run.ledger.ready(seat)
            self.run.quiet.set()
        else:
            self._gone(seat, lambda _: _cannot_start(seat, failure), [])
        self._changed.set()
        self.pool._pump(self.run)

    def _actor_for(self, call: Call) -> Any:
        return call.worker.carrier.handle

    def _lose(self, call: Call, error: BaseException) -> None:
        problem = translated(call, error)
        if isinstance(problem, WorkerLostError):
            self._gone(call.worker, lambda _: problem, [call.seq])
        else:
            super()._lose(call, error)

    def _gone(
        self, seat: Seat, error: Callable[[Call | None], WorkerLostError], running: list[int] | None = None
    ) -> None:
        kill(seat.carrier.handle)
        self.pool._carry_out(self.run, self.run.ledger.gone(seat, running or [], error, time.time()))
        self.pool._pump(self.run)

    def halt(self, call: Call) -> None:
        """Take a call back if it has not been sent, and else kill its actor: that is the only way to stop it.

        The call may end by itself before that; the actor is to be replaced all the same, and gets no other call.
        """
        if not self._withdraw(call):
            self.pool._carry_out(self.run, self.run.ledger.wear_out(call.worker))
            kill(call.worker.carrier.handle)

    def retire(self, seat: Seat) -> None:
        """An actor that was killed has ended its call before."""
        self._gone(seat, lambda _: WorkerLostError(f"{seat} was killed", worker=str(seat)), [])


def _cannot_start(seat: Seat, failure: BaseException) -> WorkerLostError:
    cause = failure.__cause__ or failure
    text = f"{type(failure).__name__}: {failure}" if failure.__cause__ is None else str(cause).strip()
    error = WorkerLostError(f"{seat} could not be set up:\n{text}", worker=str(seat))
    error.__cause__ = failure
    return error
