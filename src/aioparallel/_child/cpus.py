"""How many CPUs this process may really use: the default number of workers, here and on other machines.

The machine's count is often the wrong answer. A process may be pinned to a few CPUs (its
affinity), a container may be given the time of one and a half (a cgroup quota, set on any
level of a hierarchy), and its user may ask for fewer (``PYTHON_CPU_COUNT``). The smallest
of these counts.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def available_cpus() -> int:
    """The number of CPUs that this process may use, at least 1.

    Looks again at each call, because an affinity or a quota can change.
    """
    return cpus_within("/", _affinity(), os.environ)


def cpus_within(root: str | os.PathLike[str], affinity: int, environ: Mapping[str, str]) -> int:
    """Decide the number, from what is given.

    A quota of 1.5 CPUs makes 2 workers: with one, a third of the quota could never be used.

    Args:
        root: Where ``proc`` and ``sys`` are found.
        affinity: How many CPUs the process may run on.
        environ: Where ``PYTHON_CPU_COUNT`` may be set. As Python itself does, a word such as
            ``default`` is taken for "not set".
    """
    wanted = environ.get("PYTHON_CPU_COUNT", "")
    limits = [affinity, *(quota for quota in _quotas(os.fspath(root)) if quota is not None)]
    if wanted.isdecimal() and int(wanted) > 0:
        limits.append(int(wanted))
    return max(1, min(limits))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: str) -> Iterator[int | None]:
    """The quotas that hold for this process, in CPUs: its own cgroup's and those of all the groups around it."""
    mounts = os.path.join(root, "sys/fs/cgroup")
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from map(_quota_v2, _around(mounts, group))
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                yield from map(_quota_v1, _around(os.path.join(mounts, mount), group))


def _around(mount: str, group: str) -> Iterator[str]:
    """The folders of a group and of its parents, up to the mount point.

    In a container the group may be named as the host sees it, and its folder be the mount point
    itself; or be outside of what is visible, which ``..`` tells. The folders that are not there are
    harmless, and the mount point is always among them.
    """
    inside = [part for part in group.split("/") if part]
    if ".." in inside:
        inside = []
    for depth in range(len(inside), -1, -1):
        yield os.path.join(mount, *inside[:depth])


def _quota_v2(folder: str) -> int | None:
    quota, _, period = _read(os.path.join(folder, "cpu.max")).strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: str) -> int | None:
    quota, period = (_read(os.path.join(folder, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> int | None:
    """What may be used of each period, rounded up.

    ``None`` for "max" (version 2), -1 (version 1) and whatever is unreadable.
    """
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        return -(-int(quota) // int(period))
    return None


def _read(file: str) -> str:
    """The text of a file that may not exist, or not be for us to read."""
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError):
        return ""
