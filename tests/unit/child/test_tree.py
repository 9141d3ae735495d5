"""Ending process trees, with real processes below a keeper that stands for the agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aioparallel._child import tree
from tests.tools import is_alive, wait_for

pytestmark = pytest.mark.skipif(not tree.LINUX, reason="only Linux tells who descends from whom")

KEEPER = """
import os, subprocess, sys, time
from aioparallel._child import tree

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
START = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], start_new_session=True, stdout=s.DEVNULL).pid)"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}

def child():
    return subprocess.Popen(SLEEP, **QUIET).pid

def detached():
    "A child in a session of its own."
    return subprocess.Popen(SLEEP, start_new_session=True, **QUIET).pid

def orphan():
    "A grandchild in a session of its own, whose parent has ended."
    starter = [sys.executable, "-c", START, *SLEEP]
    return int(subprocess.run(starter, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True).stdout)

def worker(mark, *programs):
    "Fork a process that leads its own session, as workers do, and starts programs; returns all pids."
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.environ[tree.MARK] = mark
        os.dup2(2, 1)
        os.write(sink, repr([os.getpid(), *(program() for program in programs)]).encode())
        os.close(sink)
        time.sleep(300)
        os._exit(0)
    os.close(sink)
    return eval(os.read(source, 1000))

tree.adopt_orphans()
for line in sys.stdin:
    print(eval(line), flush=True)
tree.kill_orphans()
"""


class Keeper:
    """A process that carries out what it is told, one expression after the other."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pids: list[int] = []

    def ask(self, expression: str) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        answer = eval(self.process.stdout.readline())
        found = answer if isinstance(answer, list) else [answer] if answer else []
        self.pids += found
        return found

    def close(self) -> None:
        try:
            self.process.communicate(timeout=10)
        finally:
            for pid in [self.process.pid, *self.pids]:
                if is_alive(pid):  # a failing test must not leave it
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    found = Keeper()
    yield found
    found.close()


def gone(*pids: int) -> bool:
    return not any(map(is_alive, pids))


def test_kill(keeper: Keeper) -> None:
    """Killing a worker kills its children, those in a session of their own, and those whose parents have ended."""
    worker, *below = keeper.ask("worker('m1', child, detached, orphan)")
    assert len(below) == 3
    assert all(map(is_alive, [worker, *below]))
    keeper.ask(f"tree.kill({worker}, 'm1')")
    wait_for(lambda: gone(worker, *below))


def test_sweep(keeper: Keeper) -> None:
    """What a dead worker has left behind is killed: its group, and orphans that carry its mark."""
    worker, child, orphan = keeper.ask("worker('m1', child, orphan)")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: gone(worker))
    assert is_alive(child)
    assert is_alive(orphan)
    keeper.ask(f"tree.sweep({worker}, 'm1')")
    wait_for(lambda: gone(child, orphan))


def test_neighbours_are_spared(keeper: Keeper) -> None:
    """Killing one worker leaves the others alone, and all that they started."""
    doomed = keeper.ask("worker('m1', child, orphan)")
    others = keeper.ask("worker('m2', child, detached, orphan)")
    keeper.ask(f"tree.kill({doomed[0]}, 'm1')")
    wait_for(lambda: gone(*doomed))
    assert all(map(is_alive, others))


def test_killing_the_dead(keeper: Keeper) -> None:
    """Killing a worker that has ended does no harm."""
    (worker,) = keeper.ask("worker('m1')")
    for _ in range(2):
        keeper.ask(f"tree.kill({worker}, 'm1')")
        wait_for(lambda: gone(worker))


def test_kill_orphans(keeper: Keeper) -> None:
    """In the end everything below is killed, marked or not."""
    some = keeper.ask("worker('m1', child, orphan)")
    others = keeper.ask("worker('m2', detached)")
    strays = keeper.ask("orphan()")
    keeper.ask("tree.kill_orphans()")
    wait_for(lambda: gone(*some, *others, *strays))


ORPHAN = """
import os, sys, time
from aioparallel._child import tree
tree.adopt_orphans()
pid = os.fork()
if not pid:
    os.setsid()
    tree.die_with_parent(int(sys.argv[1]) or os.getppid())
    print(os.getpid(), flush=True)
    time.sleep(300)
print(os.waitpid(pid, 0)[1], flush=True)
"""


def test_die_with_parent() -> None:
    """A worker dies with its agent, even if that is killed."""
    with subprocess.Popen([sys.executable, "-c", ORPHAN, "0"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.kill()
        wait_for(lambda: gone(worker))


def test_parents_that_died_first() -> None:
    """A worker whose agent was gone before it could ask to die with it ends by itself."""
    done = subprocess.run([sys.executable, "-c", ORPHAN, "1"], capture_output=True, check=True, timeout=20)
    assert os.waitstatus_to_exitcode(int(done.stdout)) == 1


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the kernel has killed since it was last asked is evidence."""
    counts = iter([3, 3, 5])
    monkeypatch.setattr(tree, "_oom_kills", 2)
    monkeypatch.setattr(tree, "_count_oom_kills", lambda: next(counts))
    one = tree.out_of_memory()
    assert one is not None
    assert "acted 1 times" in one
    assert tree.out_of_memory() is None
    assert "acted 2 times" in (tree.out_of_memory() or "")


def test_systems_without_control_groups() -> None:
    """Where the kernel tells nothing, nothing is counted, and nothing fails."""
    assert tree._count_oom_kills() >= 0
