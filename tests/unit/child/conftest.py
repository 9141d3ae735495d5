"""What the tests of the child share: a page, a short place for sockets, and somebody's project."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioparallel._child import page
from aioparallel._child.page import Page
from tests.unit.workers.projects import Project, project_at


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder whose path is short enough for a socket in it."""
    path = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def page_path(folder: str) -> str:
    """The file of a page."""
    path = f"{folder}/p1"
    page.create(path)
    return path


@pytest.fixture
def shared(page_path: str) -> Iterator[Page]:
    """One side's view of the page."""
    view = Page(page_path)
    yield view
    view.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Somebody's project, which this process can import from."""
    yield from project_at(tmp_path / "project", monkeypatch)
