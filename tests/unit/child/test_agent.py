"""A real agent with real workers, over pipes."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child import messages, mux, page, tree, wire
from aioparallel._child.agent import OWN_DESCRIPTORS
from aioparallel._child.carrying import CREDIT, TELL
from aioparallel._workers.agents import BOOT
from tests.tools import is_alive, wait_for
from tests.unit.child import jobs
from tests.unit.child.host import SECONDS, Host
from tests.unit.child.peer import read_answers

linux = pytest.mark.skipif(not tree.LINUX, reason="needs what only Linux has")


@pytest.fixture
def host(folder: str) -> Iterator[Host]:
    found = Host(f"{folder}/h")
    yield found
    found.close()


def gone(*pids: int) -> bool:
    return not any(map(is_alive, pids))


def running(worker: Any, number: int) -> None:
    wait_for(lambda: worker.page.running()[0] == number)


# Forking


def test_fork(host: Host) -> None:
    """A worker is forked on request, connects with its token, and runs calls."""
    worker = host.fork()
    worker.call(1, jobs.echo, "hi")
    assert worker.answer().value == ("hi",)


@linux
def test_surroundings(host: Host) -> None:
    """A worker leads a session of its own, ignores SIGINT, and has nothing of the agent's but its environment."""
    worker = host.fork(env="COLOR=a=b\0EMPTY=\0")
    worker.call(1, jobs.surroundings)
    found = worker.answer().value
    assert found["pid"] == found["session"] == found["group"] == worker.pid
    assert found["parent"] == host.pid
    assert found["sigint"]
    assert found["sigterm"]
    assert (found["env"]["COLOR"], found["env"]["EMPTY"], "PATH" in found["env"]) == ("a=b", "", True)
    null, out, err, *others = found["files"]
    assert (null, out[:4], err[:4]) == ("/dev/null", "pipe", "pipe")
    assert {os.path.basename(file).partition(":")[0] for file in others} == {"p1", "p1.stack", "socket"}
    assert found["threads"] == 1


@linux
def test_workers_start_lean(host: Host) -> None:
    """A worker that has run a plain call has imported none of the modules that take long."""
    worker = host.fork()
    worker.call(1, jobs.surroundings)
    modules = set(worker.answer().value["modules"])
    assert not modules & {
        "cloudpickle",
        "asyncio",
        "numpy",
        "anyio",
        "aioparallel",
        "json",
        "logging",
        "multiprocessing",
    }


def test_workers_are_apart(host: Host) -> None:
    """The end of one worker is not noticed by another."""
    first, second = host.fork(1), host.fork(2)
    first.call(1, jobs.leave, 0)
    host.event("gone", serial=1)
    second.call(1, jobs.echo)
    assert second.answer().value == ()


def test_forks_that_fail(host: Host) -> None:
    """A worker that cannot be forked is gone at once, with the reason as its output; the agent goes on."""
    first = host.fork(1)
    os.rename(host.folder, host.folder + "-away")
    host.say(op="fork", serial=2, index=1, token="00" * 32, env="")
    assert host.event("gone", serial=2)["pid"] is None
    assert b"the host agent cannot start a worker, with its files in " in host.output[2, 2]
    os.rename(host.folder + "-away", host.folder)
    first.call(1, jobs.echo)
    assert first.answer().value == ()


@linux
@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_NOFILE])
def test_forks_for_which_there_is_no_room(host: Host, limit: int) -> None:
    """A worker for which the agent has no memory, or no file descriptors, leaves no process, descriptor or file."""
    first = host.fork(1)
    before = files_of(host.pid)
    limits = resource.prlimit(host.pid, limit)
    room = page.SIZE - 50_000 if limit == resource.RLIMIT_AS else 3
    used = size_of(host.pid) if limit == resource.RLIMIT_AS else len(before)
    resource.prlimit(host.pid, limit, (used + room, limits[1]))
    host.say(op="fork", serial=2, index=1, token="00" * 32, env="")
    assert host.event("gone", serial=2)["pid"] is None
    resource.prlimit(host.pid, limit, limits)
    assert children_of(host.pid) == [first.pid]
    assert files_of(host.pid) == before
    assert sorted(os.listdir(host.folder)) == ["p1", "p1.stack", "s"]
    second = host.fork(2)
    second.call(1, jobs.echo)
    assert second.answer().value == ()


