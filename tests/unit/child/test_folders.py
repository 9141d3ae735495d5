"""Private folders."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
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


MAKES_ONE = """
import os, sys, time
from aioparallel._child import folders
folders.LONGEST_PARENT = 1000
os.access = lambda path, mode: path == os.environ["TMPDIR"]
folder = folders.private_folder()
os.mkdir(f"{folder}/sub")
open(f"{folder}/sub/module.py", "w").close()
print(folder, flush=True)
time.sleep(60)
"""


def test_folders_of_the_dead_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder whose program was killed is removed by the next program that makes one; who lives keeps its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("aioparallel._child.folders.LONGEST_PARENT", 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: path == str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MAKES_ONE]
    programs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        dead, living = [program.stdout.readline().strip() for program in programs if program.stdout is not None]
        programs[0].send_signal(signal.SIGKILL)
        programs[0].wait()
        assert Path(dead, "sub", "module.py").exists()
        own = [private_folder() for _ in range(2)]
        assert not os.path.exists(dead)
        assert all(map(os.path.exists, (living, *own)))
        for folder in own:
            remove_folder(folder)
    finally:
        for program in programs:
            program.kill()
            program.communicate()


def test_other_folders_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What has no lock of ours is left alone, whatever it is called: it may be in the making."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("aioparallel._child.folders.LONGEST_PARENT", 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: path == str(tmp_path))
    (tmp_path / "aioparallel-1").mkdir()
    (tmp_path / "aioparallel-2").touch()
    remove_folder(private_folder())
    assert sorted(os.listdir(tmp_path)) == ["aioparallel-1", "aioparallel-2"]


def test_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that cannot be locked, as no descriptor is left, is not left behind; the error is the system's."""

    def exhausted(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("aioparallel._child.folders.LONGEST_PARENT", 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: path == str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(os, "open", exhausted)
        patch.setattr(os, "listdir", exhausted)
        private_folder()
    assert not os.listdir(tmp_path)
