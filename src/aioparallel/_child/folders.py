"""A pool's private folder, for its sockets and pages.

It is removed by the pool, or by its agent if the program is killed. If both are killed, nobody is left who could: then
the next that makes a folder removes it. It tells such a folder from one that is in use by a lock, which the kernel
lets go of when its holder dies, whatever container either of them is in.
"""

from __future__ import annotations

import os

LONGEST_PARENT = 60
"""Characters: a socket's path may have about a hundred in all."""
PREFIX = "aioparallel-"
LOCK = "lock"

_locks: dict[str, int] = {}
"""The descriptors of the locks of the folders that this process has made."""


def private_folder() -> str:
    """A new folder that only this user can read, with a path short enough for a socket; in memory, if there is a place.

    Raises:
        OSError: There is none.
    """
    problem: OSError | None = None
    for parent in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/tmp"):
        if len(parent) <= LONGEST_PARENT and os.access(parent, os.W_OK | os.X_OK):
            folder = os.path.join(parent, f"{PREFIX}{os.urandom(8).hex()}")
            try:
                os.mkdir(folder, 0o700)
                _hold(folder)
            except OSError as error:  # it is full
                problem = error
            else:
                _remove_left_over(parent)
                return folder
    raise problem or OSError("no writable folder with a short path for a socket: set TMPDIR to one")


def remove_folder(folder: str) -> None:
    """Remove a private folder; whatever somebody else has removed already is fine."""
    try:
        for name in sorted(os.listdir(folder), key=LOCK.__eq__):  # the lock last: it tells what is left over
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    finally:
        lock = _locks.pop(folder, None)
        if lock is not None:
            os.close(lock)


def _hold(folder: str) -> None:
    """Lock a folder for as long as this process lives; nobody finds the lock before it is held."""
    import fcntl

    fresh = os.path.join(folder, f"{LOCK}.new")
    try:
        _locks[folder] = descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:  # no room, or no descriptor: without a lock nobody would ever remove it
        os.rmdir(folder)
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # there are file systems without locks: nobody will ever take this folder for left over
        return
    os.rename(fresh, os.path.join(folder, LOCK))


def _remove_left_over(parent: str) -> None:
    """Remove the folders of this user's that nobody holds."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        folder = os.path.join(parent, name)
        if folder not in _locks and _is_left_over(folder):
            import shutil  # which takes longer than all else here

            shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: str) -> bool:
    import fcntl

    try:
        descriptor = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another user's; or about to be held, or to be removed
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return os.fstat(descriptor).st_uid == os.getuid()
    finally:
        os.close(descriptor)
