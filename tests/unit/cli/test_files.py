from __future__ import annotations

import os
from pathlib import Path

import pytest

from aioparallel.cli.files import Failure, Found, Source, batches, find_files, read_files


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")


def test_python_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """Python files are found wherever they are, with their sizes and paths below the folder, and others are not."""
    write(tmp_path, "a.py", "b/c.py", "b/d/e.py", "b/notes.txt", "b/f.pyc")
    files, failures = find_files(str(tmp_path))
    assert sorted(files, key=lambda file: file.path) == [
        Found("a.py", 6),
        Found(os.path.join("b", "c.py"), 6),
        Found(os.path.join("b", "d", "e.py"), 6),
    ]
    assert failures == []


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages", "__pycache__", "node_modules", ".hidden"])
def test_what_belongs_to_others_is_left_out(tmp_path: Path, folder: str) -> None:
    """Installed packages, caches and hidden folders are not looked into, unless one of them is the folder itself."""
    write(tmp_path, f"{folder}/a.py", f"lib/{folder}/b/c.py")
    assert find_files(str(tmp_path)) == ([], [])
    assert find_files(str(tmp_path / folder)) == ([Found("a.py", 6)], [])


def test_links_that_lead_nowhere_are_found_and_pipes_are_not(tmp_path: Path) -> None:
    """A dangling link is found, to be reported when it is read; a pipe is left out, since reading it would not end."""
    (tmp_path / "dangling.py").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    files, _ = find_files(str(tmp_path))
    assert files == [Found("dangling.py", 0)]


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is closed to us is reported, and the rest is searched."""
    write(tmp_path, "a.py", "closed/b.py")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_files(str(tmp_path)) == ([Found("a.py", 6)], [Failure("closed", "Permission denied")])


def test_batches_hold_all_files_once_and_big_ones_come_first() -> None:
    """Every file is in one batch, and a batch is no bigger than its limit, unless it is a single file."""
    files = [Found(f"{size}.py", size) for size in (10, 200, 30, 40, 50, 60)]
    found = list(batches(files, limit=100))
    assert found == [["200.py"], ["60.py"], ["50.py", "40.py"], ["30.py", "10.py"]]


def test_no_files_make_no_batches() -> None:
    """Without files there are no batches."""
    assert list(batches([])) == []


def test_reading(tmp_path: Path) -> None:
    """Files are read as bytes, in order; one that cannot be read is a failure in its place."""
    (tmp_path / "a.py").write_bytes(b"\xff\0")
    (tmp_path / "folder.py").mkdir()
    assert read_files(str(tmp_path), ["gone.py", "a.py", "folder.py"]) == [
        Failure("gone.py", "No such file or directory"),
        Source("a.py", b"\xff\0"),
        Failure("folder.py", "Is a directory"),
    ]
