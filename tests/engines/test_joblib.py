"""joblib, and scikit-learn with it, run on our executors as they do on joblib's own backends."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aioparallel
from aioparallel import PicklingError, WorkerLostError, blocking
from tests.contract import jobs
from tests.sshhosts import serve
from tests.tools import Gate, Log, hold, is_alive, wait_for

joblib = pytest.importorskip("joblib")
np = pytest.importorskip("numpy")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

import aioparallel.joblib as bridge  # noqa: E402

MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    bridge.register()
    yield
    gc.collect()  # joblib's objects refer to each other, and executors end when they are dropped


@pytest.fixture(scope="module")
def shared() -> Iterator[blocking.Executor]:
    """Processes that have joblib imported, for all tests that leave them as they are."""
    with blocking.ProcessExecutor(2, preload=["joblib"]) as pool:
        assert pool._max_workers == 2
        yield pool


@pytest.fixture
def processes(shared: blocking.Executor) -> Iterator[None]:
    with parallel_config("aioparallel", n_jobs=2, executor=shared):
        yield


@pytest.fixture
def fresh() -> Iterator[None]:
    """Processes of the test's own, to be killed."""
    with parallel_config("aioparallel", n_jobs=2):
        yield


@pytest.fixture(scope="module")
def on_hosts() -> Iterator[blocking.Executor]:
    """Two ssh hosts that run in a thread of this process."""
    with serve(2, slots=1) as hosts, blocking.RemoteExecutor(hosts) as pool:
        assert pool._max_workers == 2
        wait_for(lambda: len({future.result() for future in [pool.submit(nap_and_tell) for _ in range(4)]}) == 2)
        yield pool


@pytest.fixture(params=["own", "process", "thread", "async", "remote"])
def configured(request: pytest.FixtureRequest, shared: blocking.Executor, on_hosts: blocking.Executor) -> Iterator[str]:
    """Each way to choose an executor."""
    executors = {
        "own": lambda: None,
        "remote": lambda: on_hosts,
        "process": lambda: shared,
        "thread": lambda: blocking.ThreadExecutor(2),
        "async": lambda: aioparallel.ProcessExecutor(2),
    }
    executor = executors[request.param]()
    with parallel_config("aioparallel", n_jobs=2, **({} if executor is None else {"executor": executor})):
        yield request.param
    if isinstance(executor, blocking.Executor):
        assert executor.submit(abs, -1).result(20) == 1, "it stays open"
    if request.param == "thread":
        executor.shutdown()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))


def files() -> set[str]:
    """Files of shared arrays."""
    return {str(path) for path in MEMORY.glob("aioparallel-*/joblib-*")}


def who(n: int) -> tuple[int, int, int]:
    return n, os.getpid(), threading.get_ident()


def square(n: int) -> int:
    return n * n


def nap_and_tell() -> int:
    time.sleep(0.05)
    return os.getpid()


# Calls


def test_parallel(configured: str) -> None:
    """``Parallel`` runs on the executor, and gives the results in order."""
    results = Parallel()(delayed(who)(n) for n in range(200))
    assert [n for n, *_ in results] == list(range(200))
    here = os.getpid(), threading.get_ident()
    assert all((pid, thread) != here for _, pid, thread in results)
    assert ({pid for _, pid, _ in results} == {os.getpid()}) == (configured == "thread")


def test_many_small_items(processes: None) -> None:
    """joblib's batching works: twenty thousand items are far fewer calls."""
    parallel = Parallel()
    assert parallel(delayed(square)(n) for n in range(20_000)) == [n * n for n in range(20_000)]
    assert parallel.n_dispatched_batches < 2_000


@pytest.mark.parametrize("batch_size", [1, 7])
def test_fixed_batches(processes: None, batch_size: int) -> None:
    """``batch_size`` holds."""
    parallel = Parallel(batch_size=batch_size, pre_dispatch="all")
    assert parallel(delayed(square)(n) for n in range(30)) == [n * n for n in range(30)]
    assert parallel.n_dispatched_batches >= 30 / batch_size


def test_closures(processes: None) -> None:
    """Lambdas and closures travel."""
    factor = 3
    assert Parallel()(delayed(lambda n: factor * n)(n) for n in range(10)) == [3 * n for n in range(10)]


