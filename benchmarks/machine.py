"""What the figures were taken on; no names of hosts or users."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from typing import Any

__all__ = ["describe", "headline", "load_warning"]

COMPARED = (
    "aioparallel",
    "anyio",
    "aiometer",
    "aiomultiprocess",
    "cloudpickle",
    "execnet",
    "joblib",
    "loky",
    "mpire",
    "numpy",
    "pathos",
    "pebble",
    "streamable",
    "trio",
    "trio-parallel",
)

BUSY = 0.5
"""The load average, for each core, above which figures are not to be trusted."""


def describe() -> dict[str, Any]:
    """The machine, the interpreter and the versions, as plain data."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": _versions(),
    }


def usable_cores() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for name in COMPARED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def headline(machine: dict[str, Any]) -> str:
    """One line: the interpreter, the system, the cores and the load before the run."""
    load = " ".join(f"{value:.2f}" for value in machine["load"])
    return (
        f"{machine['implementation']} {machine['python']}, {machine['system']}, "
        f"{machine['cores']} cores, load before: {load}"
    )


def load_warning(machine: dict[str, Any]) -> str | None:
    """What to tell somebody who measures on a busy machine."""
    load = machine["load"][0]
    if load <= BUSY * machine["cores"]:
        return None
    return f"warning: the load is {load:.2f} on {machine['cores']} cores; trust no figure of this run"
