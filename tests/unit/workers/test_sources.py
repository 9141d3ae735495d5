"""Which files of a module travel, which do not, and what is noticed of their changes."""

from __future__ import annotations

import errno
import os
import socket
import zlib
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child.archives import LEFT_OUT, PIECE, Unpacker
from aioparallel._workers import sources
from aioparallel._workers.sources import Archive, Limits, Place, Source, gather
from tests.unit.workers.projects import Project

PLAIN = Limits()


def package(project: Project, limits: Limits = PLAIN, name: str = "proj") -> Source:
    return gather(name, Place(str(project.root / name / "__init__.py"), (str(project.root / name),)), limits)


def names(source: Source) -> list[str]:
    return sorted(file.name for file in source.files)


def unpacked(archive: Archive, folder: Path) -> dict[str, bytes]:
    """The files of an archive, after it has travelled."""
    unpacker = Unpacker(str(folder), archive.digest, len(archive.packed), archive.size)
    assert [unpacker.feed(offset, piece) for offset, piece in archive.pieces()][-1]
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What travels


def test_code_and_data_travel(project: Project, tmp_path: Path) -> None:
    """All files of a package travel, with their content, in pieces."""
    files = {"proj/__init__.py": b"", "proj/sub/mod.py": b"x = 1", "proj/data/a.csv": os.urandom(3 * PIECE)}
    project.write(files)  # type: ignore[arg-type]
    archive = package(project).pack({"proj-1.dist-info/METADATA": b"Name: proj"})
    assert len(list(archive.pieces())) == 4
    assert unpacked(archive, tmp_path / "there") == {**files, "proj-1.dist-info/METADATA": b"Name: proj"}


def test_programs_stay_programs(project: Project, tmp_path: Path) -> None:
    """What may be executed may be executed there."""
    project.write({"proj/__init__.py": "", "proj/tool": "#!/bin/sh"})
    (project.root / "proj/tool").chmod(0o755)
    unpacked(package(project).pack({}), tmp_path / "there")
    assert [os.access(tmp_path / "there/proj" / name, os.X_OK) for name in ("tool", "__init__.py")] == [True, False]


@pytest.mark.parametrize(
    ("file", "name"), [("proj.py", "proj.py"), ("proj-1.py", "proj.py"), ("proj.pyc", "proj.pyc"), ("proj", "proj.py")]
)
def test_single_files(project: Project, file: str, name: str) -> None:
    """A module that is a file travels under the module's name."""
    project.write({file: ""})
    assert names(gather("proj", Place(str(project.root / file)), PLAIN)) == [name]


def test_several_folders(project: Project) -> None:
    """A package in several folders becomes one; of two files in the same place the first counts."""
    project.write({"a/corp/one.py": "", "b/corp/two.py": "", "b/corp/one.py": ""})
    source = gather("corp", Place(None, (f"{project.root}/a/corp", f"{project.root}/b/corp")), PLAIN)
    assert names(source) == ["corp/one.py", "corp/two.py"]
    assert source.files[0].path == f"{project.root}/a/corp/one.py"


def test_junk_stays(project: Project) -> None:
    """Caches, environments, version control, backups, and what is no file at all do not travel."""
    junk = [
        "__pycache__/mod.pyc",
        ".git/config",
        "node_modules/x.js",
        "env/pyvenv.cfg",
        "env/lib/big.py",
        "cache/CACHEDIR.TAG",
        "cache/x.py",
        "proj.egg-info/PKG-INFO",
        "mod.py~",
    ]
    project.write({"proj/__init__.py": "", **{f"proj/{name}": "" for name in junk}})
    os.mkfifo(project.root / "proj/pipe")
    (project.root / "proj/nowhere").symlink_to("missing")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(project.root / "proj/socket"))
        source = package(project)
    assert (names(source), source.left_out) == (["proj/__init__.py"], {})


def test_hidden_files_stay(project: Project) -> None:
    """Hidden files may hold secrets: they do not travel, and that is written down."""
    project.write({"proj/__init__.py": "", "proj/.env": "SECRET=1"})
    source = package(project)
    assert (names(source), source.left_out) == (["proj/__init__.py"], {"proj/.env": "hidden files do not travel"})


def test_links(project: Project) -> None:
    """Links are followed, but not in circles."""
    project.write({"proj/__init__.py": "", "proj/sub/mod.py": "", "shared/x.py": ""})
    (project.root / "proj/shared").symlink_to("../shared")
    (project.root / "proj/again").symlink_to("../shared")
    (project.root / "proj/sub/up").symlink_to("..")
    (project.root / "proj/link.py").symlink_to("sub/mod.py")
    found = ["proj/__init__.py", "proj/again/x.py", "proj/link.py", "proj/shared/x.py", "proj/sub/mod.py"]
    assert names(package(project)) == found


# Limits


def test_large_data_stays(project: Project, tmp_path: Path) -> None:
    """Data is left out that is large by itself, or too much together; small files go first, and it is written down."""
    sizes = {"a.bin": 50, "b.bin": 120, "c.bin": 90, "d.bin": 101}
    project.write({"proj/__init__.py": "x" * 60, **{f"proj/{name}": b"x" * size for name, size in sizes.items()}})
    source = package(project, Limits(total=205, data_file=100))
    assert names(source) == ["proj/__init__.py", "proj/a.bin", "proj/c.bin"]
    assert sorted(source.left_out) == ["proj/b.bin", "proj/d.bin"]
    assert "Put it on the host" in source.left_out["proj/b.bin"]
    lines = unpacked(source.pack({}), tmp_path / "there")[LEFT_OUT].decode().splitlines()
    assert lines == [f"{name}\t{reason}" for name, reason in sorted(source.left_out.items())]
    total = package(project, Limits(total=150, data_file=100))
    assert names(total) == ["proj/__init__.py", "proj/a.bin"]