def test_one_job() -> None:
    """With one job everything runs here, without an executor."""
    with parallel_config("aioparallel", n_jobs=1):
        assert {pid for _, pid, _ in Parallel()(delayed(who)(n) for n in range(5))} == {os.getpid()}


@pytest.mark.parametrize("n_jobs", [None, -1])
def test_all_jobs(n_jobs: int | None) -> None:
    """Unless something else is said, there are as many jobs as CPUs, or as the executor runs at a time."""
    with parallel_config("aioparallel", n_jobs=n_jobs) if n_jobs else parallel_config("aioparallel"):
        assert joblib.effective_n_jobs() == len(os.sched_getaffinity(0))
    with blocking.ThreadExecutor(5) as pool, parallel_config("aioparallel", n_jobs=-1, executor=pool):
        assert joblib.effective_n_jobs() == 5
        assert joblib.effective_n_jobs(-2) == 4
        assert joblib.effective_n_jobs(3) == 3
        assert joblib.effective_n_jobs(50) == 5


def test_no_jobs() -> None:
    """No jobs at all make no sense."""
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0, backend="aioparallel")(delayed(square)(n) for n in range(3))


def test_fewer_jobs_than_workers() -> None:
    """``n_jobs`` bounds how many run at a time, also on an executor that could run more."""
    running, most, lock = 0, 0, threading.Lock()

    def count() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    with blocking.ThreadExecutor(8) as pool, parallel_config("aioparallel", n_jobs=2, executor=pool):
        Parallel(pre_dispatch="all", batch_size=1)(delayed(count)() for _ in range(20))
    assert most == 2


def test_workers_stay(fresh: None) -> None:
    """The workers are the same for all calls of one ``parallel_config``, and gone after it."""
    first = {pid for _, pid, _ in Parallel()(delayed(who)(n) for n in range(20))}
    second = {pid for _, pid, _ in Parallel()(delayed(who)(n) for n in range(20))}
    assert first & second


def test_workers_end() -> None:
    """When ``parallel_config`` is left, its workers end."""
    with parallel_config("aioparallel", n_jobs=2):
        pids = {pid for _, pid, _ in Parallel()(delayed(who)(n) for n in range(20))}
    gc.collect()
    wait_for(lambda: not any(map(is_alive, pids)))


def test_another_number_of_jobs(fresh: None) -> None:
    """Another ``n_jobs`` means other workers."""
    assert len({pid for _, pid, _ in Parallel(n_jobs=3, batch_size=1)(delayed(who)(n) for n in range(60))}) <= 3
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(3)) == [0, 1, 4]


def test_managed(processes: None) -> None:
    """A ``Parallel`` object may be used again and again in its ``with`` block."""
    with Parallel() as parallel:
        for _ in range(3):
            assert parallel(delayed(square)(n) for n in range(10)) == [n * n for n in range(10)]


# How results come


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(processes: None, return_as: str) -> None:
    """Results may come as generators."""
    results = Parallel(return_as=return_as)(delayed(square)(n) for n in range(100))
    assert sorted(results) == [n * n for n in range(100)]


