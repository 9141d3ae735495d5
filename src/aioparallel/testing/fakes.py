"""An executor whose workers are the test: it says when calls end, and how."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import anyio

from aioparallel import WorkerLostError

from .._child.current import Current, current
from .._executors.pool import Executor, Run
from .._model.call import Call, Ending, Phase
from .._policy.ledger import Ledger
from .._policy.seats import Seat
from .._policy.steps import Halt, Place, Spawn

__all__ = ["FakeCall", "FakeExecutor"]


class FakeCall:
    """A call that a fake worker has begun, and that the test ends by one of the methods here.

    Attributes:
        id: The number of its future.
        name: The function's name, or the call's own.
        fn: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        attempt: 1 for the first time.
        worker: The index of its worker.
    """

    def __init__(self, pool: FakeExecutor, call: Call) -> None:
        self.id = call.future.id
        self.name = call.name
        self.fn, self.args, self.kwargs = call.fn, call.args, call.kwargs
        self.attempt = call.attempts
        self.worker = call.worker.index
        self._pool = pool
        self._call = call
        self._seat, self._number = call.worker, call.seq

    @property
    def is_running(self) -> bool:
        """Whether nobody has ended it."""
        return self._seat.held.get(self._number) is self._call

    def run(self) -> None:
        """Run it, here and now."""
        began = time.perf_counter()
        token = current.set(Current(self.id, self.name, self.attempt, self.worker, None, lambda: False))
        try:
            value = self.fn(*self.args, **self.kwargs)
        except Exception as error:
            self._end(Ending.RAISED, error, time.perf_counter() - began)
        else:
            self._end(Ending.OK, value, time.perf_counter() - began)
        finally:
            current.reset(token)

    def succeed(self, value: Any = None, *, after: float = 0.0) -> None:
        """Let it return a value, as if it had run so many seconds."""
        self._end(Ending.OK, value, after)

    def fail(self, error: Exception, *, after: float = 0.0) -> None:
        """Let it raise, as if it had run so many seconds."""
        self._end(Ending.RAISED, error, after)

    def lose(self) -> None:
        """Let its worker die in it; another takes its place."""
        self._check()
        self._pool._lose(self._call)

    def _end(self, ending: Ending, value: Any, seconds: float) -> None:
        self._check()
        self._pool._end_call(self._call, ending, value, seconds)

    def _check(self) -> None:
        if not self.is_running:
            raise RuntimeError(f"{self} has ended, or was cancelled")

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"<FakeCall {self.name}({', '.join(arguments)}), attempt {self.attempt}>"


class FakeExecutor(Executor):
    """An executor that runs nothing: the test ends each call, in any order, and so decides what happens when.

    Everything else is as in every executor: the queue, priorities, limits, retries, timeouts, cancelling, events.

    Args:
        workers: How many calls are begun at a time.
        name: Seen in errors, logs and :meth:`~aioparallel.Executor.status`.
        max_pending: How many calls may wait for a worker.

    Cancellation:
        A call that is cancelled, or whose time is up, ends at once, as that of a process that is killed.

    What may still be running:
        Nothing.

    Example:
        ::

            async with FakeExecutor() as pool:
                future = pool.options(retry=Retry(2)).submit(fetch, url)
                pool.calls[0].fail(OSError("no route"))
                (await pool.next_call()).succeed("the page")
                assert await future == "the page"
    """

    kind = "fake"

    def __init__(self, workers: int = 1, *, name: str | None = None, max_pending: float = math.inf) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: expected a number from 1 on")
        super().__init__(name=name, max_pending=max_pending)
        self._workers = workers
        self._begun: dict[Call, FakeCall] = {}
        self._unseen: deque[FakeCall] = deque()
        self._news = anyio.Event()

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """The calls that run, in the order in which they began."""
        return tuple(call for call in self._begun.values() if call.is_running)

    async def next_call(self) -> FakeCall:
        """Wait for the next call that begins, or take the first that this was not asked for so far.

        Returns:
            The call.

        Cancellation:
            Stops the waiting; the call is given to whoever asks next.

        What may still be running:
            The call, until the test ends it.
        """
        while True:
            while self._unseen:
                call = self._unseen.popleft()
                if call.is_running:
                    return call
            self._news = anyio.Event()
            await self._news.wait()

    # What the pool asks

    def _new_ledger(self) -> Ledger:
        return Ledger()

    async def _open(self, run: Run) -> None:
        self._begun.clear()
        self._unseen.clear()
        for index in range(self._workers):
            self._carry_out(run, run.ledger.add(Seat(index)))

    async def _close(self, run: Run) -> None:
        self._begun.clear()

    def _spawn(self, run: Run, step: Spawn) -> None:
        run.ledger.ready(step.seat)

    def _place(self, run: Run, step: Place) -> None:
        for call in step.calls:
            call.begun_at = time.time()
            fake = self._begun[call] = FakeCall(self, call)
            self._unseen.append(fake)
            if call.options.timeout is not None:
                run.loop.call_later(call.options.timeout, self._time_up, run, fake)
        self._news.set()

    def _halt(self, run: Run, step: Halt) -> None:
        fake = self._begun[step.call]
        run.loop.call_soon(self._stopped, fake)

    def _stopped(self, fake: FakeCall) -> None:
        if fake.is_running:
            self._end_call(fake._call, Ending.RAISED, InterruptedError("it was stopped"), 0.0)

    def _time_up(self, run: Run, fake: FakeCall) -> None:
        if fake.is_running and fake._call.phase is Phase.PLACED:
            self._carry_out(run, run.ledger.overdue(fake._call))

    # What the test says

    def _end_call(self, call: Call, ending: Ending, value: Any, seconds: float) -> None:
        del self._begun[call]
        run = self._run
        assert run is not None, "a call runs only in an open pool"
        self._answered(run, call.worker, [(call.seq, ending, value, seconds)])

    def _lose(self, call: Call) -> None:
        run = self._run
        assert run is not None, "a call runs only in an open pool"
        del self._begun[call]
        lost = WorkerLostError("", call=call.name, worker=str(call.worker), signal="SIGKILL", running_for=0.0)
        self._carry_out(run, run.ledger.gone(call.worker, [call.seq], lambda _: lost, time.time()))
        self._pump(run)
