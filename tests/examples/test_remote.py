"""The examples of remote hosts run, and do what they are there to show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.examples.blocks import ROOT
from tests.tools import wait_for

ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def test_factorials() -> None:
    """Factorials are computed on two hosts, which need no set-up."""
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "remote_factorials.py")]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "all of them, in order: True",
        "as they end: [6, 24, 120]",
        "of a factorial: 720",
        "hosts that had a share: 2",
    ]


@pytest.fixture
def service() -> Iterator[str]:
    """The service, as a user starts it; ended by SIGINT, as a user does."""
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "http_service.py"), "0"]
    program = subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    said = program.stdout.readline()
    try:
        yield said.removeprefix("listening on ").strip()
    finally:
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out, err) == (0, "", ""), "it ends by itself, without a word"


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=40) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_service_on_remote_hosts(service: str) -> None:
    """The service computes on its hosts, for many clients at once, and says what is wrong with a request."""
    assert get(f"{service}/primes?below=20000") == (200, 2262)
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda n: get(f"{service}/primes?below={n}"), range(20)))
    assert [count for _, count in found] == [0, 0, 0, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7]
    status, hosts = get(f"{service}/hosts")
    assert (status, {host["state"] for host in hosts} <= {"up", "connecting"}, len(hosts)) == (200, True, 2)
    assert get(f"{service}/primes?below=x")[0] == 400
    assert get(f"{service}/else")[0] == 404


def test_a_client_that_goes(service: str) -> None:
    """When a client goes, its call is ended on the host, and the slot is free for others."""
    address = service.removeprefix("http://").split(":")

    def running() -> int:
        return sum(host["running"] for host in get(f"{service}/hosts")[1])

    with contextlib.ExitStack() as clients:
        for _ in range(2):
            client = clients.enter_context(socket.create_connection((address[0], int(address[1]))))
            client.sendall(b"GET /primes?below=900000000 HTTP/1.1\r\n\r\n")
        wait_for(running)
    wait_for(lambda: not running())
    assert get(f"{service}/primes?below=100") == (200, 25)
