"""What the tests of the child share: a page, and a short place for sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from aioparallel._child import page
from aioparallel._child.page import Page


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
