"""Faults happen where they were asked for, and nowhere else."""

from __future__ import annotations

import pytest

from aioparallel import (
    CallExitedError,
    ProcessExecutor,
    RemoteExecutor,
    Retry,
    SerialExecutor,
    ThreadExecutor,
    WorkerLostError,
)
from aioparallel.testing import (
    Die,
    Exit,
    Faulty,
    Once,
    Raise,
    Slow,
    Unpicklable,
    drop_host,
    kill_worker,
    ssh_hosts,
)
from tests.tools import Gate, hold, is_alive, until


def square(n: int) -> int:
    return n * n


async def test_items_of_a_map() -> None:
    """Of a map on real processes, exactly the faulty items fail, each in its way."""
    faulty = Faulty(square, {1: Raise(OSError("no luck")), 3: Die(), 5: Exit(3), 7: Unpicklable(), 8: Slow(0.01)})
    async with ProcessExecutor(2) as pool:
        outcomes = [each async for each in pool.map(faulty, range(10), errors="return")]
    failed = {outcome.item: type(outcome.error).__name__ for outcome in outcomes if not outcome.ok}
    assert failed == {1: "OSError", 3: "WorkerLostError", 5: "CallExitedError", 7: failed.get(7)}
    assert failed[7] != "NoneType"
    assert {outcome.item: outcome.value for outcome in outcomes if outcome.ok} == {
        n: n * n for n in range(10) if n not in failed
    }


async def test_once() -> None:
    """A fault of the first attempt only lets the second succeed."""
    async with SerialExecutor() as pool:
        faulty = Faulty(square, {3: Once(Raise(OSError("no luck")))})
        assert await pool.options(retry=Retry(2, backoff=0)).submit(faulty, 3) == 9
    assert Faulty(square, {3: Once(Exit())})(4) == 16
    assert faulty.__name__ == "square"


async def test_exit_here() -> None:
    """A call that exits in this process is reported as that."""
    async with SerialExecutor() as pool:
        with pytest.raises(CallExitedError):
            await pool.submit(Faulty(square, {3: Exit(2)}), 3)


async def test_killed_worker(tmp_path: object) -> None:
    """A killed worker loses the call that it ran, and is replaced."""
    gate = Gate(f"{tmp_path}/gate")
    async with ProcessExecutor(1) as pool:
        future = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        pid = kill_worker(pool)
        assert [pid] == gate.entered
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            await future
        assert not is_alive(pid)
        assert await pool.submit(square, 3) == 9


async def test_no_such_worker() -> None:
    """Where there is no process, none can be killed."""
    async with ThreadExecutor(1) as pool:
        with pytest.raises(LookupError, match="no worker process"):
            kill_worker(pool)


@pytest.mark.timeout(60)
async def test_dropped_host(tmp_path: object) -> None:
    """A host that vanishes loses what it ran; what may be repeated is done by another; healed, it comes back."""
    async with ssh_hosts(2, slots=1) as hosts, RemoteExecutor(hosts) as pool:
        await until(lambda: [host.state for host in pool.hosts] == ["up", "up"])
        gates = [Gate(f"{tmp_path}/{n}") for n in range(2)]
        again = pool.options(idempotent=True, retry=Retry(3, backoff=0))
        futures = [again.submit(hold, gate, n) for n, gate in enumerate(gates)]
        await until(lambda: all(gate.entered for gate in gates))
        drop_host(hosts[0])
        await until(lambda: pool.hosts[0].state != "up")
        for gate in gates:
            gate.open()
        assert [await future for future in futures] == [0, 1]
        hosts[0].heal()
        await until(lambda: pool.hosts[0].state == "up", seconds=40)
