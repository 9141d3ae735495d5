"""What a module is here, for hosts that ask; and when it is no longer what it was."""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import aioparallel
from aioparallel._child.questions import FILES, INSTALLED, REFUSED, SPARE, UNKNOWN
from aioparallel._workers import modules as modules_module
from aioparallel._workers import sources
from aioparallel._workers.modules import Module, Modules
from aioparallel._workers.sources import Limits
from tests.tools import PATIENCE
from tests.unit.workers.projects import Project


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Modules:
    """Modules of which the files may be relied upon at once."""
    monkeypatch.setattr(sources, "RACY", 0)
    return Modules()


def digest(module: Module) -> str:
    assert module.archive is not None
    return module.archive.digest


# Kinds


@pytest.mark.parametrize("name", ["pkg", "mod", "space"])
def test_the_users_own(modules: Modules, project: Project, name: str) -> None:
    """Packages, modules and namespace packages of the user's travel, whether or not they were imported here."""
    project.write({"pkg/__init__.py": "", "mod.py": "", "space/part.py": ""})
    before = modules.describe(name)
    importlib.import_module(name)
    after = Modules().describe(name)
    assert before.kind == after.kind == FILES
    assert digest(before) == digest(after)
    assert before.answer() == {
        "name": name,
        "send": 0,
        "kind": FILES,
        "digest": digest(before),
        "packed": len(before.archive.packed),  # type: ignore[union-attr]
        "size": before.archive.size,  # type: ignore[union-attr]
    }
    assert b"".join(piece for _, piece in before.pieces()) == before.archive.packed  # type: ignore[union-attr]


def test_of_others(modules: Modules) -> None:
    """What is installed must be on the host; its distribution and version are told."""
    module = modules.describe("numpy")
    assert (module.kind, module.archive, list(module.pieces())) == (INSTALLED, None, [])
    place = importlib.import_module("numpy").__file__
    assert dict(module.details) == {"requirement": f"numpy=={metadata.version('numpy')}", "place": place}
    assert modules.installed() == {"numpy": [f"numpy=={metadata.version('numpy')}"]}


