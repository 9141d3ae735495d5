"""The relay: what it passes on, and each of its faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from aioparallel.testing import Relay
from aioparallel.testing.relay import RESET_ON_CLOSE
from tests.tools import until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it hears, and knows how its connections went."""

    def __init__(self) -> None:
        self.heard = 0
        self.ends: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.heard += len(data)
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    found = Echo()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await server.wait_closed()


@pytest.fixture
async def relay(echo: Echo) -> AsyncIterator[Relay]:
    async with Relay("127.0.0.1", echo.port) as found:
        yield found


@contextlib.asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    yield reader, writer
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def ping(streams: Streams, text: bytes = b"ping") -> bytes:
    reader, writer = streams
    writer.write(text)
    return await reader.readexactly(len(text))


async def test_it_sends_at_once(relay: Relay) -> None:
    """It does not wait for more to send: what comes in two pieces would take 40 ms longer."""
    async with connected(relay) as streams:
        await ping(streams)
        sockets = [side._transport.get_extra_info("socket") for side in relay._sides if side._transport is not None]
        assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets] == [1, 1]


async def test_it_passes_on(relay: Relay) -> None:
    """What goes in at one end comes out at the other, there and back, for each connection by itself."""
    async with connected(relay) as one, connected(relay) as two:
        assert await ping(one, b"one") == b"one"
        assert await ping(two, b"two") == b"two"
        assert relay.accepted == 2


async def test_ends(relay: Relay, echo: Echo) -> None:
    """The end of one direction is passed on when all before it has been; the other direction goes on."""
    async with connected(relay) as (reader, writer):
        writer.write(bytes(3_000_000))
        writer.write_eof()
        assert len(await reader.read(-1)) == 3_000_000
        await until(lambda: echo.ends == ["end"])


async def test_backpressure(relay: Relay, echo: Echo) -> None:
    """Who sends into a stalled relay has to wait, so that it holds little."""
    async with connected(relay) as streams:
        await ping(streams)
        relay.stall()
        reader, writer = streams
        writer.write(bytes(64_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        assert echo.heard == 4
        relay.heal()
        assert len(await reader.readexactly(64_000_000)) == 64_000_000


async def test_refusing(relay: Relay) -> None:
    """A relay that refuses has nobody at its port; connections that there are go on, and healing opens the port."""
    async with connected(relay) as streams:
        await ping(streams)
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", relay.port)
        assert await ping(streams) == b"ping"
        relay.heal()
        async with connected(relay) as again:
            assert await ping(again) == b"ping"


async def test_stalling(relay: Relay) -> None:
    """A stalled relay accepts connections and says nothing; healing delivers what was held."""
    async with connected(relay) as old:
        await ping(old)
        relay.stall()
        async with connected(relay) as new:
            answers = [asyncio.ensure_future(ping(streams)) for streams in (old, new)]
            done, _ = await asyncio.wait(answers, timeout=0.1)
            assert not done
            relay.heal()
            assert await asyncio.gather(*answers) == [b"ping", b"ping"]


async def test_cutting(relay: Relay, echo: Echo) -> None:
    """Cutting resets both ends of every connection."""
    async with connected(relay) as streams:
        await ping(streams)
        relay.cut()
        with pytest.raises(ConnectionResetError):
            await streams[0].readexactly(1)
        await until(lambda: echo.ends == ["reset"])


async def test_delays(relay: Relay) -> None:
    """A delay holds everything for so long on each way, and keeps the order."""
    loop = asyncio.get_running_loop()
    async with connected(relay) as (reader, writer):
        relay.delay(0.05)
        begun = loop.time()
        for n in range(50):
            writer.write(b"%02d" % n)
            await asyncio.sleep(0)
        assert await reader.readexactly(100) == b"".join(b"%02d" % n for n in range(50))
        assert loop.time() - begun >= 0.1
    with pytest.raises(ValueError, match=r"delay\(-1\): expected seconds"):
        relay.delay(-1)


async def test_a_shorter_delay_overtakes_nothing(relay: Relay) -> None:
    """What is sent under a shorter delay arrives after what was sent before."""
    async with connected(relay) as (reader, writer):
        relay.delay(0.05)
        writer.write(b"first")
        await until(lambda: any(side._held for side in relay._sides))
        relay.delay(0)
        writer.write(b"second")
        assert await reader.readexactly(11) == b"firstsecond"


async def test_nobody_is_there() -> None:
    """When there is nobody where it leads to, connections end at once."""
    async with Relay("127.0.0.1", 9) as relay, connected(relay) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)


async def test_whoever_gives_up_early(relay: Relay) -> None:
    """A connection that ends before it leads anywhere is no trouble."""
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.transport.abort()
    async with connected(relay) as streams:
        assert await ping(streams) == b"ping"


async def test_closing(echo: Echo) -> None:
    """A relay that is closed resets its connections and is not there any more, also if it was never started."""
    await Relay("127.0.0.1", echo.port).aclose()
    async with Relay("127.0.0.1", echo.port) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        await ping((reader, writer))
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", relay.port)
    relay.heal()


async def test_end_after_a_reset_that_is_not_noticed_yet() -> None:
    """An end that is to be passed on to a side that has been reset meanwhile ends that pair, and raises nowhere."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with Relay("127.0.0.1", listener.getsockname()[1]) as relay:
            with socket.create_connection(("127.0.0.1", relay.port)):
                target, _ = await loop.sock_accept(listener)
                sides = await until(lambda: len(relay._sides) == 2 and relay._sides)
                near = next(each for each in sides if each._transport.get_extra_info("sockname")[1] == relay.port)
                await until(lambda: near._peer is not None)
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                target.close()  # the loop hears of that in its next turn
                near.eof_received()
                await until(lambda: not relay._sides)