def test_large_code_is_refused(project: Project) -> None:
    """Code travels whole or not at all; the largest files are named."""
    project.write({"proj/__init__.py": "", **{f"proj/m{size}.py": b"#" * size * 2**20 for size in (1, 2, 3, 4)}})
    assert package(project, Limits(total=2**23)).refusal == (
        "its code has 10.0 MiB, and at most 8.0 MiB are sent; "
        "the largest: proj/m4.py (4.0 MiB), proj/m3.py (3.0 MiB), proj/m2.py (2.0 MiB)"
    )


def test_endless_folders_are_refused(project: Project) -> None:
    """A folder with more in it than any code is not searched to its end."""
    project.write({"proj/__init__.py": "", **{f"proj/d{number}/x": "" for number in range(10)}})
    assert package(project, Limits(entries=15)).refusal == (
        "it has more than 15 files and folders, which cannot all be its code"
    )
    assert package(project, Limits(entries=21)).refusal is None


def test_no_code_is_refused(project: Project) -> None:
    """A folder without code is no package of the user's."""
    project.write({"data/a.csv": "1"})
    assert gather("data", Place(None, (f"{project.root}/data",)), PLAIN).refusal == (
        "it has no Python files that could be sent"
    )
    assert gather("zipped", Place("/app.pyz/zipped.py"), PLAIN).refusal == "it has no Python files that could be sent"


@pytest.mark.parametrize(
    ("file", "content", "compiled"),
    [
        ("fast.so", b"..PyInit_fast..", True),
        ("fast.abi3.so", b"..PyInit_fast..", True),
        ("fast.so", b"..other_symbols..", False),
        ("fast.cpython-27.so", b"..PyInit_fast..", False),
        ("fast.txt", b"..PyInit_fast..", False),
    ],
)
def test_compiled_parts_are_refused(project: Project, file: str, content: bytes, compiled: bool) -> None:
    """A package with a module in machine code is refused; other libraries, and modules of other Pythons, are data."""
    project.write({"proj/__init__.py": "", f"proj/{file}": content})
    source = package(project)
    refusal = f"it has a compiled part, proj/{file}, which may not fit another machine"
    assert source.refusal == (refusal if compiled else None)
    assert compiled or f"proj/{file}" in names(source)


def test_compiled_modules_are_refused(project: Project) -> None:
    """So is a module that is machine code itself."""
    project.write({"fast.cpython-311-x86_64-linux-gnu.so": b"PyInit_fast"})
    place = Place(str(project.root / "fast.cpython-311-x86_64-linux-gnu.so"))
    assert gather("fast", place, PLAIN).refusal == "it has a compiled part, fast.so, which may not fit another machine"


def test_unreadable_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is left out, and written down; the rest travels."""

    def forbidden(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    project.write({"proj/__init__.py": "", "proj/fast.so": "PyInit_fast", "proj/sub/mod.py": ""})
    with monkeypatch.context() as patch:
        patch.setattr(sources, "open", forbidden, raising=False)
        source = package(project)
        source.pack({})
    reason = "it cannot be read (Permission denied)"
    assert source.left_out == dict.fromkeys(["proj/__init__.py", "proj/fast.so", "proj/sub/mod.py"], reason)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: forbidden() if path.endswith("sub") else real(path))
    assert package(project).left_out == {"proj/sub": reason}


# Their names


def test_digests_are_of_content(project: Project, tmp_path: Path) -> None:
    """Equal files make equal archives, wherever they are and whenever they were written; others do not."""
    files: dict[str, str | bytes] = {"proj/__init__.py": "x = 1", "proj/a.txt": "a"}
    project.write(files)
    first = package(project).pack({})
    project.write(dict(reversed(files.items())))
    other = Project(tmp_path / "other")
    other.write(files)
    assert package(project).pack({}).digest == package(other).pack({}).digest == first.digest
    seen = {first.digest}
    changes: list[dict[str, str | bytes]] = [{"proj/a.txt": "b"}, {"proj/b.txt": "a"}, {"proj/__init__.py": "x = 2"}]
    for change in changes:
        project.write(change)
        seen.add(package(project).pack({}).digest)
    (project.root / "proj/a.txt").rename(project.root / "proj/c.txt")
    seen.add(package(project).pack({}).digest)
    assert len(seen) == 5
    assert zlib.decompress(first.packed)


# Changes


@pytest.fixture
def source(project: Project, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A package that was looked at long after it had changed."""
    monkeypatch.setattr(sources, "RACY", 0)
    project.write({"proj/__init__.py": "x = 1", "proj/sub/mod.py": "", "proj/data.txt": "a"})
    return package(project)


def edit(root: Path) -> None:
    (root / "proj/__init__.py").write_text("x = 2")


def edit_secretly(root: Path) -> None:
    path = root / "proj/__init__.py"
    before = path.stat()
    path.write_text("x = 2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        edit,
        edit_secretly,
        lambda root: (root / "proj/new.py").touch(),
        lambda root: (root / "proj/sub/mod.py").unlink(),
        lambda root: (root / "proj/data.txt").chmod(0o755),
        lambda root: (root / "proj/sub").rename(root / "proj/other"),
        lambda root: (root / "proj").rename(root / "elsewhere"),
    ],
)
def test_touched(source: Source, project: Project, change: Any) -> None:
    """Whatever is done to a file or folder is noticed without reading it, also if its time is set back."""
    assert source.is_untouched()
    change(project.root)
    assert not source.is_untouched()


def test_just_changed(project: Project) -> None:
    """What had just changed when it was looked at may change again in the same moment, so it is not relied upon."""
    project.write({"proj/__init__.py": ""})
    assert not package(project).is_untouched()
