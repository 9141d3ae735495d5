"""The blocking executor on remote hosts: one for all these tests, on two ssh hosts that run in a thread of this process."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import TaskTimeoutError, WorkerLostError, blocking, current_call
from aioparallel.testing import SshHost
from tests.contract import jobs
from tests.sshhosts import serve, write_hosts
from tests.tools import Gate, hold, is_alive, wait_for

pytestmark = [
    pytest.mark.timeout(120),  # for the first one, which waits for a host
    # Workers that were killed are replaced some time later.
    pytest.mark.leak_check(processes=False, fds=False),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[SshHost]]:
    with serve(2, slots=2) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def pool(hosts: list[SshHost]) -> Iterator[blocking.RemoteExecutor]:
    with blocking.RemoteExecutor(hosts, name="cluster") as pool:
        assert pool._max_workers == 4, "a host that is not up yet counts as well"
        wait_for(lambda: pool.status().workers == 4)
        yield pool
    wait_for(lambda: not any(host.commands for host in hosts), "nothing runs there any more")


def where(_: Any) -> str | None:
    return current_call().host


def test_calls(pool: blocking.RemoteExecutor) -> None:
    """Calls run on the hosts, on all of them, and their futures are those of the standard library."""
    assert pool.submit(pow, 2, 100).result(60) == 2**100
    futures = [pool.submit(jobs.add, n, 1) for n in range(200)]
    assert {future.result(60) for future in concurrent.futures.as_completed(futures)} == set(range(1, 201))
    assert concurrent.futures.wait(futures).not_done == set()
    assert None not in {pool.submit(where, n).result(60) for n in range(4)}


def test_closures(pool: blocking.RemoteExecutor) -> None:
    """What is defined here travels there."""
    offset = 10
    assert list(pool.map(lambda n: n + offset, range(5), timeout=60)) == [10, 11, 12, 13, 14]


def test_map(pool: blocking.RemoteExecutor) -> None:
    """``map`` gives the results in order, in chunks and from a bounded input as well."""
    assert list(pool.map(jobs.add, range(500), range(500), timeout=60)) == [2 * n for n in range(500)]
    assert list(pool.map(abs, range(100), chunksize=7, timeout=60)) == list(range(100))
    taken: list[int] = []
    results = pool.map(abs, (taken.append(n) or n for n in range(10**9)), buffersize=4)  # type: ignore[func-returns-value]
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 4 + 1
    results.close()


def test_failure(pool: blocking.RemoteExecutor) -> None:
    """What a call raises arrives as itself."""
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(60)


def test_timeout(pool: blocking.RemoteExecutor, tmp_path: Any) -> None:
    """Waiting may have a timeout, and so may a call, which is killed."""
    gate = Gate(str(tmp_path / "gate"))
    future = pool.options(timeout=1).submit(hold, gate)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TaskTimeoutError):
        future.result(60)
    wait_for(lambda: not any(map(is_alive, gate.entered)))


def test_cancel(pool: blocking.RemoteExecutor, tmp_path: Any) -> None:
    """To cancel a call kills the process over there that runs it."""
    gate = Gate(str(tmp_path / "gate"))
    future = pool.submit(hold, gate)
    wait_for(lambda: gate.entered)
    assert future.cancel()
    assert future.cancelled()
    wait_for(lambda: not is_alive(gate.entered[0]))
    assert pool.submit(abs, -1).result(60) == 1


def test_death(pool: blocking.RemoteExecutor) -> None:
    """A call that kills its worker fails alone, and says where."""
    dying, living = pool.submit(os._exit, 3), pool.submit(abs, -3)
    with pytest.raises(WorkerLostError) as caught:
        dying.result(60)
    assert caught.value.host is not None
    assert living.result(60) == 3


def test_several_threads(pool: blocking.RemoteExecutor) -> None:
    """It may be used from several threads at a time."""
    sums: list[int] = []
    threads = [threading.Thread(target=lambda: sums.append(sum(pool.map(abs, range(50))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [1225] * 4


async def test_beside_a_running_loop(pool: blocking.RemoteExecutor) -> None:
    """Its results may be waited for in a thread whose own loop runs."""
    assert pool.submit(abs, -1).result(60) == 1
    assert list(pool.map(abs, [-1, -2])) == [1, 2]


def test_verbs(pool: blocking.RemoteExecutor) -> None:
    """``parmap`` and ``parallelize`` run there as well."""
    assert list(blocking.parmap(abs, range(-5, 0), on=pool)) == [5, 4, 3, 2, 1]
    assert blocking.parallelize(jobs.add, on=pool)(1, 2).result(60) == 3


WITHOUT_SHUTDOWN = """
import time
from aioparallel import load_hosts
from aioparallel.blocking import RemoteExecutor

def slow(n):
    time.sleep(0.1)
    return n

pool = RemoteExecutor(load_hosts())
for n in range(6):
    pool.submit(slow, n).add_done_callback(lambda future: print(future.result(), flush=True))
"""


@pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 2),
    reason="this Python starts no thread when the main thread has ended (gh-113964)",
)
def test_a_program_that_forgets_to_shut_down(hosts: list[SshHost], pool: object, tmp_path: Path) -> None:
    """What was submitted runs to its end, then the program ends, and nothing of it is left on the hosts."""
    before = [host.commands for host in hosts]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_SHUTDOWN],
        env={**os.environ, "HOME": str(tmp_path), "AIOPARALLEL_HOSTS": write_hosts(hosts, tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (sorted(done.stdout.split()), done.stderr) == (list("012345"), "")
    wait_for(lambda: [host.commands for host in hosts] == before)
