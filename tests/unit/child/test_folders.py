"""Private folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aioparallel._child.folders import LONGEST_PARENT, private_folder, remove_folder


def test_folders_are_private() -> None:
    """A private folder is new, and for this user only."""
    one, two = private_folder(), private_folder()
    try:
        assert one != two
        assert stat.S_IMODE(os.stat(one).st_mode) == 0o700
        assert len(one) < 90
    finally:
        remove_folder(one)
        remove_folder(two)
    assert not os.path.exists(one)


def test_folders_have_short_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A place whose path is too long for a socket, or cannot be written to, is passed over."""
    long = tmp_path / ("x" * LONGEST_PARENT)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/shm")
    folder = private_folder()
    remove_folder(folder)
    assert os.path.dirname(folder) == "/tmp"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OSError, match="set TMPDIR to one"):
        private_folder()


def test_removing_folders() -> None:
    """A folder is removed with its files, and may be removed twice."""
    folder = private_folder()
    Path(folder, "p1").touch()
    remove_folder(folder)
    remove_folder(folder)
    assert not os.path.exists(folder)


def test_full_places_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, the next place is tried; if there is none anywhere, the reason is the system's."""
    mkdir = os.mkdir

    def full(path: str, mode: int) -> None:
        if path.startswith("/dev/shm"):
            raise OSError(28, "No space left on device")
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", full)
    folder = private_folder()
    remove_folder(folder)
    assert not folder.startswith("/dev/shm")
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/shm")
    with pytest.raises(OSError, match="No space left"):
        private_folder()
