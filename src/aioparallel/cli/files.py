"""Finding and reading Python files, in batches that are worth a call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Failure", "Found", "Source", "batches", "find_files", "read_files"]

BATCH = 256_000
"""How many bytes of files make a batch: a twentieth of a second of work, beside which the cost of a call is nothing."""

OTHERS = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
"""Folders whose files belong to somebody else."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path below the folder that is searched, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a file, as it was read."""

    path: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """A file or folder that could not be read or measured, and why."""

    path: str
    reason: str


def find_files(folder: str) -> tuple[list[Found], list[Failure]]:
    """Find the Python files of a folder and of those in it, and the folders that cannot be looked into.

    Hidden folders are left out, and those with what others have written (``site-packages``).
    """
    closed: list[Failure] = []
    files: list[Found] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: closed.append(_closed(folder, error))):
        folders[:] = [name for name in folders if name not in OTHERS and not name.startswith(".")]
        paths = (Path(parent, name) for name in names if name.endswith(".py"))
        files += [Found(str(path.relative_to(folder)), _size(path)) for path in paths if _may_be_read(path)]
    return files, closed


def _closed(folder: str, error: OSError) -> Failure:
    return Failure(os.path.relpath(error.filename, folder), error.strerror or repr(error))


def _may_be_read(path: Path) -> bool:
    """Whether it is a file, or a link that leads nowhere; a pipe would keep its reader waiting."""
    return path.is_file() or not path.exists()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it will say so
        return 0


def batches(files: Iterable[Found], limit: int = BATCH) -> Iterator[list[str]]:
    """Put files together, by size: big ones first, so that no worker begins a long batch when the others are done."""
    batch: list[str] = []
    size = 0
    for file in sorted(files, key=lambda file: (-file.size, file.path)):
        if batch and size + file.size > limit:
            yield batch
            batch, size = [], 0
        batch.append(file.path)
        size += file.size
    if batch:
        yield batch


def read_files(folder: str, paths: Iterable[str]) -> list[Source | Failure]:
    """Read some files of a folder."""
    return [_read(folder, path) for path in paths]


def _read(folder: str, path: str) -> Source | Failure:
    try:
        return Source(path, Path(folder, path).read_bytes())
    except OSError as error:
        return Failure(path, error.strerror or repr(error))
