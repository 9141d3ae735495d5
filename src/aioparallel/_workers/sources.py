"""The files of the user's own modules: which of them travel, how they looked, and the archive they make.

Code always travels, or the whole module does not. Data travels with it within limits, the small files first; what is
left out is written down in the archive, so that a worker that looks for it can say so. Caches, environments, version
control and hidden files (which may hold secrets) stay at home.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from typing import NamedTuple

from .._child.archives import LEFT_OUT, PIECE, RECORD, digester

__all__ = ["Archive", "Limits", "Place", "Source", "gather"]

MIB = 2**20
CODE = (*SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)
JUNK = {"__pycache__", "node_modules"}
JUNK_MARKS = {"pyvenv.cfg", "CACHEDIR.TAG"}
"""Files that say that their folder is a virtual environment, or a cache."""
RACY = 2 * 10**9
"""Nanoseconds. A file that was looked at so soon after it changed may change again and look the same."""
LARGEST = 3
"""So many files are named when all of them are too large together."""

Look = tuple[int, int, int, int]


@dataclass(frozen=True)
class Limits:
    """How much of a module travels.

    Args:
        total: Bytes of all its files.
        data_file: Bytes of a file that is not code.
        entries: Files and folders that are looked at.
    """

    total: int = 64 * MIB
    data_file: int = 16 * MIB
    entries: int = 20_000


class Place(NamedTuple):
    """Where a top-level module is: its file, or its package's ``__init__``; and the folders of a package."""

    file: str | None
    folders: tuple[str, ...] = ()


class Found(NamedTuple):
    """A file that may travel: where it goes, and where it is."""

    name: str
    path: str
    size: int
    executable: bool


@dataclass(frozen=True)
class Archive:
    """Files on their way (see ``_child.archives``).

    Args:
        digest: What it is called.
        size: Bytes of its records.
        packed: The records, compressed.
    """

    digest: str
    size: int
    packed: bytes

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """What to send, one after the other: offsets and bytes."""
        view = memoryview(self.packed)
        for offset in range(0, len(view), PIECE):
            yield offset, view[offset : offset + PIECE]


@dataclass
class Source:
    """What was found of a module.

    Attributes:
        files: What travels.
        left_out: What does not, and why.
        refusal: Why the module cannot travel at all.
    """

    top: str
    files: list[Found] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    _looks: dict[str, Look] = field(default_factory=dict)
    _seen_at: int = field(default_factory=time.time_ns)

    def is_untouched(self) -> bool:
        """Whether everything surely is as it was; costs a look at each file, and reads none."""
        return self._is_settled and all(_look(path) == look for path, look in self._looks.items())

    @cached_property
    def _is_settled(self) -> bool:
        """Whether a change since then would have been seen."""
        begin, end = self._seen_at - RACY, self._seen_at + RACY
        return not any(begin < when < end for look in self._looks.values() for when in look[:2])

    def pack(self, extra: Mapping[str, bytes]) -> Archive:
        """Read the files, and put them into an archive with some that are no files here."""
        packer = _Packer()
        for file in self.files:
            try:
                with open(file.path, "rb") as opened:
                    content = opened.read()
            except OSError as error:
                self.left_out[file.name] = f"it cannot be read ({error.strerror})"
            else:
                packer.add(file.name, content, file.executable)
        for name, content in sorted(extra.items()):
            packer.add(name, content)
        if self.left_out:
            lines = [f"{name}\t{reason}\n" for name, reason in sorted(self.left_out.items()) if "\n" not in name]
            packer.add(LEFT_OUT, "".join(lines).encode("utf-8", "surrogateescape"))
        return packer.finish()


class _Packer:
    def __init__(self) -> None:
        self._digester = digester()
        self._compressor = zlib.compressobj()
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, name: str, content: bytes, executable: bool = False) -> None:
        raw = os.fsencode(name)
        for part in (RECORD.pack(len(raw), executable, len(content)) + raw, content):
            self._digester.update(part)
            self._parts.append(self._compressor.compress(part))
            self._size += len(part)

    def finish(self) -> Archive:
        packed = b"".join([*self._parts, self._compressor.flush()])
        return Archive(self._digester.hexdigest(), self._size, packed)


