"""File descriptors: a process may have only so many, and whoever takes connections must know what to do then.

A socket at which somebody waits stays readable although the connection cannot be taken, so whoever only looked for that
would look without end. It is looked at again after a pause instead, as a descriptor may become free at any time.
"""

from __future__ import annotations

import errno
import os

from .pauses import growing_pause

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
"""Seconds until it is tried again to take a connection: at first, and at most."""


def are_used_up(error: OSError) -> bool:
    """Whether this is what comes of having no descriptor left."""
    return error.errno in {errno.EMFILE, errno.ENFILE}


def none_left() -> OSError:
    """What the system would say."""
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def most() -> int:
    """How many this process may have."""
    found = os.sysconf("SC_OPEN_MAX")
    return found if found > 0 else 1 << 30


def pause(failures: int) -> float:
    """Seconds until the next try, after so many that failed in a row."""
    return growing_pause(FIRST_PAUSE, failures, LONGEST_PAUSE)


def advice(who: str) -> str:
    """What to do about it; *who* has none left."""
    return (
        f"{who} may have {most()} files open, and needs some for each worker: raise `ulimit -n`, or use fewer workers"
    )
