"""RayExecutor, as far as it differs from other executors: what the contract says of all of them is tested there."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from typing import Any

import pytest

import aioparallel
from aioparallel import (
    CallCancelledError,
    HostError,
    Method,
    PoisonTaskError,
    ProcessExecutor,
    RayExecutor,
    Retry,
    WorkerLostError,
    WorkerStartError,
    blocking,
    distribute,
    parallelize,
    parmap,
    wait_all,
)
from aioparallel._workers import rayerrors, raytrying
from tests.contract import jobs, mapjobs
from tests.tools import Gate, Log, hold, is_alive, until

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray"),
    pytest.mark.ray,
    # Ray's processes come and go as it likes.
    pytest.mark.leak_check(processes=False, fds=False),
]


@pytest.fixture
async def pool() -> Any:
    async with RayExecutor() as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Any) -> Gate:
    return Gate(str(tmp_path / "gate"))


@pytest.fixture
def log(tmp_path: Any) -> Log:
    return Log(str(tmp_path / "log"))


def assigned() -> dict[str, float]:
    import ray

    return dict(ray.get_runtime_context().get_assigned_resources())


# Options


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"address": 6379}, TypeError, "address=6379"),
        ({"num_cpus": -1}, ValueError, "num_cpus=-1"),
        ({"num_gpus": "all"}, ValueError, "num_gpus='all'"),
        ({"resources": ["license"]}, TypeError, "resources="),
        ({"runtime_env": "."}, TypeError, "runtime_env="),
        ({"max_workers": 0}, ValueError, "max_workers=0"),
        ({"grace": -1}, ValueError, "grace=-1"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    """Options that make no sense are refused when the executor is made."""
    with pytest.raises(error, match=match):
        RayExecutor(**options)


async def test_its_options_are_its_own(pool: RayExecutor) -> None:
    """A view knows Ray's options beside those of every executor; other executors do not know them."""
    with pytest.raises(TypeError, match=r"no such option: luck .*num_gpus"):
        pool.options(luck=1)
    with pytest.raises(ValueError, match="num_cpus=-1"):
        pool.options(num_cpus=-1)
    with pytest.raises(TypeError, match="no such option: num_gpus"):
        ProcessExecutor(1).options(num_gpus=1)
    view = pool.options(num_cpus=0.5, timeout=20).options(priority=1)
    assert await view.submit(jobs.add, 1, 2) == 3
    assert await view.map(jobs.same, range(3)) == [0, 1, 2]


async def test_resources(pool: RayExecutor) -> None:
    """What a call takes is what the executor says, unless its view says otherwise; maps and decorators keep to it."""
    assert await pool.submit(assigned) == {"CPU": 1.0}
    view = pool.options(num_cpus=0.5, resources={"license": 1})
    assert await view.submit(assigned) == {"CPU": 0.5, "license": 1.0}
    assert await view.map(lambda _: assigned(), range(2)) == [{"CPU": 0.5, "license": 1.0}] * 2
    async with RayExecutor(num_cpus=2) as other:
        assert await other.submit(assigned) == {"CPU": 2.0}
        assert await parallelize(assigned, on=other)() == {"CPU": 2.0}


async def test_what_the_cluster_lacks(pool: RayExecutor) -> None:
    """A call for which the cluster has no room waits, for the cluster may grow, and can be cancelled."""
    call = pool.options(resources={"license": 3}).submit(jobs.add, 1, 2)
    assert await pool.submit(jobs.add, 2, 2) == 4
    assert not call.done()
    call.cancel()
    with pytest.raises(CallCancelledError):
        await call


async def test_environment(pool: RayExecutor) -> None:
    """``runtime_env`` holds for the calls of a view; one that cannot be made says so."""
    view = pool.options(runtime_env={"env_vars": {"MARK": "7"}})
    assert await view.submit(lambda: os.environ["MARK"]) == "7"
    with pytest.raises(ValueError, match="/nowhere is not a valid path"):
        await pool.options(runtime_env={"working_dir": "/nowhere"}).submit(jobs.same)
    with pytest.raises(WorkerStartError, match="no worker that can run it"):
        await pool.options(runtime_env={"working_dir": "https://127.0.0.1:9/nowhere.zip"}).submit(jobs.same)


