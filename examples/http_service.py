"""An HTTP service that computes on remote hosts: the pool opens and closes with the service, and its loop stays free.

It is written with nothing but asyncio, so that it needs no framework; in one, ``lifespan`` and ``answer`` are what you
would write, too. Run it, and ask it::

    python examples/http_service.py 8080 [hosts.toml]
    curl 'localhost:8080/primes?below=20000'
    curl localhost:8080/hosts

Without a file of hosts it uses two that run in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from aioparallel import AioParallelError, PoolFullError, RemoteExecutor, TaskTimeoutError, load_hosts
from aioparallel.testing import ssh_hosts

Answer = tuple[HTTPStatus, object]


def count_primes(below: int) -> int:
    """Runs on a host, and takes its time."""
    return sum(all(n % divisor for divisor in range(2, math.isqrt(n) + 1)) for n in range(2, below))


@asynccontextmanager
async def lifespan(file: str | None = None) -> AsyncGenerator[RemoteExecutor]:
    """What the service has for as long as it runs."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = load_hosts(file) if file else await stack.enter_async_context(ssh_hosts(2, slots=1))
        yield await stack.enter_async_context(RemoteExecutor(hosts, max_pending=100, name="primes"))


async def answer(pool: RemoteExecutor, target: str) -> Answer:
    """Answer a request. Whoever cancels this, because the client has gone, ends the call on its host."""
    url = urlsplit(target)
    if url.path == "/hosts":
        return HTTPStatus.OK, [{"name": host.name, "state": host.state, "running": host.running} for host in pool.hosts]
    if url.path != "/primes":
        return HTTPStatus.NOT_FOUND, f"there is no {url.path}: try /primes?below=1000 or /hosts"
    below = parse_qs(url.query).get("below", [""])[0]
    if not below.isdecimal():
        return HTTPStatus.BAD_REQUEST, "say how far to count: /primes?below=1000"
    try:
        return HTTPStatus.OK, await pool.options(timeout=30, idempotent=True).submit(count_primes, int(below))
    except PoolFullError:
        return HTTPStatus.SERVICE_UNAVAILABLE, "come back later"
    except TaskTimeoutError:
        return HTTPStatus.GATEWAY_TIMEOUT, "that would take too long"
    except AioParallelError as error:
        return HTTPStatus.BAD_GATEWAY, str(error)


async def serve(pool: RemoteExecutor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: a request, and its answer, unless the client does not wait for that."""
    with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode("ascii", "replace")
        answering = asyncio.ensure_future(answer(pool, target))
        leaving = asyncio.ensure_future(reader.read(1))  # ends when the client does
        await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not answering.done():
            answering.cancel()
            await asyncio.wait([answering])
            return
        status, content = answering.result()
        body = json.dumps(content).encode()
        lines = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        writer.write(f"{lines}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()


async def main(port: int, file: str | None = None) -> None:
    async with lifespan(file) as pool:
        server = await asyncio.start_server(lambda reader, writer: serve(pool, reader, writer), "127.0.0.1", port)
        async with server:
            print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), *sys.argv[2:3]))
