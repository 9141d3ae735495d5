"""Connections to hosts: one for each, made with care, shared, and :exc:`HostError` when they fail.

Guarantees:

* There is one connection for each host at a time. Who asks for one that is being made, or is there, gets that one.
* A login that has begun is not given up because nobody waits for it any more, and never made twice side by side:
  servers take both for an attack. It ends by itself, in the time that :class:`SshSettings` gives it.
* At most ``handshakes`` logins are under way at one server, or through one jump host.
* A host that has refused a login is not asked again until :meth:`Connections.forget`.
* A jump host is logged in to once for all who go through it, and left with the last of them.
* A channel that nobody waits for any more is closed as soon as it is open. (asyncssh forgets those.)
* All tasks belong to the owner's group. When :meth:`Connections.aclose` returns, no connection is left.

Importing this module imports asyncssh, which takes a tenth of a second.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import asyncssh
from asyncssh.constants import OPEN_CONNECT_FAILED

from .._futures.supervisor import Group
from .._model.errors import HostError, InsecureHostWarning
from .._model.hosts import Host
from .dialing import Dialer
from .hosterrors import Attempt, explain, explain_channel, explain_loss
from .line import Line
from .routes import Route, SshSettings, resolve
from .savings import save_on_connection

__all__ = ["Connection", "Connections", "SshSettings"]

Factory = Callable[[], Any]
"""Makes a session, as asyncssh calls it: who is told what happens on a channel."""
Made = tuple[Any, Any]
"""asyncssh's channel, and the session."""

WINDOW = 16 << 20
"""Bytes that a host may send before it hears that they have arrived: the speed over long ways depends on it."""
SESSION: dict[str, Any] = {
    "encoding": None,
    "window": WINDOW,
    "subsystem": None,
    "request_pty": False,
    "x11_forwarding": False,
}
RETRIES = 2
RETRY_SECONDS = 0.3
JITTER_SECONDS = 0.05
CLOSE_SECONDS = 2.0
SESSION_PAUSES = (0.02, 0.2)
"""A server takes a moment to forget a session that has been closed, and refuses another one meanwhile if it is full."""
RESOLVERS = 8
"""So many routes are looked for at a time, each in a thread."""

INSECURE = (
    "{name}: the identity of this host is NOT checked, because options={{'known_hosts': None}} says so. Whoever stands "
    "between can pose as it, read all that is sent, and run code here, because results are unpickled. Put its key into "
    "~/.ssh/known_hosts instead."
)


class Connection:
    """A connection to a host, logged in.

    Attributes:
        host: Where it leads to.
        ssh: asyncssh's connection.
        line: What that speaks on; ``None`` when a ``ProxyCommand`` made it.
        lost: Why it is no more; ``None`` as long as it is.
        on_lost: Called once, when it is lost or closed.
    """

    def __init__(self, host: Host, group: Group, settings: SshSettings) -> None:
        self.host = host
        self.ssh: Any = None
        self.line: Line | None = None
        self.lost: HostError | None = None
        self.on_lost: Callable[[HostError], None] | None = None
        self.users: set[_Login] = set()
        """Those who go through it."""
        self.wanted = False
        """Whether it was asked for itself, and not only to go through."""
        self._group = group
        self._settings = settings
        self.on_end: Callable[[], None] | None = None
        """For those who made it."""

    def __str__(self) -> str:
        return self.host.name

    async def open_session(self, command: str, factory: Factory) -> Made:
        """Run a command.

        Args:
            command: For the user's shell over there.
            factory: Makes the ``asyncssh.SSHClientSession`` that is told what happens. It is not called when the
                session cannot be opened.

        Returns:
            asyncssh's channel, and the session.

        Raises:
            HostError: The host does not open a session, or not in time; or the connection is lost.

        Cancellation:
            The channel is closed as soon as it is open.
        """

        def make(session: Factory) -> Awaitable[Made]:
            made: Awaitable[Made] = self.ssh.create_session(session, command, **SESSION)
            return made

        for pause in (*SESSION_PAUSES, None):
            try:
                opening = _Opening(factory, asyncssh.SSHClientSession)
                return await self._open(opening, make, self._settings.channel_timeout)
            except Exception as error:
                if pause is None or not _is_full(error) or self.lost is not None:
                    raise self.lost or explain_channel(error, self.host.name) from error
            await anyio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def open_tunnel(self, factory: Callable[[], Line], host: str, port: int) -> Line:
        """Connect to another machine from over there. It takes as long as it takes: the caller has the patience."""

        def make(session: Factory) -> Awaitable[Made]:
            made: Awaitable[Made] = self.ssh.create_connection(session, host, port, window=WINDOW)
            return made

        _, line = await self._open(_Opening(factory, asyncssh.SSHTCPSession), make, None)
        assert isinstance(line, Line), "it is what the factory makes"
        return line

    async def _open(self, opening: _Opening, make: Callable[[Factory], Awaitable[Made]], seconds: float | None) -> Made:
        self._group.start_soon(opening.run, make)
        try:
            with anyio.fail_after(seconds):
                await opening.done.wait()
        except BaseException:
            opening.abandon()
            raise
        if opening.error is not None:
            raise opening.error
        return opening.made

    def take(self, user: _Login | None) -> None:
        """Somebody wants it, for itself or to go through."""
        if user is None:
            self.wanted = True
        else:
            self.users.add(user)

    async def aclose(self) -> None:
        """Close it, for everybody, and wait until it is closed."""
        self.ssh.close()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self.ssh.wait_closed()

    def end(self, error: Exception | None) -> None:
        """It has ended."""
        self.lost = explain_loss(error, self.host.name)
        if self.on_end is not None:
            self.on_end()
        if self.on_lost is not None:
            self.on_lost(self.lost)