# What travels


async def test_a_constant_is_stored_once(pool: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large constant of a map goes through the object store, once, and is gone from there with the map."""
    ray = pytest.importorskip("ray")
    np = pytest.importorskip("numpy")
    stored: list[int] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: stored.append(memoryview(value).nbytes) or put(value))
    constant = np.arange(500_000.0)
    results = await pool.map(lambda n, array: float(array[n]), range(300), args=(constant,), chunksize=1)
    assert results == [float(n) for n in range(300)]
    assert stored == [constant.nbytes]


async def test_a_large_function_is_stored_once(pool: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a function that holds something large."""
    ray = pytest.importorskip("ray")
    stored: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: stored.append(value) or put(value))
    text = "x" * 300_000
    calls = [pool.options(name="long").submit(len, n) for n in ([1], [1, 2])]
    assert await pool.map(lambda n: len(text) + n, range(50), chunksize=1) == [300_000 + n for n in range(50)]
    assert await wait_all(calls) == [1, 2]
    assert len(stored) == 1


async def test_arrays(pool: RayExecutor) -> None:
    """Large arrays arrive equal, and may be written to, on either side."""
    np = pytest.importorskip("numpy")

    def double(array: Any) -> Any:
        array *= 2
        return array

    array = np.arange(300_000.0)
    for call in (pool.submit(double, array), pool.options(timeout=30).submit(double, array)):
        doubled = await call
        np.testing.assert_array_equal(doubled, 2 * np.arange(300_000.0))
        doubled[0] = 1
    assert array[1] == 1


async def test_items_that_cannot_travel(pool: RayExecutor) -> None:
    """In a chunk of a map, too, only the result that cannot be pickled fails."""
    import threading

    outcomes = await pool.map(lambda n: threading.Lock() if n == 70 else n, range(100), errors="return", chunksize=25)
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [70]
    assert "lock" in str(outcomes[70].error)


async def test_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Modules are found where this process finds them; one that cannot be imported there is named."""
    (tmp_path / "elsewhere.py").write_text("def double(n): return 2 * n\n")
    (tmp_path / "onlyhere.py").write_text("import os\nif 'HERE' not in os.environ: raise ImportError('not there')\n")
    monkeypatch.setenv("HERE", "1")
    monkeypatch.syspath_prepend(tmp_path)
    elsewhere, onlyhere = importlib.import_module("elsewhere"), importlib.import_module("onlyhere")
    async with RayExecutor() as later:
        assert await later.submit(elsewhere.double, 3) == 6
        with pytest.raises(aioparallel.PicklingError, match="cannot be rebuilt in the worker"):
            await later.submit(getattr, onlyhere, "__name__")


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_chunk_whose_worker_dies(pool: RayExecutor, log: Log, idempotent: bool) -> None:
    """Nobody knows how far a chunk came whose worker died: its items are lost, or sent again, alone, if they may be."""

    def work(n: int) -> int:
        if n == 12 and "died" not in log.lines:
            log.write("died")
            os._exit(1)
        return n

    keywords: dict[str, Any] = {"chunksize": 5, "idempotent": idempotent, "errors": "return"}
    outcomes = await pool.map(work, range(20), **keywords)
    lost = [outcome.index for outcome in outcomes if isinstance(outcome.error, WorkerLostError)]
    assert lost == ([] if idempotent else [10, 11, 12, 13, 14])
    assert [outcome.value for outcome in outcomes if outcome.ok] == [n for n in range(20) if n not in lost]


# Ends


async def test_retries_are_off(pool: RayExecutor, log: Log) -> None:
    """Ray begins a call whose worker dies once, and no more; our own retries begin it again where that is asked for."""

    def die(log: Log) -> None:
        log.write("begun")
        os._exit(3)

    with pytest.raises(WorkerLostError) as caught:
        await pool.submit(die, log)
    assert type(caught.value.__cause__).__name__ == "WorkerCrashedError"
    assert log.lines == ["begun"]
    with pytest.raises(WorkerLostError):
        await pool.options(retry=Retry(1, worker_lost=1)).submit(die, log)
    assert log.lines == ["begun"] * 3


async def test_a_call_that_kills_its_workers(pool: RayExecutor, log: Log) -> None:
    """A call that may be begun again and kills every worker is poison after the third, as on processes of our own."""

    def die() -> None:
        log.write("begun")
        os._exit(3)

    with pytest.raises(PoisonTaskError, match="killed 3 workers"):
        await pool.options(idempotent=True).submit(die)
    assert log.lines == ["begun"] * 3


async def test_cancelled_at_ray(pool: RayExecutor, gate: Gate) -> None:
    """Somebody else may cancel a call, by Ray's own means: it ends as cancelled."""
    ray = pytest.importorskip("ray")
    call = pool.submit(hold, gate)
    await until(lambda: gate.entered)
    (reference,) = pool._errands._references.values()  # type: ignore[union-attr]
    ray.cancel(reference, force=True)
    with pytest.raises(CallCancelledError, match="somebody"):
        await call


