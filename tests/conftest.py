"""After every test nothing of ours may be left: no task, no thread, no process, no open file.

A test that must leave something says which check it cannot pass: ``@pytest.mark.leak_check(threads=False)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

SETTLE = 2.0
"""How long something may take to end after its test, in seconds."""

SESSION = ("AIOPARALLEL_TEST_SESSION", str(os.getpid()))
"""Inherited by every process that a test starts, however far it detaches itself from this one."""
os.environ.update([SESSION])

PROC = Path("/proc")

# Who is started in the background by a script ignores interrupts, and so does what it starts: but tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What anyio sends to each of its worker processes, to be run again there: pytest, in our case, which takes long.
sys.modules["__main__"].__dict__.pop("__file__", None)


def pytest_configure(config: pytest.Config) -> None:
    """What is left of processes of ``anyio.to_process`` complains, from Python 3.12 on, in whichever test it is dropped.

    AnyIO keeps them with their closed loops. Python 3.11, the first that we test with, says nothing, and is strict.
    """
    if sys.version_info >= (3, 12):
        for complaint in ("loop is closed", "unclosed transport", "unclosed file", "subprocess .* is still running"):
            config.addinivalue_line("filterwarnings", f"ignore:{complaint}:ResourceWarning")
        closing = "ignore:Exception ignored in. <function BaseSubprocessTransport.__del__"
        config.addinivalue_line("filterwarnings", f"{closing}:pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs Ray waits until it has started, which takes long on a busy machine."""
    for item in items:
        if item.get_closest_marker("ray") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up first and so torn down last: after the test's other fixtures and its event loop."""
    ray = request.node.get_closest_marker("ray")
    if ray is not None and ray.kwargs.get("shared", True):
        request.getfixturevalue("local_ray")  # it stays, so it must be there before we look
    if request.node.get_closest_marker("one_host") is not None:
        request.getfixturevalue("one_host")
    probes = [probe for check, probe in PROBES.items() if _applies(request, check)]
    before = _seen(probes)
    yield
    if left := _wait_until_gone(lambda: _new(_seen(probes), before)):
        _end(left)
        pytest.fail(f"still there after the test: {', '.join(left.values())}", pytrace=False)


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray on this machine that tests share, with a home folder of its own: to start one takes several seconds."""
    up, done = threading.Event(), threading.Event()

    def keep() -> None:  # in a thread that stays, for its processes die with the thread that has started them
        import ray

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
            ray.init(num_cpus=4, resources={"license": 2}, include_dashboard=False, configure_logging=False)
            up.set()
            done.wait()
            ray.shutdown()

    thread = threading.Thread(target=keep, name="ray for all tests", daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.start()
        assert up.wait(100)
    yield
    done.set()
    thread.join()


@pytest.fixture(scope="session")
def one_host() -> Iterator[None]:
    """A host that can be reached by ssh, which tests share."""
    from tests.contract import remote

    remote.start()
    yield
    remote.stop()


@pytest.fixture(autouse=True)
def _no_task_left(_nothing_left: None, request: pytest.FixtureRequest) -> None:
    """An async test gets a check on its own event loop; for others no loop is made."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)) and _applies(request, "tasks"):
        request.getfixturevalue("_no_task_left_on_loop")


@pytest.fixture
async def _no_task_left_on_loop() -> AsyncIterator[None]:
    yield
    if _other_tasks() and "aioparallel._verbs" in sys.modules:
        # Ambient executors live until the loop shuts down, which it cannot do while we look.
        await sys.modules["aioparallel"].aclose()
    if ending := _other_tasks():
        await asyncio.wait(ending, timeout=SETTLE)
    if tasks := _other_tasks():
        pytest.fail(f"still there after the test: {', '.join(map(repr, tasks))}", pytrace=False)


def _applies(request: pytest.FixtureRequest, check: str) -> bool:
    marks = request.node.iter_markers("leak_check")
    return all(mark.kwargs.get(check, True) for mark in marks)


def _other_tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


Found = dict[object, str]
"""What a probe sees: an identity, and how to name it to a reader."""


def _threads() -> Found:
    return {t: f"thread {t.name!r}" for t in threading.enumerate() if t.name.startswith("aioparallel")}


def _pids() -> Found:
    """All processes of this machine: to look only at what is new is far cheaper than to ask each whose child it is."""
    return {int(name): "" for name in os.listdir(PROC) if name.isdecimal()} if PROC.is_dir() else {}


def _files() -> Found:
    """Open descriptors, by number and target; regular files are left to the ResourceWarning of their objects."""
    found: Found = {}
    for name in os.listdir(PROC / "self/fd") if PROC.is_dir() else ():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            target = os.readlink(PROC / "self/fd" / name)
            if not target.startswith("/") or target.startswith("/dev/shm/"):
                found[name, target] = f"open {target} (descriptor {name})"
    return found


Probe = Callable[[], Found]
PROBES: dict[str, Probe] = {"threads": _threads, "processes": _pids, "fds": _files}


def _seen(probes: list[Probe]) -> Found:
    return {key: name for probe in probes for key, name in probe().items()}


def _new(now: Found, before: Found) -> Found:
    """What was not there before; of processes, only ours, which are named now that they are few."""
    new = {key: name for key, name in now.items() if key not in before}
    return {key: name or _describe(key) for key, name in new.items() if name or _is_ours(key)}


def _is_ours(pid: object) -> bool:
    """Whether a process descends from this one, or was started by one that did."""
    return f"{SESSION[0]}={SESSION[1]}" in _read(pid, "environ").split("\0") or os.getpid() in _ancestors(pid)


def _ancestors(pid: object) -> Iterator[int]:
    # The name, in parentheses, may itself contain blanks and parentheses.
    while fields := _read(pid, "stat").rpartition(")")[2].split():
        pid = int(fields[1])
        yield pid


def _describe(pid: object) -> str:
    command = _read(pid, "cmdline").replace("\0", " ").strip() or "defunct, its parent has not waited for it"
    return f"process {pid} ({command})"


def _read(pid: object, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:  # it has ended, or is not ours to look into
        return ""


def _wait_until_gone(look: Probe) -> Found:
    if not look():
        return {}
    gc.collect()  # what only waits for the collector is no leak
    deadline = time.monotonic() + SETTLE
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _end(left: Found) -> None:
    """So that one failing test does not disturb the next."""
    for key in left:
        if isinstance(key, int):
            with contextlib.suppress(ProcessLookupError):
                os.kill(key, signal.SIGKILL)