def files_of(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def size_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def test_executors_that_do_not_listen(host: Host) -> None:
    """A worker that cannot connect ends by itself, and its traceback is its output."""
    os.unlink(f"{host.folder}/s")
    host.say(op="fork", serial=1, index=0, token="00" * 32, env="")
    assert host.event("gone", serial=1)["exitcode"] == 1
    assert b"FileNotFoundError" in host.output[1, 2]


# Ends


def test_farewell(host: Host) -> None:
    """A worker that was told to end does so with code 0."""
    worker = host.fork()
    worker.send(wire.BYE)
    end = host.event("gone", serial=1)
    assert (end["pid"], end["exitcode"], end["signal"], end["oom"]) == (worker.pid, 0, None, None)
    assert gone(worker.pid)


def test_exit_codes(host: Host) -> None:
    """How a worker exited is told exactly."""
    worker = host.fork()
    worker.call(1, jobs.leave, 77)
    end = host.event("gone", serial=1)
    assert (end["exitcode"], end["signal"]) == (77, None)
    assert worker.page.running()[0] == 1


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGTERM, "SIGTERM"), (40, "signal 40")],
)
def test_signals(host: Host, number: int, name: str) -> None:
    """The signal that killed a worker is told by its name."""
    worker = host.fork()
    worker.call(5, jobs.die, number)
    end = host.event("gone", serial=1)
    assert (end["exitcode"], end["signal"]) == (None, name)
    assert worker.frame() == (0, b"")
    assert worker.page.running()[0] == 5


def test_peak_memory(host: Host) -> None:
    """The peak of a worker's memory is told."""
    plain, large = host.fork(1), host.fork(2)
    large.call(1, jobs.have, 40)
    large.answer()
    for worker in (plain, large):
        host.kill(worker)
    peaks = [host.event("gone", serial=serial)["max_rss"] for serial in (1, 2)]
    assert 2**20 < peaks[0] < 2**30
    assert peaks[1] - peaks[0] > 35 * 2**20


# Killing


def test_kill(host: Host) -> None:
    """A worker is killed on request, whatever it does."""
    worker = host.fork()
    host.kill(worker)
    assert host.event("gone", serial=1)["signal"] == "SIGKILL"


def test_halt(host: Host) -> None:
    """A worker is killed for a call that it runs, and the agent says which one that was, and for how long."""
    worker = host.fork()
    worker.call(3, jobs.sleep)
    running(worker, 3)
    host.halt(worker, 3)
    end = host.event("gone", serial=1)
    assert end["signal"] == "SIGKILL"
    number, micros = map(int, end["running"].split(":"))
    assert number == 3
    assert 0 < micros < SECONDS * 1e6


def test_calls_that_have_not_begun_are_given_back(host: Host) -> None:
    """A call behind a long one is given back, said by the agent, and its worker is spared."""
    worker = host.fork()
    worker.call(3, jobs.sleep)
    running(worker, 3)
    host.halt(worker, 4)
    while not host.voices:
        host.read()
    serial, kind, body = host.voices[0]
    assert (serial, kind) == (1, wire.ANSWERS)
    assert [(answer.number, answer.ending) for answer in read_answers(body)] == [(4, wire.WITHDRAWN)]
    assert is_alive(worker.pid)
    host.halt(worker, 3)
    host.event("gone", serial=1)


def test_calls_that_have_ended_do_no_harm(host: Host) -> None:
    """To halt a call that has just ended harms neither its worker nor the calls after it."""
    worker = host.fork()
    for number in range(1, 20):
        worker.call(number, jobs.echo, number)
        assert worker.answer().value == (number,)
        host.halt(worker, number)
        host.say(op="forget", serial=1, call=number)
    worker.call(20, jobs.echo, "alive")
    assert worker.answer().value == ("alive",)
    assert not any(worker.page.flags)


