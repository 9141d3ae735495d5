"""How many CPUs this process may really use: the default number of workers.

The machine's count is often the wrong answer. A process may be pinned to a few CPUs (its
affinity), a container may be given the time of one and a half (a cgroup quota, set on any
level of a hierarchy), and its user may ask for fewer (``PYTHON_CPU_COUNT``). The smallest
of these counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

__all__ = ["available_cpus", "cpus_within"]


def available_cpus() -> int:
    """The number of CPUs that this process may use, at least 1.

    Looks again at each call, because an affinity or a quota can change.
    """
    return cpus_within(Path("/"), _affinity(), os.environ)


def cpus_within(root: Path, affinity: int, environ: Mapping[str, str]) -> int:
    """Decide the number, from what is given.

    A quota of 1.5 CPUs makes 2 workers: with one, a third of the quota could never be used.

    Args:
        root: Where ``proc`` and ``sys`` are found.
        affinity: How many CPUs the process may run on.
        environ: Where ``PYTHON_CPU_COUNT`` may be set. As Python itself does, a word such as
            ``default`` is taken for "not set".
    """
    wanted = environ.get("PYTHON_CPU_COUNT", "")
    limits = [affinity, *(math.ceil(quota) for quota in _quotas(root) if quota is not None)]
    if wanted.isdecimal() and int(wanted) > 0:
        limits.append(int(wanted))
    return max(1, min(limits))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float | None]:
    """The quotas that hold for this process, in CPUs: its own cgroup's and those of all the groups around it."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from map(_quota_v2, _around(mounts, group))
        elif "cpu" in controllers.split(","):
            for mount in (mounts / controllers, mounts / "cpu"):
                yield from map(_quota_v1, _around(mount, group))


def _around(mount: Path, group: str) -> Iterator[Path]:
    """The folders of a group and of its parents, up to the mount point.

    In a container the group may be named as the host sees it, and its folder be the mount point
    itself; or be outside of what is visible, which ``..`` tells. The folders that are not there are
    harmless, and the mount point is always among them.
    """
    inside = PurePosixPath(group.lstrip("/"))
    if ".." in inside.parts:
        inside = PurePosixPath()
    yield mount / inside
    yield from (mount / parent for parent in inside.parents)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """What may be used of each period; ``None`` for "max" (version 2), -1 (version 1) and whatever is unreadable."""
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        return int(quota) / int(period)
    return None


def _read(file: Path) -> str:
    """The text of a file that may not exist, or not be for us to read."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
