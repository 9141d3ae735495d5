"""Programs without an event loop that end in all ways that programs end, and that fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.faults.programs import marked, run, start, wait_until_none
from tests.tools import wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

WAITS_FOR_THREADS = sys.version_info >= (3, 13)
"""Whether Python insists on waiting for threads at its end."""

starts_threads = pytest.mark.skipif(
    (3, 12, 0) <= sys.version_info < (3, 12, 2),
    reason="this Python starts no thread when the main thread has ended (gh-113964), so calls must have one before that",
)

HEAD = """
import os, sys, threading, time
from concurrent.futures import wait
from aioparallel import blocking
from aioparallel.blocking import ProcessExecutor, ThreadExecutor, parmap

KINDS = {"thread": ThreadExecutor, "process": ProcessExecutor}

def slow(n):
    time.sleep(0.05)
    say("ended", n)
    return n

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # at once, for threads
    sys.stdout.flush()
"""


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(HEAD + body)
    return str(path)


@starts_threads
@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize("how", ["pool.submit(slow, n)", "list(pool.map(slow, [n]))", "pool.map(slow, [n])"])
def test_nothing_is_lost_without_shutdown(tmp_path: Path, kind: str, how: str) -> None:
    """A program that never shuts its executors down ends when all that it submitted has ended."""
    body = f"pool = KINDS[{kind!r}](2)\nfor n in range(6): {how}\nprint('main ends', flush=True)\n"
    printed = run("-W", "error", program(tmp_path, body))
    assert sorted(line[-1] for line in printed.splitlines() if "ended" in line) == list("012345")


def test_ends_at_once_without_shutdown(tmp_path: Path) -> None:
    """Idle executors do not keep a program from ending, and leave nothing behind."""
    mark = uuid.uuid4().hex
    body = f"""
os.environ["MARK"] = {mark!r}
one, two = ThreadExecutor(2), ProcessExecutor(2)
print(one.submit(slow, 1).result() + two.submit(slow, 2).result() + sum(parmap(abs, range(3))))
results = parmap(slow, iter(int, 1), method="thread")
next(results)
"""
    assert run("-W", "error", program(tmp_path, body), seconds=20).splitlines().count("6") == 1
    assert not wait_until_none(mark, 5)


@starts_threads
def test_calls_that_make_calls_at_the_end(tmp_path: Path) -> None:
    """When the main thread has ended, calls that still run may submit others."""
    body = """
pool = ThreadExecutor(2)

def chain(n):
    time.sleep(0.02)
    say("ended", n)
    if n < 5:
        pool.submit(chain, n + 1)

pool.submit(chain, 0)
"""
    assert run("-W", "error", program(tmp_path, body)).split() == [word for n in range(6) for word in ("ended", str(n))]


def test_another_thread_goes_on(tmp_path: Path) -> None:
    """A thread that outlives the main thread gets the results of what it has submitted."""
    body = """
def use():
    with ProcessExecutor(1) as pool:
        futures = [pool.submit(pow, n, 2) for n in range(50)]
        submitted.set()
        threading.main_thread().join()
        print([future.result() for future in futures] == [n * n for n in range(50)])

submitted = threading.Event()
threading.Thread(target=use).start()
submitted.wait()
"""
    assert run("-W", "error", program(tmp_path, body)) == "True\n"


BUSY = """
import asyncio
from aioparallel import CoroutineExecutor

os.environ["MARK"], kind, where = sys.argv[1:]
KINDS["coroutine"] = lambda n, **options: blocking.Executor(CoroutineExecutor(n, **options))

def never(n=0):
    say("running")
    threading.Event().wait()

async def unwilling(n=0):
    say("running")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

def second(n):
    return n if n == 0 else never()

stay = unwilling if kind == "coroutine" else never
pool = KINDS[kind](1, grace=60)
match where:
    case "result":
        with pool:
            pool.submit(stay).result()
    case "result of the second":
        with pool, KINDS[kind](1, grace=60) as other:
            pool.submit(stay)
            other.submit(stay).result()
    case "exit of with":
        with pool:
            pool.submit(stay)
    case "map":
        with pool:
            next(pool.map(stay, [0]))
    case "body of for":
        with pool:
            for _ in pool.map(second, range(2)):
                time.sleep(60)
    case "verb":
        next(parmap(stay, range(2), workers=1, method=kind))
    case "result without with":
        pool.submit(stay)
        pool.submit(stay).result()
    case "map without with":
        list(pool.map(stay, range(3)))
    case "body of for without with":
        for _ in pool.map(second, range(3)):
            time.sleep(60)
    case "verb without with":
        blocking.parallelize(stay, method=kind)().result()
    case "end of program":
        pool.submit(stay)
