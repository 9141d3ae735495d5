"""The hosts of a remote pool: connected, kept, given up, and connected again.

The life of a host here (``HostState``)::

    CONNECTING --agent listens--> UP --lost, or no worker starts--> WAITING --back-off--> CONNECTING
        |  `--fails------------------------------------------------>'
        |  `--fails for good--> FAILED
        `-- in any state: DRAINING --its calls have ended--> gone

Guarantees:

* One task keeps one host, in the pool's group; it alone opens and closes what belongs to that host. However it ends,
  nothing is left of the host: no connection, no process over there (or, if it cannot be reached any more, none
  when its lease is over), and no seat.
* A host that cannot be used never fails the pool as long as another can, whatever goes wrong with it.
* When none can, calls wait at most ``patience`` seconds for one to come back; when none ever will, not at all.
"""

from __future__ import annotations

import logging
import math
import pickle
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import anyio

from .._child.pauses import growing_pause
from .._futures.news import News
from .._model.call import Call
from .._model.errors import AioParallelError, HostError, WorkerLostError, WorkerStartError
from .._model.hosts import Host
from .._policy.seats import Seat, Site, Standing
from .._policy.steps import Spawn, Suspend
from .._workers.agents import Agent
from .._workers.modules import undescribed
from .._workers.station import Carrier, Gone, RemoteStation
from .workers import Workers

if TYPE_CHECKING:
    from .pool import Run
    from .remote import RemoteExecutor

__all__ = ["Fleet", "HostState", "HostStatus"]

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds until a host that failed is tried again: at first, and at most."""
AT_ONCE = 64
"""So many hosts are connected to at a time."""

_log = logging.getLogger("aioparallel")


class HostState(StrEnum):
    """How a host stands."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class HostStatus:
    """How a host of a remote pool stands, at one moment.

    Attributes:
        name: The host's name.
        state: ``connecting``, ``up``, ``waiting`` (to be tried again), ``failed`` (for good), or ``draining``.
        slots: How many calls it runs at a time; 0 while that is not known.
        workers: Its workers that take calls.
        running: Calls that it runs.
        held: Calls that were sent there and have not ended, those that run included.
        trip: Seconds that a message takes to get there and its answer to come back; ``None`` before that was measured.
        error: Why it cannot be used, or could not the last time.
        losses: How often it was lost.
        cpus: How many CPUs the login may use; 0 while that is not known.
        python: The version of its Python; empty while that is not known.
    """

    name: str
    state: str
    slots: int = 0
    workers: int = 0
    running: int = 0
    held: int = 0
    trip: float | None = None
    error: Exception | None = None
    losses: int = 0
    cpus: int = 0
    python: str = ""


