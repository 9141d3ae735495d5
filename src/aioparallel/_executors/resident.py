"""The resident engine: workers of this machine that stay, forked by a host agent, each with a socket of its own."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING

import anyio

from .._futures.news import News
from .._model.errors import WorkerLostError, WorkerStartError
from .._policy.seats import Seat, Standing
from .._policy.steps import Spawn
from .._workers.agents import Agent, Pipe
from .._workers.station import Carrier, Gone, LocalStation
from .workers import Workers

if TYPE_CHECKING:
    from .pool import Run
    from .process import ProcessExecutor

__all__ = ["Resident"]

MAX_AGENT_DEATHS = 3
GIVE_UP_SECONDS = 0.3
"""What an agent needs at most to kill what there is, if it can."""


class Resident(Workers):
    """The workers of one run of a process pool. An agent that dies is replaced, and its workers with it."""

    def __init__(self, pool: ProcessExecutor, run: Run) -> None:
        super().__init__(pool, run)
        self.pool: ProcessExecutor = pool
        self.station = LocalStation(run.loop, self, pickle.dumps(pool._setup()), pool.grace)
        self._pipe: Pipe | None = None
        self._agent_deaths = 0
        self._news = News()
        self._unforked: list[Seat] = []
        """Seats whose workers can be started when there is an agent again."""

    @property
    def folder(self) -> str:
        """Where large constants can be shared with workers."""
        return self.station.folder

    # Life

    async def start(self) -> None:
        """Start the agent.

        Raises:
            WorkerStartError: It cannot be started on this machine.
        """
        await self._start_agent()
        group = self.run.supervisor.group
        assert group is not None, "the pool's group is open as long as its supervisor's body runs"
        group.start_soon(self._keep_agent)

    async def populate(self) -> None:
        """Start the workers; return when one is ready.

        Raises:
            WorkerStartError: None can be.
        """
        ledger = self.run.ledger
        for seat in self.pool._seats()[: self.pool.first_workers]:
            self.pool._carry_out(self.run, ledger.add(seat))
        await self._news.until(lambda: ledger.start_error is not None or ledger.is_up)
        if ledger.start_error is not None:
            raise ledger.start_error
        if self.pool.min_workers is not None:
            self._shrink()

    def _shrink(self) -> None:
        """From time to time, let workers end that have nothing to do."""
        pool = self.pool
        if not self.run.closing and pool.min_workers is not None:
            pool._carry_out(self.run, self.run.ledger.shrink(time.time(), pool.idle_timeout, pool.min_workers))
            self.run.loop.call_later(pool.idle_timeout / 4, self._shrink)

    async def close(self) -> None:
        """End every worker, politely first; leave no process and no file."""
        for carrier in list(self.station.carriers.values()):
            # In a hurry, one that is still being set up is not waited for.
            politely = self.run.drain or carrier.seat.standing is not Standing.STARTING
            self.station.bid_farewell(carrier, politely=politely)
        with anyio.move_on_after(self.pool.grace):
            await self._news.until(lambda: not self.station.carriers)
        try:
            pipe, self._pipe = self._pipe, None
            if pipe is not None:
                await pipe.start_over.wait()  # it may be the second one, just starting
                await pipe.aclose()
        finally:
            self.station.end_all()
            self.station.close()

    async def give_up(self) -> None:
        """End every worker now. An agent that has not done so in a moment is killed."""
        for carrier in list(self.station.carriers.values()):
            self.station.kill_from_here(carrier)
        try:
            pipe, self._pipe = self._pipe, None
            if pipe is not None:
                await pipe.aclose(GIVE_UP_SECONDS)
        finally:
            self.station.end_all()
            self.station.close()

    async def _start_agent(self) -> None:
        agent = Agent(self.station)
        pipe = self._pipe = Pipe(agent)
        options = {"threads": self.pool.threads_per_worker, "max_memory": self.pool.max_rss_per_worker}
        try:
            await pipe.start(self.station.folder, **options)
            self.station.agent = agent
        except BaseException:
            self._pipe = None
            with anyio.CancelScope(shield=True):
                await pipe.aclose()
            raise

    async def _keep_agent(self) -> None:
        """An agent that ends unasked takes every worker with it; then another is started."""
        while (pipe := self._pipe) is not None:
            await pipe.ended.wait()
            if pipe is self._pipe:
                self._pipe = None
                self._agent_deaths += 1
                self.station.agent_lost()
                await pipe.aclose()
                await self._replace_agent()

    async def _replace_agent(self) -> None:
        if self.run.ledger.closing:
            return
        try:
            if self._agent_deaths > MAX_AGENT_DEATHS:
                raise WorkerStartError(f"the host agent ended unasked {self._agent_deaths} times in a row")
            await self._start_agent()
        except WorkerStartError as error:
            self.pool._carry_out(self.run, self.run.ledger.fail_all(error))
            self._news.tell()
        unforked, self._unforked = self._unforked, []
        for seat in unforked:
            self._fork(seat)

    # Workers

    def spawn(self, step: Spawn) -> None:
        """Ask the agent for a worker; after failures, a little later."""
        if step.failures:
            self.run.loop.call_later(step.pause, self._fork, step.seat)
        else:
            self._fork(step.seat)

    def _fork(self, seat: Seat) -> None:
        if self.station.agent is None:
            self._unforked.append(seat)
            return
        try:
            env = self.pool._environment(seat.index)
        except Exception as error:  # of the user's own function
            self._cannot_fork(seat, error)
            return
        seat.carrier = self.station.fork(seat, seat.index, f"{self.pool.name}-{seat.index}", env)
        self.warm_up(seat.carrier)

    def _cannot_fork(self, seat: Seat, error: Exception) -> None:
        """As if the worker had died at its start: there may be others, and the next attempt may do better."""
        reason = f"{type(error).__name__}: {error}"
        lost = WorkerLostError(f"the environment of worker {seat.index} cannot be made: {reason}")
        lost.__cause__ = error
        self.pool._carry_out(self.run, self.run.ledger.gone(seat, (), lambda _: lost, time.time()))
        self._news.tell()

    def worker_ready(self, carrier: Carrier) -> None:
        """A worker has started, and takes calls."""
        self._agent_deaths = 0
        super().worker_ready(carrier)
        self._news.tell()

    def worker_gone(self, carrier: Carrier, gone: Gone) -> None:
        """A worker has ended: settle what it leaves behind."""
        super().worker_gone(carrier, gone)
        self._news.tell()