def test_calls_that_have_not_run_long_enough_are_spared(host: Host) -> None:
    """A call that was to be stopped for running too long, and has not, is spared; the agent says how long it has run."""
    worker = host.fork()
    worker.call(3, jobs.sleep)
    running(worker, 3)
    for number in (3, 4):
        host.say(op="halt", serial=1, call=number, stack=False, after=10**9)
        ran = host.event("spared", serial=1, call=number)["ran"]
        assert (0 < ran < SECONDS * 1e6) if number == 3 else ran == 0
    assert worker.page.flags[3] == worker.page.flags[4] == 0
    host.say(op="halt", serial=1, call=3, stack=False, after=0)
    assert host.event("gone", serial=1)["signal"] == "SIGKILL"


def test_what_waits_behind_a_long_call(host: Host) -> None:
    """Nothing waits behind a long call: answers before it are fetched, and calls behind it are given back."""
    worker = host.fork()
    worker.calls((1, jobs.echo, ("before",)), (2, jobs.sleep, ()), (3, jobs.echo, ()), (4, jobs.echo, ()))
    running(worker, 2)
    host.say(op="look", serial=1, call=4, chunks=False)
    while not host.voices:
        host.read()
    found = [(answer.number, answer.ending) for answer in read_answers(host.voices[0][2])]
    assert found[-2:] == [(3, wire.WITHDRAWN), (4, wire.WITHDRAWN)]
    assert found[:-2] in ([(1, wire.OK)], [])  # on a slow day its answer was sent already
    host.halt(worker, 2)
    host.event("gone", serial=1)


def test_the_dead_are_not_killed(host: Host) -> None:
    """Killing a worker that is gone, or never was, does nothing."""
    worker = host.fork()
    worker.call(1, jobs.leave, 5)
    assert worker.frame() == (0, b"")
    host.halt(worker, 1)
    host.say(op="kill", serial=99, stack=False)
    host.say(op="halt", serial=99, call=1, stack=False, after=None)
    assert host.event("gone", serial=1)["exitcode"] == 5
    host.kill(worker)
    assert host.fork(2).pid
    assert not host.events


def test_stopped_workers_can_be_killed(host: Host) -> None:
    """A worker that was stopped is killed all the same."""
    worker = host.fork()
    worker.call(1, jobs.stop)
    running(worker, 1)
    host.halt(worker, 1)
    assert host.event("gone", serial=1)["signal"] == "SIGKILL"


def test_stuck_in_c(host: Host) -> None:
    """A call that keeps the interpreter's lock in C code is killed like any other."""
    worker = host.fork()
    worker.call(1, jobs.hold_the_lock)
    host.written(1, 1, b"begun")
    host.halt(worker, 1)
    assert host.event("gone", serial=1)["signal"] == "SIGKILL"


@linux
def test_kill_with_everything_below(host: Host) -> None:
    """What a worker started is killed with it, in a session of its own or not."""
    worker = host.fork()
    worker.call(1, jobs.start_others)
    others = worker.answer().value
    assert all(map(is_alive, others))
    host.kill(worker)
    host.event("gone", serial=1)
    wait_for(lambda: gone(*others))


@linux
def test_what_a_dead_worker_leaves_behind(host: Host) -> None:
    """What a worker started is killed when it dies by itself."""
    worker = host.fork()
    worker.call(1, jobs.start_others)
    others = worker.answer().value
    worker.call(2, jobs.leave, 1)
    host.event("gone", serial=1)
    wait_for(lambda: gone(*others))


@pytest.mark.parametrize("job", [jobs.sleep, jobs.hold_the_lock])
def test_stacks(host: Host, job: Callable[[], None]) -> None:
    """The Python stack of a call that is killed is taken just before, also from within C code."""
    worker = host.fork()
    worker.call(1, job)
    host.written(1, 1, b"begun")
    host.halt(worker, 1, stack=True)
    stack = host.event("gone", serial=1)["stack"]
    assert f"in {job.__name__}" in stack
    assert "jobs.py" in stack
    assert "worker.py" not in stack


def test_stacks_of_those_that_go_on(host: Host) -> None:
    """Where a worker is can be asked at any time, and does it no harm; of one that is gone there is nothing to tell."""
    worker = host.fork()
    worker.call(1, jobs.sleep)
    host.written(1, 1, b"begun")
    host.say(op="stack", serial=1)
    assert "in sleep" in host.event("stack", serial=1)["stack"]
    assert is_alive(worker.pid)
    host.halt(worker, 1)
    host.event("gone", serial=1)
    host.say(op="stack", serial=1)
    assert host.fork(2).pid
    assert not host.events


