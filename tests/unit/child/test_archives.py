"""Archives: unpacked while they arrive, checked before they are believed, and gone when they cannot be kept."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioparallel._child import archives
from aioparallel._child.archives import MAX_SIZE, RECORD, ArchiveError, Unpacker, digester, remove_folder

Files = list[tuple[bytes, bytes]]


def records(files: Files, *, executable: bool = False) -> bytes:
    return b"".join(RECORD.pack(len(name), executable, len(data)) + name + data for name, data in files)


def named(stream: bytes) -> str:
    made = digester()
    made.update(stream)
    return str(made.hexdigest())


class Parcel:
    """A stream of records, and what is announced of it."""

    def __init__(self, stream: bytes) -> None:
        self.packed = zlib.compress(stream)
        self.digest, self.size = named(stream), len(stream)

    def unpacker(self, folder: Path) -> Unpacker:
        return Unpacker(str(folder), self.digest, len(self.packed), self.size)


@settings(deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(rb"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.[a-z]", fullmatch=True), st.binary(max_size=300), min_size=1
    ),
    cuts=st.lists(st.integers(1, 50), max_size=20),
    turn=st.integers(1, 200),
)
def test_round_trip(
    files: dict[bytes, bytes], cuts: list[int], turn: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the stream is cut, and however much is unpacked at a time, every file arrives as it was."""
    folder = tmp_path_factory.mktemp("a") / "there"
    parcel = Parcel(records(sorted(files.items())))
    unpacker = parcel.unpacker(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "TURN", turn)
        offset = 0
        for length in [*cuts, len(parcel.packed)]:
            piece = parcel.packed[offset : offset + length]
            if piece:
                offset += len(piece)
                done = unpacker.feed(offset - len(piece), memoryview(piece))
                assert done == folder.exists() == (offset == len(parcel.packed))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {os.fsdecode(name): data for name, data in files.items()}
    assert os.listdir(folder.parent) == ["there"]
    remove_folder(str(folder))


def test_programs_may_be_executed(tmp_path: Path) -> None:
    """What may be executed may be so there, by this user alone, and other files may not."""
    parcel = Parcel(records([(b"p/tool", b"#!")], executable=True) + records([(b"p/data", b"")]))
    assert parcel.unpacker(tmp_path / "a").feed(0, parcel.packed)
    assert [(tmp_path / "a/p" / name).stat().st_mode & 0o777 for name in ("tool", "data")] == [0o700, 0o600]
    assert (tmp_path / "a/p").stat().st_mode & 0o777 == 0o700


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """A name need not be text."""
    parcel = Parcel(records([(b"p/\xff\xfe.txt", b"x")]))
    assert parcel.unpacker(tmp_path / "a").feed(0, parcel.packed)
    assert os.listdir(os.fsencode(tmp_path / "a/p")) == [b"\xff\xfe.txt"]


def test_pieces_come_in_order(tmp_path: Path) -> None:
    """A piece that was here before, or comes too early, changes nothing."""
    parcel = Parcel(records([(b"a", os.urandom(1000))]))
    unpacker = parcel.unpacker(tmp_path / "a")
    assert not unpacker.feed(0, parcel.packed[:400])
    assert not unpacker.feed(0, parcel.packed[:400])
    assert not unpacker.feed(600, parcel.packed[600:])
    assert unpacker.feed(400, parcel.packed[400:])


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../a", b"a/../../b", b"a//b", b"", b".", b"a/.", b"a\0b"])
def test_names_that_lead_elsewhere(name: bytes, tmp_path: Path) -> None:
    """A name that leads out of the folder, or nowhere, is refused."""
    parcel = Parcel(records([(name, b"x")]))
    with pytest.raises(ArchiveError, match="a file called"):
        parcel.unpacker(tmp_path / "a").feed(0, parcel.packed)


def test_files_come_once(tmp_path: Path) -> None:
    """A second file of a name, or one in the place of a folder, is refused."""
    for again in (b"a/b", b"a"):
        parcel = Parcel(records([(b"a/b", b"1"), (again, b"2")]))
        unpacker = parcel.unpacker(tmp_path / "a")
        with pytest.raises(FileExistsError):
            unpacker.feed(0, parcel.packed)
        unpacker.abandon()


STREAM = records([(b"a", b"content"), (b"b", b"more")])


@pytest.mark.parametrize(
    ("stream", "packed", "digest", "size", "said"),
    [
        (STREAM, zlib.compress(STREAM), named(b"other"), len(STREAM), "whose content is not"),
        (STREAM[:-1], zlib.compress(STREAM[:-1]), named(STREAM[:-1]), len(STREAM), "whose content is not"),
        (STREAM, zlib.compress(STREAM)[:-6], named(STREAM), len(STREAM), "whose content is not"),
        (STREAM + b"x", zlib.compress(STREAM + b"x"), named(STREAM + b"x"), len(STREAM) + 1, "whose content is not"),
        (STREAM, zlib.compress(STREAM), named(STREAM), len(STREAM) - 1, "unpacks to more than"),
        (STREAM, b"no compressed stream", named(STREAM), len(STREAM), "cannot be unpacked"),
    ],
    ids=["digest", "cut file", "cut stream", "more", "larger", "noise"],
)
def test_not_what_was_announced(
    stream: bytes, packed: bytes, digest: str, size: int, said: str, tmp_path: Path
) -> None:
    """What is not as it was announced never gets its name, and can be removed."""
    unpacker = Unpacker(str(tmp_path / "a"), digest, len(packed), size)
    with pytest.raises(ArchiveError, match=said):
        unpacker.feed(0, packed)
    assert not (tmp_path / "a").exists()
    unpacker.abandon()
    assert os.listdir(tmp_path) == []


def test_longer_than_announced(tmp_path: Path) -> None:
    """Nothing is taken beyond the length that was announced."""
    parcel = Parcel(STREAM)
    with pytest.raises(ArchiveError, match="longer than"):
        parcel.unpacker(tmp_path / "a").feed(0, parcel.packed + b"x")


@pytest.mark.parametrize(("packed", "size"), [(0, 1), (1, 0), (1, MAX_SIZE + 1), (MAX_SIZE + 1, 1), (-1, 1)])
def test_sizes_that_are_not_believed(packed: int, size: int, tmp_path: Path) -> None:
    """An archive of no size, or of one beyond measure, is refused before anything is written."""
    with pytest.raises(ArchiveError, match="an archive of"):
        Unpacker(str(tmp_path / "a"), "d", packed, size)
    assert os.listdir(tmp_path) == []


def test_folders_are_removed_as_far_as_possible(tmp_path: Path) -> None:
    """Links are removed and not followed, and what is not there is no error."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    doomed = tmp_path / "doomed"
    (doomed / "a/b").mkdir(parents=True)
    (doomed / "a/file").touch()
    (doomed / "a/link").symlink_to(tmp_path / "kept")
    remove_folder(str(doomed))
    remove_folder(str(doomed))
    assert sorted(map(str, tmp_path.rglob("*"))) == [str(tmp_path / "kept"), str(tmp_path / "kept/file")]


def test_digests_do_without_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without the small module for digests makes the same of the large one."""
    before = named(b"x")
    monkeypatch.setitem(__import__("sys").modules, "_blake2", None)
    assert named(b"x") == before
