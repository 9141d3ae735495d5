"""Dialing: addresses one after the other, each phase within its time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from aioparallel import Host
from aioparallel._workers import dialing
from aioparallel._workers.dialing import Dialer, _first_to_answer
from aioparallel._workers.hosterrors import Attempt, SilentError
from aioparallel._workers.routes import Route, SshSettings, resolve
from tests.tools import until

STREAM = socket.SOCK_STREAM


def address(port: int) -> Any:
    return (socket.AF_INET, STREAM, 0, "", ("127.0.0.1", port))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A port whose machine does not answer: its queue of connections is full."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(found.getsockname())
        yield found
        for each in waiting:
            each.close()


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


class Ssh:
    """What a dialer sees of an ssh connection."""

    def __init__(self) -> None:
        self.ends: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.ends.append(error)
        self.transport.abort()


def dialer(host: Host, seconds: float) -> tuple[Dialer, Attempt, Route]:
    route = resolve(host, SshSettings(connect_timeout=seconds))
    attempt = Attempt(host, route)
    return Dialer(attempt, route, None), attempt, route


# Addresses


async def test_an_address_to_connect_from_that_is_none(listener: socket.socket) -> None:
    """What is wrong with the address to connect from is told as it is, not in a group of errors."""
    with pytest.raises(TypeError):
        await _first_to_answer([address(port_of(listener))] * 2, "nonsense")


async def test_the_first_address_that_answers(listener: socket.socket) -> None:
    """An address that refuses is passed over at once."""
    connection = await _first_to_answer([address(9), address(port_of(listener))], None)
    assert connection.getpeername() == listener.getsockname()
    connection.close()


async def test_an_address_that_does_not_answer(
    listener: socket.socket, deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that says nothing holds up the next for a moment only."""
    monkeypatch.setattr(dialing, "STAGGER", 0.01)
    connection = await _first_to_answer([address(port_of(deaf)), address(port_of(listener))], None)
    assert connection.getpeername() == listener.getsockname()
    connection.close()


async def test_no_address_answers() -> None:
    """When none can be connected to, the error that says most is raised."""
    nowhere = (socket.AF_INET, STREAM, 0, "", ("127.0.0.1", 9))
    odd = (socket.AF_UNIX, STREAM, 0, "", "/no/such/socket")
    with pytest.raises(ConnectionRefusedError):
        await _first_to_answer([nowhere, odd], None)
    with pytest.raises(FileNotFoundError):
        await _first_to_answer([odd], None)


async def test_several_answer_at_once(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """When several addresses answer, one connection is left."""
    both = asyncio.Event()
    made: list[socket.socket] = []

    async def answer() -> socket.socket:
        connection = socket.socket()
        made.append(connection)
        if len(made) == 3:
            both.set()
        await both.wait()
        return connection

    monkeypatch.setattr(dialing, "_connect_to", lambda *_: answer())
    monkeypatch.setattr(dialing, "STAGGER", 0.0)
    connection = await _first_to_answer([address(port_of(listener))] * 3, None)
    assert [each for each in made if each.fileno() >= 0] == [connection]
    connection.close()


async def test_a_cancelled_connect_leaves_nothing(deaf: socket.socket) -> None:
    """Nothing is open after a connect that was cancelled."""
    task = asyncio.ensure_future(_first_to_answer([address(port_of(deaf))] * 2, None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_where_to_connect_from(listener: socket.socket) -> None:
    """The address to connect from is used."""
    connection = await _first_to_answer([address(port_of(listener))], ("127.0.0.2", 0))
    assert connection.getsockname()[0] == "127.0.0.2"
    connection.close()


# Phases


async def test_a_machine_that_does_not_answer(deaf: socket.socket) -> None:
    """Connecting ends when its time is up, and it is known that the name was no problem."""
    found, attempt, route = dialer(Host(f"127.0.0.1:{port_of(deaf)}", options={"config": None}), 0.05)
    with pytest.raises(TimeoutError):
        await found.create_connection(Ssh, route.machine, route.port)  # type: ignore[arg-type]
    assert attempt.step == "connect"


async def test_a_name_that_is_none() -> None:
    """A name that cannot be looked up is known to be one."""
    found, attempt, _ = dialer(Host("node1", options={"config": None}), 5)
    with pytest.raises(socket.gaierror):
        await found.create_connection(Ssh, "no-such-name.invalid", 22)  # type: ignore[arg-type]
    assert attempt.step == "dns"


async def test_a_name_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a name up ends when the time is up."""

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    found, attempt, _ = dialer(Host("node1", options={"config": None}), 0.05)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(TimeoutError):
        await found.create_connection(Ssh, "node1", 22)  # type: ignore[arg-type]
    assert attempt.step == "dns"


async def test_what_is_said_goes_at_once(listener: socket.socket) -> None:
    """A connection does not wait for more to send: each call would take 40 ms longer then."""
    found, _, route = dialer(Host(f"127.0.0.1:{port_of(listener)}", options={"config": None}), 5)
    _, connection = await found.create_connection(Ssh, route.machine, route.port)  # type: ignore[arg-type]
    ssh: Any = connection
    assert ssh.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    found.done()
    ssh.transport.abort()
    await until(lambda: ssh.ends)


async def test_a_server_that_says_nothing(listener: socket.socket) -> None:
    """A server that accepts and then says nothing is given up when the same time is up."""
    found, _, route = dialer(Host(f"127.0.0.1:{port_of(listener)}", options={"config": None}), 0.05)
    _, connection = await found.create_connection(Ssh, route.machine, route.port)  # type: ignore[arg-type]
    ssh: Any = connection
    await until(lambda: ssh.ends)
    assert isinstance(ssh.ends[0], SilentError)
    await asyncio.sleep(0)


async def test_a_server_that_speaks_up(listener: socket.socket) -> None:
    """A server that has said what it is gets the time that a login takes."""
    found, _, route = dialer(Host(f"127.0.0.1:{port_of(listener)}", options={"config": None}), 5)
    _, connection = await found.create_connection(Ssh, route.machine, route.port)  # type: ignore[arg-type]
    peer, _ = listener.accept()
    peer.send(b"SSH-2.0-x\r\n")
    assert found.line is not None
    await found.line.greeted.wait()
    found._check_greeting(found.line)
    ssh: Any = connection
    assert ssh.ends == []
    found.done()
    ssh.transport.abort()
    peer.close()
    await asyncio.sleep(0)
