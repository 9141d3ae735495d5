"""A pool of real hosts: what it does with them, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

import pytest

from aioparallel import (
    CallCancelledError,
    Host,
    HostError,
    PoisonTaskError,
    RemoteExecutor,
    Retry,
    WorkerLostError,
)
from aioparallel._model.hosts import Hello
from tests.remote import farjobs
from tests.remote.openssh import MINOR, Sshd, World, make_key, send
from tests.remote.pools import Open, far_folder, gate, is_up, log, open_pool, parent_of, status_of
from tests.tools import Gate, Log, is_alive, until

__all__ = ["far_folder", "gate", "log", "open_pool"]

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]


# Calls


async def test_calls_run_on_all_hosts(sshd: Start, open_pool: Open) -> None:
    """Calls run on every host at once, each in a worker of its own, and know where they are."""
    hosts = [sshd().host(slots=2) for _ in range(2)]
    pool = await open_pool(*hosts)
    await until(lambda: all(is_up(pool, host) for host in hosts))
    found = await pool.map(farjobs.where, range(200))
    assert {host for host, _ in found} == {host.name for host in hosts}
    assert os.getpid() not in {pid for _, pid in found}
    assert await pool.submit(farjobs.square, 12) == 144
    assert [(status.slots, status.error) for status in pool.hosts] == [(2, None)] * 2


async def test_slots_are_the_cpus_of_the_host(sshd: Start, open_pool: Open) -> None:
    """Without ``slots`` a host runs as many calls as it has CPUs, and half of them if it is this very machine."""
    host = sshd().host()
    pool = await open_pool(host)
    assert status_of(pool, host).slots == max(1, len(os.sched_getaffinity(0)) // 2)
    hello = Hello("", "", "", pid=1, cpus=8, platform="", node="", boot="elsewhere")
    assert pool._slots_of(hello) == 8


# Workers and agents that die


async def test_a_worker_that_dies(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """A worker's death is the failure of the one call that it ran, with the signal and the host; its place is filled."""
    host = sshd().host(slots=2)
    pool = await open_pool(host)
    beside = pool.submit(farjobs.hold_at, gate, "beside")
    await until(lambda: gate.entered)
    with pytest.raises(WorkerLostError) as caught:
        await pool.submit(farjobs.die)
    assert (caught.value.signal, caught.value.host) == ("SIGKILL", host.name)
    assert is_up(pool, host), "the host is as good as before"
    await until(lambda: pool.status().workers == 2)
    gate.open()
    assert await beside == (host.name, "beside")


async def test_an_idempotent_call_is_repeated_after_a_death(sshd: Start, open_pool: Open, log: Log) -> None:
    """A call that may be repeated is, when its worker dies; one that kills every worker is found out."""
    pool = await open_pool(sshd().host(slots=1))
    assert await pool.options(idempotent=True).submit(farjobs.die_once, log) == 2
    with pytest.raises(PoisonTaskError):
        await pool.options(idempotent=True).submit(farjobs.die)


