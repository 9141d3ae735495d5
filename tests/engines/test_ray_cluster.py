"""Ray as it is in the world: started here, joined elsewhere, refused, and losing nodes in the middle of the work.

Each of these needs a process that is not connected to the Ray that other tests share, so they are small programs. One
cluster of two nodes on this machine, which wants a token, serves all that join one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.ray(shared=False),
    pytest.mark.leak_check(processes=False, fds=False),
    pytest.mark.timeout(120),
]

CLUSTER = """
import sys, threading
from ray.cluster_utils import Cluster

small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
full = {"_system_config": {"local_fs_capacity_threshold": 0.0}}  # as if the disk were full
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"head": 10}, **small, **full})
nodes = [cluster.add_node(num_cpus=2, resources={"doomed": 10}, object_store_memory=100 * 2**20)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""

HEAD = """
import asyncio, os, sys, time
from aioparallel import *
from tests.tools import Gate, Log, hold, until

def say(*words):
    print(">", *words, flush=True)  # Ray prints, too
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def token() -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


Program = Callable[..., list[str]]


@pytest.fixture(scope="module")
def program(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Runs a program; returns what it says."""

    def run(body: str, *arguments: str, seconds: float = 60, **variables: str | None) -> list[str]:
        file = tmp_path_factory.mktemp("program") / "program.py"
        file.write_text(HEAD + body)
        done = subprocess.run(
            [sys.executable, str(file), *arguments],
            env=environment({"HOME": str(home), **variables}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line.removeprefix("> ") for line in done.stdout.splitlines() if line.startswith("> ")]

    return run


def environment(changes: dict[str, str | None]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    merged = {**own, "PYTHONPATH": os.pathsep.join(["src", "."]), **changes}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.fixture(scope="module")
def cluster(home: Path, token: dict[str, str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a cluster, and what removes its second node."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment({"HOME": str(home), **token}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    address = stdout.readline().strip()

    def remove() -> None:
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline() == "removed\n"

    yield address, remove
    stdin.close()
    process.wait(30)
    stdout.close()


# A Ray of one's own


def test_a_local_ray(program: Program) -> None:
    """A local Ray starts without the loop standing still, needs no home folder, and ends with the last executor."""
    body = """
async def main():
    before = {name for name in os.environ if "RAY" in name}
    turns, watching = 0, True

    async def watch():
        nonlocal turns
        while watching:
            await asyncio.sleep(0.01)
            turns += 1

    watcher = asyncio.ensure_future(watch())
    async with RayExecutor(init={"num_cpus": 2}) as pool, RayExecutor() as other:
        say("the loop went on:", turns > 20)
        pid = await pool.submit(os.getpid)
        say(pid != os.getpid(), await other.submit(pow, 2, 10))
        import ray
        children = [pid, ray._private.worker._global_node.all_processes["raylet"][0].process.pid]
    watching = False
    await watcher
    say("disconnected:", not ray.is_initialized())
    await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
    say("variables:", {name for name in os.environ if "RAY" in name} - before)

asyncio.run(main())
"""
    assert program(body, HOME="/nowhere") == [
        "the loop went on: True",
        "True 1024",
        "disconnected: True",
        "variables: set()",
    ]


def test_start_that_is_given_up(program: Program, home: Path) -> None:
    """To cancel the start closes the Ray that it brings up; it may be started again, and writes nothing at home."""
    body = """
async def main():
    pool = RayExecutor(init={"num_cpus": 1})
    try:
        async with asyncio.timeout(1):
            await pool.start()
    except TimeoutError:
        say("given up")
    import ray
    say(ray.is_initialized())
    async with RayExecutor(init={"num_cpus": 1}) as pool:
        say(await pool.submit(pow, 2, 3))

asyncio.run(main())
"""
    assert program(body) == ["given up", "False", "8"]
    assert list(home.iterdir()) == []


def test_a_ray_that_cannot_start(program: Program) -> None:
    """If Ray refuses to start, it is said why, with Ray's own error for the cause."""
    body = """
async def main():
    try:
        await RayExecutor(init={"num_cpus": 1, "object_store_memory": 1}).start()
    except WorkerStartError as error:
        say(type(error.__cause__).__name__, "cannot be started on this machine" in str(error))

asyncio.run(main())
"""
    assert program(body) == ["ValueError True"]


# Somebody else's


def test_no_cluster(program: Program) -> None:
    """Where nobody listens, that is said at once."""
    body = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]

async def main():
    started = time.monotonic()
    try:
        await RayExecutor(f"127.0.0.1:{port}").start()
    except HostError as error:
        say(error.phase, type(error.__cause__).__name__, time.monotonic() - started < 10)

asyncio.run(main())
"""
    assert program(body) == ["connect ConnectionRefusedError True"]


@pytest.mark.parametrize("mode", ["none", "wrong"])
def test_a_cluster_that_wants_a_token(program: Program, cluster: tuple[str, object], mode: str) -> None:
    """A cluster that wants a token says so at once, and how to give it one."""
    body = """
async def main():
    started = time.monotonic()
    try:
        await RayExecutor(sys.argv[1]).start()
    except HostError as error:
        say(error.phase, "RAY_AUTH_TOKEN" in str(error), type(error.__cause__).__name__)
        say(time.monotonic() - started < 15)

asyncio.run(main())
"""
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} if mode == "wrong" else {}
    assert program(body, cluster[0], **wrong) == ["auth True AuthenticationError", "True"]


def test_a_cluster_of_another_version(program: Program, cluster: tuple[str, object], token: dict[str, str]) -> None:
    """A cluster with another version of Ray, or of Python, is refused, naming both."""
    body = """
import ray
ray.__version__ = "1.2.3"

async def main():
    try:
        await RayExecutor(sys.argv[1]).start()
    except HostError as error:
        say(error.phase, "1.2.3" in str(error), type(error.__cause__).__name__)

asyncio.run(main())
"""
    assert program(body, cluster[0], **token) == ["python True RuntimeError"]


def test_a_full_store(program: Program, cluster: tuple[str, object], token: dict[str, str]) -> None:
    """Where the object store is full, arguments, constants and results say so, and the executor goes on."""
    body = """
import numpy as np

async def main():
    async with RayExecutor(sys.argv[1], resources={"head": 1}) as pool:
        large = np.zeros(40_000_000)
        for call in (
            lambda: pool.submit(len, large),
            lambda: pool.map(pow, range(3), args=(large,)),
            lambda: pool.submit(np.ones, 40_000_000),
        ):
            try:
                await call()
            except StoreFullError as error:
                say(error.call, "object store" in str(error), "Disk" in type(error.__cause__).__name__)
        say(await pool.submit(pow, 2, 3))

asyncio.run(main())
"""
    assert program(body, cluster[0], **token) == [
        "len True True",
        "pow True True",
        "ones True True",
        "8",
    ]


def test_a_node_is_lost(
    program: Program, cluster: tuple[str, Callable[[], None]], token: dict[str, str], tmp_path: Path
) -> None:
    """When a node dies in the middle of a map, what ran there is lost or, if it may be, begun again; the rest goes on."""
    body = """
async def main():
    gate, asked = Gate(sys.argv[2]), Log(sys.argv[3])
    async with RayExecutor(sys.argv[1], num_cpus=1) as pool:
        doomed = pool.options(resources={"doomed": 1}, name="doomed")
        lost = [doomed.submit(hold, gate, n) for n in range(2)]
        calls = [pool.options(resources={"head": 1}).submit(hold, gate, n) for n in range(2)]
        await until(lambda: len(gate.entered) == 4)
        again = pool.options(idempotent=True, retry=3).map(lambda n: hold(gate, n), range(4), chunksize=1)
        running = asyncio.ensure_future(again._all())
        asked.write("now")
        for call in lost:
            try:
                await call
            except WorkerLostError as error:
                say(error.call, type(error.__cause__).__name__)
        gate.open()
        say(await wait_all(calls), await running)
        say(pool.status().deaths >= 2)

asyncio.run(main())
"""
    asked = tmp_path / "asked"

    import threading

    def remove_when_asked() -> None:
        from tests.tools import wait_for

        wait_for(asked.exists, seconds=60)
        cluster[1]()

    thread = threading.Thread(target=remove_when_asked)
    thread.start()
    printed = program(body, cluster[0], str(tmp_path / "gate"), str(asked), seconds=100, **token)
    thread.join()
    assert printed[:2] in (["doomed NodeDiedError"] * 2, ["doomed WorkerCrashedError"] * 2)
    assert printed[2:] == ["[0, 1] [0, 1, 2, 3]", "True"]
