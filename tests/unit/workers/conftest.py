"""A task group, as pools have one, for what lives in one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aioparallel._futures.supervisor import Group
from aioparallel._workers.ssh import Connections, SshSettings
from aioparallel.testing import SshHost, ssh_host
from tests.tools import open_group


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    async with open_group() as found:
        yield found


@pytest.fixture
async def connections(group: Group) -> AsyncIterator[Connections]:
    """Connections that are not very patient."""
    found = Connections(group, SshSettings(connect_timeout=5, login_timeout=5, channel_timeout=5))
    yield found
    await found.aclose()


@pytest.fixture
async def host() -> AsyncIterator[SshHost]:
    async with ssh_host() as found:
        yield found
