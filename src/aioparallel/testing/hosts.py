"""Hosts that need no machine: an ssh server in this very process, whose commands are processes here."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from aioparallel import Host

if TYPE_CHECKING:
    from .server import Server

__all__ = ["SshHost", "ssh_host", "ssh_hosts"]


class SshHost(Host):
    """A :class:`~aioparallel.Host` that runs in this process, and can be broken.

    It is made by :func:`ssh_host` and :func:`ssh_hosts`. Its options hold a key that lets in and the host's own key,
    both made for it alone, and keep your own ssh configuration and agent out.
    """

    _server: Server

    def __init__(self, server: Server, **fields: Any) -> None:
        super().__init__("127.0.0.1", port=server.port, username="tester", options=server.options(), **fields)
        object.__setattr__(self, "_server", server)

    # What happens at it

    @property
    def logins(self) -> int:
        """How many connections were made so far."""
        return self._server.relay.accepted

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.logins)

    @property
    def commands(self) -> list[int]:
        """The process ids of the commands that run."""
        return sorted(self._server.commands)

    # Faults

    def refuse(self) -> None:
        """Refuse new connections. Those that there are go on."""
        self._server.relay.refuse()

    def stall(self) -> None:
        """Let nothing through any more: connections stay open, also new ones, but nobody says anything."""
        self._server.relay.stall()

    def cut(self) -> None:
        """Reset all connections, as a host does that has been restarted."""
        self._server.relay.cut()

    def delay(self, seconds: float) -> None:
        """Let everything take so long on each way."""
        self._server.relay.delay(seconds)

    def heal(self) -> None:
        """Undo :meth:`refuse`, :meth:`stall` and :meth:`delay`, and deliver what was held up."""
        self._server.relay.heal()


@asynccontextmanager
async def ssh_host(**fields: Any) -> AsyncGenerator[SshHost]:
    """Run an ssh host in this process: a real ssh server on the loopback interface, without any set-up.

    Commands run as processes of this machine and this user, with a fresh environment, in the user's home. When their
    connection ends, their standard input is closed, as every ssh server does; what is left two seconds later is killed.

    Args:
        **fields: More fields of :class:`~aioparallel.Host`. ``python`` is the running interpreter unless you say
            otherwise.

    Yields:
        The host, which an executor takes like any other.

    What may still be running:
        Nothing, when the block is left: no process, no connection, no listener.

    Example:
        ::

            async with ssh_host(slots=2) as host:
                ...  # use it
                host.cut()  # and see what happens
    """
    from .server import Server

    server = Server()
    await server.start()
    try:
        yield SshHost(server, **{"python": sys.executable, **fields})
    finally:
        await server.aclose()


@asynccontextmanager
async def ssh_hosts(count: int, **fields: Any) -> AsyncGenerator[list[SshHost]]:
    """Run several ssh hosts in this process; see :func:`ssh_host`.

    Args:
        count: How many.
        **fields: More fields of each :class:`~aioparallel.Host`.

    Yields:
        The hosts.
    """
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ssh_host(**fields)) for _ in range(count)]
