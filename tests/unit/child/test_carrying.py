"""Workers' links, carried by the agent."""

from __future__ import annotations

import math
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioparallel._child.carrying import TELL, TOKEN, Carried, Dock
from aioparallel._child.descriptors import LONGEST_PAUSE
from aioparallel._child.polling import Poll
from tests.tools import no_descriptors, wait_for


class Agent:
    """The agent's side: a poll, and what it was told."""

    def __init__(self) -> None:
        self.poll = Poll()
        self.workers: list[tuple[str, int]] = []
        self.received = bytearray()
        self.taken: list[int] = []
        self.full = 0

    def on_full(self) -> None:
        self.full += 1

    def go_on(self) -> bool:
        self.poll.wait(1)
        return False

    def carry(self, descriptor: int) -> Carried:
        return Carried(self.poll, descriptor, self.received.extend, self.taken.append)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def open_dock(agent: Agent, tmp_path: Path) -> Iterator[Dock]:
    """Where workers connect to."""
    path = str(tmp_path / "dock")
    dock = Dock(agent.poll, path, lambda token, descriptor: agent.workers.append((token, descriptor)), agent.on_full)
    yield dock
    for _, descriptor in agent.workers:
        os.close(descriptor)
    dock._socket.close()


@pytest.fixture
def dock(open_dock: Dock, tmp_path: Path) -> Path:
    """The path of its socket."""
    return tmp_path / "dock"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, int]]:
    """A worker's end of a link, and the agent's, which whoever carries it closes."""
    worker, carried = socket.socketpair()
    carried.setblocking(False)
    yield worker, carried.detach()
    worker.close()


# Connecting


def test_workers_say_who_they_are(agent: Agent, dock: Path) -> None:
    """Each worker that connects is known by the token that it says first, and nobody else may connect."""
    assert stat.S_IMODE(dock.stat().st_mode) == 0o600
    tokens = [bytes([n]) * TOKEN for n in range(3)]
    with (
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
        socket.socket(socket.AF_UNIX) as three,
    ):
        for worker, token in zip((one, two, three), tokens, strict=True):
            worker.connect(str(dock))
            worker.sendall(token + b"and more")
        wait_for(lambda: agent.go_on() or len(agent.workers) == 3)
        assert {token for token, _ in agent.workers} == {token.hex() for token in tokens}
        found = dict(agent.workers)
        assert os.read(found[tokens[1].hex()], 100) == b"and more", "what comes after it is left for its link"


def test_who_says_nothing_is_told_so(agent: Agent, dock: Path) -> None:
    """Whoever leaves without a word has no token."""
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(dock))
    wait_for(lambda: agent.go_on() or agent.workers)
    assert agent.workers[0][0] == ""


def test_no_more_descriptors(agent: Agent, open_dock: Dock, dock: Path) -> None:
    """An agent without a free descriptor does not look for connections all the time, but less and less often."""
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(dock))
        worker.sendall(bytes(TOKEN))
        with no_descriptors():
            pauses = []
            for failures in range(1, 4):
                agent.poll.wait(0)
                assert agent.full == failures
                assert agent.poll._poll.poll(0) == [], "it is not looked at until the pause is over"
                pauses.append(open_dock.next_look - time.monotonic())
                open_dock.look(open_dock.next_look)
            assert 0 < pauses[0] < pauses[1] < pauses[2] < LONGEST_PAUSE
        wait_for(lambda: agent.go_on() or agent.workers)
    assert open_dock.next_look == math.inf


# Carrying


def test_both_ways(agent: Agent, ends: tuple[socket.socket, int]) -> None:
    """What the worker sends arrives, and what is written to it too."""
    worker, descriptor = ends
    carried = agent.carry(descriptor)
    worker.sendall(b"from the worker")
    carried.write(memoryview(b"to the worker"))
    assert worker.recv(100) == b"to the worker"
    wait_for(lambda: agent.go_on() or bytes(agent.received) == b"from the worker")
    carried.close()


def test_a_worker_that_takes_nothing(agent: Agent, ends: tuple[socket.socket, int]) -> None:
    """A worker that takes nothing keeps nobody waiting; it is told how much it has taken once it takes something."""
    worker, descriptor = ends
    carried = agent.carry(descriptor)
    for _ in range(4):
        carried.write(memoryview(bytes(TELL)))
    before = sum(agent.taken)
    assert before < 4 * TELL
    got = 0
    while got < 4 * TELL:
        got += len(worker.recv(1 << 20))
        agent.go_on()
    assert 0 <= 4 * TELL - sum(agent.taken) < TELL, "the rest is told with what comes next"
    assert min(agent.taken) >= TELL
    carried.close()


def test_a_worker_that_is_to_wait(agent: Agent, ends: tuple[socket.socket, int]) -> None:
    """A worker that is not listened to waits, and nothing of what it sent meanwhile is lost."""
    worker, descriptor = ends
    carried = agent.carry(descriptor)
    carried.listen(False)
    worker.sendall(b"early")
    agent.go_on()
    assert not agent.received
    carried.listen(True)
    wait_for(lambda: agent.go_on() or agent.received)
    assert bytes(agent.received) == b"early"
    carried.close()


def test_the_last_words_of_a_worker(agent: Agent, ends: tuple[socket.socket, int]) -> None:
    """What a worker sent before it ended is read to the end when its link is closed."""
    worker, descriptor = ends
    carried = agent.carry(descriptor)
    worker.sendall(b"a result")
    worker.close()
    carried.close()
    assert bytes(agent.received) == b"a result"
    assert carried.ended


def test_a_worker_that_is_gone(agent: Agent, ends: tuple[socket.socket, int]) -> None:
    """What is written to a worker that is gone goes nowhere, and harms nobody."""
    worker, descriptor = ends
    carried = agent.carry(descriptor)
    worker.close()
    wait_for(lambda: agent.go_on() or carried.ended)
    carried.write(memoryview(bytes(10)))
    carried.listen(True)
    carried.close()
