"""The ssh server behind :func:`~aioparallel.testing.ssh_host`: asyncssh's own, whose commands are local processes.

What real servers do is done here too: a command is the leader of a session of its own; its exit is reported when all
that it wrote has been read; and when a connection ends, nobody is killed, but standard input is closed. Only what is
left after a while is killed, so that nothing outlives a test.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any, cast

import anyio
import asyncssh

from .._futures.supervisor import Supervisor
from .relay import Relay

__all__ = ["Server"]

END_SECONDS = 2.0
SHELL = "/bin/sh"
CIPHERS = ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"]
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "SYSTEMROOT")


class Server:
    """An ssh server on the loopback interface, and the relay through which it is reached."""

    def __init__(self) -> None:
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.logins: set[asyncssh.SSHServerConnection] = set()
        self.sessions: set[Session] = set()
        self.commands: dict[int, Session] = {}
        """The sessions whose commands run, by process id."""
        self.supervisor: Supervisor | None = None
        self.relay = Relay("127.0.0.1", 0)
        self.closing = asyncio.Event()

    @property
    def port(self) -> int:
        """Where it is reached."""
        return self.relay.port

    def options(self) -> dict[str, Any]:
        """What ``asyncssh.connect`` needs to get in, and nothing of the user's own."""
        public = self.host_key.export_public_key().decode().strip()
        return {
            "client_keys": self.user_key.export_private_key(),
            "known_hosts": f"[127.0.0.1]:{self.port} {public}\n".encode(),
            "config": None,
            "agent_path": None,
            "gss_host": None,
        }

    async def start(self) -> None:
        """Begin to listen."""
        self.supervisor = Supervisor(self._supervise, "aioparallel ssh host")
        await self.supervisor.wait_ready()

    async def aclose(self) -> None:
        """End everything, and wait for that."""
        self.closing.set()
        if self.supervisor is not None:
            await self.supervisor.wait_done()

    async def _supervise(self, supervisor: Supervisor) -> None:
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: Login(self),
            server_host_keys=[self.host_key],
            encryption_algs=CIPHERS,
            compression_algs=None,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            gss_host=None,
            window=16 << 20,
            config=None,
        )
        try:
            self.relay.target = ("127.0.0.1", acceptor.get_port())
            await self.relay.start()
            supervisor.set_ready()
            await self.closing.wait()
        finally:
            acceptor.close()
            with anyio.CancelScope(shield=True):
                await self._end()

    async def _end(self) -> None:
        await self.relay.aclose()
        for login in list(self.logins):
            login.abort()
            await login.wait_closed()
        for session in list(self.sessions):
            await session.ended.wait()


class Login(asyncssh.SSHServer):
    """One connection. It may run commands, and be a jump host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Any = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.logins.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.logins.discard(self._connection)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return bool(key.public_data == self._server.user_key.public_data)

    def session_requested(self) -> Session:
        return Session(self._server)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


class Session(asyncssh.SSHServerSession[bytes]):
    """A session of ssh: a channel on one side, a process on the other."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channel: Any = None
        self.ended = asyncio.Event()
        """Set when the process has ended, or was never started."""
        self._process: Process | None = None
        self._early: list[bytes | None] = []
        """What arrived before the process had been started; ``None`` is the end."""
        self._killer: asyncio.TimerHandle | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self.channel = chan

    def exec_requested(self, command: str) -> bool:
        group = self.server.supervisor and self.server.supervisor.group
        if not group or self.server.closing.is_set():
            return False
        self.server.sessions.add(self)
        group.start_soon(self._run, command)
        return True

    async def _run(self, command: str) -> None:
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: Process(self),
                *(SHELL, "-c", command),
                env=dict(_environment()),
                cwd=_home(),
                start_new_session=True,
            )
        except OSError as error:
            self.channel.write_stderr(f"{SHELL}: {error}\n".encode())
            self.process_ended(126)

    def process_begun(self, process: Process) -> None:
        """The process is there; it gets what has arrived meanwhile."""
        self._process = process
        self.server.commands[process.pid] = self
        for data in self._early:
            process.feed(data)
        if self.channel.is_closing():
            self._hang_up()

    def process_ended(self, code: int) -> None:
        """The process has ended, and all that it wrote has been read."""
        if code >= 0:
            self.channel.exit(code)
        else:
            self.channel.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        if self._process is not None:
            del self.server.commands[self._process.pid]
        if self._killer is not None:
            self._killer.cancel()
        self.server.sessions.discard(self)
        self.ended.set()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._feed(data)

    def eof_received(self) -> bool:
        self._feed(None)
        return True

    def _feed(self, data: bytes | None) -> None:
        if self._process is None:
            self._early.append(data)
        else:
            self._process.feed(data)

    def pause_writing(self) -> None:
        if self._process is not None:
            self._process.pause_reading()

    def resume_writing(self) -> None:
        if self._process is not None:
            self._process.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        """Nobody is there any more: the process will see that, or be killed."""
        if self._process is not None and self._killer is None and not self.ended.is_set():
            self._process.feed(None)
            self._process.resume_reading()
            self._killer = asyncio.get_running_loop().call_later(END_SECONDS, self._process.kill)


class Process(asyncio.SubprocessProtocol):
    """The process of a session."""

    def __init__(self, session: Session) -> None:
        self.pid = 0
        self._session = session
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._session.process_begun(self)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        channel = self._session.channel
        if not channel.is_closing():
            (channel.write if fd == 1 else channel.write_stderr)(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, and so has its output."""
        assert self._transport is not None, "it was made before it is lost"
        self._session.process_ended(self._transport.get_returncode() or 0)
        self._transport.close()

    def feed(self, data: bytes | None) -> None:
        """Give it something to read, or the end of that."""
        stdin = self._pipe(0)
        if data is None:
            stdin.close()
        elif not stdin.is_closing():
            stdin.write(data)

    def kill(self) -> None:
        """Kill it, and those it has started who did not leave its group; let go of those who did."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if self._transport is not None and self._transport.get_returncode() is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._session.channel.pause_reading()

    def resume_writing(self) -> None:
        # Not at once: the pipe would lose what is written to it and closed in here.
        asyncio.get_running_loop().call_soon(self._session.channel.resume_reading)

    def pause_reading(self) -> None:
        """Let it wait in its ``write``."""
        for fd in (1, 2):
            self._pipe(fd).pause_reading()

    def resume_reading(self) -> None:
        """Let it go on."""
        for fd in (1, 2):
            self._pipe(fd).resume_reading()

    def _pipe(self, fd: int) -> Any:
        assert self._transport is not None, "it has been started"
        return self._transport.get_pipe_transport(fd)


def _home() -> str:
    home = os.path.expanduser("~")
    return home if os.path.isdir(home) else "/"


def _environment() -> Iterator[tuple[str, str]]:
    """What a login gets; and what tells that a process belongs to these tests."""
    for name, value in os.environ.items():
        if name in INHERITED or name.startswith(("LC_", "AIOPARALLEL_")):
            yield name, value
    yield "SHELL", SHELL