class Member:
    """A host of the pool."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.site = Site(name=host.name, weight=host.weight, is_open=False)
        self.state = HostState.CONNECTING
        self.error: Exception | None = None
        self.station: RemoteStation | None = None
        self.slots = 0
        self.first_index = -1
        self.cpus = 0
        self.python = ""
        self.losses = 0
        self.failures = 0
        """How often in a row it could not be used."""
        self.leaving = False
        """Whether it is to end when its calls have."""
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        self.suspended = anyio.Event()
        """Set when no worker can be started there."""
        self.news = News()
        """For those who wait for something at this host alone: there are many hosts, and few that care for another."""

    @property
    def is_drained(self) -> bool:
        """Whether it is to end when its calls have, and they have."""
        return self.state is HostState.DRAINING and not self.site.seats

    def status(self) -> HostStatus:
        """How it stands."""
        site = self.site
        return HostStatus(
            name=self.host.name,
            state=str(self.state),
            slots=self.slots,
            workers=site.ready,
            running=sum(seat.running for seat in tuple(site.seats)),
            held=sum(len(seat.held) for seat in tuple(site.seats)),
            trip=(self.station.trip or None) if self.station is not None else None,
            error=self.error,
            losses=self.losses,
            cpus=self.cpus,
            python=self.python,
        )


class Fleet(Workers):
    """The workers of one run of a remote pool."""

    def __init__(self, pool: RemoteExecutor, run: Run) -> None:
        super().__init__(pool, run)
        self.pool: RemoteExecutor = pool
        self.members: dict[Host, Member] = {}
        self._by_site: dict[Site, Member] = {}
        self._connections: Any = None
        self._news = News()
        """For whoever waits until the pool is open."""
        self._indexes = 0
        self._last_up = math.inf
        """When the last host was lost (``time.monotonic``); ``inf`` while there is one."""
        self._gate = anyio.CapacityLimiter(AT_ONCE)
        self._waits_for_all = False
        """Whether the pool is about to open, and will when all workers of its hosts are there."""
        self._start_error: WorkerStartError | None = None
        """Why it will not, then: a worker cannot be started."""

    # Life

    async def open(self, hosts: Iterable[Host], *, wait_for_all: bool = False) -> None:
        """Connect to the hosts; return when one of them takes calls.

        Args:
            hosts: The hosts.
            wait_for_all: Return when all workers of all hosts that can be used take calls; one worker that cannot be
                started is an error.

        Raises:
            HostError: None of them can be used; the message lists each.
            WorkerStartError: Hosts can be used, but no worker can be started on any.
        """
        from .._workers.ssh import Connections  # it imports asyncssh

        self._connections = Connections(self._group, self.pool.ssh)
        self._waits_for_all = wait_for_all
        if self.pool.backups is not None:
            self._group.start_soon(self._back_up, self.pool.backups.interval)
        for host in hosts:
            self.add(host)
        enough = self._is_each_ready if wait_for_all else self._is_any_ready
        await self._news.until(lambda: enough() or self._start_error is not None or self._has_each_failed())
        if self._start_error is not None:
            raise self._start_error
        if not self._is_any_ready():
            raise self._no_host()
        self._waits_for_all, self.run.ledger.is_up = False, True

    def full_width(self) -> int:
        """How many calls may run at a time when every host is up that may still come."""
        lost = {HostState.FAILED, HostState.DRAINING}
        absent = [each for each in self.members.values() if each.state not in lost and not each.site.is_open]
        return max(1, self.run.ledger.width + sum(each.slots or each.host.slots or 1 for each in absent))

    async def close(self) -> None:
        """End everything on every host."""
        for member in self.members.values():
            member.scope.cancel()
        for member in list(self.members.values()):
            await member.over.wait()
        if self._connections is not None:
            await self._connections.aclose()

    async def give_up(self) -> None:
        """Cut all hosts off, upon which their agents end everything; or else their leases will."""
        for member in self.members.values():
            if member.station is not None:
                member.station.give_up()
        if self._connections is not None:
            self._connections.abort()

    def add(self, host: Host) -> None:
        """Use one more host.

        Raises:
            ValueError: It is there still.
        """
        if any(host.name == each.name for each in self.members):
            raise ValueError(f"{host} is still leaving {self.pool.name}: wait until `remove_host` is through")
        member = self.members[host] = Member(host)
        self._by_site[member.site] = member
        if host.slots is not None:
            self._number(member, host.slots)
        self.run.ledger.start_error = None  # calls wait for it, whatever became of the others
        self._last_up = math.inf  # and the patience begins anew, should it fail as well
        self._group.start_soon(self._keep, member)

    async def remove(self, member: Member, *, drain: bool) -> None:
        """Use a host no more: when its calls have ended, or now."""
        member.leaving = True
        if drain and member.state is HostState.UP:
            member.state = HostState.DRAINING
            self.pool._carry_out(self.run, self.run.ledger.close_site(member.site))
            member.news.tell()  # it may have had no worker
        else:
            member.scope.cancel()
        await member.over.wait()
        self._look_whether_any_is_left()

    async def connection_to(self, name: str) -> Any:
        """The connection to a host that is up: for whoever wants to know more of it."""
        return await self._connections.connect(self._member(name).host)

    def phase_of(self, name: str) -> str:
        """How far a host has come: the phase that it is in; ``calls`` once its agent has said hello."""
        member = self._member(name)
        return "calls" if member.station is not None else str(self._connections.phase_of(member.host))

    def _member(self, name: str) -> Member:
        return next(member for member in self.members.values() if member.host.name == name)

    @property
    def _group(self) -> Any:
        group = self.run.supervisor.group
        assert group is not None, "the pool's group is open as long as its supervisor's body runs"
        return group

    # Keeping a host

    async def _keep(self, member: Member) -> None:
        """Connect to a host, as often as that is worth trying."""
        try:
            with member.scope:
                while not member.leaving:
                    member.state = HostState.CONNECTING
                    try:
                        await self._serve(member)
                    except AioParallelError as error:
                        self._on_failure(member, error)
                    except Exception as error:  # nobody has thought of it, but it is this host's alone
                        self._on_failure(member, _unexpected(member.host, error))
                    self._look_whether_any_is_left()
                    if member.leaving or member.state is HostState.FAILED:
                        break
                    await anyio.sleep(self._pause(member))
                    self._connections.forget(member.host)
                while member.state is HostState.FAILED:
                    await anyio.sleep_forever()  # so that it is there to be seen, and to be removed
        finally:
            del self.members[member.host], self._by_site[member.site]
            self._connections.forget(member.host)
            member.over.set()
            self._tell_news(member)

    async def _serve(self, member: Member) -> None:
        """Use a host until it is lost, which is told at once: what is left of it may take a while to clear away.

        Raises:
            HostError, WorkerStartError: It cannot be used in the first place.
        """
        async with self._gate:
            connection = await self._connections.connect(member.host)
        try:
            await self._use(member, connection)
        finally:
            await self._connections.leave(connection)

    async def _use(self, member: Member, connection: Any) -> None:
        from .._workers.bootstrap import start_agent

        pool = self.pool
        setup = pickle.dumps(pool._setup(member.host))

        def on_ask(name: str, send: bool) -> None:
            self._group.start_soon(self._tell, station, name, send)

        station = RemoteStation(self.run.loop, self, setup, pool.grace, member.host.name, pool.lease, on_ask)
        agent = Agent(station)
        agent.on_end = member.news.tell
        channel = await start_agent(connection, agent, seconds=pool.ssh.start_timeout)
        agent.channel = channel
        try:
            await self._open_agent(member, agent)
            station.begin(agent, channel)
            self._on_up(member, station, channel.hello)
            await member.news.until(lambda: agent.ended.is_set() or member.suspended.is_set() or member.is_drained)
            if member.is_drained:
                return
            station.lost_because = self._why_lost(member, agent, station)
            self._on_failure(member, station.lost_because)
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave(member, station)
                await channel.aclose()

    async def _open_agent(self, member: Member, agent: Agent) -> None:
        pool, name = self.pool, member.host.name
        lease = int(pool.lease * 1000)
        options = {"threads": pool.threads_per_worker, "max_memory": pool.max_rss_per_worker, "lease": lease}
        if not await agent.open(folder=None, **options):
            if isinstance(agent.error, HostError):
                raise agent.error
            reason = agent.problem or "it did not answer"
            raise HostError(
                f"{name}: the host agent started, but cannot serve: {reason}. Is there room in /dev/shm or /tmp?",
                host=name,
                phase="handshake",
            )

    def _why_lost(self, member: Member, agent: Agent, station: RemoteStation) -> AioParallelError:
        if member.suspended.is_set() and isinstance(member.error, AioParallelError):
            return member.error
        name = member.host.name
        if isinstance(agent.error, HostError) and not station.is_silent:
            return agent.error
        return HostError(
            f"{name}: nothing was heard of it for {self.pool.lease:g} s. It is switched off, overloaded, frozen, or "
            "the way to it is cut. What ran there ends by itself as soon as its lease is over.",
            host=name,
        )

    async def _leave(self, member: Member, station: RemoteStation) -> None:
        """The host is used no more: end its workers, politely where they are idle, and settle what they leave."""
        member.site.is_open = False
        if station.lost_because is None:
            why = "it was removed from" if member.leaving else "its pool was closed:"
            station.lost_because = HostError(f"{member.host}: {why} {self.pool.name}", host=member.host.name)
        if station.agent is not None and not station.agent.ended.is_set():
            for carrier in list(station.carriers.values()):
                # In a hurry, one that is still being set up is not waited for.
                is_patient = self.run.drain or carrier.seat.standing is not Standing.STARTING
                station.bid_farewell(carrier, politely=is_patient and not carrier.seat.held)
            with anyio.move_on_after(self.pool.grace):
                agent = station.agent
                await member.news.until(lambda: not station.carriers or agent.ended.is_set())
        station.agent_lost()
        for seat in list(member.site.seats):  # those that were to be started a little later
            self.run.ledger.discard(seat)
        member.station = None
        self._tell_news(member)

    # Modules

    async def _tell(self, station: RemoteStation, name: str, send: bool) -> None:
        """Tell an agent what a module is, and send it if it is to travel; a worker waits for that, whatever happens."""
        try:
            module = await self.pool._modules.describe_in_thread(name, send=send)
        except Exception as error:
            _log.warning("%s: the module %s cannot be described", self.pool.name, name, exc_info=error)
            module = undescribed(name, send, error)
        station.say(op="answer", **module.answer())
        if module.archive is not None:
            station.post(module.archive.digest, module.pieces())

    def renew(self, names: set[str]) -> None:
        """These modules have changed: workers are replaced, as they may have imported what they were."""
        for member in self.members.values():
            if member.station is not None:
                member.station.say(op="renew", names=" ".join(names))
        for seat in list(self.run.ledger.seats):
            self.pool._carry_out(self.run, self.run.ledger.wear_out(seat))

    # What becomes of a host

    def _on_up(self, member: Member, station: RemoteStation, hello: Any) -> None:
        member.station = station
        member.cpus, member.python = max(1, hello.cpus), hello.version
        member.suspended = anyio.Event()
        if not member.slots:
            self._number(member, self.pool._slots_of(hello))
        site = member.site
        site.is_open, site.start_failures = True, 0
        threads = self.pool.threads_per_worker
        for slot in range(self._workers_of(member)):
            seat = Seat(member.first_index + slot, threads, self.pool._spare, site)
            self.pool._carry_out(self.run, self.run.ledger.add(seat))

    def _number(self, member: Member, slots: int) -> None:
        """A host has so many slots: its workers get their indexes, which they keep."""
        member.slots, member.first_index = slots, self._indexes
        self._indexes += self._workers_of(member)

    def _workers_of(self, member: Member) -> int:
        return -(-member.slots // self.pool.threads_per_worker)

    def _on_failure(self, member: Member, error: AioParallelError) -> None:
        was_up = member.failures == 0 and member.state is HostState.UP
        member.error = error
        member.failures += 1
        member.losses += was_up
        permanent = isinstance(error, HostError) and error.permanent
        member.state = HostState.FAILED if permanent else HostState.WAITING
        _log.warning("%s: %s", self.pool.name, error)
        if self.pool._observers:
            self.pool._observers.host_lost(member.host.name, error, permanent)
        self._tell_news(member)

    def _tell_news(self, member: Member) -> None:
        """Something has changed at a host, which may matter to those who wait for the pool, too."""
        member.news.tell()
        self._news.tell()

    def _look_whether_any_is_left(self) -> None:
        """When no host can be used, and none comes back in time, fail what waits."""
        if self.run.closing or not self.run.opened or self._is_any_ready() or not self._has_each_failed():
            return
        if all(member.state is HostState.FAILED for member in self.members.values()):
            self._fail_all()
            return
        if self._last_up == math.inf:
            self._last_up = time.monotonic()
            _log.warning("%s: no host can be used; calls wait for one to come back", self.pool.name)
            self.run.loop.call_later(self.pool.patience, self._lose_patience)

    def _lose_patience(self) -> None:
        if not self.run.closing and time.monotonic() - self._last_up >= self.pool.patience:
            self._fail_all()

    def _fail_all(self) -> None:
        self.pool._carry_out(self.run, self.run.ledger.fail_all(self._no_host()))

    def _pause(self, member: Member) -> float:
        return growing_pause(FIRST_PAUSE, member.failures, LONGEST_PAUSE) * (0.5 + random.random())

    def _is_any_ready(self) -> bool:
        return self.run.ledger.any_ready

    def _is_each_ready(self) -> bool:
        """Whether all workers of all hosts that can be used take calls."""
        return self._is_any_ready() and all(
            member.failures or (member.slots and member.site.ready == self._workers_of(member))
            for member in self.members.values()
        )

    def _has_each_failed(self) -> bool:
        return all(member.failures for member in self.members.values())

    def _no_host(self) -> AioParallelError:
        """The error for a pool none of whose hosts can be used."""
        errors = {member.host.name: member.error for member in self.members.values()}
        if not errors:
            return HostError(f"{self.pool.name} has no host: add one with `add_host`")
        starts = [error for error in errors.values() if isinstance(error, WorkerStartError)]
        if len(starts) == len(errors):
            return starts[0]
        text = f"{self.pool.name}: no host can be used.{_mismatches(errors)}"
        lines = [f"- {error}" for error in errors.values()]
        problem = HostError(
            "\n".join([text, *lines]), permanent=all(getattr(e, "permanent", False) for e in errors.values())
        )
        problem.__cause__ = next((error for error in errors.values() if error is not None), None)
        return problem

    # Backup copies

    async def _back_up(self, interval: float) -> None:
        """Look for late calls, again and again."""
        while True:
            await anyio.sleep(interval)
            self.pool._carry_out(self.run, self.run.ledger.back_up(time.time()))

    def since(self, call: Call) -> float | None:
        """When a call began, or the one that it waits behind, which its host does not answer to give it back."""
        carrier = call.worker.carrier
        if carrier is None:
            return None
        began = carrier.fronts.get(call.seq)
        return began if began is not None else min(carrier.fronts.values(), default=None)

    # What the ledger says

    def spawn(self, step: Spawn) -> None:
        """Have a worker forked where its seat is; after failures, a little later."""
        if step.failures:
            self.run.loop.call_later(step.pause, self._fork, step.seat)
        else:
            self._fork(step.seat)

    def suspend(self, step: Suspend) -> None:
        """No worker can be started at a site: give it up for a while."""
        member = self._by_site.get(step.site)
        if member is not None:
            member.error = step.error
            member.suspended.set()
            if self._waits_for_all:
                self._start_error = step.error
            self._tell_news(member)

    def _fork(self, seat: Seat) -> None:
        member = self._by_site.get(seat.site)
        if member is None or member.station is None or seat not in self.run.ledger.seats:
            return
        try:
            env = self.pool._environment(seat.index, member.cpus, max(1, member.slots))
        except Exception as error:  # of the user's own function
            self._cannot_fork(seat, error)
            return
        name = f"{self.pool.name}-{seat.index}@{member.host.name}"
        seat.carrier = member.station.fork(seat, seat.index, name, env)
        self.warm_up(seat.carrier)

    def _cannot_fork(self, seat: Seat, error: Exception) -> None:
        lost = WorkerLostError(
            f"the environment of worker {seat.index} cannot be made: {type(error).__name__}: {error}"
        )
        lost.__cause__ = error
        self.pool._carry_out(self.run, self.run.ledger.gone(seat, (), lambda _: lost, time.time()))

    # What workers say

    def worker_ready(self, carrier: Carrier) -> None:
        """A worker has started, and takes calls."""
        member = self._by_site.get(carrier.seat.site)
        if member is not None and member.state is HostState.CONNECTING:
            member.state = HostState.UP
            member.failures = 0
            member.error = None
            if self.pool._observers:
                self.pool._observers.host_up(member.host.name, member.slots)
        self._last_up = math.inf
        super().worker_ready(carrier)
        if self._waits_for_all:
            self.run.ledger.is_up = False  # others are to come
        self._news.tell()

    def worker_answered(self, carrier: Carrier, body: memoryview) -> None:
        """Answers have come."""
        carrier.seat.site.trip = carrier.station.trip  # type: ignore[attr-defined]
        super().worker_answered(carrier, body)

    def worker_gone(self, carrier: Carrier, gone: Gone) -> None:
        """A worker has ended: settle what it leaves behind."""
        super().worker_gone(carrier, gone)
        member = self._by_site.get(carrier.seat.site)
        if member is not None:
            member.news.tell()


def _unexpected(host: Host, error: Exception) -> HostError:
    """What is told of a failure that nobody has thought of; all there is to know of it is in the log."""
    _log.warning("%s: an unexpected error", host, exc_info=error)
    told = HostError(
        f"{host}: it cannot be used because of an unexpected {type(error).__name__}: {error}\n"
        "The log has its traceback. Unless your ssh configuration or the host's options explain it, please report it.",
        host=host.name,
    )
    told.__cause__ = error
    return told


def _mismatches(errors: dict[str, Any]) -> str:
    """All hosts at once whose Python is another than ours."""
    found = [f"{name} ({error.mismatch})" for name, error in errors.items() if getattr(error, "mismatch", None)]
    return f" Another version of Python is on {', '.join(found)}." if found else ""