class _Opening:
    """A channel that is being opened, in a task of its own: asyncssh leaks those whose opening is cancelled."""

    def __init__(self, factory: Factory, nobody: Factory) -> None:
        self.done = anyio.Event()
        self.made: Made = (None, None)
        self.error: BaseException | None = None
        self._factory = factory
        self._nobody = nobody
        self._abandoned = False

    async def run(self, make: Callable[[Factory], Awaitable[Made]]) -> None:
        """Open it, and keep what comes of it."""
        try:
            self.made = await make(self._session)
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.done.set()
            if self._abandoned:
                self._drop()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self._abandoned = True
        self._drop()

    def _session(self) -> Any:
        """Called when the channel is open: makes who is told what happens on it."""
        return self._nobody() if self._abandoned else self._factory()

    def _drop(self) -> None:
        channel, _ = self.made
        if channel is not None:
            channel.abort()


class _Login:
    """A login: under way, there, or failed."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.attempt = Attempt(host)
        self.ended = anyio.Event()
        self.connection: Connection | None = None
        self.error: HostError | None = None
        self.denied = False
        """Whether the server has refused it: then it is not asked again."""
        self.waiting = 0
        self.waits_for: _Login | None = None
        """The login at the jump host, as long as that is waited for."""
        self.jump: Host | None = None
        """The jump host, once that is known."""
        self.scope = anyio.CancelScope()

    def close_if_unused(self) -> None:
        """Close the connection when nobody has it, goes through it, or waits for it."""
        connection = self.connection
        if connection is not None and not (connection.wanted or connection.users or self.waiting):
            connection.ssh.close()

    @property
    def is_over(self) -> bool:
        """Whether another has to be made."""
        if self.connection is not None:
            return self.connection.lost is not None
        return self.ended.is_set() and not self.denied


class Connections:
    """The connections of one pool.

    Args:
        group: Runs what has to be done.
        settings: How patient they are.
    """

    def __init__(self, group: Group, settings: SshSettings | None = None) -> None:
        self._group = group
        self._settings = settings or SshSettings()
        self._logins: dict[Host, _Login] = {}
        self._gates: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()
        self._resolvers = anyio.CapacityLimiter(RESOLVERS)
        self._warned: set[Host] = set()
        self._closed = False

    async def connect(self, host: Host) -> Connection:
        """Log in to a host, or join who is doing so, or has done.

        Raises:
            HostError: It cannot be done. ``phase`` says what failed, ``permanent`` whether it is worth trying again.

        Cancellation:
            Stops the waiting; the login goes on, and is closed when nobody else wants it.

        What may still be running:
            The login, until its timeouts or :meth:`aclose`.
        """
        return await self._wait_for(self._login_to(host))

    def phase_of(self, host: Host) -> str:
        """What a host is about to do, or has failed to: ``dns``, ``connect``, ``auth``, and ``handshake`` once it is
        logged in to."""
        login = self._logins.get(host)
        if login is None:
            return "dns"
        return login.attempt.phase if login.connection is None else "handshake"

    async def leave(self, connection: Connection) -> None:
        """Who has connected to a host needs that no more: close it, unless others go through it, or are about to."""
        connection.wanted = False
        login = self._logins.get(connection.host)
        is_awaited = login is not None and login.connection is connection and login.waiting
        if not (connection.users or is_awaited):
            await connection.aclose()

    def forget(self, host: Host) -> None:
        """Let go of a host, and of those on the way to it, as far as there is no connection.

        Those that have refused a login are asked again when somebody wants to connect to them.
        """
        login = self._logins.get(host)
        if login is None or not login.ended.is_set() or (login.connection is not None and not login.connection.lost):
            return
        del self._logins[host]
        if login.jump is not None:
            self.forget(login.jump)

    async def aclose(self) -> None:
        """Close all connections, and give up the logins that are under way."""
        self._closed = True
        logins = list(self._logins.values())
        for login in logins:
            login.scope.cancel()
        for login in logins:
            await login.ended.wait()
        for login in logins:
            if login.connection is not None:
                await login.connection.aclose()

    def abort(self) -> None:
        """Cut all connections, and wait for nothing."""
        self._closed = True
        for login in self._logins.values():
            login.scope.cancel()
            if login.connection is not None:
                login.connection.ssh.abort()

    # Logins

    def _login_to(self, host: Host) -> _Login:
        login = self._logins.get(host)
        if login is None or login.is_over:
            self._warn(host)
            login = self._logins[host] = _Login(host)
            self._group.start_soon(self._make, login)
        return login

    def _warn(self, host: Host) -> None:
        """Warn of a host that nobody checks; for those to whom this warning is an error, it cannot be used."""
        if (host.options or {}).get("known_hosts", ()) is None and host not in self._warned:
            try:
                warnings.warn(INSECURE.format(name=host.name), InsecureHostWarning, stacklevel=4)
            except InsecureHostWarning as warning:
                raise HostError(str(warning), host=host.name, phase="host key", permanent=True) from warning
            self._warned.add(host)

    async def _wait_for(self, login: _Login, user: _Login | None = None) -> Connection:
        """The connection, for itself or for a user who goes through it."""
        login.waiting += 1
        try:
            await login.ended.wait()
            if login.connection is not None:
                login.connection.take(user)
        finally:
            login.waiting -= 1
            login.close_if_unused()
        if login.connection is None:
            assert login.error is not None, "it has ended"
            error = copy.copy(login.error)  # each who waits gets a traceback of its own
            error.__cause__ = login.error.__cause__
            raise error
        return login.connection

    async def _make(self, login: _Login) -> None:
        name = login.host.name
        login.error = HostError(f"{name}: the pool was closed before the login was through", host=name)
        try:
            with login.scope:
                if not self._closed:
                    login.connection = await self._log_in(login)
        except Exception as error:  # those who wait are told, whatever it is
            login.error = explain(error, Attempt(login.host))
        finally:
            login.ended.set()
            login.close_if_unused()

    async def _log_in(self, login: _Login) -> Connection:
        """Try it; once more, a little later, when the server was only too busy to listen."""
        for retry in range(RETRIES + 1):
            attempt = login.attempt = Attempt(login.host)
            try:
                return await self._try(login, attempt)
            except Exception as error:
                reason = explain(error, attempt)
                login.denied = attempt.step == "login" and reason.permanent
                if retry == RETRIES or not _was_turned_away(error, attempt):
                    raise reason from reason.__cause__
            await anyio.sleep(RETRY_SECONDS * 2**retry * (0.5 + random.random()))
        raise AssertionError("the last attempt returns or raises")

    async def _try(self, login: _Login, attempt: Attempt) -> Connection:
        route = attempt.route = await anyio.to_thread.run_sync(
            resolve, login.host, self._settings, limiter=self._resolvers, abandon_on_cancel=True
        )
        jump = None if route.jump is None else await self._go_through(route.jump, login)
        try:
            async with AsyncExitStack() as stack:
                for gate in self._gates_of(route):
                    was_full = gate.available_tokens < 1
                    await stack.enter_async_context(gate)
                    if was_full:
                        await anyio.sleep(random.random() * JITTER_SECONDS)
                return await self._dial(attempt, route, jump, login)
        except BaseException:
            _leave(jump, login)
            raise

    def _gates_of(self, route: Route) -> list[anyio.CapacityLimiter]:
        """What limits the logins at a server, and those through a jump host."""
        names = [f"{route.machine}:{route.port} through {route.jump}"]
        if route.jump is not None:
            names.append(f"through {route.jump}")
        return [self._gates.setdefault(name, anyio.CapacityLimiter(self._settings.handshakes)) for name in names]

    async def _dial(self, attempt: Attempt, route: Route, jump: _Login | None, login: _Login) -> Connection:
        connection = Connection(login.host, self._group, self._settings)
        client = _Client(attempt, connection)
        dialer = Dialer(attempt, route, None if jump is None else jump.connection)
        tunnel = None if route.proxied else dialer
        try:
            ssh = await asyncssh.connect(**route.arguments, tunnel=tunnel, client_factory=lambda: client)
        except BaseException:
            client.tell(dialer.line)
            raise
        finally:
            dialer.done()
        connection.ssh, connection.line = ssh, dialer.line
        connection.on_end = lambda: _leave(jump, login)
        save_on_connection(ssh)
        client.watch()
        return connection

    # Jump hosts

    async def _go_through(self, host: Host, login: _Login) -> _Login:
        """The login at a jump host, which is kept as long as somebody goes through it."""
        login.jump = host
        try:
            jump = login.waits_for = self._login_to(host)
            _refuse_circles(login)
            await self._wait_for(jump, login)
        except HostError as error:
            name = login.host.name
            text = f"{name}: it is reached through a jump host, which cannot be used.\n{error}"
            raise HostError(text, host=name, phase=error.phase, permanent=error.permanent) from error
        finally:
            login.waits_for = None
        return jump


def _leave(jump: _Login | None, login: _Login) -> None:
    """Go through a jump host no more."""
    if jump is not None and jump.connection is not None:
        jump.connection.users.discard(login)
        jump.close_if_unused()


class _Client(asyncssh.SSHClient):
    """What asyncssh tells of a connection."""

    def __init__(self, attempt: Attempt, connection: Connection) -> None:
        self._attempt = attempt
        self._connection = connection
        self._ssh: asyncssh.SSHClientConnection | None = None
        self._watched = False
        self._end: tuple[Exception | None] | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._ssh = conn
        self._attempt.step = "greeting"

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._attempt.offered = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self._attempt.offered = key
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end = (exc,)
        if self._watched:
            self._connection.end(exc)

    def watch(self) -> None:
        """The login is through: from now on, tell of the end; it may have come already."""
        self._watched = True
        if self._end is not None:
            self._connection.end(self._end[0])

    def tell(self, line: Line | None) -> None:
        """The login has failed: tell how far it came."""
        if line is not None:
            self._attempt.first_words = line.first_words
        if self._ssh is not None and self._ssh.get_server_host_key() is not None:
            self._attempt.step = "login"
        elif b"SSH-" in self._attempt.first_words:
            self._attempt.step = "key exchange"


def _is_full(error: Exception) -> bool:
    """Whether the server has as many sessions as it allows."""
    return isinstance(error, asyncssh.ChannelOpenError) and error.code == OPEN_CONNECT_FAILED


def _was_turned_away(error: Exception, attempt: Attempt) -> bool:
    """Whether the server had too many logins under way (MaxStartups), and said nothing, or only that."""
    closed = isinstance(error, (asyncssh.ConnectionLost, ConnectionResetError)) and "timeout" not in str(error).lower()
    return closed and attempt.step == "greeting" and attempt.first_words[:8] in (b"", b"Exceeded")


def _refuse_circles(login: _Login) -> None:
    """No login can wait for itself."""
    way = [login.host.name]
    ahead = login.waits_for
    while ahead is not None:
        way.append(ahead.host.name)
        if ahead is login:
            raise HostError(f"the jump hosts lead in a circle: {' -> '.join(way)}", phase="connect", permanent=True)
        ahead = ahead.waits_for
