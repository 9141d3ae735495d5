"""Pools on servers and machines that have little: few sessions, few logins at a time, no room, talkative profiles."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aioparallel import Host, HostError, WorkerStartError
from aioparallel.cli.checkup import check_all
from tests.remote import farjobs
from tests.remote.openssh import IS_ROOT, Sshd, World
from tests.remote.pools import Open, is_up, open_pool
from tests.remote.test_starts import FULL
from tests.tools import until

__all__ = ["open_pool"]

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]
ROOT = pytest.mark.skipif(not IS_ROOT, reason="needs root, for users and mounts of its own")


async def test_one_session(sshd: Start, open_pool: Open) -> None:
    """All workers of a host share one session, so that a server that allows one is enough for any number of them."""
    pool = await open_pool(sshd("MaxSessions 1").host(slots=4))
    await until(lambda: pool.status().workers == 4)
    assert await pool.map(farjobs.square, range(100)) == [x * x for x in range(100)]


async def test_few_logins_at_a_time(sshd: Start, open_pool: Open, tmp_path: Path) -> None:
    """Many hosts that are one server, which lets in few at a time, all come in."""
    server = sshd("MaxStartups 2:100:2")
    (tmp_path / "config").write_text("Host node*\n  HostName 127.0.0.1\n")
    hosts = [
        replace(server.host(slots=1), machine=f"node{n}", options=server.options(config=[tmp_path / "config"]))
        for n in range(6)
    ]
    pool = await open_pool(*hosts)
    await until(lambda: pool.status().workers == 6)


@ROOT
async def test_a_profile_that_prints(sshd: Start, open_pool: Open, world: World) -> None:
    """What a shell profile prints is in nobody's way."""
    profile = world.home("labbash") / ".bashrc"
    profile.write_text("echo 'Welcome to this machine!'; echo oops >&2\n")
    try:
        pool = await open_pool(sshd().host("labbash", slots=1))
        assert await pool.submit(farjobs.square, 5) == 25
    finally:
        profile.unlink()


@ROOT
async def test_a_full_disk(sshd: Start, open_pool: Open, world: World) -> None:
    """A host without any room for the few files that workers need is told as such, and degrades the pool."""
    Path("/var/tmp/full").mkdir(exist_ok=True)
    try:
        good = sshd().host(slots=1)
        full = sshd(before=FULL.format(home=world.home())).host(slots=1)
        pool = await open_pool(good, full)
        await until(lambda: pool.hosts[1].error)
        assert isinstance(pool.hosts[1].error, WorkerStartError)
        assert full.name in str(pool.hosts[1].error)
        assert "cannot start a worker, with its files in /" in str(pool.hosts[1].error)
        assert "No space left on device" in str(pool.hosts[1].error)
        assert {host for host, _ in await pool.map(farjobs.where, range(10))} == {good.name}
        await pool.aclose()
    finally:
        Path("/var/tmp/full").rmdir()


async def test_changed_host_key(sshd: Start, open_pool: Open) -> None:
    """A host whose key has changed is not let near: the pool tells, and goes on without it."""
    changed, good = sshd(), sshd()
    host = changed.host(
        slots=1, options={"known_hosts": changed.known_hosts.split(b" ")[0] + b" " + good.known_hosts.split(b" ", 1)[1]}
    )
    pool = await open_pool(host, good.host(slots=1))
    await until(lambda: pool.hosts[0].error)
    error = pool.hosts[0].error
    assert isinstance(error, HostError)
    assert (error.phase, error.permanent, pool.hosts[0].state) == ("host key", True, "failed")


async def test_the_doctor_on_real_hosts(sshd: Start, world: World) -> None:
    """The doctor tells for each of several hosts how it is, at once."""
    hosts = [
        sshd().host(slots=2),
        sshd("MaxSessions 1").host(),
        sshd().host(python=["no-such-python"]),
        sshd("ForceCommand echo only backups here").host(),
        Host("no-such-host.invalid", options={"config": None}),
    ]
    found = await check_all(hosts, 60)
    assert [each.failed for each in found] == [None, None, "python", "handshake", "dns"]
    assert [each.error is None for each in found] == [True, True, False, False, False]
    assert (found[0].shell is not None, found[1].shell) == (True, None), "it has no further session to measure that"
    assert found[0].cpus == len(os.sched_getaffinity(0))


async def test_two_pools_on_one_host(sshd: Start, open_pool: Open) -> None:
    """Pools know nothing of each other: when one is closed, the other goes on."""
    host = sshd().host(slots=1)
    one, two = await open_pool(host), await open_pool(host)
    assert await one.submit(farjobs.where) != await two.submit(farjobs.where)
    await one.aclose()
    assert is_up(two, host)
    assert await two.submit(farjobs.square, 3) == 9
