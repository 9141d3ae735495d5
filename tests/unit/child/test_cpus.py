from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from aioparallel._child.cpus import available_cpus, cpus_within

AFFINITY = 16

Tree = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files below a root folder, and returns the folder."""

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return write


def test_a_machine_without_cgroups_offers_its_affinity(tmp_path: Path) -> None:
    """Without any cgroup file, the affinity alone decides."""
    assert cpus_within(tmp_path, AFFINITY, {}) == AFFINITY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("100001 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("25000 5000\n", 5),
        ("3200000 100000\n", AFFINITY),
        ("max 100000\n", AFFINITY),
        ("max\n", AFFINITY),
        ("200000 0\n", AFFINITY),
        ("", AFFINITY),
        ("nonsense\n", AFFINITY),
    ],
)
def test_quota_of_version_2(tree: Tree, text: str, expected: int) -> None:
    """A version 2 quota limits the number, rounded up; "max" and what makes no sense do not."""
    root = tree({"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/cpu.max": text})
    assert cpus_within(root, AFFINITY, {}) == expected


@pytest.mark.parametrize("tight", ["", "slice/", "slice/service/", "slice/service/app/"])
def test_the_tightest_group_of_the_hierarchy_counts(tree: Tree, tight: str) -> None:
    """A quota limits wherever it is set: on the process's group or on any group around it."""
    folders = ("slice/", "slice/service/", "slice/service/app/")
    files = {f"sys/fs/cgroup/{folder}cpu.max": "max 100000\n" for folder in folders}
    files[f"sys/fs/cgroup/{tight}cpu.max"] = "300000 100000\n"
    root = tree({"proc/self/cgroup": "0::/slice/service/app\n", **files})
    assert cpus_within(root, AFFINITY, {}) == 3


def test_a_group_beside_ours_does_not_count(tree: Tree) -> None:
    """The quota of a sibling group limits nobody else."""
    root = tree({"proc/self/cgroup": "0::/slice/app\n", "sys/fs/cgroup/slice/other/cpu.max": "100000 100000\n"})
    assert cpus_within(root, AFFINITY, {}) == AFFINITY


@pytest.mark.parametrize("group", ["/docker/8a7b", "/../..", "/", "/../../other"])
def test_a_container_that_sees_only_its_own_group(tree: Tree, group: str) -> None:
    """Where the group's name means nothing inside a container, the mount point is looked at."""
    root = tree({"proc/self/cgroup": f"0::{group}\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"})
    assert cpus_within(root, AFFINITY, {}) == 4


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("folder", ["", "docker/", "docker/8a7b/"])
def test_quota_of_version_1(tree: Tree, mount: str, folder: str) -> None:
    """A version 1 quota limits likewise, under either name of its mount point and on any level."""
    root = tree(
        {
            "proc/self/cgroup": "5:memory:/docker/8a7b\n4:cpu,cpuacct:/docker/8a7b\n0::/docker/8a7b\n",
            f"sys/fs/cgroup/{mount}/{folder}cpu.cfs_quota_us": "250000\n",
            f"sys/fs/cgroup/{mount}/{folder}cpu.cfs_period_us": "100000\n",
        }
    )
    assert cpus_within(root, AFFINITY, {}) == 3


@pytest.mark.parametrize(
    ("quota", "period"), [("-1\n", "100000\n"), ("200000\n", ""), ("", "100000\n"), ("x\n", "y\n")]
)
def test_version_1_without_a_quota(tree: Tree, quota: str, period: str) -> None:
    """A version 1 group without a usable quota (-1, or half of it missing) limits nothing."""
    root = tree(
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": period,
        }
    )
    assert cpus_within(root, AFFINITY, {}) == AFFINITY


def test_controllers_with_similar_names_are_not_the_cpu_controller(tree: Tree) -> None:
    """Quotas in the folders of cpuset and cpuacct are not looked for."""
    root = tree(
        {
            "proc/self/cgroup": "3:cpuset:/\n2:cpuacct:/\nnot a line of this file\n\n",
            "sys/fs/cgroup/cpuacct/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpuacct/cpu.cfs_period_us": "100000\n",
        }
    )
    assert cpus_within(root, AFFINITY, {}) == AFFINITY


def test_files_that_cannot_be_read_limit_nothing(tmp_path: Path) -> None:
    """A file that is unreadable (here: a folder, and bytes that are no text) is treated as missing."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/app/inner\n")
    (tmp_path / "sys/fs/cgroup/app/inner/cpu.max").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/app/cpu.max").write_bytes(b"\xff\xfe 100000\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("200000 100000\n")
    assert cpus_within(tmp_path, AFFINITY, {}) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("1", 1), ("64", AFFINITY), ("0", AFFINITY), ("-2", AFFINITY), ("default", AFFINITY), ("", AFFINITY)],
)
def test_python_cpu_count_asks_for_fewer(tmp_path: Path, value: str, expected: int) -> None:
    """PYTHON_CPU_COUNT can only lower the number; what is not a positive number is ignored."""
    assert cpus_within(tmp_path, AFFINITY, {"PYTHON_CPU_COUNT": value}) == expected


def test_there_is_always_one(tree: Tree) -> None:
    """The number is never less than 1."""
    root = tree({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "0 100000\n"})
    assert cpus_within(root, 0, {}) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity to set")
def test_a_pinned_process_sees_one() -> None:
    """A process that is pinned to one CPU has one, whatever the machine has."""
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from aioparallel._child.cpus import available_cpus; print(available_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and now the answer lies between 1 and the number of CPUs of the machine, and obeys the environment."""
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    monkeypatch.setenv("PYTHON_CPU_COUNT", "1")
    assert available_cpus() == 1
