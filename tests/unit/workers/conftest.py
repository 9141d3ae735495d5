"""What the tests of workers share: somebody's project, and a task group, as pools have one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aioparallel._futures.supervisor import Group
from aioparallel._workers.ssh import Connections, SshSettings
from aioparallel.testing import SshHost, server, ssh_host
from tests.tools import open_group
from tests.unit.workers.projects import Project, project_at


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Somebody's project, which this process can import from."""
    yield from project_at(tmp_path / "project", monkeypatch)


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
def killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands that do not look whether somebody is there: they are killed as soon as their connection is gone."""
    monkeypatch.setattr(server, "END_SECONDS", 0)


@pytest.fixture
async def host() -> AsyncIterator[SshHost]:
    async with ssh_host() as found:
        yield found
