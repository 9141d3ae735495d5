"""The campaign: clients that call, cancel and give up, on local and remote pools that are being broken meanwhile.

It goes in rounds. Each opens the pools, calls for some seconds, and closes them, draining or not. After each round
nothing may be left; after the last one it is counted how often each call was begun.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from aioparallel import (
    AioParallelError,
    Backups,
    CallCancelledError,
    CallExitedError,
    Executor,
    ExecutorClosedError,
    HostError,
    PicklingError,
    ProcessExecutor,
    RemoteError,
    RemoteExecutor,
    Retry,
    SmartFuture,
    TaskTimeoutError,
    ThreadExecutor,
    WorkerLostError,
    WorkerStartError,
    wait_any,
)
from aioparallel.testing import ssh_hosts
from tests.chaos import jobs
from tests.chaos.faults import Faults
from tests.chaos.rules import Checker, descriptors, memory

__all__ = ["Campaign", "Settings"]

LOST = (WorkerLostError, WorkerStartError, HostError, CallCancelledError, ExecutorClosedError)
"""What may become of any call while workers, hosts and pools come and go."""
MAX_LOSSES = 10
AUDIT_SECONDS = 0.05
MAX_COPIES = 2
CLOSE_SECONDS = 45.0
"""No pool may take longer to close than this: a drain waits for calls, and for hosts until their lease is over."""


@dataclass(frozen=True)
class Settings:
    """How long, and with what."""

    seconds: float = 60.0
    calls: int = 0
    faults: int = 0
    """It goes on until it has taken so long, the ends of so many calls were seen, and so much was broken."""
    seed: int = 0
    clients: int = 24
    round_seconds: float = 8.0
    pause: float = 0.15
    """Between two faults, on the average, of each of those who break things."""
    breakers: int = 2
    """Some faults last for seconds: others should come meanwhile."""
    remote: bool = True


@dataclass
class Campaign:
    """One run of it."""

    settings: Settings
    checker: Checker = field(init=False)
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    """Of each pool's workers."""
    peak: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    """How many pieces of memory Python's objects took after each round."""
    begun: int = 0

    async def run(self) -> Campaign:
        """Do it all."""
        settings = self.settings
        mark = f"chaos-{uuid.uuid4().hex}"
        os.environ["AIOPARALLEL_CHAOS"] = mark
        folder = tempfile.mkdtemp(prefix="aioparallel-chaos-")
        self.checker = Checker(folder)
        end = time.monotonic() + settings.seconds
        asyncio.get_running_loop().set_exception_handler(self._on_error)
        try:
            number = 0
            before = descriptors()
            while number == 0 or not (self._is_enough(end) or self.checker.violations):
                rng = random.Random(f"{settings.seed}/{number}")
                await self._round(rng, self._seconds_for_round(end), folder, mark)
                if number == 0:
                    before |= {each for each in descriptors() if "null" in each or "urandom" in each}
                await self.checker.check_settled()
                await self.checker.check_nothing_left(mark, before)
                self.peak.append(memory())
                self.blocks.append(sys.getallocatedblocks())
                number += 1
            self.begun = self.checker.check_begun()
            self.checker.check_blame("local", self.deaths["local"])
            self._check_memory()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self

    def _has_goals(self) -> bool:
        """Whether more is to be called or broken."""
        settings = self.settings
        return self.checker.outcomes.total() < settings.calls or self.faults.total() < settings.faults

    def _is_enough(self, end: float) -> bool:
        return time.monotonic() >= end and not self._has_goals()

    def _seconds_for_round(self, end: float) -> float:
        most = self.settings.round_seconds
        return most if self._has_goals() else max(1.0, min(most, end - time.monotonic()))

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Nothing may fail where nobody sees it."""
        loop.default_exception_handler(context)
        self.checker.broken(f"in the event loop: {context['message']}: {context.get('exception')!r}")

    def _check_memory(self) -> None:
        """What is held after the third round is held after the last one, but for the number of each call that succeeded.

        The memory of the process is judged less strictly than the objects in it, for gaps between these stay.
        """
        if len(self.peak) <= 4:
            return
        if (grown := self.peak[-1] - self.peak[2]) > 24 + len(self.checker.ends) * 400e-6:
            self.checker.broken(f"{grown:.0f} MB more are held than after the third round")
        if (more := self.blocks[-1] - self.blocks[2]) > 20_000 + len(self.checker.ends):
            self.checker.broken(f"Python's objects take {more} pieces of memory more than after the third round")

    # A round

    async def _round(self, rng: random.Random, seconds: float, folder: str, mark: str) -> None:
        async with AsyncExitStack() as stack:
            hosts = []
            if self.settings.remote:
                hosts = await stack.enter_async_context(ssh_hosts(3, slots=2, env={"AIOPARALLEL_CHAOS": mark}))
            pools: list[Executor] = [
                ProcessExecutor(2, grace=3.0, name="local"),
                ThreadExecutor(2, grace=3.0, name="threads"),
            ]
            if hosts:
                backups = Backups(after=0.3, interval=0.05, max_copies=MAX_COPIES, max_extra=0.5)
                pools.append(RemoteExecutor(hosts, backups=backups, lease=2.0, patience=10.0, grace=3.0, name="remote"))
            for pool in pools:
                await pool.start()
            separate = [pool for pool in pools if not isinstance(pool, ThreadExecutor)]
            faults = Faults(rng, separate, hosts)
            auditing = asyncio.ensure_future(self._audit(pools))
            raging = asyncio.ensure_future(faults.rage(self.settings.pause, self.settings.breakers))
            clients = [Client(self.checker, folder, rng.random(), pools) for _ in range(self.settings.clients)]
            calling = [asyncio.ensure_future(client.call_until(time.monotonic() + seconds)) for client in clients]
            drain = rng.random() < 0.5
            await asyncio.sleep(seconds * (1.0 if drain else 0.7))
            if rng.random() < 0.5:
                raging.cancel()
            await asyncio.gather(*(self._close(pool, drain) for pool in pools))
            for task in (raging, auditing):
                task.cancel()
            await asyncio.wait([raging, auditing])
            await self._join(calling)
            self.faults += faults.done
        for task in (raging, auditing):
            if not task.cancelled() and task.exception():
                raise task.exception()  # type: ignore[misc]

    async def _audit(self, pools: list[Executor]) -> None:
        while True:
            for pool in pools:
                self.checker.check_books(pool)
            await asyncio.sleep(AUDIT_SECONDS)

    async def _close(self, pool: Executor, drain: bool) -> None:
        """Close a pool in its time; what it has counted is kept."""
        status = pool.status
        run = pool._run
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.aclose(drain=drain)
        except TimeoutError:
            self.checker.broken(f"{pool.name} took more than {CLOSE_SECONDS:g} s to close: {status()}")
        if run is not None:
            counts = run.ledger.counts
            self.counts += Counter(
                retried=counts.retried, deaths=counts.deaths, backups=counts.backups, won=counts.backups_won
            )
            self.deaths[pool.name] += counts.deaths

    async def _join(self, calling: list[asyncio.Future[None]]) -> None:
        _, waiting = await asyncio.wait(calling, timeout=CLOSE_SECONDS)
        for client in waiting:
            self.checker.broken(f"a client waits for ever: {client!r}")
            client.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for client in calling:
            if not client.cancelled() and client.exception():
                raise client.exception()  # type: ignore[misc]


def _begins(
    kind: str,
    *,
    has_copies: bool,
    idempotent: bool = False,
    retry: Retry | None = None,
    timeout: float | None = None,
    **_: object,
) -> int:
    """How often such a call may be begun."""
    retry = retry or Retry(1)
    raises = kind in {"fail", "quit", "result"} or (timeout is not None and retry.timeout is None)
    lost = idempotent if retry.worker_lost is None else retry.worker_lost
    return (
        1
        + (retry.attempts - 1 if raises else 0)
        + (MAX_LOSSES if lost is True else int(lost))
        + (int(retry.timeout or 0) if timeout is not None else 0)
        + (MAX_COPIES if has_copies and idempotent else 0)
    )


class Client:
    """Calls, one thing after another."""

    def __init__(self, checker: Checker, folder: str, seed: float, pools: list[Executor]) -> None:
        self._checker = checker
        self._folder = folder
        self._rng = random.Random(seed)
        self._pools = pools

    async def call_until(self, end: float) -> None:
        """Until then, or until the pools are closed."""
        doings: list[Callable[[], Awaitable[None]]] = [self._one] * 6 + [self._many] * 3
        doings += [self._cancelled, self._given_up, self._first_of_some, self._mapped, self._unpicklable]
        while time.monotonic() < end:
            with suppress(ExecutorClosedError):
                await self._rng.choice(doings)()
            await asyncio.sleep(0)
            if not any(pool._run and not pool._run.closing for pool in self._pools):
                return

    # What is called

    def _submit(self, kinds: str = "") -> tuple[int, str, SmartFuture[Any], Any, tuple[type[BaseException], ...]]:
        """Hand over some call: (number, kind, future, what it returns, what it raises)."""
        rng = self._rng
        pool = rng.choice(self._pools)
        is_thread = isinstance(pool, ThreadExecutor)
        usual = "work work work work echo async fail straggle quit result"
        kind = rng.choice((kinds or (usual if is_thread else f"{usual} die hang")).split())
        if is_thread and kind in {"hang", "die", "async", "quit", "result"}:
            kind = "work"
        options: dict[str, Any] = {"priority": rng.randrange(3)}
        if rng.random() < 0.5:
            options["idempotent"] = True
        if kind == "hang" or rng.random() < 0.1:
            options["timeout"] = rng.uniform(0.05, 0.6)
        if rng.random() < 0.3:
            options["retry"] = Retry(
                rng.randrange(1, 4),
                backoff=0.01,
                worker_lost=rng.choice([None, None, False, 1]),
                timeout=rng.choice([None, None, 0, 1]),
            )
        allowed = _begins(kind, has_copies=isinstance(pool, RemoteExecutor), **options)
        number = self._checker.new(allowed)
        fn, more, returns, raises = self._job(kind, number)
        if "timeout" in options:
            raises = (*raises, TaskTimeoutError)
        future = pool.options(**options).submit(fn, self._folder, number, *more)
        self._checker.submitted(number, future, is_near=not isinstance(pool, RemoteExecutor))
        return number, f"{kind} on {pool.name}", future, returns, (*raises, *LOST)

    def _job(self, kind: str, number: int) -> tuple[Any, tuple[Any, ...], Any, tuple[type[BaseException], ...]]:
        rng = self._rng
        if kind == "echo":
            size = rng.choice([10] * 6 + [100_000] * 3 + [2_000_000])
            return jobs.echo, (bytes(size),), (number, size), ()
        if kind in {"work", "async"}:
            seconds = rng.choice([0.0, 0.0, 0.0, 0.001, 0.05])
            return jobs.work if kind == "work" else jobs.work_async, (seconds,), number, ()
        if kind == "straggle":
            return jobs.straggle, (), number, ()
        if kind == "fail":
            return jobs.fail, (), None, (ValueError,)
        if kind == "quit":
            return jobs.quit_, (), None, (CallExitedError,)
        if kind == "result":
            return jobs.unpicklable_result, (), None, (PicklingError, RemoteError, TypeError)
        return (jobs.die if kind == "die" else jobs.hang), (), None, ()

    async def _see(self, call: tuple[int, str, SmartFuture[Any], Any, tuple[type[BaseException], ...]]) -> None:
        number, kind, future, returns, raises = call
        try:
            value = await future
        except (Exception, CallCancelledError) as error:
            self._checker.raised(number, kind, error, raises)
        else:
            self._checker.returned(number, kind, value, returns)

    # What clients do

    async def _one(self) -> None:
        await self._see(self._submit())

    async def _many(self) -> None:
        kinds = "work work work work work work echo straggle fail"
        calls = [self._submit(kinds) for _ in range(self._rng.randrange(2, 200))]
        for call in calls:
            await self._see(call)

    async def _cancelled(self) -> None:
        """Cancel by the future."""
        call = self._submit("work hang straggle echo")
        await asyncio.sleep(self._rng.choice([0, 0.001, 0.02, 0.2]))
        call[2].cancel()
        await self._see(call)

    async def _given_up(self) -> None:
        """Cancel by no longer waiting."""
        call = self._submit("work straggle hang")
        with suppress(AioParallelError, TimeoutError):
            await asyncio.wait_for(call[2], self._rng.choice([0.001, 0.02, 0.2]))
        await self._see(call)

    async def _first_of_some(self) -> None:
        """Take the first, and leave the others."""
        calls = [self._submit("work straggle") for _ in range(self._rng.randrange(1, 6))]
        async with wait_any([call[2] for call in calls], cancel_pending=True) as finished:
            async for _ in finished:
                break
        for call in calls:
            if not call[2].done():
                self._checker.broken(f"{call[1]} {call[0]} goes on after its block was left")
            await self._see(call)

    async def _mapped(self) -> None:
        """A map, left early as often as not."""
        pool = self._rng.choice(self._pools)
        numbers = [self._checker.new(1) for _ in range(self._rng.randrange(1, 300))]
        most = self._rng.choice([3, 1000])
        seen = []
        async with pool.map(
            jobs.work, [(self._folder, number, 0.001) for number in numbers], star=True, errors="return"
        ) as results:
            async for outcome in results:
                seen.append(outcome.index)
                if outcome.ok:
                    self._checker.returned(
                        numbers[outcome.index], f"item on {pool.name}", outcome.value, numbers[outcome.index]
                    )
                else:
                    self._checker.raised(numbers[outcome.index], f"item on {pool.name}", outcome.error, LOST)
                if len(seen) == most:
                    break
        if len(seen) < min(most, len(numbers)) or seen != sorted(set(seen)):
            self._checker.broken(f"a map of {len(numbers)} items gave {seen}")

    async def _unpicklable(self) -> None:
        """What cannot travel is refused at once."""
        pool = self._rng.choice(self._pools)
        if isinstance(pool, ThreadExecutor):
            return
        number = self._checker.new(0)
        try:
            pool.submit(jobs.echo, self._folder, number, (each for each in b"generators cannot be pickled"))  # type: ignore[arg-type]
        except PicklingError:
            self._checker.outcomes["refused"] += 1
        except AioParallelError as error:
            self._checker.raised(number, "unpicklable", error, LOST)
        else:
            self._checker.broken(f"call {number} was taken, although it cannot be pickled")