async def test_cancelled_on_its_way(pool: RayExecutor, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """A call that is cancelled while what is large is being stored never begins."""
    ray = pytest.importorskip("ray")
    import threading

    storing, go_on = threading.Event(), threading.Event()
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: (storing.set(), go_on.wait(20), put(value))[-1])
    call = pool.submit(jobs.write, log, "x" * 200_000)
    await until(storing.is_set)
    call.cancel()
    go_on.set()
    with pytest.raises(CallCancelledError):
        await call
    assert not log.lines
    assert call.info.attempts == 0


async def test_a_timeout_counts_from_the_beginning(gate: Gate) -> None:
    """A call's time runs from when Ray begins it, however long it waits before."""
    async with RayExecutor(resources={"license": 2}) as pool:
        blocker = pool.submit(hold, gate)
        await until(lambda: gate.entered)
        call = pool.options(timeout=0.5).submit(jobs.add, 1, 2)
        await asyncio.sleep(0.8)
        assert call.info.state == "queued"
        gate.open()
        await blocker
        assert await call == 3


async def test_streams_of_a_closed_executor(log: Log) -> None:
    """The processes of generators end with the executor."""
    async with RayExecutor() as pool:
        stream = parallelize(pids, on=pool)()
        pid = await anext(stream)
    await until(lambda: not is_alive(pid))


def pids() -> Any:
    while True:
        yield os.getpid()


# Together


async def test_executors_share_a_connection() -> None:
    """Executors of one process share its connection to Ray, also from other loops; this one is left alone."""
    ray = pytest.importorskip("ray")
    async with RayExecutor() as one, RayExecutor("auto", max_workers=1) as two:
        assert one._link is two._link
        assert await two.submit(jobs.add, await one.submit(jobs.add, 1, 2), 3) == 6

        async def elsewhere() -> Any:
            async with RayExecutor() as three:
                assert three._link is one._link
                return await three.submit(jobs.add, 3, 4)

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == 7
    assert ray.is_initialized()


async def test_another_cluster_at_the_same_time(pool: RayExecutor) -> None:
    """A process is connected to one cluster: another address meanwhile is refused."""
    with pytest.raises(HostError, match=r"cannot be connected to 10\.0\.0\.1:6379 as well") as caught:
        await RayExecutor("10.0.0.1:6379").start()
    assert caught.value.phase == "connect"
    assert await pool.submit(jobs.add, 1, 2) == 3


async def test_elsewhere_than_the_program() -> None:
    """Where the program is connected by itself to another cluster, that is said; and it harms nobody who comes next."""
    for _ in range(5):
        with pytest.raises(HostError, match="as well"):
            await RayExecutor("10.0.0.1:6379").start()
        async with RayExecutor() as pool:
            assert await pool.submit(jobs.add, 1, 2) == 3


def test_without_a_loop() -> None:
    """It works behind the blocking door."""
    with blocking.Executor(RayExecutor()) as pool:
        assert pool.submit(jobs.add, 1, 2).result(30) == 3
        assert list(pool.map(jobs.add, range(50), range(50))) == [2 * n for n in range(50)]


