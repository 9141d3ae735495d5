"""A tally adds up what happened, in constant memory."""

from __future__ import annotations

import pytest

from aioparallel._seeing.tally import KINDS, Tally, first_line
from aioparallel.events import CallEnded, CallRetried, HostLost, HostUp, WorkerEnded


def ended(**fields: object) -> CallEnded:
    """The end of a call."""
    known = {
        "at": 10.0,
        "id": 1,
        "name": "f",
        "worker": "w",
        "host": None,
        "outcome": "done",
        "attempts": 1,
        "copies": 0,
        "won_by_copy": False,
        "items": 1,
        "queued_at": 1.0,
        "begun_at": 8.0,
        "duration": 1.5,
        "error": None,
    }
    return CallEnded(**{**known, **fields})  # type: ignore[arg-type]


def test_calls() -> None:
    """Calls are counted by how they ended, for each worker and in all, with the time that they took."""
    tally = Tally()
    tally(ended())
    tally(ended(worker="v", duration=None, items=5))
    tally(ended(outcome="failed", error=ValueError("bad")))
    tally(ended(outcome="cancelled", worker=None, begun_at=None))
    tally(CallRetried(1.0, 1, "f", "w", None, 1, None, 0.0, ValueError("bad")))
    total = tally.total
    assert (total.done, total.failed, total.cancelled, total.retried, total.items) == (2, 1, 1, 1, 6)
    assert total.busy == 1.5 + 2.0 + 1.5
    assert total.latencies.count == 3
    assert (tally.by_worker["w"].done, tally.by_worker["w"].failed, tally.by_worker["w"].retried) == (1, 1, 1)
    assert tally.by_worker["v"].busy == 2.0
    assert tally.failures == {"f: ValueError: bad": 1}


def test_attempts_keep_a_worker_busy() -> None:
    """The time of an attempt that failed is time that its worker was busy, though the call goes on."""
    tally = Tally()
    tally(CallRetried(5.0, 1, "f", "w", None, 1, 2.0, 0.0, ValueError("bad")))
    assert (tally.total.busy, tally.by_worker["w"].busy) == (3.0, 3.0)
    assert tally.total.latencies.count == 0


def test_deaths() -> None:
    """A worker that died is remembered with what is known of that; one that was asked to end is not."""
    tally = Tally()
    tally(WorkerEnded(1.0, "cpu-0", None, 0, 7, True, "exit code 0", None, None))
    tally(WorkerEnded(2.0, "cpu-1", None, 1, 8, False, "killed by SIGKILL in f", 3, None))
    assert list(tally.news) == [(2.0, "cpu-1 (pid 8) died: killed by SIGKILL in f")]
    assert (tally.total.deaths, tally.by_worker["cpu-1"].deaths) == (1, 1)


def test_hosts() -> None:
    """A lost host is remembered with the reason."""
    tally = Tally()
    tally(HostUp(1.0, "node1", 4))
    tally(HostLost(2.0, "node1", OSError("no route\nmore"), False))
    tally(HostLost(3.0, "node2", OSError("node2: refused"), True))
    assert [text for _, text in tally.news] == ["node1 is lost: no route", "node2 cannot be used: refused"]
    assert tally.slots == {"node1": 4}


def test_a_host_that_is_tried_again_and_again() -> None:
    """What is told of a host over and over is remembered once, when it was last, and pushes out no death."""
    tally = Tally()
    tally(WorkerEnded(1.0, "cpu-1", None, 1, 8, False, "killed by SIGKILL in f", 3, None))
    for at in range(2, 50):
        tally(HostLost(float(at), "node1", OSError("refused"), False))
    assert list(tally.news) == [(1.0, "cpu-1 (pid 8) died: killed by SIGKILL in f"), (49.0, "node1 is lost: refused")]


def test_many_failures() -> None:
    """Of many kinds of failures so many are told apart; the others are counted together."""
    tally = Tally()
    for n in range(10 * KINDS):
        tally(ended(outcome="failed", error=ValueError(n)))
    assert len(tally.failures) == KINDS + 1
    assert sum(tally.failures.values()) == 10 * KINDS


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("x" * 1000), "x" * 197 + "..."),
        (_Mute(), "<its text cannot be made: RuntimeError>"),
    ],
)
def test_first_line(error: Exception, text: str) -> None:
    """Of an error's text the first line is shown, if it has one."""
    assert first_line(error) == text
