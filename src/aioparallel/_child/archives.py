"""Archives: how a tree of files travels to another machine, and is put on its disk while it arrives.

An archive is one compressed stream of records::

    record   u16 length of the name | u8 1 if it may be executed | u64 length of the content | name | content

A name is a relative path with slashes, as the bytes that the file system knows it by. What
an archive is called is the digest of the records, so equal files have equal names.
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECORD = Struct("<HBQ")
MAX_SIZE = 1 << 30
"""Bytes. A larger archive is not believed."""
PIECE = 128 * 1024
"""Bytes of an archive that travel at once, so that nothing else waits long behind them."""
TURN = 1 << 20
"""Bytes that are unpacked at once."""
LEFT_OUT = "left-out"
"""The file in which an archive lists what it lacks: on each line a name, a tab, and the reason."""


class ArchiveError(Exception):
    """What arrived is not the archive that was announced."""


def digester() -> Any:
    """What makes an archive's name of its records."""
    try:
        from _blake2 import blake2b  # the public face loads all of OpenSSL
    except ImportError:
        from hashlib import blake2b
    return blake2b(digest_size=16)


class Unpacker:
    """Puts an archive into a folder, piece by piece; the folder has its name only when all of it is there.

    Args:
        folder: Where it will be. Must not exist.
        digest: The name of the archive.
        packed: How long the stream is.
        size: How long the records are.
    """

    def __init__(self, folder: str, digest: str, packed: int, size: int) -> None:
        if not 0 < size <= MAX_SIZE or not 0 < packed <= MAX_SIZE:
            raise ArchiveError(f"an archive of {packed} bytes, unpacked {size}")
        import zlib

        self._final = os.fsencode(folder)
        self._folder = self._final + b".part"
        self._digest = digest
        self._packed, self._size = packed, size
        self._received = self._unpacked = 0
        self._inflater = zlib.decompressobj()
        self._error = zlib.error
        self._digester = digester()
        self._unread = bytearray()
        self._file = -1
        self._missing = 0
        """Bytes of the file that is being written."""
        self._folders: set[bytes] = set()
        os.mkdir(self._folder, 0o700)

    def feed(self, offset: int, piece: bytes | memoryview) -> bool:
        """Take the next piece; returns whether it was the last one. A piece that was here before changes nothing.

        Raises:
            ArchiveError: This is not what was announced.
            OSError: It cannot be written.
        """
        if offset != self._received:
            return False
        self._received += len(piece)
        if self._received > self._packed:
            raise ArchiveError("an archive that is longer than was said")
        try:
            data = self._inflater.decompress(piece, TURN)
            while data:
                self._take(data)
                data = self._inflater.decompress(self._inflater.unconsumed_tail, TURN)
        except self._error as error:
            raise ArchiveError(f"an archive that cannot be unpacked: {error}") from None
        if self._received < self._packed:
            return False
        self._finish()
        return True

    def abandon(self) -> None:
        """Remove what has been written."""
        self._close()
        remove_folder(os.fsdecode(self._folder))

    def _finish(self) -> None:
        complete = self._inflater.eof and self._file < 0 and not self._unread
        if not complete or self._digester.hexdigest() != self._digest:
            raise ArchiveError("an archive whose content is not what was said")
        os.rename(self._folder, self._final)

    def _take(self, data: bytes) -> None:
        self._unpacked += len(data)
        if self._unpacked > self._size:
            raise ArchiveError("an archive that unpacks to more than was said")
        self._digester.update(data)
        rest = memoryview(data)
        while rest or self._file >= 0:
            if self._file < 0:
                rest = self._begin(rest)
                if self._file < 0:
                    return
            taken, rest = rest[: self._missing], rest[self._missing :]
            _write(self._file, taken)
            self._missing -= len(taken)
            if self._missing:
                return
            self._close()

    def _begin(self, rest: memoryview) -> memoryview:
        """Open the file of the next record, if its head is complete; returns what comes after the head."""
        wanted = RECORD.size
        if len(self._unread) + len(rest) >= wanted:
            head = bytes(self._unread[:wanted]) + bytes(rest[: max(0, wanted - len(self._unread))])
            length, executable, missing = RECORD.unpack_from(head)
            wanted += length
            if len(self._unread) + len(rest) >= wanted:
                used = wanted - len(self._unread)
                self._unread += rest[:used]
                self._open(bytes(self._unread[RECORD.size :]), executable, missing)
                self._unread.clear()
                return rest[used:]
        self._unread += rest
        return rest[len(rest) :]

    def _open(self, name: bytes, executable: int, missing: int) -> None:
        parts = name.split(b"/")
        if b"\0" in name or any(part in {b"", b".", b".."} for part in parts):
            raise ArchiveError(f"a file called {name[:100]!r}")
        folder = self._folder
        for part in parts[:-1]:
            folder += b"/" + part
            if folder not in self._folders:
                os.mkdir(folder, 0o700)
                self._folders.add(folder)
        mode = 0o700 if executable else 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(folder + b"/" + parts[-1], flags, mode)
        self._missing = missing

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def remove_folder(path: str) -> None:
    """Remove a folder with all that is in it, as far as possible. (``shutil`` takes ten times as long to import.)"""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_folder(entry.path)
        else:
            _try(os.unlink, entry.path)
    _try(os.rmdir, path)


def _try(remove: Callable[[str], None], path: str) -> None:
    try:
        remove(path)
    except OSError:
        pass
