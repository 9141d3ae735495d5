"""The seams: what one layer asks of another, as Protocols."""

from __future__ import annotations

from typing import Protocol

from .info import CallInfo

__all__ = ["Source"]


class Source(Protocol):
    """What stands behind a :class:`~aioparallel.SmartFuture`: the work that will settle it.

    Both methods are called on the thread of the future's event loop.
    """

    @property
    def grace(self) -> float:
        """How long a cancelled awaiter waits until the work has really stopped, in seconds."""
        ...

    def cancel(self) -> bool:
        """Stop the work, for everybody.

        Whoever implements this settles the future as cancelled: at once when nothing
        runs yet, otherwise when the work has stopped.

        Returns:
            ``False`` when it is too late, because the work has ended.
        """
        ...

    def info(self) -> CallInfo:
        """How the work stands."""
        ...
