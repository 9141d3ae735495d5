"""The FastAPI service among the examples, on a real server, asked over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from aioparallel import PoolStatus
from tests.examples.blocks import ROOT
from tests.tools import PATIENCE

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

LONG = 900_000_000
"""Below this there are more prime numbers than anybody waits for."""


class Service:
    """The example, as a user starts it."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", str(ROOT / "examples" / "fastapi_service.py"), "0"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.program = subprocess.Popen(
            command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self.program.stderr is not None
        self.url = ""
        while not self.url:
            line = self.program.stderr.readline()
            assert line, "it ended before it listened"
            self.url = "".join(re.findall(r"http://[\d.]+:\d+", line))

    def end(self) -> None:
        """Stop it, as an orchestrator does, and wait until it has ended."""
        self.program.send_signal(signal.SIGTERM)
        self.program.communicate(timeout=PATIENCE)
        assert self.program.returncode == -signal.SIGTERM, "uvicorn ends by the signal that it was sent"


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    try:
        yield running
    finally:
        running.end()


@pytest_asyncio.fixture
async def client(service: Service) -> AsyncGenerator[Any]:
    unlimited = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE, limits=unlimited) as asking:
        yield asking


async def wait_for_status(client: Any, **wanted: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not wanted.items() <= (await client.get("/status")).json().items():
            await asyncio.sleep(0.005)


async def test_it_answers(client: Any) -> None:
    """It computes for many clients at once, and says what is wrong with a request."""
    found = await asyncio.gather(*(client.get("/primes", params={"below": below}) for below in range(20)))
    assert [each.json() for each in found] == [0, 0, 0, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7]
    refused = await client.get("/primes", params={"below": -1})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["query", "below"])
    status = (await client.get("/status")).json()
    assert {**status, "workers": 0, "p50": 0, "p95": 0} == {
        **dataclasses.asdict(PoolStatus("primes", "process", 0, queued=0, running=0, done=20, failed=0, cancelled=0)),
        "p50": 0,
        "p95": 0,
        "per_worker": [],
    }


async def test_a_client_that_goes(client: Any) -> None:
    """When a client goes, its call is stopped, and its process is there for others."""
    asking = asyncio.ensure_future(client.get("/primes", params={"below": LONG}))
    await wait_for_status(client, running=1)
    asking.cancel()
    await wait_for_status(client, running=0, cancelled=1)
    assert (await client.get("/primes", params={"below": 100})).json() == 25


async def test_a_request_that_takes_too_long(client: Any) -> None:
    """A request that computes longer than it may is stopped, and told so."""
    answer = await client.get("/primes", params={"below": LONG, "seconds": 0.1})
    assert (answer.status_code, answer.json()) == (504, {"detail": "that would take too long"})
    await wait_for_status(client, running=0, failed=1)


async def test_a_crowd(client: Any) -> None:
    """What is more than the pool takes is refused at once; the rest waits, and goes with its clients."""
    asking = [asyncio.ensure_future(client.get("/primes", params={"below": LONG})) for _ in range(150)]
    refused, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert {each.result().status_code for each in refused} == {503}
    await wait_for_status(client, queued=100)
    for each in asking:
        each.cancel()
    await wait_for_status(client, queued=0, running=0)
    assert (await client.get("/primes", params={"below": 100})).json() == 25


async def test_it_is_told_to_end(client: Any, service: Service) -> None:
    """Told to end, the service waits a little for who still computes, stops that, and leaves nothing behind."""
    asking = asyncio.ensure_future(client.get("/primes", params={"below": LONG}))
    await wait_for_status(client, running=1)
    await asyncio.to_thread(service.end)
    assert (await asking).status_code == 500
