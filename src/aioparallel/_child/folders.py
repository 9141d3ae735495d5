"""A pool's private folder, for its sockets and pages."""

from __future__ import annotations

import os

LONGEST_PARENT = 60
"""Characters: a socket's path may have about a hundred in all."""


def private_folder() -> str:
    """A new folder that only this user can read, with a path short enough for a socket; in memory, if there is a place.

    Raises:
        OSError: There is none.
    """
    problem: OSError | None = None
    for parent in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/tmp"):
        if len(parent) <= LONGEST_PARENT and os.access(parent, os.W_OK | os.X_OK):
            folder = os.path.join(parent, f"aioparallel-{os.urandom(8).hex()}")
            try:
                os.mkdir(folder, 0o700)
            except OSError as error:  # it is full
                problem = error
            else:
                return folder
    raise problem or OSError("no writable folder with a short path for a socket: set TMPDIR to one")


def remove_folder(folder: str) -> None:
    """Remove a private folder; whatever somebody else has removed already is fine."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        pass