@pytest.fixture
def site(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Where things are installed."""
    folder = project.root / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Project(folder)


def test_of_nobody(modules: Modules, site: Project) -> None:
    """Without a distribution it is told where the module is."""
    site.write({"stray.py": ""})
    module = modules.describe("stray")
    assert (module.kind, dict(module.details)["requirement"]) == (INSTALLED, None)
    assert modules.installed() == {}


@pytest.mark.parametrize(
    "name", ["no_such_thing", "json", "sys", "__main__", "../secret", "a.b", "", "x" * 2000, "é\0"]
)
def test_what_is_not_told(modules: Modules, name: str) -> None:
    """What is no module here, or is none of anybody's business, is not known."""
    assert modules.describe(name).kind == UNKNOWN


def test_made_by_hand(modules: Modules) -> None:
    """A module that has no file here cannot travel."""
    made = types.ModuleType("made_by_hand")
    sys.modules["made_by_hand"] = made
    try:
        assert modules.describe("made_by_hand").kind == UNKNOWN
        assert not modules.reaches("made_by_hand")
    finally:
        del sys.modules["made_by_hand"]


def test_from_elsewhere(modules: Modules, project: Project, tmp_path: Path) -> None:
    """What counts is where this process has a module from, not where it would look for it."""
    project.write({"plugin.py": "x = 1"})
    other = tmp_path / "plugin-2.py"
    other.write_text("x = 2")
    spec = importlib.util.spec_from_file_location("plugin", other)
    assert spec is not None
    by_path = digest(modules.describe("plugin"))
    sys.modules["plugin"] = importlib.util.module_from_spec(spec)
    try:
        assert digest(Modules().describe("plugin")) != by_path
    finally:
        del sys.modules["plugin"]


def install(site: Project, name: str, **direct: Any) -> None:
    """Install a distribution of one package, by pip's records."""
    about = f"{name}-1.dist-info"
    site.write(
        {
            f"{name}/__init__.py": "",
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
            f"{about}/RECORD": f"{name}/__init__.py,,",
            f"{about}/direct_url.json": json.dumps(direct),
        }
    )


def test_installed_from_a_folder(modules: Modules, site: Project) -> None:
    """What was installed from a folder of this machine is the user's own, although it lies among what is installed."""
    install(site, "copied", url="file:///home/ada", dir_info={})
    install(site, "index")
    assert (modules.describe("copied").kind, modules.describe("index").kind) == (FILES, INSTALLED)
    assert modules.changed() == set()
    site.write({"copied/__init__.py": "x = 2", "index/__init__.py": "x = 2"})
    assert modules.changed() == {"copied"}


def test_shares_of_others(modules: Modules, project: Project, site: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package in several places only the user's share travels."""
    project.write({"corp/ours.py": ""})
    site.write({"corp/theirs.py": "", "google/theirs.py": ""})
    corp = modules.describe("corp")
    assert (corp.kind, modules.describe("google").kind) == (FILES, INSTALLED)
    assert modules.reaches("corp.ours")
    assert modules.reaches("google.theirs")
    with monkeypatch.context() as patch:
        patch.setattr(modules_module, "gather", None)
        assert modules.changed() == set(), "the other share is not looked at"
    monkeypatch.delitem(sys.path_importer_cache, str(site.root), raising=False)
    sys.path.remove(str(site.root))
    assert digest(Modules().describe("corp")) == digest(corp)


def test_in_an_archive(modules: Modules, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module inside an archive has no files that could be sent; the host's own may do."""
    with zipfile.ZipFile(project.root / "app.pyz", "w") as archive:
        archive.writestr("zipped/__init__.py", "")
    monkeypatch.syspath_prepend(str(project.root / "app.pyz"))
    module = modules.describe("zipped")
    assert (module.kind, module.archive) == (REFUSED, None)
    assert "no Python files that could be sent. It does not travel, so install it" in str(dict(module.details)["text"])


def test_what_is_left_out(project: Project) -> None:
    """A description says which files do not travel."""
    project.write({"pkg/__init__.py": "", "pkg/big.bin": "x" * 100})
    module = Modules(Limits(data_file=10)).describe("pkg")
    assert [name for name, _ in module.left_out] == ["pkg/big.bin"]


def test_spares(modules: Modules) -> None:
    """What aioparallel needs itself travels when it must."""
    first, second = modules.describe("anyio"), modules.describe("anyio", send=True)
    assert (first.kind, first.archive, dict(first.details)["version"]) == (SPARE, None, None)
    assert (second.kind, second.answer()["send"]) == (FILES, 1)
    assert modules.describe("anyio") is first


def test_aioparallel_itself(modules: Modules, tmp_path: Path) -> None:
    """A checkout of aioparallel travels as the user's own; an installed one need not, to a host with this version."""
    assert modules.describe("aioparallel").kind == FILES
    site = tmp_path / "site-packages"
    shutil.copytree(
        Path(aioparallel.__file__).parent, site / "aioparallel", ignore=shutil.ignore_patterns("__pycache__")
    )
    about = site / f"aioparallel-{aioparallel.__version__}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: aioparallel\nVersion: {aioparallel.__version__}\n")
    (about / "RECORD").write_text("aioparallel/__init__.py,,\n")
    script = f"""
        import sys
        sys.path[:0] = [{str(site)!r}]
        from aioparallel._workers.modules import Modules
        first, second = Modules().describe("aioparallel"), Modules().describe("aioparallel", send=True)
        print(first.kind, dict(first.details)["version"], second.kind)
    """
    lines = "\n".join(line.strip() for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPARE, aioparallel.__version__, FILES]


# Reach


def test_reach(modules: Modules, project: Project) -> None:
    """Workers on hosts find what is standard, installed, or has a file that travels."""
    project.write({"pkg/__init__.py": "", "pkg/sub/__init__.py": "", "pkg/sub/mod.py": "", "mod.py": ""})
    importlib.import_module("pkg.sub.mod")
    dynamic = types.ModuleType("pkg.dynamic")
    sys.modules["pkg.dynamic"] = dynamic
    strange = types.ModuleType("pkg.strange")
    strange.__spec__ = importlib.machinery.ModuleSpec("pkg.strange", None, origin="/elsewhere/strange.py")
    sys.modules["pkg.strange"] = strange
    found = ["json", "os.path", "numpy.linalg", "aioparallel", "pkg", "pkg.sub", "pkg.sub.mod", "pkg.unseen", "mod"]
    try:
        assert [name for name in found if not modules.reaches(name)] == []
        missing = ["pkg.dynamic", "pkg.strange", "__main__", "no_such_thing", "no.such.thing"]
        assert [name for name in missing if modules.reaches(name)] == []
    finally:
        del sys.modules["pkg.dynamic"], sys.modules["pkg.strange"]


def test_reach_follows_changes(modules: Modules, project: Project) -> None:
    """What workers find may change with the disk."""
    assert not modules.reaches("mod")
    project.write({"mod.py": ""})
    modules.changed()
    assert modules.reaches("mod")


# Changes


def test_nothing_has_changed(modules: Modules, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nothing was touched, nothing is read again."""
    project.write({"pkg/__init__.py": ""})
    for name in ("pkg", "numpy", "no_such_thing", "anyio"):
        modules.describe(name)
    with monkeypatch.context() as patch:
        patch.setattr(modules_module, "gather", None)
        assert modules.changed() == set()


def touch(project: Project) -> None:
    project.write({"pkg/__init__.py": "x = 1"})


def cache(project: Project) -> None:
    project.write({"pkg/__pycache__/x.pyc": b"x"})


@pytest.mark.parametrize("change", [touch, cache])
def test_touched(modules: Modules, project: Project, change: Callable[[Project], None]) -> None:
    """What was touched and is the same has not changed; it is read once."""
    project.write({"pkg/__init__.py": "x = 1"})
    module = modules.describe("pkg")
    change(project)
    assert modules.changed() == set()
    assert modules.describe("pkg") is module
    assert modules._known["pkg", False].source.is_untouched()  # type: ignore[union-attr]


def test_changed(modules: Modules, project: Project) -> None:
    """A change is reported once, and described anew; other modules stay as they were."""
    project.write({"pkg/__init__.py": "x = 1", "mod.py": ""})
    before, other = modules.describe("pkg"), modules.describe("mod")
    project.write({"pkg/__init__.py": "x = 2"})
    assert modules.describe("pkg") is before, "all hosts get the same until the change is noticed"
    assert modules.changed() == {"pkg"}
    assert modules.changed() == set()
    assert digest(modules.describe("pkg")) != digest(before)
    assert modules.describe("mod") is other
    project.write({"pkg/__init__.py": "x = 1"})
    assert modules.changed() == {"pkg"}
    assert digest(modules.describe("pkg")) == digest(before)


def test_edits_without_reload(modules: Modules, project: Project) -> None:
    """What this process has in memory does not matter, reloaded or not: the disk counts."""
    project.write({"mod.py": "x = 1"})
    loaded = importlib.import_module("mod")
    before = digest(modules.describe("mod"))
    project.write({"mod.py": "x = 2"})
    assert modules.changed() == {"mod"}
    assert (loaded.x, digest(modules.describe("mod")) != before) == (1, True)
    importlib.reload(loaded)
    assert modules.changed() == set()


def test_replaced(modules: Modules, project: Project) -> None:
    """A module may become a package, and grow a part that cannot travel."""
    project.write({"pkg.py": ""})
    modules.describe("pkg")
    project.write({"pkg/__init__.py": ""})
    assert modules.changed() == {"pkg"}
    project.write({"pkg/fast.so": b"PyInit_fast"})
    assert modules.changed() == {"pkg"}
    assert modules.describe("pkg").kind == REFUSED
    project.remove("pkg/fast.so")
    assert modules.changed() == {"pkg"}
    assert modules.describe("pkg").kind == FILES


def test_removed(modules: Modules, project: Project) -> None:
    """A file that is removed is a change; if all of a module is, what was known of it goes on travelling."""
    project.write({"pkg/__init__.py": "", "pkg/mod.py": ""})
    modules.describe("pkg")
    project.remove("pkg/mod.py")
    assert modules.changed() == {"pkg"}
    last = modules.describe("pkg")
    shutil.rmtree(project.root / "pkg")
    importlib.invalidate_caches()
    assert modules.changed() == set()
    assert modules.describe("pkg") is last
    assert Modules().describe("pkg").kind == UNKNOWN
    project.write({"pkg/__init__.py": "x = 2"})
    assert modules.changed() == {"pkg"}


def test_pools_notice_by_themselves(modules: Modules, project: Project) -> None:
    """That one pool has noticed a change does not hide it from another."""
    project.write({"mod.py": "x = 1"})
    other = Modules()
    for each in (modules, other):
        each.describe("mod")
    project.write({"mod.py": "x = 2"})
    assert modules.changed() == other.changed() == {"mod"}


def test_installed_meanwhile(modules: Modules, site: Project) -> None:
    """What is installed while this process runs is named as well."""
    modules.describe("numpy")
    install(site, "late")
    assert dict(modules.describe("late").details)["requirement"] == "late==1"


# In threads


async def test_in_a_thread(modules: Modules, project: Project) -> None:
    """Looking can be left to a thread."""
    project.write({"mod.py": "x = 1"})
    module = await modules.describe_in_thread("mod")
    assert module is modules.describe("mod")
    assert (await modules.describe_in_thread("anyio", send=True)).kind == FILES
    assert await modules.changed_in_thread() == set()
    project.write({"mod.py": "x = 2"})
    assert await modules.changed_in_thread() == {"mod"}


def held(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[threading.Event, threading.Event]:
    """Hold a function of the module at its end: events for that it is there, and that it may go."""
    real = getattr(modules_module, name)
    there, go = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        found = real(*args)
        there.set()
        assert go.wait(PATIENCE)
        return found

    monkeypatch.setattr(modules_module, name, slow)
    return there, go


async def test_described_once(modules: Modules, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks while a module is being looked at gets the same, and another module's reach can be asked meanwhile."""
    project.write({"mod.py": "x = 1"})
    there, go = held(monkeypatch, "gather")
    first = asyncio.create_task(modules.describe_in_thread("mod"))
    second = asyncio.create_task(modules.describe_in_thread("mod"))
    await asyncio.to_thread(there.wait, PATIENCE)
    assert modules.reaches("mod")
    assert not first.done()
    go.set()
    assert await first is await second


async def test_cancelled(modules: Modules, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait for a thread to be cancelled, and a change that nobody was told of is reported later."""
    project.write({"mod.py": "x = 1"})
    modules.describe("mod")
    project.write({"mod.py": "x = 2"})
    there, go = held(monkeypatch, "gather")
    task = asyncio.create_task(modules.changed_in_thread())
    await asyncio.to_thread(there.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await modules.changed_in_thread() == {"mod"}


async def test_never_out_of_date(modules: Modules, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A description that was overtaken by a change while it was on its way is made again."""
    project.write({"mod.py": "x = 1"})
    real = Modules.describe
    calls = []

    def overtaken(self: Modules, top: str, *, send: bool = False) -> Module:
        found = real(self, top, send=send)
        calls.append(found)
        if len(calls) == 1:
            project.write({"mod.py": "x = 2"})
            assert self.changed() == {"mod"}
        return found

    monkeypatch.setattr(Modules, "describe", overtaken)
    assert await modules.describe_in_thread("mod") is calls[1]
    assert digest(calls[0]) != digest(calls[1])


def test_names_travel_as_they_are(modules: Modules, project: Project) -> None:
    """A file's name need not be text."""
    project.write({"pkg/__init__.py": ""})
    try:
        Path(os.fsdecode(os.fsencode(str(project.root / "pkg")) + b"/\xff.txt")).touch()
    except OSError:
        pytest.skip("not on this file system")
    assert modules.describe("pkg").kind == FILES
