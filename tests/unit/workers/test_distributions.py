"""What is installed, by the names that it is imported by: also what is broken, and what we need ourselves."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from aioparallel._workers import distributions
from aioparallel._workers.distributions import Distributions, is_pure, metadata_files, requirement
from tests.unit.workers.projects import Project


def installed(project: Project, name: str, **files: str) -> metadata.Distribution:
    """Install a distribution, version 1.0, in the project's folder, with its files; double underscores are dots."""
    folder = f"{name.replace('-', '_')}-1.0.dist-info"
    files.setdefault("METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    recorded = [line.partition(",")[0] for line in files.get("RECORD", "").splitlines() if "\0" not in line]
    project.write({file: "" for file in recorded if not file.startswith("..")})
    project.write({f"{folder}/{file.replace('__', '.')}": text for file, text in files.items()})
    return metadata.PathDistribution(project.root / folder)


def url(**direct: object) -> str:
    return json.dumps({"url": "file:///home/ada/my%20proj/", **direct})


def names(found: list[metadata.Distribution]) -> list[str]:
    return [each.metadata["Name"] for each in found]


def test_of_a_module() -> None:
    """The distribution of a module is found, whatever it is called."""
    known = Distributions()
    assert names(known.of("numpy")) == ["numpy"]
    assert names(known.of("_pytest")) == ["pytest"]
    assert known.of("no_such_thing") == []
    assert requirement(known.of("numpy")[0]) == f"numpy=={metadata.version('numpy')}"


@pytest.mark.parametrize(
    ("files", "tops"),
    [
        ({"top_level__txt": "yaml\n_yaml\n"}, {"yaml", "_yaml"}),
        ({"RECORD": "one/__init__.py,,\ntwo.py,,\nthree.abi3.so,,\n"}, {"one", "two", "three"}),
        ({"RECORD": "x-1.0.dist-info/METADATA,,\n__editable___x.py,,\nx.pth,,\n../../bin/x,,\nhow-to/x,,\n"}, set()),
        ({"RECORD": ""}, set()),
        ({}, set()),
        ({"RECORD": "\0" * 200_000}, set()),
    ],
)
def test_modules_of_a_distribution(project: Project, files: dict[str, str], tops: set[str]) -> None:
    """A distribution declares its modules, or they are seen from its files; a broken one has none."""
    installed(project, "it", **files)
    assert {top for top, found in Distributions()._by_top.items() if "it" in names(found)} == tops


def test_broken_distributions(project: Project) -> None:
    """Distributions without metadata, or with what is none, are of no use and do no harm."""
    for number, text in enumerate(["", "no metadata", '{"url": 3}']):
        found = installed(project, f"broken{number}", METADATA=text, direct_url__json=text, top_level__txt="broken")
        assert requirement(found) is None
        assert metadata_files(found) == {}
    (project.root / "broken0_1.0.dist-info").mkdir()
    assert len(Distributions().of("broken")) == 3
    assert not Distributions().is_from_folder("broken")


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        ("", "it==1.0"),
        (url(dir_info={"editable": True}), "it==1.0"),
        (
            url(url="https://example.org/it.git", vcs_info={"vcs": "git", "commit_id": "c0ffee"}),
            "it @ git+https://example.org/it.git@c0ffee",
        ),
        ("[]", "it==1.0"),
    ],
)
def test_requirements(project: Project, direct: str, expected: str) -> None:
    """What pip is to be told is name and version, or the commit it was installed from."""
    assert requirement(installed(project, "it", direct_url__json=direct)) == expected


def test_metadata_files(project: Project) -> None:
    """What tells a module about itself travels; what is only about this machine does not."""
    text = "Metadata-Version: 2.1\nName: My-It\nVersion: 1.0\n\nAdaé\n"
    found = installed(project, "My-It", METADATA=text, entry_points__txt="[a]\nb=c", direct_url__json=url(), RECORD="")
    assert metadata_files(found) == {
        "My_It-1.0.dist-info/METADATA": text.encode(),
        "My_It-1.0.dist-info/entry_points.txt": b"[a]\nb=c",
    }
    project.write({"old.egg-info/PKG-INFO": "Name: old\nVersion: 2\n"})
    old = metadata.PathDistribution(project.root / "old.egg-info")
    assert metadata_files(old) == {"old-2.dist-info/METADATA": b"Name: old\nVersion: 2\n"}


def test_from_folders(project: Project) -> None:
    """What was installed from a folder of this machine is told apart, and found around its files."""
    installed(project, "edited", direct_url__json=url(dir_info={"editable": True}), RECORD="edited.pth,,")
    installed(project, "copied", direct_url__json=url(dir_info={}), RECORD="copied.py,,")
    installed(project, "wheel", direct_url__json=url(archive_info={}), RECORD="wheel.py,,")
    installed(project, "index", RECORD="index.py,,")
    known = Distributions()
    assert [known.is_from_folder(top) for top in ("copied", "wheel", "index", "edited")] == [True, False, False, False]
    assert sorted(names(known.around("/home/ada/my proj/src/edited.py"))) == ["copied", "edited"]
    assert known.around("/home/ada/my project/edited.py") == []


def test_spares() -> None:
    """What aioparallel needs in workers is known with what that needs, and nothing that connects to hosts."""
    spares = Distributions().spares
    assert {"anyio", "cloudpickle", "idna"} <= spares
    assert not {"asyncssh", "cryptography", "numpy", "pytest"} & spares


def test_requirements_of_spares(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirements are followed, except those of extras, those that are not here, and those that are compiled."""
    needs = "Metadata-Version: 2.1\nName: need\nVersion: 1.0\n" + "".join(
        f"Requires-Dist: {line}\n"
        for line in ("plain>=1; python_version > '3'", "fast", "absent", "loop", 'extra-only; extra == "all"')
    )
    installed(project, "need", METADATA=needs, RECORD="need.py,,")
    installed(project, "plain", RECORD="plain.py,,")
    installed(project, "fast", RECORD="fast/__init__.py,,\nfast/_x.so,,")
    installed(project, "loop", METADATA=needs.replace("Name: need", "Name: loop"), RECORD="loop.py,,")
    installed(project, "extra-only", RECORD="extra_only.py,,")
    monkeypatch.setattr(distributions, "NEEDED", ("need",))
    assert Distributions().spares == {"need", "plain", "loop"}


def test_pure(project: Project) -> None:
    """A distribution with a file in machine code is not pure."""
    assert is_pure(installed(project, "a", RECORD="a.py,,\n"))
    assert not is_pure(installed(project, "b", RECORD="b.py,,\nb/x.abi3.so,,\n"))


def test_what_we_need_is_what_we_require() -> None:
    """The names of what workers need are those of the package's own requirements, without what connects to hosts."""
    required = {line.partition(">")[0] for line in metadata.requires("aioparallel") or () if ";" not in line}
    assert set(distributions.NEEDED) == required - {"asyncssh"}
