"""Fixtures: a world with real OpenSSH servers, and the connections to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aioparallel._futures.supervisor import Group
from aioparallel._workers.ssh import Connections, SshSettings
from tests.remote.openssh import Sshd, World, why_not
from tests.tools import open_group


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Where servers run."""
    if reason := why_not():
        pytest.skip(reason)
    found = World()
    yield found
    found.close()


@pytest.fixture
def sshd(world: World) -> Iterator[Callable[..., Sshd]]:
    """Starts servers, with lines of their configuration, and stops them."""
    servers: list[Sshd] = []

    def start(*lines: str, **options: Any) -> Sshd:
        servers.append(Sshd(world, lines, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    """A task group, as pools have one."""
    async with open_group() as found:
        yield found


@pytest.fixture
async def connections(group: Group) -> AsyncIterator[Connections]:
    """Connections that are not very patient."""
    found = Connections(group, SshSettings(connect_timeout=5, login_timeout=10, channel_timeout=10))
    yield found
    await found.aclose()
