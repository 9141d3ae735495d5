"""What pyutils promised for remote workers, and where it hung or lost data, on real hosts, in its users' words.

Shown elsewhere: what happens when workers, hosts and controllers die (``test_fleet``, ``test_outages``), that a retry
avoids the machine that failed (``test_fleet``), and how ``~/.remote_worker_records`` is read (``unit/workers/test_hostfile``).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aioparallel import (
    CallExitedError,
    Host,
    LeastLoaded,
    PicklingError,
    RoundRobin,
    WeightedRandom,
    load_hosts,
    wait_all,
)
from aioparallel._policy.placement import HostLoad
from tests.remote import farjobs
from tests.remote.openssh import Sshd
from tests.remote.pools import Open, far_folder, gate, is_up, open_pool, status_of
from tests.tools import Gate, until

__all__ = ["far_folder", "gate", "open_pool"]

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]


async def test_factorials(sshd: Start, open_pool: Open) -> None:
    """Fifty factorials on remote workers, in the order in which they were asked for, and in any."""
    pool = await open_pool(sshd().host(slots=2), sshd().host(slots=1))
    calls = [pool.submit(farjobs.factorial.local, n % 20) for n in range(50)]
    assert await wait_all(calls) == [farjobs.factorial.local(n % 20) for n in range(50)]


async def test_a_worker_serves_many_calls(sshd: Start, open_pool: Open) -> None:
    """One login and one process serve all calls; it was a new ssh and a new interpreter for each."""
    server = sshd()
    pool = await open_pool(server.host(slots=1))
    assert len({await pool.submit(farjobs.where) for _ in range(20)}) == 1
    assert server.logins == 1


async def test_none_is_a_result(sshd: Start, open_pool: Open) -> None:
    """A call may return ``None``."""
    pool = await open_pool(sshd().host(slots=1))
    assert await pool.submit(farjobs.tell, "nothing") is None


async def test_an_exception_comes_back(sshd: Start, open_pool: Open) -> None:
    """What a call raises, its caller gets, with the traceback; it hung for ever. The same for ``sys.exit``."""
    pool = await open_pool(sshd().host(slots=1))
    with pytest.raises(ZeroDivisionError) as caught:
        await pool.submit(divmod, 1, 0)
    assert caught.value.__cause__ is not None
    with pytest.raises(CallExitedError) as left:
        await pool.submit(farjobs.leave, 3)
    assert left.value.code == 3
    assert await pool.submit(farjobs.square, 3) == 9


async def test_a_result_that_cannot_travel(sshd: Start, open_pool: Open) -> None:
    """A result that cannot be pickled is an error that says so; the real cause was lost after four attempts."""
    pool = await open_pool(sshd().host(slots=1))
    with pytest.raises(PicklingError, match="lock"):
        await pool.submit(farjobs.make_lock)


async def test_prints_come_home(sshd: Start, open_pool: Open, capsys: pytest.CaptureFixture[str]) -> None:
    """What calls print is printed here; it was thrown away."""
    pool = await open_pool(sshd().host(slots=1))
    await pool.submit(farjobs.tell, "hello from over there")
    said = ""

    def has_come() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "hello from over there" in said

    await until(has_come)


async def test_transfers_do_not_wait_for_each_other(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """While one result of many megabytes is on its way, other calls end, are cancelled, and are seen in the status."""
    pool = await open_pool(sshd().host(slots=3))
    large = [pool.submit(os.urandom, 30_000_000) for _ in range(2)]
    assert await pool.submit(farjobs.square, 4) == 16
    held = pool.submit(farjobs.hold_at, gate)
    await until(lambda: gate.entered)
    held.cancel()
    await asyncio.wait([held])
    assert [len(data) for data in await wait_all(large)] == [30_000_000] * 2


async def test_leaving_waits_for_what_was_submitted(sshd: Start, open_pool: Open) -> None:
    """A pool that is closed ends what was submitted first, queued calls included, and is then gone from the host."""
    server = sshd()
    pool = await open_pool(server.host(slots=1))
    calls = [pool.submit(farjobs.slow_square, n) for n in range(10)]
    await pool.aclose()
    assert [call.result() for call in calls] == [n * n for n in range(10)]
    await until(lambda: not server.processes)


async def test_the_scoreboard(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """Who has which calls, who idles, how much has ended and how long it took is there at any time."""
    busy, idle = sshd().host(slots=2), sshd().host(slots=1)
    pool = await open_pool(busy)
    await pool.map(farjobs.square, range(30), chunksize=1)
    held = [pool.submit(farjobs.hold_at, gate) for _ in range(2)]
    await until(lambda: len(gate.entered) == 2)
    pool.add_host(idle)
    await until(lambda: is_up(pool, idle))
    await until(lambda: status_of(pool, busy).running == 2)
    assert (status_of(pool, idle).running, status_of(pool, idle).slots) == (0, 1)
    status = pool.status()
    assert (status.workers, status.running, status.done) == (3, 2, 30)
    assert status.p50 is not None
    assert status.p95 is not None
    gate.open()
    await wait_all(held)


async def test_nothing_is_left_in_the_folders_of_a_host(sshd: Start, open_pool: Open) -> None:
    """No file of ours stays on a host: not of code, nor of results, nor of killed calls."""
    pool = await open_pool(sshd().host(slots=1))
    folders = await pool.submit(farjobs.own_folders)
    assert folders
    assert all(map(os.path.exists, folders))
    await pool.aclose()
    assert not any(map(os.path.exists, folders))


# Policies


class Alphabetical:
    """A user's own policy."""

    def choose(self, hosts: Sequence[HostLoad]) -> HostLoad:
        return min(hosts, key=lambda host: host.name)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (WeightedRandom(seed=1), lambda light, heavy: 2 * light < heavy),
        (RoundRobin(), lambda light, heavy: light == heavy),
        (LeastLoaded(), lambda light, heavy: light < heavy),
        (Alphabetical(), lambda light, heavy: 0 in (light, heavy)),
    ],
    ids=["weighted", "in turn", "least loaded", "own"],
)
async def test_policies(sshd: Start, open_pool: Open, policy: Any, expected: Callable[[int, int], bool]) -> None:
    """Chance by weight, in turn, by load, or as a policy of one's own says."""
    light, heavy = sshd().host(slots=1, weight=1), sshd().host(slots=1, weight=4)
    pool = await open_pool(light, heavy, policy=policy)
    await until(lambda: is_up(pool, light) and is_up(pool, heavy))
    seen = Counter([(await pool.submit(farjobs.where))[0] for _ in range(100)])
    assert expected(seen[light.name], seen[heavy.name]), seen


