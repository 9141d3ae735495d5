"""Observers: what they are told of calls and workers, and that nothing is made before somebody observes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_type_hints

import pytest

from aioparallel import Retry, SerialExecutor, ThreadExecutor
from aioparallel._seeing.observers import how_it_ended
from aioparallel._workers.station import Gone
from aioparallel.events import CallEnded, CallPlaced, CallQueued, CallRetried, Event, WorkerEnded


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"signal": "SIGKILL"}, "killed by SIGKILL"),
        ({"exitcode": 3}, "exit code 3"),
        ({"signal": "SIGKILL", "oom": "the group's limit"}, "out of memory (the group's limit)"),
        (None, "lost with its host or agent"),
    ],
)
def test_how_a_worker_ended(message: dict[str, Any] | None, words: str) -> None:
    """The most telling thing that is known of a worker's end comes first."""
    assert how_it_ended(Gone(message)) == words


async def test_the_last_observer_fails_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A pool closes although its only observer fails when it is told of a worker's end, and so is the last to go."""

    def fail(event: Event) -> None:
        if isinstance(event, WorkerEnded):
            raise ValueError("no")

    pool = ThreadExecutor(2)
    pool.observe(fail)
    async with pool:
        await pool.submit(int)
    assert pool._observers is None
    assert [record.name for record in caplog.records] == ["aioparallel"]


async def test_nobody_observes() -> None:
    """A pool has observers as long as there is one, and none when the last has left, however that came."""

    def fail(event: Event) -> None:
        raise ValueError("no")

    async with SerialExecutor() as pool:
        assert pool._observers is None
        first, second = pool.observe(id), pool.observe(id)
        first.close()
        first.close()
        assert pool._observers is not None
        second.close()
        assert pool._observers is None
        second.close()
        pool.observe(fail)
        await pool.submit(pow, 2, 2)
        assert pool._observers is None


async def test_who_does_not_ask_for_steps() -> None:
    """Whoever needs only the ends of calls is told of nothing before, and whoever asks for more is, whoever is there."""
    ends: list[Event] = []
    events: list[Event] = []
    async with SerialExecutor() as pool:
        with pool._observe(ends.append, steps=False):
            await pool.submit(pow, 2, 2)
            with pool.observe(events.append):
                await pool.submit(pow, 2, 2)
            await pool.submit(pow, 2, 2)
    assert [type(event) for event in events] == [CallQueued, CallPlaced, CallEnded]
    assert [type(event) for event in ends] == [CallEnded] * 3


async def test_records_have_their_fields() -> None:
    """Each record has as many values as fields, and of the kinds that these say."""
    events: list[Any] = []
    async with SerialExecutor() as pool:
        with pool.observe(events.append):
            await pool.submit(pow, 2, 2)
            with pytest.raises(ZeroDivisionError):
                await pool.options(retry=Retry(2, backoff=0)).submit(divmod, 1, 0)
    assert {type(event) for event in events} == {CallQueued, CallPlaced, CallRetried, CallEnded}
    for event in events:
        for name, hint in get_type_hints(type(event)).items():
            assert isinstance(getattr(event, name), hint if hint is not float else (int, float)), (event, name)
        assert len(event) == len(event._fields)


def test_nothing_is_imported_before_somebody_observes() -> None:
    """A program that does not observe imports nothing of this."""
    code = (
        "import asyncio, sys; from aioparallel import SerialExecutor\n"
        "async def main():\n"
        "    async with SerialExecutor() as pool: await pool.submit(pow, 2, 2); pool.status()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if '_seeing' in name or name.endswith('events')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "aioparallel" not in done.stdout


async def test_observers_of_a_call_that_fails_before_it_is_queued() -> None:
    """A call whose arguments fail was never queued, and ends as failed."""
    events: list[Event] = []
    async with ThreadExecutor(1) as pool:
        bad = pool.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            await bad
        with pool.observe(events.append), pytest.raises(ZeroDivisionError):
            await pool.submit(abs, pool.submit(divmod, 1, 0))
    inner, outer = (event for event in events if isinstance(event, CallEnded))
    assert (inner.name, outer.name) == ("divmod", "abs")
    assert (outer.outcome, outer.worker, outer.attempts) == ("failed", None, 0)
    assert [event.name for event in events if isinstance(event, CallQueued)] == ["divmod"]


async def test_observer_that_leaves_while_it_is_told() -> None:
    """An observer may end its own observation, and add another."""
    seen: list[str] = []
    async with SerialExecutor() as pool:

        def once(event: Event) -> None:
            seen.append("once")
            observation.close()
            pool.observe(lambda event: seen.append("again"))

        observation = pool.observe(once)
        await pool.submit(pow, 2, 2)
        await pool.submit(pow, 2, 2)
    assert seen.count("once") == 1
    assert seen.count("again") >= 5
