"""Checking hosts: everything that a pool does with a host, step by step, and how long it takes."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

import anyio

from aioparallel import AioParallelError, Host, HostError, RemoteExecutor

__all__ = ["PHASES", "Checkup", "check_all"]

PHASES = ("dns", "connect", "host key", "auth", "python", "handshake", "calls")
"""What has to work, in this order."""

AT_ONCE = 32
"""So many hosts are looked at at a time."""
SLOW_SHELL = 1.0
"""Seconds that a login shell may take to start."""
TOO_SLOW = "{}: it was not through with this after {:g} s. A larger --timeout may tell why."
TRIPS = 21
BLOCK = 4 << 20
"""Bytes that are sent to and fro."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """How a host is.

    Attributes:
        host: Its name.
        failed: The phase that failed, or that it was in when its time was over; ``None`` when all is well.
        error: Why, and what to do next.
        python: The version of its Python.
        cpus: How many CPUs the login may use.
        slots: How many calls it is to run at a time; ``None``: as many as it has CPUs.
        ready: Seconds from nothing to a worker that takes calls.
        shell: Seconds that the login shell takes to start, its profile included.
        trip: Seconds that a call takes that does nothing.
        sent: Bytes per second on the way there.
        received: Bytes per second on the way back.
        notes: What works, but could be better.
    """

    host: str
    failed: str | None = None
    error: str | None = None
    python: str = ""
    cpus: int | None = None
    slots: int | None = None
    ready: float | None = None
    shell: float | None = None
    trip: float | None = None
    sent: float | None = None
    received: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def phases(self) -> dict[str, bool | None]:
        """Each phase, and whether it works; ``None`` where it was not come to that."""
        if self.failed is None:
            return dict.fromkeys(PHASES, True)
        at = PHASES.index(self.failed)
        found: dict[str, bool | None] = {
            phase: True if place < at else None if place > at else False for place, phase in enumerate(PHASES)
        }
        if self.failed == "handshake":
            found["python"] = None  # a login whose shell does not run our commands fails before that
        return found


async def check_all(hosts: Sequence[Host], seconds: float) -> list[Checkup]:
    """Check hosts, all at once.

    Args:
        hosts: The hosts.
        seconds: How long each may take.
    """
    found: dict[int, Checkup] = {}
    gate, wire = anyio.CapacityLimiter(AT_ONCE), anyio.Lock()

    async def check(place: int, host: Host) -> None:
        async with gate:
            found[place] = await _check(host, wire, seconds)

    async with anyio.create_task_group() as group:
        for place, host in enumerate(hosts):
            group.start_soon(check, place, host)
    return [found[place] for place in range(len(hosts))]


async def _check(host: Host, wire: anyio.Lock, seconds: float) -> Checkup:
    pool = RemoteExecutor([_with_one_slot(host)], name="doctor")  # as patient with each phase as any pool
    known: dict[str, Any] = {"host": host.name, "slots": host.slots, "notes": tuple(_remarks(host))}
    late: list[str] = []

    def time_is_up() -> None:
        late.append(pool._fleet.phase_of(host.name) if pool._fleet is not None else PHASES[0])
        scope.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, time_is_up)
    try:
        with anyio.CancelScope() as scope:
            await _look(pool, host, wire, known)
        if scope.cancelled_caught:
            return Checkup(**known, failed=late[0], error=TOO_SLOW.format(host.name, seconds))
    except AioParallelError as error:
        return _failure(error, known)
    finally:
        timer.cancel()
        with anyio.CancelScope(shield=True):
            await pool.aclose(drain=False)
    return Checkup(**known)


async def _look(pool: RemoteExecutor, host: Host, wire: anyio.Lock, known: dict[str, Any]) -> None:
    """Use the host, and note what is seen."""
    begun = perf_counter()
    await pool.start()
    known["ready"] = perf_counter() - begun
    (status,) = pool.hosts
    known["python"], known["cpus"] = status.python, status.cpus
    shell = known["shell"] = await _shell_seconds(pool)
    if shell is not None and shell > SLOW_SHELL:
        note = (
            f"{host.name}: its login shell takes {shell:.1f} s to start, each time. What in its profile (~/.bashrc, "
            "~/.zshenv, /etc/profile.d) is for people at a terminal should be skipped when there is none."
        )
        known["notes"] = (*known["notes"], note)
    trips = []
    for _ in range(TRIPS):
        trips.append(await _seconds(pool, abs, 1))
    known["trip"] = statistics.median(trips)
    async with wire:  # one after the other, for they may share our way out
        known["sent"] = BLOCK / await _seconds(pool, len, os.urandom(BLOCK))
        known["received"] = BLOCK / await _seconds(pool, os.urandom, BLOCK)


async def _seconds(pool: RemoteExecutor, fn: Any, argument: Any) -> float:
    begun = perf_counter()
    await pool.submit(fn, argument)
    return perf_counter() - begun


async def _shell_seconds(pool: RemoteExecutor) -> float | None:
    """How long a command takes that does nothing; ``None`` if the host opens no further session."""
    import asyncssh

    connection = await pool._hands.connection_to(pool.hosts[0].name)
    begun = perf_counter()
    try:
        await connection.ssh.run("exit 0", stdin=asyncssh.DEVNULL)
    except (asyncssh.Error, OSError):
        return None
    return perf_counter() - begun


def _failure(error: AioParallelError, known: dict[str, Any]) -> Checkup:
    """What keeps a host from being used; a pool of one host says the same with words around it."""
    inner = error.__cause__ if isinstance(error, HostError) and isinstance(error.__cause__, HostError) else error
    phase = getattr(inner, "phase", None)
    return Checkup(**known, failed=phase if phase in PHASES else "calls", error=str(inner))


def _with_one_slot(host: Host) -> Host:
    values: dict[str, Any] = {field.name: getattr(host, field.name) for field in fields(Host)}
    values["slots"] = 1
    return Host(**values)


def _remarks(host: Host) -> list[str]:
    if (host.options or {}).get("known_hosts", ()) is None:
        return [f"{host.name}: its identity is not checked, because options={{'known_hosts': None}} says so."]
    return []
