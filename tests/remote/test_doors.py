"""What users say, on real hosts: decorators, maps, stateful pools, configured or with hosts of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aioparallel import (
    Host,
    HostError,
    RemoteExecutor,
    StatefulPool,
    WorkerStartError,
    blocking,
    configure,
    parmap,
    wait_all,
)
from tests.remote import farjobs
from tests.remote.openssh import Sshd
from tests.remote.pools import LEASE, QUICK, is_up
from tests.tools import until

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]


async def test_verbs_on_configured_hosts(sshd: Start) -> None:
    """Decorated functions, ``distribute``, maps and stateful pools run on the hosts that ``configure`` names."""
    hosts = [sshd().host(slots=2) for _ in range(2)]
    async with configure(remote=RemoteExecutor(hosts, lease=LEASE, ssh=QUICK)):
        calls = [farjobs.factorial(n) for n in range(10)]
        assert await wait_all(calls) == [farjobs.factorial.local(n) for n in range(10)]
        assert {call.info.host for call in calls} <= {host.name for host in hosts}
        assert await (farjobs.factorial(3) + farjobs.factorial(farjobs.factorial(3))) == 726
        assert await farjobs.score(range(10), range(10), scale=3) == [6 * n for n in range(10)]
        assert await parmap(farjobs.square, range(50), method="remote") == [n * n for n in range(50)]
        assert [x async for x in farjobs.factorial.map(range(5))] == [1, 1, 2, 6, 24]
        async with StatefulPool(farjobs.Counter, method="remote") as pool:
            assert sum(await pool.map(range(20))) >= 20
    with pytest.raises(RuntimeError, match=r"configure\(remote="):
        await farjobs.factorial(3)


async def test_workers_of_a_stateful_pool_are_counted_over_hosts(sshd: Start) -> None:
    """With hosts of its own, a stateful pool has a worker for each slot, which are counted in the order of the hosts."""
    hosts = [sshd().host(slots=slots) for slots in (1, 2)]
    own = [{"start": start} for start in (100, 200, 300)]
    options: dict[str, Any] = {"lease": LEASE, "ssh": QUICK}
    async with StatefulPool(farjobs.Counter, method="remote", hosts=hosts, worker_kwargs=own, **options) as pool:
        assert pool.status().workers == 3
        found = await pool.map([None] * 60)
        assert {value // 100 for value in found} == {1, 2, 3}
        where = {call.info.host: call for call in [pool.submit() for _ in range(60)] if await call // 100 == 1}
        assert set(where) == {hosts[0].name}


async def test_a_state_that_cannot_be_built_on_one_host(sshd: Start) -> None:
    """A state that cannot be built anywhere keeps the pool from opening; a host that cannot be used does not."""
    hosts = [sshd().host(slots=1), sshd().host(slots=2)]
    options: dict[str, Any] = {"method": "remote", "lease": LEASE, "ssh": QUICK}
    own = [{"start": 0}, {"start": 0}, {"start": -1}]
    pool = StatefulPool(farjobs.Counter, hosts=hosts, worker_kwargs=own, **options)
    with pytest.raises(WorkerStartError, match="cannot begin below nothing"):
        await pool.start()
    absent = Host("no-such-host.invalid", slots=1, options={"config": None})
    async with StatefulPool(farjobs.Counter, hosts=[absent, hosts[0]], **options) as pool:
        assert await pool.submit() == 1
    with pytest.raises(HostError, match=r"no-such-host\.invalid"):
        await StatefulPool(farjobs.Counter, hosts=[absent], **options).start()


async def test_a_state_on_a_host_that_comes_back(sshd: Start) -> None:
    """When a host is lost and found again, its workers build fresh states from the same arguments."""
    server, other = sshd(), sshd()
    hosts = [server.host(slots=1), other.host(slots=1)]
    options: dict[str, Any] = {"method": "remote", "lease": LEASE, "ssh": QUICK}
    own = [{"start": 100}, {"start": 200}]
    async with StatefulPool(farjobs.Counter, hosts=hosts, worker_kwargs=own, **options) as pool:
        inner = pool._opened()
        assert isinstance(inner, RemoteExecutor)
        await pool.map([None] * 40)
        server.stop()
        await until(lambda: not is_up(inner, hosts[0]))
        assert {value // 100 for value in await pool.map([None] * 10)} == {2}
        server.start()
        await until(lambda: is_up(inner, hosts[0]))
        found = await pool.map([None] * 40)
        assert min(found) == 101, "a fresh one"


def test_code_without_an_event_loop(sshd: Start) -> None:
    """`aioparallel.blocking` has the same pool, as an executor of `concurrent.futures`."""
    host = sshd().host(slots=2)
    with blocking.RemoteExecutor([host], lease=10.0, ssh=QUICK) as pool:
        assert pool.submit(farjobs.square, 4).result() == 16
        assert list(pool.map(farjobs.square, range(20))) == [x * x for x in range(20)]
        assert {each for each, _ in pool.map(farjobs.where, range(5))} == {host.name}


def test_how_many_workers() -> None:
    """Where the number of workers matters, hosts have to say it, and it has to be the same."""
    make: Callable[..., StatefulPool] = StatefulPool
    with pytest.raises(ValueError, match="Give each `slots=`, when it matters: b"):
        make(farjobs.Counter, method="remote", hosts=[Host("a", slots=1), Host("b")], worker_kwargs=[{}, {}])
    with pytest.raises(ValueError, match="workers=3, but the hosts have slots for 2"):
        make(farjobs.Counter, workers=3, method="remote", hosts=[Host("a", slots=2)])
    with pytest.raises(ValueError, match="worker_kwargs has 1 entries for 2 workers"):
        make(farjobs.Counter, method="remote", hosts=[Host("a", slots=2)], worker_kwargs=[{}])
    with pytest.raises(TypeError, match="expected a list of hosts"):
        make(farjobs.Counter, method="remote", hosts="a")
    with pytest.raises(TypeError, match="hosts"):
        make(farjobs.Counter, method="process", hosts=["a"])