async def test_an_agent_that_is_killed(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """When the agent of a host is killed, so are its workers; what ran fails, what waited runs when the host is back."""
    host = sshd().host(slots=1)
    pool = await open_pool(host)
    running = pool.submit(farjobs.hold_at, gate)
    waiting = pool.submit(farjobs.square, 3)
    (worker,) = await until(lambda: gate.entered)
    send(signal.SIGKILL, parent_of(worker))
    with pytest.raises(WorkerLostError) as caught:
        await running
    assert caught.value.host == host.name
    await until(lambda: not is_alive(worker))
    assert await waiting == 9
    status = status_of(pool, host)
    assert (status.state, status.losses, status.error) == ("up", 1, None)


async def test_an_sshd_that_is_killed(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """A host whose server dies is lost: its calls are reported, the others go on, and it is used again when it is back."""
    server, other = sshd(), sshd()
    hosts = [server.host(slots=1), other.host(slots=1)]
    pool = await open_pool(*hosts)
    await until(lambda: all(is_up(pool, host) for host in hosts))
    running = [pool.submit(farjobs.hold_at, gate) for _ in range(2)]
    await until(lambda: len(gate.entered) == 2)
    server.stop()
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    (lost,) = [call for call in running if call.done()]
    assert isinstance(lost.exception(), WorkerLostError)
    await until(lambda: status_of(pool, hosts[0]).state == "waiting")
    assert status_of(pool, hosts[0]).error is not None
    assert status_of(pool, hosts[0]).workers == 0
    gate.open()
    assert set(await pool.map(farjobs.where, range(10))) == set(await pool.map(farjobs.where, range(10)))
    server.start()
    await until(lambda: is_up(pool, hosts[0]))
    assert {host for host, _ in await pool.map(farjobs.where, range(100))} == {host.name for host in hosts}


async def test_a_connection_that_is_cut(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """When a connection is cut, all that ran over it ends on the host, and a new one is made."""
    server = sshd()
    host = server.host(slots=1)
    pool = await open_pool(host)
    running = pool.submit(farjobs.busy_in_c, gate)
    (worker,) = await until(lambda: gate.entered)
    agent = parent_of(worker)
    send(signal.SIGKILL, parent_of(agent))  # the process of sshd that serves this connection
    with pytest.raises(WorkerLostError):
        await running
    await until(lambda: not is_alive(worker) and not is_alive(agent))
    assert await pool.submit(farjobs.square, 4) == 16
    assert server.logins == 2


async def test_what_may_run_twice_is_repeated_elsewhere(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """An idempotent call whose host is lost runs on another one; others are reported as lost, never repeated."""
    server, other = sshd(), sshd()
    hosts = [server.host(slots=2), other.host(slots=2)]
    pool = await open_pool(*hosts[:1])
    again = pool.options(idempotent=True).submit(farjobs.hold_at, gate, 1)
    once = pool.submit(farjobs.hold_at, gate, 2)
    await until(lambda: len(gate.entered) == 2)
    pool.add_host(hosts[1])
    await until(lambda: is_up(pool, hosts[1]))
    server.stop()
    with pytest.raises(WorkerLostError, match="may have") as caught:
        await once
    assert isinstance(caught.value.__cause__, HostError)
    gate.open()
    assert await again == (hosts[1].name, 1)
    assert again.info.attempts == 2


# Hosts that cannot be used


async def test_bad_hosts_degrade_the_pool(
    sshd: Start, open_pool: Open, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Hosts that cannot be used are told in the log and in ``hosts``, each with its error, and fail nothing."""
    server = sshd()
    good = server.host(slots=1)
    stranger = make_key(world.folder / f"stranger-{server.port}")
    bad = {
        "auth": sshd().host(options={"client_keys": str(stranger)}),
        "python": sshd().host(python=["no-such-python"]),
        "dns": Host("no-such-host.invalid", options={"config": None}),
        "host key": sshd().host(options={"known_hosts": server.known_hosts}),
    }
    with caplog.at_level(logging.WARNING, "aioparallel"):
        pool = await open_pool(good, *bad.values())
        assert await pool.submit(farjobs.square, 5) == 25
        await until(lambda: all(status_of(pool, host).error for host in bad.values()))
    for phase, host in bad.items():
        status = status_of(pool, host)
        assert isinstance(status.error, HostError)
        assert (status.error.phase, status.workers) == (phase, 0), status
        assert status.state == ("failed" if status.error.permanent else "waiting")
        assert any(host.name in record.getMessage() for record in caplog.records)
    assert {host for host, _ in await pool.map(farjobs.where, range(20))} == {good.name}


async def test_lasting_failures_are_not_tried_again(sshd: Start, open_pool: Open, world: World) -> None:
    """A server that has refused a login is asked once."""
    good, bad = sshd(), sshd()
    stranger = make_key(world.folder / f"stranger-{bad.port}")
    host = bad.host(options={"client_keys": str(stranger)})
    pool = await open_pool(good.host(slots=1), host)
    await until(lambda: status_of(pool, host).state == "failed")
    asked = bad.log.count("Connection from")
    for _ in range(2):  # it would have been time to try again
        await _a_pause_passes(pool, sshd)
    assert bad.log.count("Connection from") == asked


async def _a_pause_passes(pool: RemoteExecutor, sshd: Start) -> None:
    """Wait until another host has been lost and found again, which takes as long as a pause does."""
    server = sshd()
    host = server.host(slots=1)
    pool.add_host(host)
    await until(lambda: is_up(pool, host))
    server.stop()
    await until(lambda: status_of(pool, host).state == "waiting")
    server.start()
    await until(lambda: is_up(pool, host))
    await pool.remove_host(host)


async def test_no_host_can_be_used(sshd: Start, open_pool: Open) -> None:
    """A pool none of whose hosts can be used does not open, and names all of them with what is wrong."""
    hosts = [sshd().host(python=["no-such-python"]), Host("no-such-host.invalid", options={"config": None})]
    with pytest.raises(HostError) as caught:
        await open_pool(*hosts)
    for host in hosts:
        assert host.name in str(caught.value)
    assert "no-such-python: not found" in str(caught.value)
    assert "[dns]" in str(caught.value) or "dns" in str(caught.value) or "no machine" in str(caught.value)


async def test_another_version_is_named_for_all_hosts(sshd: Start, open_pool: Open, world: World) -> None:
    """Hosts whose Python has another minor version are refused, and named at once, all of them, with both versions."""
    minor = "3.12" if MINOR != "3.12" else "3.11"
    other = world.need_python(minor)
    hosts = [sshd().host(python=[other]) for _ in range(2)]
    with pytest.raises(HostError) as caught:
        await open_pool(*hosts)
    first = str(caught.value).splitlines()[0]
    assert "Another version of Python is on " in first
    for host in hosts:
        assert f"{host.name} ({minor}." in first
    assert f"The Python here is {MINOR}" in str(caught.value)
    assert caught.value.permanent


async def test_calls_wait_with_patience(sshd: Start, open_pool: Open) -> None:
    """When every host is lost, calls wait for one to come back; after ``patience`` they fail, and all are named."""
    servers = [sshd(), sshd()]
    hosts = [server.host(slots=1) for server in servers]
    pool = await open_pool(*hosts, patience=2.0)
    await until(lambda: all(is_up(pool, host) for host in hosts))
    for server in servers:
        server.stop()
    await until(lambda: all(status_of(pool, host).state == "waiting" for host in hosts))
    with pytest.raises(HostError) as caught:
        await pool.submit(farjobs.square, 6)
    for host in hosts:
        assert host.name in str(caught.value)
    with pytest.raises(HostError):
        await pool.submit(farjobs.square, 6)
    servers[0].start()
    await until(lambda: is_up(pool, hosts[0]))
    assert await pool.submit(farjobs.square, 6) == 36, "a host that comes back is used, however late"


# More hosts, and fewer


async def test_hosts_are_added_while_it_runs(sshd: Start, open_pool: Open) -> None:
    """A host that is added gets its share of the calls, modules included; the same one cannot be added twice."""
    first, late = (sshd().host(slots=1) for _ in range(2))
    pool = await open_pool(first)
    assert await pool.submit(farjobs.square, 7) == 49
    pool.add_host(late)
    await until(lambda: is_up(pool, late))
    assert {host for host, _ in await pool.map(farjobs.where, range(100))} == {first.name, late.name}
    with pytest.raises(ValueError, match="already"):
        pool.add_host(late)


async def test_a_host_leaves_when_its_calls_have_ended(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """A host that is removed gets no further calls, ends those it has, and then nothing of it is left."""
    leaving, staying = sshd(), sshd()
    hosts = [leaving.host(slots=1), staying.host(slots=1)]
    pool = await open_pool(hosts[0])
    held = pool.submit(farjobs.hold_at, gate, "done")
    await until(lambda: gate.entered)
    pool.add_host(hosts[1])
    await until(lambda: is_up(pool, hosts[1]))
    removing = asyncio.ensure_future(pool.remove_host(hosts[0]))
    await until(lambda: status_of(pool, hosts[0]).state == "draining")
    assert {host for host, _ in await pool.map(farjobs.where, range(20))} == {hosts[1].name}
    assert not removing.done()
    gate.open()
    assert await held == (hosts[0].name, "done")
    await removing
    assert [status.name for status in pool.hosts] == [hosts[1].name]
    await until(lambda: not leaving.processes)
    with pytest.raises(ValueError, match="is no host of"):
        await pool.remove_host(hosts[0])


async def test_a_host_is_dropped(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """A host that is removed without draining is left at once: its calls are killed, and reported as lost."""
    leaving = sshd()
    hosts = [leaving.host(slots=1), sshd().host(slots=1)]
    pool = await open_pool(hosts[0])
    held = pool.submit(farjobs.busy_in_c, gate)
    (worker,) = await until(lambda: gate.entered)
    pool.add_host(hosts[1])
    await pool.remove_host(hosts[0].name, drain=False)
    assert not is_alive(worker)
    with pytest.raises(WorkerLostError, match="was lost while running busy_in_c") as caught:
        await held
    assert "out-of-memory" not in str(caught.value)
    assert str(caught.value.__cause__) == f"{hosts[0]}: it was removed from far"
    assert await pool.submit(farjobs.square, 8) == 64


async def test_the_last_host_leaves(sshd: Start, open_pool: Open) -> None:
    """A pool without any host says so to those who call, until it gets one again."""
    server = sshd()
    pool = await open_pool(server.host(slots=1))
    await pool.remove_host(server.host(slots=1))
    with pytest.raises(HostError, match="add_host"):
        await pool.submit(farjobs.square, 9)
    pool.add_host(server.host(slots=1))
    await until(lambda: pool.status().workers)
    assert await pool.submit(farjobs.square, 9) == 81


# Cancelling


async def test_a_cancelled_call_is_killed_in_c(sshd: Start, open_pool: Open, gate: Gate) -> None:
    """A call that is cancelled is killed on its host, also while it is busy in C, with all that it has started."""
    host = sshd().host(slots=2)
    pool = await open_pool(host)
    for job, number in ((farjobs.busy_in_c, 1), (farjobs.with_child, 3)):
        call = pool.submit(job, gate)
        await until(lambda number=number: len(gate.entered) == number)
        call.cancel()
        with pytest.raises(CallCancelledError):
            await call
        await until(lambda: not any(is_alive(pid) for pid in gate.entered))
    assert await pool.submit(farjobs.square, 2) == 4
    assert is_up(pool, host)


async def test_a_retry_avoids_the_host_that_failed(sshd: Start, open_pool: Open, log: Log) -> None:
    """A call that failed is tried again on another host, if there is one, and else on the same."""
    hosts = [sshd().host(slots=1) for _ in range(2)]
    pool = await open_pool(*hosts)
    await until(lambda: all(is_up(pool, host) for host in hosts))
    for turn in range(4):
        lines = Log(f"{log.path}-{turn}")
        second = await pool.options(retry=Retry(2, on=OSError, backoff=0.01)).submit(farjobs.fail_once, lines)
        assert {lines.lines[0], second} == {host.name for host in hosts}
    await pool.remove_host(hosts[0])
    lines = Log(f"{log.path}-alone")
    second = await pool.options(retry=Retry(2, on=OSError, backoff=0.01)).submit(farjobs.fail_once, lines)
    assert lines.lines[0] == second == hosts[1].name