async def test_weights_matter_beside_slots(sshd: Start, open_pool: Open) -> None:
    """A machine with more slots gets more of the calls, and its slots are still all there afterwards."""
    small, large = sshd().host(slots=1), sshd().host(slots=3)
    pool = await open_pool(small, large)
    await until(lambda: is_up(pool, small) and is_up(pool, large))
    await pool.map(farjobs.nap_there, range(50), chunksize=1)  # now everybody has loaded it
    seen = Counter(await pool.map(farjobs.nap_there, range(200), chunksize=1))
    assert seen[large.name] > seen[small.name] > 0
    assert [(status.slots, status.held) for status in pool.hosts] == [(1, 0), (3, 0)]


# Configuration


async def test_worker_records(sshd: Start, open_pool: Open, tmp_path: Path) -> None:
    """The file that pyutils had, with comments and a comma too many, names the hosts; those that are down do not matter."""
    server = sshd()
    host = server.host()
    config = tmp_path / "ssh_config"
    known = tmp_path / "known_hosts"
    known.write_bytes(server.known_hosts)
    config.write_text(
        f"Host node1\n  HostName {host.machine}\n  Port {server.port}\n  IdentityFile {server.world.key}\n"
        f"  UserKnownHostsFile {known}\n  HostKeyAlias [{host.machine}]:{server.port}\n"
    )
    records = [
        {"username": host.username, "machine": "node1", "weight": 2, "count": 2},
        {"username": "me", "machine": "gone.invalid", "weight": 1, "count": 1},
    ]
    file = tmp_path / ".remote_worker_records"
    text = json.dumps({"remote_worker_records": records}, indent=1).replace("\n ]", ",\n ]")
    file.write_text(f"# our machines\n{text}")
    found = [
        Host(
            each.machine,
            username=each.username,
            slots=each.slots,
            weight=each.weight,
            python=host.python,
            options={"config": str(config), "agent_path": None},
        )
        for each in load_hosts(file)
    ]
    pool = await open_pool(*found)
    assert {host for host, _ in await pool.map(farjobs.where, range(20))} == {found[0].name}
    await until(lambda: status_of(pool, found[1]).error)
    assert [status.slots for status in pool.hosts] == [2, 1]


def test_no_slots() -> None:
    """A machine without slots is refused when it is named, not when all are added up."""
    with pytest.raises(ValueError, match="slots=0"):
        Host("node1", slots=0)