def test_stacks_of_coroutines(host: Host) -> None:
    """A call that awaits is shown where it does, all the way down, and so are the other tasks that wait."""
    worker = host.fork()
    worker.call(1, jobs.wait_for_others)
    host.written(1, 1, b"begun")
    host.halt(worker, 1, stack=True)
    stack = host.event("gone", serial=1)["stack"]
    _, call, other = stack.split("Task ")
    assert re.findall(r"jobs.py\", line \d+ in (\w+)", call) == ["pass_on", "wait_for_others"]
    assert other.startswith("'other' (most recent call first):\n")
    assert other.rstrip().endswith(" in sleep")
    assert "streams.py" not in stack


def test_stacks_of_coroutines_that_block(host: Host) -> None:
    """A coroutine that blocks its loop is shown as any other function, and at once."""
    worker = host.fork()
    worker.call(1, jobs.block_the_loop)
    host.written(1, 1, b"begun")
    host.halt(worker, 1, stack=True)
    stack = host.event("gone", serial=1)["stack"]
    assert "in block_the_loop" in stack
    assert "Task " not in stack


# Output


def test_output(host: Host) -> None:
    """What a worker writes to its two streams is forwarded, also without a line's end, and by descriptor."""
    worker = host.fork()
    worker.call(1, jobs.write, "out\n", "err\n")
    assert host.written(1, 1, b"out\n") == b"out\n"
    assert host.written(1, 2, b"err\n") == b"err\n"
    worker.call(2, jobs.write_directly, 1, "no end")
    assert host.written(1, 1, b"no end") == b"out\nno end"


def test_last_words(host: Host) -> None:
    """What a worker writes right before its end arrives before the news of its end."""
    worker = host.fork()
    worker.call(1, jobs.write_and_die, "x" * 60_000 + "last")
    host.event("gone", serial=1)
    assert host.output[1, 1].endswith(b"last")
    assert len(host.output[1, 1]) == 60_004


def test_unfinished_lines_at_the_end(host: Host) -> None:
    """What is in a worker's own buffers when it is told to end is written."""
    worker = host.fork()
    worker.call(1, jobs.write, "unfinished")
    worker.send(wire.BYE)
    host.event("gone", serial=1)
    assert host.output[1, 1] == b"unfinished"


@linux
def test_output_that_stays_open(host: Host) -> None:
    """A worker's end is told although something that it started keeps its output open."""
    worker = host.fork()
    worker.call(1, jobs.start_one_that_keeps_the_output)
    other = worker.answer().value
    worker.call(2, jobs.leave, 1)
    host.event("gone", serial=1)
    wait_for(lambda: gone(other))


def test_floods(host: Host) -> None:
    """Workers wait in their writes while the executor does not read, nothing is lost, and messages still arrive."""
    worker, other = host.fork(1), host.fork(2)
    worker.call(1, jobs.write, "x" * 10**7 + "end\n")
    other.call(1, jobs.echo)
    assert other.answer().value == ()
    assert worker.page.running()[0] == 1
    assert len(host.written(1, 1, b"end\n")) == 10**7 + 4
    worker.answer()


# The end of all


@pytest.mark.parametrize("job", [jobs.sleep, jobs.hold_the_lock, jobs.stop])
def test_the_lifeline(host: Host, job: Callable[[], None]) -> None:
    """When the executor is gone, every worker is killed within a second, and the folder is removed."""
    workers = [host.fork(serial) for serial in (1, 2)]
    workers[0].call(1, job)
    running(workers[0], 1)
    assert host.process.stdin is not None
    began = time.monotonic()
    host.process.stdin.close()
    host.process.wait(SECONDS)
    assert time.monotonic() - began < 1
    assert gone(*(worker.pid for worker in workers))
    assert not os.path.exists(host.folder)


