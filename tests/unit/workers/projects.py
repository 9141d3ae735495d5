"""Somebody's project: files in a folder that this process finds modules in."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Project:
    """A folder on ``sys.path``.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._clock = time.time() - 1000

    def write(self, files: dict[str, str | bytes]) -> None:
        """Write files, as an editor would that was last used a while ago; every time later than the last."""
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
            self._clock += 1
            os.utime(path, (self._clock, self._clock))
        importlib.invalidate_caches()

    def remove(self, name: str) -> None:
        (self.root / name).unlink()
        importlib.invalidate_caches()


def project_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose modules are forgotten in the end."""
    root.mkdir(parents=True, exist_ok=True)
    monkeypatch.syspath_prepend(str(root))
    before = set(sys.modules)
    yield Project(root)
    for name in set(sys.modules) - before:
        if str(root) in str(getattr(sys.modules[name], "__file__", None) or getattr(sys.modules[name], "__path__", "")):
            del sys.modules[name]