"""
"""A program that waits for what does not end."""


def start_busy(tmp_path: Path, mark: str, kind: str, where: str) -> subprocess.Popen[str]:
    process = start(Path(program(tmp_path, BUSY)), mark, kind, where)
    assert process.stdout is not None
    assert "running" in process.stdout.readline()
    return process


@pytest.mark.parametrize(
    "where",
    [
        *("result", "exit of with", "map", "body of for", "verb", "end of program", "result without with"),
        *("map without with", "body of for without with", "verb without with"),
    ],
)
def test_ctrl_c(tmp_path: Path, where: str) -> None:
    """Ctrl-C ends a program that waits, with one traceback, and everything that it runs or has submitted."""
    mark = uuid.uuid4().hex
    with start_busy(tmp_path, mark, "process", where) as process:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert stderr.count("KeyboardInterrupt") == 1, stderr
    assert not wait_until_none(mark, 5)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        *(("process", where) for where in ("result", "exit of with", "map", "result of the second", "verb")),
        *(("thread", where) for where in ("result", "body of for")),
        *(("coroutine", where) for where in ("exit of with", "map", "verb")),
    ],
)
def test_second_ctrl_c(tmp_path: Path, kind: str, where: str) -> None:
    """The first Ctrl-C cancels and waits; the second ends what will not stop, at once, with one traceback."""
    mark = uuid.uuid4().hex
    with start_busy(tmp_path, mark, kind, where) as process:
        for pid in marked(mark):
            if pid != process.pid:
                os.kill(pid, signal.SIGSTOP)  # so that nothing can be confirmed
        third = kind == "thread" and WAITS_FOR_THREADS
        stderr = interrupt(process, times=3 if third else 2)
    if third:  # Python prints a traceback of its own
        stderr = stderr[: stderr.rindex("Traceback")].partition("Exception ignored")[0]
    assert stderr.splitlines().count("KeyboardInterrupt") == stderr.count("Traceback") == 1, stderr
    assert process.returncode == -signal.SIGINT
    assert not wait_until_none(mark, 2)


def test_second_ctrl_c_is_of_the_moment(tmp_path: Path) -> None:
    """A Ctrl-C after another that the program has dealt with is a first one again: what runs may take its time."""
    mark = uuid.uuid4().hex
    body = """
import asyncio
from aioparallel import CoroutineExecutor

os.environ["MARK"] = sys.argv[1]

async def tidy():
    try:
        say("running")
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.3)
        say("tidied")

for _ in range(2):
    try:
        with blocking.Executor(CoroutineExecutor(1)) as pool:
            pool.submit(tidy).result()
    except KeyboardInterrupt:
        say("interrupted")
"""
    with start(Path(program(tmp_path, body)), mark) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            assert [process.stdout.readline() for _ in range(2)] == ["tidied\n", "interrupted\n"]
        assert process.communicate(timeout=20) == ("", "")
    assert not wait_until_none(mark, 2)


def interrupt(process: subprocess.Popen[str], times: int) -> str:
    """Press Ctrl-C so often, each when the one before has not ended the program; returns what that says."""
    try:
        process.send_signal(signal.SIGINT)
        for _ in range(times - 1):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGINT)
        return process.communicate(timeout=20)[1]
    finally:
        process.kill()


def test_killed(tmp_path: Path) -> None:
    """A program that is killed takes its workers along."""
    mark = uuid.uuid4().hex
    body = f"""
os.environ["MARK"] = {mark!r}
pool = ProcessExecutor(2)
pool.submit(time.sleep, 60)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""
    process = start(Path(program(tmp_path, body)))
    assert process.stdout is not None
    process.stdout.readline()
    wait_for(lambda: len(marked(mark)) >= 3)
    process.kill()
    process.communicate()
    assert not wait_until_none(mark, 5)


def test_fork(tmp_path: Path) -> None:
    """A forked process is told so when it uses what it inherited, may make executors of its own, and disturbs nobody."""
    body = """
pool = ProcessExecutor(1)
ended = pool.submit(pow, 2, 3)
ended.result()
future = pool.submit(time.sleep, 3)
results = pool.map(abs, range(3))

def complaint(fn, *args):
    try:
        fn(*args)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(',')[0][:46]}"

child = os.fork()
if not child:
    print(complaint(pool.submit, pow, 2, 3))
    print(complaint(future.result))
    print(complaint(wait, [future]))
    print(complaint(next, results))
    print(ended.result(), future.cancel(), future.running())
    pool.shutdown()
    results.close()
    with ProcessExecutor(1) as mine:
        print(mine.submit(pow, 3, 3).result(), sum(parmap(abs, range(4))))
    blocking.close()
    sys.stdout.flush()
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(future.result(), list(results), pool.submit(pow, 2, 4).result())
"""
    assert run("-W", "error", program(tmp_path, body)).splitlines() == [
        "ExecutorClosedError: process was opened before this process was for",
        "NotReadyError: the result was asked for before this process w",
        "NotReadyError: the result was asked for before this process w",
        "NotReadyError: the result was asked for before this process w",
        "8 False False",
        "27 6",
        "3",
        "None [0, 1, 2] 16",
    ]


def test_fork_while_another_thread_uses_it(tmp_path: Path) -> None:
    """Whatever other threads did when the process was forked, the child can use executors of its own."""
    body = """
ThreadExecutor(1).submit(int).result()  # Python itself does not survive a fork in the middle of an import
stop = False

def busy():
    while not stop:
        ThreadExecutor(1).submit(int).result()

threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
for n in range(20):
    child = os.fork()
    if not child:
        with ThreadExecutor(1) as pool:
            assert pool.submit(pow, 2, 3).result(10) == 8
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop = True
print("done")
"""
    assert run(program(tmp_path, body), seconds=50) == "done\n"


def test_multiprocessing(tmp_path: Path) -> None:
    """A process that multiprocessing has forked ends although it has left an executor open."""
    body = """
import multiprocessing

def work():
    pool = ThreadExecutor(1)
    print(pool.submit(pow, 2, 3).result(), flush=True)
    pool.submit(slow, 7)

pool = ThreadExecutor(1)
pool.submit(int).result()
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join(20)
print(process.exitcode)
"""
    assert run(program(tmp_path, body)).splitlines() == ["8", "ended 7", "0"]