@linux
def test_the_lifeline_and_what_workers_started(host: Host) -> None:
    """When the executor is gone, so is everything that workers started."""
    worker = host.fork()
    worker.call(1, jobs.start_others)
    others = worker.answer().value
    host.close()
    assert gone(worker.pid, *others)


@linux
def test_the_agent_is_killed(host: Host) -> None:
    """When the agent is killed, its workers die."""
    workers = [host.fork(serial) for serial in (1, 2)]
    workers[0].call(1, jobs.hold_the_lock)
    host.written(1, 1, b"begun")
    os.kill(host.pid, signal.SIGKILL)
    wait_for(lambda: gone(*(worker.pid for worker in workers)))
    host.process.wait(SECONDS)
    shutil.rmtree(host.folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_agent_outlives_signals(host: Host, number: int) -> None:
    """The agent ends with its lifeline only, not by signals that are meant for the program."""
    os.kill(host.pid, number)
    worker = host.fork()
    worker.call(1, jobs.echo)
    assert worker.answer().value == ()


@pytest.mark.parametrize(
    "message",
    [
        mux.HEAD.pack(mux.LONGEST + 1, mux.MESSAGE, 0),
        mux.head(mux.MESSAGE, 0, 5) + b"hello",
        b"\xff" * 100,
        mux.head(mux.MESSAGE, 0, 7) + b'op="no"',
        mux.head(mux.OUT, 1, 2) + b"no",
    ],
)
def test_nonsense_ends_the_agent(host: Host, message: bytes) -> None:
    """An agent that is sent what no executor sends kills its workers and ends."""
    worker = host.fork()
    assert host.process.stdin is not None
    host.process.stdin.write(message)
    host.process.wait(SECONDS)
    assert gone(worker.pid)


def test_messages_in_pieces(host: Host) -> None:
    """Messages may arrive in any pieces."""
    text = messages.dumps({"op": "fork", "serial": 1, "index": 0, "token": "00" * 32, "env": ""})
    assert host.process.stdin is not None
    for byte in mux.head(mux.MESSAGE, 0, len(text)) + text:
        host.process.stdin.write(bytes([byte]))
    assert host.event("forked")["serial"] == 1


# Elsewhere


@pytest.fixture
def away() -> Iterator[Host]:
    """An agent that carries the links of its workers, as it does for an executor on another machine."""
    found = Host(None)
    yield found
    found.close()


def test_links_are_carried(away: Host) -> None:
    """Where nobody can connect to the executor, calls and answers of each worker go through the agent."""
    one, two = away.fork(1), away.fork(2)
    one.call(1, jobs.echo, "one")
    two.call(1, jobs.echo, "two")
    assert one.answer().value == ("one",)
    assert two.answer().value == ("two",)


@linux
def test_too_few_descriptors(away: Host) -> None:
    """An agent starts only as many workers as it has descriptors for, says so of others, and what to do about it."""
    limits = resource.prlimit(away.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(away.pid, resource.RLIMIT_NOFILE, (OWN_DESCRIPTORS + 2 * 4, limits[1]))
    first = away.fork(1)
    away.fork(2)
    for serial in (3, 4):
        away.say(op="fork", serial=serial, index=2, token="00" * 32, env="")
        assert away.event("gone", serial=serial)["pid"] is None
        told = f"Too many open files. It may have {OWN_DESCRIPTORS + 8} files open, and needs some for each worker: "
        assert told + "raise `ulimit -n`, or use fewer workers.\n" in away.output[serial, 2].decode()
    away.kill(first)
    away.event("gone", serial=1)
    last = away.fork(5)
    last.call(1, jobs.echo)
    assert last.answer().value == ()


@linux
def test_descriptors_that_become_free(away: Host) -> None:
    """A connection for which the agent has no descriptor is taken when it has one again."""
    files = [f"/proc/{away.pid}/fd/{name}" for name in files_of(away.pid)]
    (folder,) = {os.path.dirname(path) for path in map(os.readlink, files) if path.endswith("/lock")}
    limits = resource.prlimit(away.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(away.pid, resource.RLIMIT_NOFILE, (len(files), limits[1]))
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(SECONDS)
        stranger.connect(f"{folder}/s")
        stranger.sendall(bytes(32))
        for number in (1, 2):  # by the second answer it has been at its door
            away.say(op="beat", number=number)
            away.event("beat", number=number)
        assert files_of(away.pid) == [os.path.basename(file) for file in files]
        resource.prlimit(away.pid, resource.RLIMIT_NOFILE, limits)
        assert stranger.recv(1) == b"", "nobody knows it, so it is sent away"


def test_large_things_are_carried(away: Host) -> None:
    """Arguments and results of any size are carried, and the executor is told what its worker has taken."""
    worker = away.fork()
    for size in (100_000, 3_000_000, 20_000_000):
        worker.call(size, jobs.echo, "x" * size)
        assert worker.answer().value == ("x" * size,)
    taken = sum(event["bytes"] for event in away.events if event["ev"] == "taken")
    assert 23_100_000 - TELL <= taken < 23_200_000


def test_a_worker_that_takes_nothing_delays_nobody(away: Host) -> None:
    """While one worker takes nothing of what it is sent, others are served, and the agent can be talked to."""
    busy, free = away.fork(1), away.fork(2)
    busy.call(1, jobs.sleep)
    away.written(1, 1, b"begun")
    busy.send(wire.CALLS, b"x" * CREDIT)
    free.call(1, jobs.echo, "free")
    assert free.answer().value == ("free",)
    away.halt(busy, 1)
    assert away.event("gone", serial=1)["running"].startswith("1:")


def test_carried_answers_come_before_the_end(away: Host) -> None:
    """All that a worker sent before it died arrives before the news of its death."""
    worker = away.fork()
    worker.calls((1, jobs.echo, ("x" * 2_000_000,)), (2, jobs.echo, ("kept",)), (3, jobs.leave, (5,)))
    away.event("gone", serial=1)
    answers = [
        *read_answers(worker.frame()[1]),
        *(found for _, _, body in away.voices[:1] for found in read_answers(body)),
    ]
    assert [answer.number for answer in answers] == [1, 2]


def test_strangers_are_not_carried(away: Host) -> None:
    """A connection whose token the agent does not know is closed."""
    worker = away.fork()
    worker.call(1, jobs.connect_as_somebody_else)
    assert worker.answer().value == b""


def test_the_lease() -> None:
    """An agent that has heard nothing for the time of its lease kills everything and ends."""
    away = Host(None, lease=300)
    worker = away.fork()
    worker.call(1, jobs.hold_the_lock)
    for number in range(5):
        time.sleep(0.1)
        away.say(op="beat", number=number)
        away.event("beat", number=number)
    away.process.wait(SECONDS)
    assert gone(worker.pid)
    away.close()


@linux
def test_what_workers_hold(folder: str) -> None:
    """With each beat the agent tells what memory the workers have that live."""
    host = Host(f"{folder}/h")
    first, second = host.fork(1), host.fork(2)
    host.say(op="beat", number=1)
    sizes = dict(entry.split(":") for entry in host.event("memory")["sizes"].split())
    assert sizes.keys() == {"1", "2"}
    assert all(int(size) > 1_000_000 for size in sizes.values())
    first.call(1, jobs.leave, 0)
    host.event("gone", serial=1)
    host.say(op="beat", number=2)
    assert [entry.partition(":")[0] for entry in host.event("memory")["sizes"].split()] == ["2"]
    second.call(1, jobs.leave, 0)
    host.close()


def test_no_room_for_a_folder() -> None:
    """An agent that finds no place for its sockets says so."""
    away = Host(None, boot=f"import os; os.access = lambda *_: False; {BOOT}")
    assert away.said["ev"] == "failed"
    assert "no writable folder" in away.said["reason"]
    away.close()


# Too large


@linux
def test_calls_that_need_too_much(folder: str) -> None:
    """The one call that makes its worker twice as large as it may be is killed, and the agent says what it used."""
    host = Host(f"{folder}/h", max_memory=60 * 2**20)
    small, large = host.fork(1), host.fork(2)
    large.call(1, jobs.have_for_long, 150)
    end = host.event("gone", serial=2)
    assert end["signal"] == "SIGKILL"
    assert "more than 2 times max_rss_per_worker (60 MiB)" in end["oom"]
    small.call(1, jobs.echo)
    assert small.answer().value == ()
    host.close()
