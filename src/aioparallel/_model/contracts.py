"""The seams: what one layer asks of another, as Protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .errors import HostError
from .hosts import Hello
from .info import CallInfo

__all__ = ["AgentChannel", "ChannelListener", "Source"]


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


class ChannelListener(Protocol):
    """Who is told what happens on an :class:`AgentChannel`: called on the event loop, one call at a time."""

    def received(self, data: bytes) -> None:
        """The agent has sent this; the pieces are cut anyhow, but complete and in order."""
        ...

    def writable(self) -> None:
        """The channel was congested, and is no more."""
        ...

    def lost(self, error: HostError) -> None:
        """The agent is gone, or cannot be reached any more; nothing else is told afterwards.

        Not called when the channel is closed from this side.
        """
        ...


class AgentChannel(Protocol):
    """Bytes to and from a host agent that runs, wherever that is."""

    @property
    def hello(self) -> Hello:
        """What the agent said of itself, and of the machine."""
        ...

    @property
    def congested(self) -> bool:
        """Whether more waits to be sent than is useful. Whoever can wait should, until ``writable``."""
        ...

    @property
    def last_words(self) -> str:
        """The end of what the agent has written to its standard error."""
        ...

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send. Never waits, never fails; when the channel is lost or closed, nothing happens.

        Large parts are not copied before it is their turn, so they must not be changed until then.
        """
        ...

    async def aclose(self) -> bool:
        """Close the agent's lifeline, upon which it kills what is left and ends.

        Returns:
            Whether the agent's end is confirmed. If it is not, its lease will end it.

        Cancellation:
            Closes the channel at once, unconfirmed.
        """
        ...
