"""Attempts on real hosts: elsewhere than where it went wrong, each kind of failure with a budget of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioparallel import PoisonTaskError, RemoteExecutor, Retry, TaskTimeoutError, WorkerLostError, current_call
from aioparallel.testing import SshHost, ssh_hosts
from tests.tools import Log, until

Where = tuple[int, str | None]


@pytest.fixture
async def hosts() -> AsyncIterator[list[SshHost]]:
    """Three hosts with a slot each."""
    async with ssh_hosts(3, slots=1) as found:
        yield found


@pytest.fixture
async def pool(hosts: list[SshHost]) -> AsyncIterator[RemoteExecutor]:
    """All three are up."""
    async with RemoteExecutor(hosts) as found:
        await until(lambda: found.status().workers == 3 and all(host.state == "up" for host in found.hosts))
        yield found


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))


def go_wrong(log: Log, how: str, times: int) -> Where:
    """Go wrong so many times; then tell the attempt, and the host."""
    call = current_call()
    assert call is not None
    log.write(call.host)
    if call.attempt <= times:
        if how == "raise":
            raise OSError("no")
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    return call.attempt, call.host


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("raise", {"retry": Retry(3, backoff=0)}),
        ("die", {"idempotent": True}),
        ("die", {"retry": Retry(1, worker_lost=2)}),
        ("hang", {"timeout": 0.5, "retry": Retry(1, timeout=2, backoff=0)}),
    ],
)
async def test_each_attempt_is_elsewhere(pool: RemoteExecutor, log: Log, how: str, options: dict[str, object]) -> None:
    """The next attempt goes to a host where none went wrong, and is told its number."""
    call = pool.options(**options).submit(go_wrong, log, how, 2)
    attempt, host = await call
    assert (attempt, call.info.attempts, pool.status().retried) == (3, 3, 2 if how != "die" else pool.status().retried)
    assert call.info.host == host
    assert len(set(log.lines)) == 3, "each attempt was on another host"


async def test_budgets_are_apart(pool: RemoteExecutor, log: Log) -> None:
    """A death uses up none of the attempts that are for exceptions, and an exception none of those for deaths."""
    careful = pool.options(retry=Retry(2, worker_lost=1, backoff=0))
    assert await careful.submit(fail_by_turns, log, "die raise") == 3
    with pytest.raises(OSError, match="no"):
        await careful.submit(fail_by_turns, Log(f"{log.path}2"), "raise die raise")
    with pytest.raises(WorkerLostError):
        await careful.submit(fail_by_turns, Log(f"{log.path}3"), "die die")


def fail_by_turns(log: Log, how: str) -> int:
    log.write("begun")
    turn = len(log.lines)
    hows = how.split()
    if turn > len(hows):
        return turn
    if hows[turn - 1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError("no")


async def test_poison(pool: RemoteExecutor, log: Log) -> None:
    """A call that kills its worker on one host after the other is set aside after the third, with its history."""
    with pytest.raises(PoisonTaskError) as caught:
        await pool.options(idempotent=True).submit(go_wrong, log, "die", 9)
    assert len(caught.value.history) == 3
    assert len(set(log.lines)) == 3


async def test_lost_host(hosts: list[SshHost], pool: RemoteExecutor, log: Log) -> None:
    """What ran on a host that is lost is begun elsewhere only with the caller's word."""
    safe = pool.options(idempotent=True).submit(go_wrong, log, "hang", 1)
    await until(lambda: len(log.lines) == 1)
    unsafe_log = Log(f"{log.path}2")
    unsafe = pool.submit(go_wrong, unsafe_log, "hang", 1)
    await until(lambda: len(unsafe_log.lines) == 1)
    lost = {log.lines[0], unsafe_log.lines[0]}
    for host in hosts:
        if host.name in lost:
            host.refuse()
            host.cut()
    assert (await safe)[0] == 2
    assert safe.info.host not in lost
    with pytest.raises(WorkerLostError):
        await unsafe
    assert len(unsafe_log.lines) == 1


async def test_timeouts_are_told(pool: RemoteExecutor, log: Log) -> None:
    """When no attempt is left, a call that ran too long fails with its time and the stack that it was stuck in."""
    with pytest.raises(TaskTimeoutError) as caught:
        await pool.options(timeout=0.3, retry=Retry(1, timeout=1, backoff=0)).submit(go_wrong, log, "hang", 9)
    assert caught.value.stack.endswith(" in go_wrong"), "nothing of ours is in it"
    assert len(log.lines) == 2