async def test_capacity() -> None:
    """How many calls run at a time is what the cluster has room for, or ``max_workers``."""
    async with RayExecutor() as one, RayExecutor(num_cpus=2) as two, RayExecutor(max_workers=3) as three:
        assert [pool._capacity() for pool in (one, two, three)] == [4, 2, 3]
    assert RayExecutor()._capacity() == 1


# Every way in


async def test_parallelize() -> None:
    """``@parallelize(method=Method.RAY)`` runs on a Ray that is opened when it is first needed, streams included."""
    double = parallelize(mapjobs.double, method=Method.RAY)
    assert await double(double(3)) + await parallelize(len, method="ray")("abc") == 15
    assert [x async for x in parallelize(jobs.count_to, method="ray")(4)] == [0, 1, 2, 3]
    assert await double.map(range(20)) == [2 * n for n in range(20)]


@pytest.mark.parametrize("job", ["ray", "cluster"])
async def test_distribute(job: str) -> None:
    """``distribute(job="ray")`` and ``"cluster"`` spread element by element, or batch by batch if the hint says so."""

    @distribute(job=job)
    def add(x: int, y: int, more: int = 0) -> int:
        return x + y + more

    @distribute(job=job, workers=2)
    def sizes(batch: list[int]) -> int:
        return len(batch)

    assert await add(range(10), range(10, 30, 2), more=1) == [3 * n + 11 for n in range(10)]
    assert sum(await sizes(range(10))) == 10


async def test_parmap() -> None:
    """``parmap`` runs there, on the ambient executor or on a given one, and a failure names its item."""
    assert await parmap(jobs.add, zip(range(50), range(50), strict=True), star=True, method="ray") == list(
        range(0, 100, 2)
    )
    async with RayExecutor() as pool:
        assert await parmap(mapjobs.double, range(5), on=pool) == [0, 2, 4, 6, 8]
        with pytest.raises(ZeroDivisionError) as caught:
            await parmap(lambda n: 1 // n, [1, 0], on=pool)
    assert caught.value.seq_index == 1  # type: ignore[attr-defined]


# Addresses: tried before Ray is asked


@pytest.mark.parametrize(
    ("address", "phase", "match"),
    [
        ("nowhere.invalid:6379", "dns", "no host 'nowhere.invalid'"),
        ("head:port", "connect", "expected host:port"),
    ],
)
def test_addresses_that_make_no_sense(address: str, phase: str, match: str) -> None:
    """An address that nobody has is said to be wrong at once."""
    with pytest.raises(HostError, match=match) as caught:
        raytrying.try_address(address)
    assert caught.value.phase == phase
    assert caught.value.__cause__ is not None


def test_a_port_that_refuses() -> None:
    """A port that nobody listens on is told from one that does, without asking Ray, which would hang."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        raytrying.try_address(f"ray://127.0.0.1:{port}")
    with pytest.raises(HostError, match="no Ray cluster answers there") as caught:
        raytrying.try_address(f"127.0.0.1:{port}")
    assert (caught.value.phase, caught.value.host) == ("connect", "127.0.0.1")
    with pytest.raises(HostError, match="answers"):
        raytrying.try_address(f"ray://[::1]:{port}")


@pytest.mark.parametrize(
    ("address", "error", "phase", "match"),
    [
        ("auto", ConnectionError("Could not find any running Ray instance."), "connect", "ray start --head"),
        ("head:1", RuntimeError("Version mismatch: The cluster was started with: ..."), "python", "do not fit"),
        ("head:1", RuntimeError("token authentication is enabled but no token was found"), "auth", "RAY_AUTH_TOKEN"),
        ("head:1", ConnectionError("Failed to connect"), "connect", "head:1: Ray does not connect"),
    ],
)
def test_what_ray_says_when_it_does_not_connect(address: str, error: Exception, phase: str, match: str) -> None:
    """What Ray says is told in our words, with the phase in which it failed."""
    ours = rayerrors.cannot_connect(address, error)
    assert match in str(ours)
    assert str(error) in str(ours)
    assert (ours.host, ours.phase) == (address, phase)
