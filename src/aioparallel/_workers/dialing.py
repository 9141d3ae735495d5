"""Dialing: making the connection that ssh is then spoken on, directly or through a jump host.

asyncssh asks its ``tunnel`` for that connection; a :class:`Dialer` is one. So it is known whether it is the name
service, the network or the server that does not answer, each within its time.

Importing this module imports asyncssh.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from .hosterrors import Attempt, SilentError
from .line import Line

if TYPE_CHECKING:
    import asyncssh

    from .routes import Route
    from .ssh import Connection

__all__ = ["Dialer"]

STAGGER = 0.25
"""Seconds that one address of a machine gets before the next is tried as well."""

Address = tuple[int, int, int, str, Any]
"""Family, type, protocol, canonical name, and where to connect to: what ``getaddrinfo`` gives."""


class Dialer:
    """Makes one connection.

    Args:
        attempt: Is told how far it came.
        route: The way.
        jump: The connection to go through, if any.
    """

    def __init__(self, attempt: Attempt, route: Route, jump: Connection | None) -> None:
        self.line: Line | None = None
        self._attempt = attempt
        self._route = route
        self._jump = jump
        self._patience: asyncio.TimerHandle | None = None

    async def create_connection(
        self, session_factory: Callable[[], asyncssh.SSHClientConnection], remote_host: str, remote_port: int
    ) -> tuple[None, asyncssh.SSHClientConnection]:
        """What asyncssh calls; the connection ends if the other side then says nothing.

        Raises:
            OSError: The network or the name service says no; a TimeoutError if neither answers.
            asyncssh.ChannelOpenError: The jump host says no.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._route.connect_timeout

        def line() -> Line:
            self.line = Line(session_factory(), None if self._jump is None else self._jump.line)
            return self.line

        with anyio.fail_after(self._route.connect_timeout):
            if self._jump is not None:
                self._attempt.step = "connect"
                made = await self._jump.open_tunnel(line, remote_host, remote_port)
            else:
                _, made = await loop.create_connection(line, sock=await self._connect(remote_host, remote_port))
        self._patience = loop.call_at(deadline, self._check_greeting, made)
        return None, made.connection

    def done(self) -> None:
        """The login has ended, either way."""
        if self._patience is not None:
            self._patience.cancel()

    def _check_greeting(self, line: Line) -> None:
        if not line.greeted.is_set():
            line.give_up(SilentError())

    async def _connect(self, host: str, port: int) -> socket.socket:
        self._attempt.step = "dns"
        found: Sequence[Address] = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=self._route.family, type=socket.SOCK_STREAM
        )
        self._attempt.step = "connect"
        return await _first_to_answer(found, self._route.local_addr)


async def _first_to_answer(addresses: Sequence[Address], local: Any) -> socket.socket:
    """Try a machine's addresses one after the other, each a little after the last, and take the first that answers."""
    winners: list[socket.socket] = []
    errors: list[Exception] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            winners.append(await _connect_to(address, local))
            group.cancel_scope.cancel()
        except Exception as error:  # an address to connect from that is none, too; a task group would wrap it
            errors.append(error)
            failed.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(STAGGER):
                    await failed.wait()
        if not winners:
            raise next((error for error in errors if isinstance(error, ConnectionRefusedError)), errors[-1])
        return winners.pop(0)
    finally:
        for late in winners:
            late.close()


async def _connect_to(address: Address, local: Any) -> socket.socket:
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        if local is not None:
            connection.bind(local)
        await asyncio.get_running_loop().sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection
