"""Inside a call: which one it is, and whether somebody cancelled it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioparallel import (
    CallCancelledError,
    CurrentCall,
    ProcessExecutor,
    check_cancelled,
    configure,
    current_call,
    parallelize,
)
from aioparallel._executors.thread import ThreadExecutor
from tests.tools import Gate, until
from tests.unit.verbs import jobs


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


def test_outside_of_a_call() -> None:
    """Outside of a call `current_call` raises a RuntimeError that says so, and `check_cancelled` does nothing."""
    with pytest.raises(RuntimeError, match="outside of a call"):
        current_call()
    check_cancelled()


async def test_in_threads_and_coroutines() -> None:
    """In a thread, in a coroutine and in its tasks, the call is known: its future's id, name, attempt and worker."""
    for function in (jobs.describe_call_in_thread, jobs.describe_call_in_coroutine):
        future = function()
        assert await future == (future.id, function.__name__, 1, 0)  # type: ignore[attr-defined]


async def test_in_processes() -> None:
    """In a worker process, too."""
    async with configure(process=ProcessExecutor(1)):
        assert await jobs.describe_call() == ("describe_call", 1, 0, None)


async def test_attempts() -> None:
    """A call that is made again knows the number of its attempt."""
    attempts = []

    @parallelize(retry=3)
    def flaky() -> CurrentCall:
        attempts.append(current_call().attempt)
        if len(attempts) < 3:
            raise OSError
        return current_call()

    call = await flaky()
    assert isinstance(call, CurrentCall)
    assert attempts == [1, 2, call.attempt] == [1, 2, 3]


async def test_the_innermost_call() -> None:
    """On an executor that a worker opened for itself, the call of that executor is the current one."""
    async with ProcessExecutor(1) as pool:
        assert await pool.submit(_inner_call) == ("_name_of_call", "_inner_call")


async def test_check_cancelled(gate: Gate) -> None:
    """In a thread whose call was cancelled, `check_cancelled` raises; as long as it was not, nothing happens."""
    raised: list[BaseException] = []

    def work() -> None:
        check_cancelled()
        jobs.hold(gate)
        try:
            check_cancelled()
        except CallCancelledError as error:
            raised.append(error)
            raise

    async with ThreadExecutor(1) as pool:
        future = pool.submit(work)
        await until(lambda: gate.entered)
        future.cancel()
        gate.open()
        await until(lambda: raised)
    assert "work was cancelled" in str(raised[0])


def _name_of_call() -> str:
    return current_call().name


async def _inner_call() -> tuple[str, str]:
    async with ThreadExecutor(1) as pool:
        return await pool.submit(_name_of_call), current_call().name
