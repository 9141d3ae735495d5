"""What goes wrong, at random: workers, agents, hosts and networks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aioparallel import Executor
from aioparallel.testing import SshHost

__all__ = ["Faults"]


class Faults:
    """Breaks pools and hosts.

    Args:
        rng: Chance.
        pools: Those whose workers are processes.
        hosts: Those of the remote pool.
    """

    def __init__(self, rng: random.Random, pools: list[Executor], hosts: list[SshHost]) -> None:
        self.done: Counter[str] = Counter()
        self._rng = rng
        self._pools = pools
        self._hosts = hosts

    async def rage(self, pause: float, breakers: int) -> None:
        """Break things, so many at a time, again and again, until it is cancelled; then mend what can be mended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(breakers):
                group.create_task(self._rage(pause))

    async def _rage(self, pause: float) -> None:
        kinds: list[Callable[[], Awaitable[bool]]] = [self.kill_worker] * 6 + [self.stop_worker] * 3
        kinds += [self.stop_agent, self.kill_agent]
        kinds += [self.cut, self.partition, self.delay, self.refuse] if self._hosts else []
        try:
            while True:
                await asyncio.sleep(self._rng.expovariate(1 / pause))
                fault = self._rng.choice(kinds)
                if await fault():
                    self.done[fault.__name__.replace("_", " ")] += 1
        finally:
            for host in self._hosts:
                host.heal()

    # Processes

    async def kill_worker(self) -> bool:
        return self._send(self._worker(), signal.SIGKILL)

    async def stop_worker(self) -> bool:
        return await self._stop(self._worker())

    async def kill_agent(self) -> bool:
        return self._send(self._agent(), signal.SIGKILL)

    async def stop_agent(self) -> bool:
        return await self._stop(self._agent())

    async def _stop(self, pid: int | None) -> bool:
        if not self._send(pid, signal.SIGSTOP):
            return False
        try:
            await asyncio.sleep(self._rng.uniform(0.05, 0.7))
        finally:
            self._send(pid, signal.SIGCONT)
        return True

    def _worker(self) -> int | None:
        run = self._rng.choice(self._pools)._run
        pids = [] if run is None else [seat.carrier.pid for seat in run.ledger.seats if seat.carrier is not None]
        return self._rng.choice([pid for pid in pids if pid] or [None])

    def _agent(self) -> int | None:
        run = self._rng.choice(self._pools)._run
        stations = {seat.carrier.station for seat in run.ledger.seats if seat.carrier is not None} if run else set()
        pids = [station.agent.pid for station in stations if getattr(station.agent, "pid", None)]
        return self._rng.choice([*sorted(pids), *(pid for host in self._hosts for pid in host.commands)] or [None])

    @staticmethod
    def _send(pid: int | None, number: int) -> bool:
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    # Hosts and networks

    async def cut(self) -> bool:
        self._rng.choice(self._hosts).cut()
        return True

    async def partition(self) -> bool:
        return await self._for_a_while(lambda host: host.stall(), 4.0)

    async def refuse(self) -> bool:
        return await self._for_a_while(lambda host: (host.refuse(), host.cut()), 1.0)

    async def delay(self) -> bool:
        return await self._for_a_while(lambda host: host.delay(self._rng.uniform(0.005, 0.1)), 2.0)

    async def _for_a_while(self, harm: Callable[[SshHost], object], seconds: float) -> bool:
        host = self._rng.choice(self._hosts)
        harm(host)
        await asyncio.sleep(self._rng.uniform(0.1, seconds))
        host.heal()
        return True
