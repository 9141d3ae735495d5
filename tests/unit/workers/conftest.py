"""What the tests of workers share: somebody's project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workers.projects import Project, project_at


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Somebody's project, which this process can import from."""
    yield from project_at(tmp_path / "project", monkeypatch)