def gather(top: str, place: Place, limits: Limits) -> Source:
    """Look for what belongs to a module; reads nothing but, to tell what they are, compiled files."""
    walk = _Walk(Source(top), limits)
    try:
        for folder in place.folders:
            walk.folder(folder, top)
        if not place.folders and place.file is not None:
            suffix = os.path.splitext(place.file)[1]
            walk.file(place.file, top + (suffix if suffix in {*CODE, *EXTENSION_SUFFIXES} else ".py"))
    except _TooManyError:
        walk.source.refusal = f"it has more than {limits.entries} files and folders, which cannot all be its code"
    walk.choose()
    return walk.source


class _TooManyError(Exception):
    pass


class _Walk:
    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self._limits = limits
        self._left = limits.entries
        self._found: dict[str, Found] = {}

    def folder(self, path: str, name: str, above: tuple[tuple[int, int], ...] = ()) -> None:
        source = self.source
        try:
            looked = os.stat(path)
            source._looks[path] = _of(looked)
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            source.left_out[name] = f"it cannot be read ({error.strerror})"
            return
        here = looked.st_dev, looked.st_ino
        if here in above or not JUNK_MARKS.isdisjoint(entry.name for entry in entries):  # links may lead in circles
            return
        for entry in entries:
            self._left -= 1
            if self._left < 0:
                raise _TooManyError
            if not os.path.isdir(entry.path):
                self.file(entry.path, f"{name}/{entry.name}")
            elif not entry.name.startswith(".") and entry.name not in JUNK and not entry.name.endswith(".egg-info"):
                self.folder(entry.path, f"{name}/{entry.name}", (*above, here))

    def file(self, path: str, name: str) -> None:
        try:
            looked = os.stat(path)
        except OSError:  # a link that leads nowhere
            return
        if not stat.S_ISREG(looked.st_mode) or name in self._found or name.endswith("~"):
            return
        if os.path.basename(path).startswith("."):
            self.source.left_out[name] = "hidden files do not travel"
            return
        self.source._looks[path] = _of(looked)
        self._found[name] = Found(name, path, looked.st_size, bool(looked.st_mode & 0o100))

    def choose(self) -> None:
        """Decide what travels."""
        source, limits = self.source, self._limits
        code = [file for file in self._found.values() if file.name.endswith(CODE)]
        data = [file for file in self._found.values() if not file.name.endswith(CODE)]
        total = sum(file.size for file in code)
        source.refusal = source.refusal or self._refusal(code, data)
        source.files = code
        for file in sorted(data, key=lambda file: file.size):
            if file.size > limits.data_file or total + file.size > limits.total:
                source.left_out[file.name] = self._too_large(file)
            else:
                total += file.size
                source.files.append(file)

    def _refusal(self, code: list[Found], data: list[Found]) -> str | None:
        if compiled := next(filter(_is_extension, data), None):
            return f"it has a compiled part, {compiled.name}, which may not fit another machine"
        total = sum(file.size for file in code)
        if total > self._limits.total:
            largest = sorted(code, key=lambda file: -file.size)[:LARGEST]
            named = ", ".join(f"{file.name} ({_mib(file.size)})" for file in largest)
            return f"its code has {_mib(total)}, and at most {_mib(self._limits.total)} are sent; the largest: {named}"
        return None if code else "it has no Python files that could be sent"

    def _too_large(self, file: Found) -> str:
        limit = f"at most {_mib(self._limits.data_file)} a file, and {_mib(self._limits.total)} in all"
        return (
            f"it has {_mib(file.size)}, and of what is no code, {limit}, travel with {self.source.top}. "
            "Put it on the host and open it by an absolute path, or pass what is in it as an argument"
        )


def _is_extension(file: Found) -> bool:
    """Whether a file is a module in machine code, and not a library that just has the same suffix."""
    base = os.path.basename(file.name)
    for suffix in EXTENSION_SUFFIXES:
        stem = base.removesuffix(suffix)
        if stem != base and stem.isidentifier():
            try:
                with open(file.path, "rb") as opened:
                    return b"PyInit_" + stem.encode() in opened.read()
            except OSError:
                return False
    return False


def _look(path: str) -> Look | None:
    try:
        return _of(os.stat(path))
    except OSError:
        return None


def _of(looked: os.stat_result) -> Look:
    return looked.st_mtime_ns, looked.st_ctime_ns, looked.st_size, looked.st_ino


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"
