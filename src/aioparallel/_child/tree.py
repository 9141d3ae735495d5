"""Process trees: ending a worker with everything it started.

A worker leads its own session and process group. What left that group is found in /proc,
by its parents, or by the mark in its environment when its parents are gone; the agent is
the reaper of such orphans (Linux). Elsewhere, the process group is what can be ended.
"""

from __future__ import annotations

import os
import sys

from .lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = "AIOPARALLEL_WORKER"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

LINUX = sys.platform.startswith("linux")

_libc: Any = None
_oom_kills = 0


def adopt_orphans() -> None:
    """Become the parent of every process whose parents end below this one."""
    global _libc, _oom_kills
    if LINUX:
        try:
            import ctypes

            _libc = ctypes.CDLL(None)
        except (ImportError, OSError):
            return
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _oom_kills = _count_oom_kills()


def die_with_parent(parent: int) -> None:
    """Be killed when the agent ends, even if it is killed itself."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def kill(pid: int, mark: str) -> None:
    """Kill a worker that has not been reaped, its process group, and every descendant that can be found."""
    doomed = _descendants(pid)
    _signal(pid)
    for each in doomed:
        _signal(each)
    sweep(pid, mark)


def sweep(pid: int, mark: str) -> None:
    """Kill what a worker left behind: its process group, and orphans that carry its mark."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    for each in _children(os.getpid()):
        if each != pid and _is_marked(each, mark):
            for below in [each, *_descendants(each)]:
                _signal(below)


def kill_orphans() -> None:
    """Kill whatever is left below this process."""
    for pid in _descendants(os.getpid()):
        _signal(pid)


def out_of_memory() -> str | None:
    """Evidence that the kernel killed for memory since this was last asked."""
    global _oom_kills
    before, _oom_kills = _oom_kills, _count_oom_kills()
    if _oom_kills > before:
        return f"the kernel's out-of-memory killer acted {_oom_kills - before} times in this control group"
    return None


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    ahead = [pid]
    while ahead:
        below = _children(ahead.pop())
        found += below
        ahead += below
    return found


def _is_marked(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def _count_oom_kills() -> int:
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            paths = [line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::")]
        with open(f"/sys/fs/cgroup{paths[0]}/memory.events", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except (OSError, IndexError, StopIteration, ValueError):
        return 0
