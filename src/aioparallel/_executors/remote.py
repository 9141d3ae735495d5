"""RemoteExecutor: calls run on machines that can be reached by ssh."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from .._child.boot import boot_id
from .._model.call import Call, Phase
from .._model.hosts import Hello, Host, SshSettings
from .._model.options import Backups
from .._policy.ledger import Ledger
from .._policy.placement import AnyPolicy, WeightedRandom, placement_for
from .._policy.steps import Spawn, Suspend
from .._workers.modules import Modules
from .._workers.shipping import Reach
from .environment import Environment, blas_limits, variables_of
from .fleet import Fleet, HostStatus
from .local import group_of
from .pool import Run
from .processes import ProcessPool

__all__ = ["RemoteExecutor", "checked_hosts"]

EDIT_SECONDS = 0.5
"""So often it is looked, while calls come, whether modules were edited."""
QUICK = 0.005
"""Seconds that looking may take to be done at once; what takes longer is done in a thread."""
PAUSE_SECONDS = 1.0
"""When nobody has looked for so long, somebody may have edited meanwhile, and calls wait until it has been looked."""
HOLD_SECONDS = 1.0
"""But no longer than this."""

_log = logging.getLogger("aioparallel")


class RemoteExecutor(ProcessPool):
    """Runs calls on other machines, which need nothing but a Python of the same minor version and an ssh server.

    What is true of a :class:`ProcessExecutor` is true here: functions may be lambdas or from ``__main__``, a cancelled
    call is killed, one worker's death is one call's failure, prints and log records come home. Your own modules
    travel along.

    A host that cannot be used, or is lost, does not fail the pool: it is tried again, less and less often. Calls that
    were sent to a lost host may have run, and fail with a :exc:`WorkerLostError`, unless they are ``idempotent``.

    Args:
        hosts: Where: :class:`Host` objects, or names such as ``"me@node2:2222"``.
        policy: Which host gets the next call: :class:`WeightedRandom`, :class:`RoundRobin`, :class:`LeastLoaded`, or an
            object of yours with a method ``choose``.
        backups: When calls that are late get a copy on another host: :class:`Backups`, ``True`` for its defaults,
            ``None`` for never. Only calls that are ``idempotent`` are copied.
        threads_per_worker: How many calls each worker process runs at a time, in threads.
        initializer: Called once in each worker before its first call.
        env: Environment variables for the workers, or a function of the worker's index that returns them.
        preload: Names of modules that each worker imports before its first call.
        max_tasks_per_worker: Replace a worker after so many calls.
        max_rss_per_worker: Replace a worker, between calls, when its memory is larger (bytes); a call that
            makes it twice as large is killed.
        lease: Seconds after which a host that we hear nothing of is given up, and after which everything of ours that
            runs there ends, if it hears nothing of us.
        patience: Seconds that calls wait when no host can be used, before they fail.
        ssh: How patient connections are (see :class:`SshSettings`).
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.
        name: Seen in errors, logs and :meth:`~Executor.status`.
        max_pending: How many calls may wait for a worker.

    Raises:
        TypeError, ValueError: An option makes no sense.

    Cancellation:
        A cancelled call, or one that runs longer than its ``timeout``, is killed on its host with its worker process
        and all that this has started, and the worker is replaced; calls beside it lose nothing. With
        ``threads_per_worker > 1`` a cancelled call is asked to stop, and an overdue one takes its worker along.

    What may still be running:
        Nothing once it is closed; on a host that cannot be reached, nothing once its lease is over.

    Example:
        ::

            async with RemoteExecutor(["node1", Host("me@node2", slots=8)]) as pool:
                print(await pool.submit(pow, 2, 100))
    """

    kind = "remote"

    def __init__(
        self,
        hosts: Iterable[Host | str],
        *,
        policy: AnyPolicy | None = None,
        backups: Backups | bool | None = None,
        threads_per_worker: int = 1,
        initializer: Callable[[], object] | None = None,
        env: Environment | None = None,
        preload: Sequence[str] = (),
        max_tasks_per_worker: int | None = None,
        max_rss_per_worker: int | None = None,
        lease: float = 15.0,
        patience: float = 60.0,
        ssh: SshSettings | None = None,
        grace: float = 5.0,
        name: str | None = None,
        max_pending: float = math.inf,
    ) -> None:
        self._modules = Modules()
        super().__init__(
            Reach(self._modules.reaches),
            threads_per_worker=threads_per_worker,
            initializer=initializer,
            env=env,
            preload=preload,
            max_tasks_per_worker=max_tasks_per_worker,
            max_rss_per_worker=max_rss_per_worker,
            name=name,
            max_pending=max_pending,
            grace=grace,
        )
        self._hosts = checked_hosts(hosts)
        self.policy = policy if policy is not None else WeightedRandom()
        self.backups = _checked_backups(backups)
        self.lease = lease
        self.patience = patience
        self.ssh = SshSettings() if ssh is None else ssh
        self._looked_at = 0.0
        self._looking = False
        self._fleet: Fleet | None = None
        self._check()

    def _check(self) -> None:
        placement_for(self.policy)  # it refuses nonsense
        if not isinstance(self.ssh, SshSettings):
            raise TypeError(f"ssh={self.ssh!r}: expected SshSettings(...)")
        for option in ("lease", "patience"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"{option}={value!r}: expected seconds, more than 0")

    # Hosts

    @property
    def hosts(self) -> tuple[HostStatus, ...]:
        """How each host stands; only looks."""
        if self._fleet is None:
            return tuple(HostStatus(host.name, "closed") for host in self._hosts)
        return tuple(member.status() for member in tuple(self._fleet.members.values()))

    def add_host(self, host: Host | str) -> None:
        """Use one more host, from now on and whenever the executor is opened; waits for nothing.

        Args:
            host: The host, or its name.

        Raises:
            ValueError: It is a host of this executor already.
        """
        (added,) = checked_hosts([host])
        if any(added.name == each.name for each in self._hosts):
            raise ValueError(f"{added} is a host of {self.name} already")
        if self._fleet is not None:
            self._fleet.add(added)
        self._hosts.append(added)

    async def remove_host(self, host: Host | str, *, drain: bool = True) -> None:
        """Use a host no more.

        Args:
            host: The host, or its name.
            drain: Wait until the calls that it holds have ended; otherwise they fail as if it had been lost.

        Raises:
            ValueError: It is no host of this executor.

        Cancellation:
            The host goes on leaving.

        What may still be running:
            Nothing there; if it was cancelled, what the host ran, until that has ended.
        """
        found = next((each for each in self._hosts if each == host or each.name == str(host)), None)
        if found is None:
            raise ValueError(f"{host} is no host of {self.name}: there are {', '.join(map(str, self._hosts))}")
        self._hosts.remove(found)
        if self._fleet is not None and found in self._fleet.members:
            await self._fleet.remove(self._fleet.members[found], drain=drain)

    # What the pool asks

    def _new_ledger(self) -> Ledger:
        return Ledger(
            max_tasks=self.max_tasks_per_worker,
            placement=placement_for(self.policy),
            backups=self.backups,
            since=self._since,
        )

    def _since(self, call: Call) -> float | None:
        return None if self._fleet is None else self._fleet.since(call)

    async def _open(self, run: Run) -> None:
        self._common_setup()  # what cannot travel is told before any host is bothered with it
        run.hands = self._fleet = Fleet(self, run)
        await self._fleet.open(self._hosts, wait_for_all=self._waits_for_all)

    async def _close(self, run: Run) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await fleet.close()

    def _full_capacity(self) -> int:
        """Hosts that have not answered yet count with the slots that they were given, and else with one."""
        return self._capacity() if self._fleet is None else self._fleet.full_width()

    @property
    def _hands(self) -> Fleet:
        assert self._fleet is not None, "hosts are there before the ledger has workers"
        return self._fleet

    def _began(self, call: Call) -> float | None:
        return call.begun_at if self._fleet is None else self._fleet.began(call)

    def _spawn(self, run: Run, step: Spawn) -> None:
        self._hands.spawn(step)

    def _suspend(self, run: Run, step: Suspend) -> None:
        self._hands.suspend(step)

    # Edited modules

    def _enqueue(self, run: Run, call: Call) -> None:
        """Each call comes by here, on the run's thread: one call, a chunk of a map, or what another thread submits."""
        since, has_grown = time.monotonic() - self._looked_at, self._modules.has_grown
        if since > EDIT_SECONDS or has_grown:
            self._look_for_edits(run, since > PAUSE_SECONDS or has_grown)
        if self._holds:
            run.waiting.add(call)
            run.held.append(call)
        else:
            super()._enqueue(run, call)

    def _look_for_edits(self, run: Run, hold: bool) -> None:
        """Have workers replaced that have imported what has been edited since."""
        if self._fleet is None or self._looking:
            return
        if self._look_is_quick:
            began = time.monotonic()
            with self._complaining():
                self._renew(self._modules.changed())
            self._looked_at = time.monotonic()
            self._look_is_quick = self._looked_at - began < QUICK
        else:
            self._looking, self._holds = True, hold
            group_of(run).start_soon(self._look_in_thread, run)

    async def _look_in_thread(self, run: Run) -> None:
        patience = run.loop.call_later(HOLD_SECONDS, self._release, run)
        try:
            with self._complaining():
                self._renew(await self._modules.changed_in_thread())
        finally:
            patience.cancel()
            self._looked_at = time.monotonic()
            self._looking = False
            self._release(run)

    def _release(self, run: Run) -> None:
        """Queue the calls that were held."""
        self._holds = False
        held, run.held = run.held, []
        for call in held:
            run.waiting.discard(call)
            if call.phase is Phase.WAITING:
                super()._enqueue(run, call)
        run.quiet.set()  # some of them may have been cancelled

    @contextmanager
    def _complaining(self) -> Generator[None]:
        """To look for edited modules must not fail the call that comes by, nor the pool; each failure is told once."""
        try:
            yield
        except Exception as error:
            if self._complaint != repr(error):
                self._complaint = repr(error)
                text = "%s: it cannot be seen whether modules were edited"
                _log.warning(text, self.name, exc_info=error)

    def _renew(self, names: set[str]) -> None:
        if names and self._fleet is not None:
            self._fleet.renew(names)

    _complaint = ""
    """Why that could not be done the last time it failed."""

    _holds = False
    """Whether calls wait until it has been looked for edits."""

    _look_is_quick = True
    """Whether it takes so little time to look for edited modules that it can be done at once."""

    _waits_for_all = False
    """Whether it opens only when all workers of its hosts are there."""

    _spare: int | None = None
    """How many calls a worker may hold that have not begun; ``None``: as many as are short."""

    def _slots_of(self, hello: Hello) -> int:
        """How many calls a host runs at a time, if it does not say: as many as it has CPUs; half of that here."""
        is_here = hello.boot is not None and hello.boot == boot_id()
        return max(1, hello.cpus // 2 if is_here else hello.cpus)

    def _setup(self, host: Host) -> dict[str, Any]:
        """What each worker of a host is told before its first call."""
        return {"path": None, "host": host.name, **self._common_setup()}

    def _environment(self, index: int, cpus: int, slots: int) -> dict[str, str]:
        """The environment of one worker, on top of its host's own."""
        return {**blas_limits(cpus, slots), **variables_of(self.env, index)}


def _checked_backups(backups: Backups | bool | None) -> Backups | None:
    if backups is None or isinstance(backups, bool):
        return Backups() if backups else None
    if not isinstance(backups, Backups):
        raise TypeError(f"backups={backups!r}: expected Backups(...), True, False or None")
    return backups


def checked_hosts(hosts: Iterable[Host | str]) -> list[Host]:
    """Hosts by name or otherwise, each once.

    Raises:
        TypeError, ValueError: They are none.
    """
    if isinstance(hosts, (str, Host)):
        raise TypeError(f"hosts={hosts!r}: expected a list of hosts, such as [{hosts!r}]")
    found = [host if isinstance(host, Host) else Host(host) for host in hosts]
    names = [host.name for host in found]  # by which hosts are told, also in errors and in `hosts`
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ValueError(f"hosts: {twice[0]} is there twice; say with slots= how many calls it runs at a time")
    if not found:
        raise ValueError("hosts: expected at least one; load_hosts() reads them from a file")
    return found