def test_a_generator_is_lazy(processes: None, gate: Gate) -> None:
    """Results come as soon as they are there, and the input is pulled as they come."""
    pulled: list[int] = []

    def tasks() -> Iterator[Any]:
        for n in range(100):
            pulled.append(n)
            yield delayed(hold)(gate, n) if n > 5 else delayed(square)(n)

    results = Parallel(return_as="generator", batch_size=1)(tasks())
    assert [next(results) for _ in range(6)] == [n * n for n in range(6)]
    assert len(pulled) < 50
    gate.open()
    assert list(results) == list(range(6, 100))


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_dropped_generator(fresh: None, gate: Gate, return_as: str) -> None:
    """To drop a generator stops what runs, with the warning that joblib has for it; the next call finds all in order."""
    results = Parallel(return_as=return_as, batch_size=1)(
        delayed(hold)(gate) if n else delayed(abs)(0) for n in range(10)
    )
    assert next(results) == 0
    wait_for(lambda: len(gate.entered) >= 1)
    with pytest.warns(UserWarning, match="cancelled"):
        del results
    wait_for(lambda: not any(map(is_alive, gate.entered)))
    assert Parallel()(delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_a_slow_input_disturbs_nobody(processes: None) -> None:
    """joblib pulls the input in a callback; that keeps no other executor waiting."""
    pulling, go_on = threading.Event(), threading.Event()

    def tasks() -> Iterator[Any]:
        yield from (delayed(square)(n) for n in range(4))
        pulling.set()
        go_on.wait(20)
        yield delayed(square)(4)

    results: list[Any] = []
    backend, config = joblib.parallel.get_active_backend()

    def call() -> None:
        with parallel_config(backend, n_jobs=config):
            results.extend(Parallel(batch_size=1)(tasks()))

    thread = threading.Thread(target=call)
    thread.start()
    assert pulling.wait(20)
    with blocking.ThreadExecutor(1) as pool:
        assert pool.submit(square, 5).result(20) == 25
    go_on.set()
    thread.join(20)
    assert results == [0, 1, 4, 9, 16]


# Ends


def test_an_error_stops_the_rest(fresh: None, gate: Gate, log: Log) -> None:
    """An exception arrives as itself; what runs is killed, what waits never begins, and the workers are used again."""
    tasks = [delayed(hold)(gate), delayed(jobs.fail)("no luck"), *[delayed(jobs.write)(log, n) for n in range(50)]]
    with pytest.raises(jobs.JobError, match="no luck"):
        Parallel(batch_size=1)(tasks)
    assert not any(map(is_alive, gate.entered))
    assert len(log.lines) < 50
    assert Parallel()(delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_only_its_own_calls_are_stopped(gate: Gate) -> None:
    """On a shared executor only what the failing call has submitted is stopped."""
    with blocking.ProcessExecutor(2) as pool, parallel_config("aioparallel", n_jobs=2, executor=pool):
        other = pool.submit(hold, gate, "unharmed")
        wait_for(lambda: gate.entered)
        with pytest.raises(jobs.JobError):
            Parallel(batch_size=1)(delayed(jobs.fail)() for _ in range(10))
        assert not other.done()
        gate.open()
        assert other.result(20) == "unharmed"


def test_timeout(fresh: None, gate: Gate) -> None:
    """``timeout`` raises joblib's ``TimeoutError``, and what takes too long is killed."""
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.5)(delayed(hold)(gate) for _ in range(4))
    assert not any(map(is_alive, gate.entered))
    assert Parallel(timeout=20)(delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_ctrl_c(fresh: None, gate: Gate) -> None:
    """Ctrl-C stops what runs, and then raises."""
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        Parallel()(delayed(hold)(gate) for _ in range(4))
    timer.join()
    wait_for(lambda: not any(map(is_alive, gate.entered)))


def test_a_death(fresh: None) -> None:
    """A task that kills its worker fails the call, and says why; the workers are used again."""
    with pytest.raises(WorkerLostError, match="exited with code 3"):
        Parallel()(delayed(os._exit)(3) for _ in range(2))
    assert Parallel()(delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]


def test_what_cannot_travel(processes: None) -> None:
    """A task that cannot be pickled fails the call, and names what."""
    with pytest.raises(PicklingError, match="lock"):
        Parallel()(delayed(square)(threading.Lock()) for _ in range(2))


def test_error_in_the_input(processes: None) -> None:
    """What the input raises is raised."""

    def tasks() -> Iterator[Any]:
        yield from (delayed(square)(n) for n in range(20))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        Parallel()(tasks())


# Nested calls


def nested(n: int) -> tuple[int, str, list[int]]:
    backend, _ = joblib.parallel.get_active_backend()
    return os.getpid(), type(backend).__name__, Parallel(n_jobs=2)(delayed(square)(k) for k in range(n))


def test_nested(processes: None) -> None:
    """Inside a task joblib uses threads, as with its own backends."""
    for pid, backend, values in Parallel()(delayed(nested)(n) for n in range(4)):
        assert pid != os.getpid()
        assert backend == "ThreadingBackend"
        assert values == [k * k for k in range(len(values))]


def nested_by_name(n: int) -> set[int]:
    bridge.register()
    return {pid for _, pid, _ in Parallel(n_jobs=2, backend="aioparallel")(delayed(who)(k) for k in range(n))} | {
        os.getpid()
    }


def test_processes_never_multiply(processes: None) -> None:
    """A task that asks for this very backend runs its calls in place."""
    for pids in Parallel()(delayed(nested_by_name)(5) for _ in range(2)):
        assert len(pids) == 1


# Arrays


def look(array: Any) -> tuple[str, bool, float]:
    return type(array).__name__, bool(array.flags.writeable), float(array.sum())


def write_to(array: Any) -> None:
    array[0] = 1


def test_large_arrays_are_shared(processes: None) -> None:
    """An array larger than ``max_nbytes`` is a read-only memory map in workers, of one file, which goes with the call."""
    array = np.arange(300_000.0)
    results = Parallel(batch_size=1, return_as="generator")(delayed(look)(array) for _ in range(20))
    assert next(results) == ("memmap", False, array.sum())
    assert len(files()) <= 1
    assert set(results) == {("memmap", False, array.sum())}
    assert not files()
    with pytest.raises(ValueError, match="read-only"):
        Parallel()(delayed(write_to)(array) for _ in range(2))
    assert not files()


def test_arrays_as_asked_for(processes: None, tmp_path: Path) -> None:
    """``max_nbytes``, ``mmap_mode`` and ``temp_folder`` hold."""
    array = np.arange(300_000.0)
    expected = array.sum()
    assert set(Parallel(max_nbytes=None)(delayed(look)(array) for _ in range(4))) == {("ndarray", True, expected)}
    assert set(Parallel(mmap_mode="c")(delayed(look)(array) for _ in range(4))) == {("memmap", True, expected)}
    small = np.arange(1000.0)
    assert set(Parallel()(delayed(look)(small) for _ in range(4))) == {("ndarray", True, small.sum())}
    results = Parallel(max_nbytes=10, temp_folder=str(tmp_path), return_as="generator")(
        delayed(look)(small) for _ in range(9)
    )
    assert next(results) == ("memmap", False, small.sum())
    assert len(list(results)) == 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_every_layout(processes: None, order: str) -> None:
    """Arrays arrive equal, however they lie in memory."""
    array = np.arange(900_000.0).reshape(900, 1000)
    array = array[::2, 10:] if order == "strided" else np.asarray(array, order=order)
    for arrived in Parallel()(delayed(jobs.same)(array) for _ in range(2)):
        np.testing.assert_array_equal(arrived, array)


def test_mapped_arrays_stay_mapped(processes: None, tmp_path: Path) -> None:
    """An array that is a memory map already is mapped from its own file, a part of it as well."""
    array = np.memmap(tmp_path / "array", dtype=float, mode="w+", shape=(500_000,))
    array[:] = range(500_000)
    array.flush()
    for part in (array, array[1000:400_000], array[::7]):
        for kind, _, total in Parallel()(delayed(look)(part) for _ in range(2)):
            assert kind == "memmap" or part is not array
            assert total == part.sum()
    assert not files()


def test_files_go_with_their_arrays(processes: None) -> None:
    """Many large arrays that come one after the other do not pile up."""
    most = 0

    def tasks() -> Iterator[Any]:
        nonlocal most
        for n in range(40):
            most = max(most, len(files()))
            yield delayed(look)(np.full(200_000, float(n)))

    totals = [total for _, _, total in Parallel(batch_size=1, pre_dispatch=4)(tasks())]
    assert totals == [200_000.0 * n for n in range(40)]
    assert most < 20
    assert not files()


def test_no_room(processes: None, tmp_path: Path) -> None:
    """If an array cannot be written to a file, the call says so."""
    with pytest.raises(OSError, match="nowhere"):
        Parallel(temp_folder=str(tmp_path / "nowhere"))(delayed(look)(np.zeros(300_000)) for _ in range(2))


def test_arrays_in_threads_are_not_copied() -> None:
    """Threads get the very arrays."""
    array = np.zeros(300_000)
    with blocking.ThreadExecutor(2) as pool, parallel_config("aioparallel", n_jobs=2, executor=pool):
        Parallel(require="sharedmem")(delayed(write_to)(array) for _ in range(2))
    assert array[0] == 1


# Options


def test_options_of_processes(log: Log) -> None:
    """Options of ``ProcessExecutor`` may be given, and threads of BLAS in each worker."""
    with parallel_config("aioparallel", n_jobs=2, env={"MARK": "7"}, inner_max_num_threads=3):
        seen = set(Parallel()(delayed(lambda: (os.environ["MARK"], os.environ["OMP_NUM_THREADS"]))() for _ in range(4)))
    assert seen == {("7", "3")}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"executor": "process"}, TypeError, "expected an executor"),
        ({"executor": blocking.ThreadExecutor(1), "env": {}}, TypeError, "options of an executor"),
        ({"luck": 1}, TypeError, "luck"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    """Options that make no sense are refused."""
    with pytest.raises(error, match=match), parallel_config("aioparallel", n_jobs=2, **options):
        Parallel()(delayed(square)(n) for n in range(3))


def test_register_as_default() -> None:
    """It may be registered as what joblib uses where nothing is said."""
    before = joblib.parallel.DEFAULT_BACKEND
    try:
        bridge.register(default=True)
        assert type(Parallel(n_jobs=2)._backend) is bridge.Backend
    finally:
        joblib.parallel.DEFAULT_BACKEND = before


def test_without_joblib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without joblib the error says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "joblib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "aioparallel.joblib")
    with pytest.raises(ImportError, match=r"pip install 'aioparallel\[joblib\]'"):
        __import__("aioparallel.joblib")


# scikit-learn


@pytest.fixture(scope="module")
def digits() -> Any:
    datasets = pytest.importorskip("sklearn.datasets")
    data, target = datasets.load_digits(return_X_y=True)
    return data[:400], target[:400]


on_executors = pytest.mark.parametrize("configured", ["process", "thread", "remote"], indirect=True)


@on_executors
def test_grid_search(configured: str, digits: Any) -> None:
    """``GridSearchCV`` finds what it finds without us."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV

    grid = {"alpha": [0.01, 1.0, 100.0]}
    ours = GridSearchCV(RidgeClassifier(), grid, cv=3).fit(*digits)
    with parallel_config("sequential"):
        serial = GridSearchCV(RidgeClassifier(), grid, cv=3).fit(*digits)
    assert ours.best_params_ == serial.best_params_
    assert ours.best_score_ == serial.best_score_
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])


@on_executors
def test_random_forest(configured: str, digits: Any) -> None:
    """``RandomForestClassifier`` grows the trees that it grows without us, and predicts the same."""
    from sklearn.ensemble import RandomForestClassifier

    data, target = digits
    ours = RandomForestClassifier(20, random_state=1).fit(data, target)
    predicted = ours.predict_proba(data)
    with parallel_config("sequential"):
        serial = RandomForestClassifier(20, random_state=1).fit(data, target)
        np.testing.assert_array_equal(predicted, serial.predict_proba(data))
    np.testing.assert_array_equal(ours.feature_importances_, serial.feature_importances_)


@pytest.mark.ray
@pytest.mark.leak_check(processes=False, fds=False)
def test_random_forest_on_ray(digits: Any) -> None:
    """So it does on Ray."""
    pytest.importorskip("ray")
    from sklearn.ensemble import RandomForestClassifier

    data, target = digits
    serial = RandomForestClassifier(10, random_state=1).fit(data, target)
    with parallel_config("aioparallel", n_jobs=2, executor=aioparallel.RayExecutor()):
        ours = RandomForestClassifier(10, random_state=1).fit(data, target)
        np.testing.assert_array_equal(ours.predict_proba(data), serial.predict_proba(data))


def test_nested_scikit_learn(processes: None, digits: Any) -> None:
    """An estimator that is parallel itself may be searched in parallel."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    forest = RandomForestClassifier(5, n_jobs=2, random_state=1)
    with parallel_config("sequential"):
        serial = cross_val_score(forest.set_params(n_jobs=1), *digits, cv=3)
    np.testing.assert_array_equal(cross_val_score(forest.set_params(n_jobs=2), *digits, cv=3), serial)
