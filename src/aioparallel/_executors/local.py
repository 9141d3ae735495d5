"""What executors have in common whose calls run in this process: a crew, and who stands between it and the ledger.

To the ledger a crew is one worker that runs many calls at a time, and is given some more ahead, so that
no member waits for the loop between two short calls. What waits with the crew can be fetched back at any moment,
so nothing that users see depends on it: a call of higher priority still goes first, and one that has not begun counts
as queued.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from asyncio import CancelledError, TimerHandle
from collections.abc import Callable
from contextvars import copy_context
from operator import itemgetter
from types import CoroutineType
from typing import Any

from .._futures.smart import SmartFuture
from .._futures.supervisor import Group
from .._model.call import Call, Ending, Phase, Stop
from .._model.errors import TaskTimeoutError, WorkerStartError
from .._model.options import CallOptions
from .._policy.ledger import Ledger
from .._policy.seats import Seat
from .._policy.steps import Halt, Place, WorkerEnd
from .._workers.crew import Crew
from .pool import Executor, Run

__all__ = ["Foreman", "LocalExecutor", "check_callable", "group_of"]

AHEAD = 256
"""So many calls wait with the crew. It bounds how often the loop and the members take turns."""
_ending = itemgetter(1)


class LocalExecutor(Executor):
    """Runs calls in this process, in the contextvars of whoever submitted them."""

    def __init__(self, size: int, *, name: str | None, max_pending: float, grace: float) -> None:
        super().__init__(name=name, max_pending=max_pending, grace=grace)
        self._size = size
        self._foreman: Foreman | None = None

    @abstractmethod
    def _check(self, fn: Any) -> None:
        """Raise :exc:`TypeError` for what cannot run here."""

    @abstractmethod
    def _crew(self, run: Run, foreman: Foreman) -> Crew:
        """A crew for one run."""

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        **internal: Any,
    ) -> SmartFuture[Any]:
        self._check(fn)
        return super()._submit(fn, args, kwargs, options, **internal)

    def _prepare(self, call: Call) -> None:
        call.context = copy_context()
        if call.function is not None:
            call.fn = call.function.fn

    def _new_ledger(self) -> Ledger:
        return Ledger()

    async def _open(self, run: Run) -> None:
        run.hands = self._foreman = Foreman(self, run, self._size)
        await self._foreman.open()

    async def _close(self, run: Run) -> None:
        foreman, self._foreman = self._foreman, None
        if foreman is not None:
            await foreman.crew.close(self.grace)

    def _enqueue(self, run: Run, call: Call) -> None:
        foreman = self._foreman
        if foreman is not None and call.options.priority > foreman.lowest:
            foreman.make_way(call)
        super()._enqueue(run, call)

    def _begin_again(self, run: Run, call: Call) -> None:
        foreman = self._foreman
        if foreman is not None and call.options.priority > foreman.lowest:
            foreman.make_way(call)
        super()._begin_again(run, call)

    def _place(self, run: Run, step: Place) -> None:
        assert self._foreman is not None, "the crew is there before the ledger has a seat for it"
        self._foreman.place(step)

    def _halt(self, run: Run, step: Halt) -> None:
        assert self._foreman is not None, "the crew holds the call"
        self._foreman.halt(step.call)

    def _is_waiting(self, call: Call) -> bool:
        return super()._is_waiting(call) or (call.phase is Phase.PLACED and call.begun_at is None)

    def _worker_count(self, ledger: Ledger) -> int:
        return self._size if ledger.any_ready else 0


class Foreman:
    """Carries out with a crew what the ledger says, and tells it how calls end. One for each run."""

    def __init__(self, pool: LocalExecutor, run: Run, size: int) -> None:
        self.pool = pool
        self.run = run
        self.seat = Seat(0, width=size, spare=AHEAD, carrier=pool.name)
        self.crew = pool._crew(run, self)
        self.lowest: float = math.inf
        """No call that waits with the crew has a lower priority."""
        self._timers: dict[int, TimerHandle] = {}
        """For each number: when the call is overdue or, once it was told to stop, when it is given up."""
        self._overdue: dict[int, TaskTimeoutError] = {}
        self._given_up: set[int] = set()
        """Numbers of calls that run although they are settled."""

    async def open(self) -> None:
        """Return when the crew takes calls."""
        await self.crew.open()
        self.run.ledger.add(self.seat)
        self.run.ledger.ready(self.seat)

    @property
    def abandoned(self) -> int:
        """How many members are in a call that has been given up."""
        return sum(map(self.crew.is_in, tuple(self._given_up)))

    async def give_up(self) -> None:
        """Have nothing wait for what still runs."""
        self.crew.give_up()

    def place(self, step: Place) -> None:
        """Give calls to the crew."""
        for call in step.calls:
            if call.options.timeout is not None:
                self._set_timer(call.options.timeout, self._time_up, call)
        self.lowest = min(self.lowest, step.calls[0].options.priority)  # it is the same for all of one step
        self.crew.put(step.calls)

    def make_way(self, call: Call) -> None:
        """Fetch back what waits with the crew and should go after this call, which comes now."""
        priority = call.options.priority
        waiting = [call for call in self.crew.waiting() if call.options.priority < priority]
        back = [(call.seq, Ending.WITHDRAWN, None, 0.0) for call in waiting if self._take_back(call)]
        if back:
            self.pool._carry_out(self.run, self.run.ledger.ended(self.seat, back, time.time()))
        self.lowest = min((call.options.priority for call in self.crew.waiting()), default=math.inf)

    def withdraw(self, call: Call) -> bool:
        """Have a call end as cancelled that has not begun; ``False`` if it has."""
        if not self._take_back(call):
            return False
        self.run.ledger.cancel(call)  # what it asks for has been done already
        self._tell([(call.seq, Ending.WITHDRAWN, None, 0.0)])
        return True

    def halt(self, call: Call) -> None:
        """Take a call back, or ask it to stop; what cannot be asked is given up."""
        self.crew.collect()
        if self.seat.held.get(call.seq) is not call:
            return
        if self._take_back(call):
            self._tell([(call.seq, Ending.WITHDRAWN, None, 0.0)])
            return
        if call.stop is Stop.TIMEOUT:
            self._overdue[call.seq] = TaskTimeoutError(
                call=call.name, timeout=call.options.timeout, stack=self.crew.stack(call.seq)
            )
        self.crew.asked.add(call.seq)
        # A loop that shuts down has cancelled all tasks already, and a second time would hit what they do to clean up.
        shutdown = self.run.closing and not self.run.close_asked.is_set()
        if not self.crew.stop(call.seq, once=shutdown):
            self._give_up(call)
        elif self.pool.grace < math.inf:
            self._set_timer(self.pool.grace, self._give_up, call)

    def ended(self, ends: list[WorkerEnd]) -> None:
        """The crew says how calls ended."""
        if self._timers or self.crew.asked or any(map(_ending, ends)):
            ends = list(map(self._examined, ends))
        self.pool._answered(self.run, self.seat, ends)

    def broken(self, error: WorkerStartError) -> None:
        """The crew has no members, and never will."""
        back = [(call.seq, Ending.WITHDRAWN, None, 0.0) for call in self.crew.waiting() if self._take_back(call)]
        ledger = self.run.ledger
        self.seat.spare = 0
        ledger.resize(self.seat, 0)
        self.pool._carry_out(self.run, ledger.ended(self.seat, back, time.time()))
        self.pool._carry_out(self.run, ledger.fail_all(error))

    def _tell(self, ends: list[WorkerEnd]) -> None:
        self.pool._answered(self.run, self.seat, ends)

    def _examined(self, end: WorkerEnd) -> WorkerEnd:
        number, ending, value, took = end
        self.crew.asked.discard(number)
        if number in self._given_up:
            self._given_up.discard(number)
            self.run.ledger.resize(self.seat, self.seat.width + 1)
            return end
        self._forget_timer(number)
        overdue = self._overdue.pop(number, None)
        if overdue is not None:
            if ending is Ending.RAISED and not isinstance(value, CancelledError):
                overdue.__cause__ = value
            return number, Ending.RAISED, overdue, took
        if ending is Ending.RAISED and isinstance(value, CancelledError):
            # Nobody cancelled the call, but its awaiters can only be told so. It counts as cancelled.
            self.run.ledger.cancel(self.seat.held[number])
        return end

    def _give_up(self, call: Call) -> None:
        """Settle a call that runs on. Its member stays taken until it ends, so there is room for one less."""
        number = call.seq
        self._forget_timer(number)
        self._given_up.add(number)
        self.run.ledger.resize(self.seat, self.seat.width - 1)
        error = self._overdue.pop(number, None) or CancelledError()
        self._tell([(number, Ending.RAISED, error, time.time() - (call.begun_at or time.time()))])

    def _take_back(self, call: Call) -> bool:
        taken = self.crew.take_back(call.seq)
        if taken:
            self._forget_timer(call.seq)
        return taken

    def _set_timer(self, seconds: float, fn: Callable[[Call], None], call: Call) -> None:
        self._forget_timer(call.seq)
        self._timers[call.seq] = self.run.loop.call_later(seconds, fn, call)

    def _forget_timer(self, number: int) -> None:
        timer = self._timers.pop(number, None)
        if timer is not None:
            timer.cancel()

    def _time_up(self, call: Call) -> None:
        """So long ago the call was given to the crew; its time runs from when it began."""
        del self._timers[call.seq]
        timeout = call.options.timeout
        assert timeout is not None, "only calls with a timeout have this timer"
        left = timeout if call.begun_at is None else timeout - (time.time() - call.begun_at)
        if left > 0:
            self._set_timer(left, self._time_up, call)
        else:
            self.pool._carry_out(self.run, self.run.ledger.overdue(call))


def check_callable(fn: Any) -> None:
    """Raise for what is no function."""
    if isinstance(fn, CoroutineType):
        fn.close()  # its author has forgotten to await it in any case
        raise TypeError(f"write `submit({fn.__name__}, x)`, not `submit({fn.__name__}(x))`: submit makes the call")
    if not callable(fn):
        raise TypeError(f"submit takes a function and then its arguments; {fn!r} cannot be called")


def group_of(run: Run) -> Group:
    """The task group that everything in a run belongs to."""
    group = run.supervisor.group
    assert group is not None, "it is open as long as the supervisor's body runs"
    return group
