"""Traces: valid while they are written and afterwards, complete, and bounded."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import weakref
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NoReturn

import pytest

from aioparallel import (
    ProcessExecutor,
    Retry,
    SerialExecutor,
    TaskTimeoutError,
    ThreadExecutor,
    Trace,
    WorkerLostError,
    wait_all,
)
from aioparallel._seeing import scribe
from aioparallel._seeing import trace as tracing
from aioparallel._seeing.runs import read_run
from aioparallel.events import CallEnded, CallPlaced, CallRetried, HostLost, HostUp, WorkerEnded
from tests.tools import Gate, hold, until, wait_for


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it survived")


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a complete trace."""
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def read_what_there_is(path: Path) -> list[dict[str, Any]]:
    """The events of a compressed trace whose end is missing, as viewers read them."""
    text = zlib.decompressobj(wbits=31).decompress(path.read_bytes()).decode()
    lines = text.rpartition("\n")[0].removeprefix("[\n").splitlines()  # it may have been killed in the middle of one
    return [json.loads(line.removesuffix(",")) for line in lines]


def validate(events: list[dict[str, Any]]) -> None:
    """What viewers ask for: known phases, times, pairs, and no two calls that overlap on one lane."""
    open_waits: Counter[tuple[Any, ...]] = Counter()
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    begun: dict[tuple[int, int], dict[str, Any]] = {}
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    machines = {event["pid"] for event in events if event["name"] == "process_name"}
    for event in events:
        assert event["ph"] in {"M", "X", "B", "E", "b", "e", "i", "C"}
        assert event["pid"] in machines | {0}
        if event["ph"] != "M":
            assert event["ts"] >= 0  # relative to the trace's beginning: viewers leave out what came before
        if event["ph"] in {"b", "e"}:
            open_waits[event["pid"], event["cat"], event["id"]] += 1 if event["ph"] == "b" else -1
        if event["ph"] == "X":
            lane = event["pid"], event["tid"]
            assert lane in named
            lanes[lane].append((event["ts"], event["dur"]))
        if event["ph"] == "B":
            assert (event["pid"], event["tid"]) not in begun
            begun[event["pid"], event["tid"]] = event
        if event["ph"] == "E":
            begin = begun.pop((event["pid"], event["tid"]))
            assert (begin["name"], begin["args"]["id"]) == (event["name"], event["args"]["id"])
            lanes[event["pid"], event["tid"]].append((begin["ts"], event["ts"] - begin["ts"]))
    assert set(open_waits.values()) <= {0}
    for spans in lanes.values():
        spans.sort()
        for (ts, dur), (following, _) in zip(spans, spans[1:], strict=False):
            assert dur >= 0
            assert ts + dur <= following + 0.2  # they are rounded to a tenth


def calls(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The calls of that name, whether they were written at once or in two parts."""
    found = [event for event in events if event["ph"] == "X" and event["name"] == name]
    begun = {event["args"]["id"]: event for event in events if event["ph"] == "B" and event["name"] == name}
    ends = [event for event in events if event["ph"] == "E" and event["name"] == name]
    for end in ends:
        begin = begun[end["args"]["id"]]
        found.append({**begin, "dur": end["ts"] - begin["ts"], "args": {**begin["args"], **end["args"]}})
    return sorted(found, key=lambda event: event["ts"])


async def test_a_run(tmp_path: Path) -> None:
    """Each attempt of each call is there, with how it ended; workers are named; deaths and kills are marked."""
    path = tmp_path / "run.json.gz"
    async with ProcessExecutor(2, name="cpu") as pool:
        pool.trace(path)
        await wait_all([pool.submit(pow, 2, n) for n in range(200)])
        with pytest.raises(ZeroDivisionError):
            await pool.options(retry=Retry(2, backoff=0)).submit(divmod, 1, 0)
        with pytest.raises(WorkerLostError):
            await pool.submit(die)
        with pytest.raises(TaskTimeoutError):
            await pool.options(timeout=0.05, name="stuck").submit(hold, Gate(str(tmp_path / "gate")))
        assert len(await pool.map(abs, range(1000))) == 1000
    events = read(path)
    validate(events)
    assert len(calls(events, "pow")) == 200
    assert [event["args"]["outcome"] for event in calls(events, "divmod")] == ["failed", "failed"]
    assert [event["args"].get("again") for event in calls(events, "divmod")] == [True, None]
    assert sum(event["args"].get("items", 1) for event in calls(events, "abs")) == 1000
    (stuck,) = calls(events, "stuck")
    assert stuck["dur"] >= 50_000
    assert "TaskTimeoutError" in stuck["args"]["error"]
    names = [event["name"] for event in events if event.get("cat") == "worker"]
    assert "died: killed by SIGKILL in die" in names
    assert any(name.startswith("ended: killed by SIGKILL as time was up for stuck") for name in names)
    threads = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert threads == {"cpu-0", "cpu-1"}
    assert any(event["ph"] == "C" and {"queued", "running"} == event["args"].keys() for event in events)
    assert events[-1]["name"] == "end"


async def test_one_trace_of_several_executors(tmp_path: Path) -> None:
    """Executors share a trace, which is complete when the last of them is closed; calls at once have lanes of their own."""
    path = tmp_path / "run.json"
    gate = Gate(str(tmp_path / "gate"))
    async with ThreadExecutor(3, name="io") as threads, SerialExecutor(name="here") as here:
        trace = threads.trace(path)
        assert here.trace(trace) is trace
        await here.submit(pow, 2, 2)
        held = [threads.submit(hold, gate) for _ in range(3)]
        await until(lambda: len(gate.entered) == 3)
        gate.open()
        await wait_all(held)
        await here.aclose()
        assert not path.read_bytes().endswith(b"]\n")
    events = read(path)
    validate(events)
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {
        "io (thread)",
        "here (serial)",
    }
    assert len({event["tid"] for event in calls(events, "hold")}) == 3


async def test_who_waited(tmp_path: Path) -> None:
    """A call that waited for a worker is shown to wait, from its submission to its beginning or its end."""
    path = tmp_path / "run.json"
    gate = Gate(str(tmp_path / "gate"))
    async with ThreadExecutor(1) as pool:
        with pool.trace(path):
            first = pool.submit(hold, gate)
            await until(lambda: gate.entered)
            second, third = pool.submit(pow, 2, 2), pool.submit(abs, -1)
            await wait_some()
            third.cancel()
            await until(third.done)
            gate.open()
            await wait_all([first, second])
    events = read(path)
    validate(events)
    waits = {event["name"]: event["ts"] for event in events if event["ph"] == "b"}
    ends = {event["name"]: event["ts"] for event in events if event["ph"] == "e"}
    assert waits.keys() == ends.keys() >= {"pow", "abs"}  # on a busy machine the first call waits as well
    assert all(ends[name] - waits[name] >= 1000 for name in waits)
    assert calls(events, "abs") == []


async def wait_some() -> None:
    """Let a little more time pass than a call may wait without its being shown."""
    import time

    began = time.time()
    await until(lambda: time.time() - began > 2 * scribe.WAIT_SECONDS)


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """After SIGKILL the file can be read up to the last second."""
    path = tmp_path / "run.json.gz"
    code = f"""
        import asyncio
        from aioparallel import ThreadExecutor

        async def main():
            async with ThreadExecutor(2) as pool:
                pool.trace({str(path)!r})
                while True:
                    await pool.submit(pow, 2, 2)
                    await asyncio.sleep(0.001)

        asyncio.run(main())
    """
    program = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        wait_for(lambda: path.exists() and path.stat().st_size > 2000)
    finally:
        program.kill()
        program.wait()
    events = read_what_there_is(path)
    validate(events)
    assert len(calls(events, "pow")) > 10


def test_what_ran_when_the_program_was_killed(tmp_path: Path) -> None:
    """After SIGKILL the trace shows the calls that ran, on their workers, as unfinished."""
    path = tmp_path / "run.json.gz"
    code = f"""
        import asyncio, time
        from aioparallel import ProcessExecutor, ThreadExecutor

        async def main():
            async with ThreadExecutor(2, name="io") as threads, ProcessExecutor(1, name="cpu") as pool:
                trace = pool.trace({str(path)!r})
                threads.trace(trace)
                await pool.submit(pow, 2, 2)
                calls = [pool.options(name="stuck").submit(time.sleep, 600), pool.submit(abs, -1)]
                calls += [threads.options(name=f"slow {{n}}").submit(time.sleep, 600) for n in range(2)]
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    program = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        wait_for(lambda: path.exists() and path.stat().st_size > 0 and b"slow 1" in _inflated(path))
    finally:
        program.kill()
        program.wait()
    run = read_run(path)
    assert not run.is_complete
    found = {call.name: run.lanes[call.lane] for call in run.calls if call.unfinished}
    assert found == {"stuck": "cpu-0", "slow 0": "io", "slow 1": "io (2)"}
    assert all(call.duration > 0 for call in run.calls if call.unfinished)
    assert [call.args["outcome"] for call in run.calls if call.name == "pow"] == ["done"]


def _inflated(path: Path) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(path.read_bytes())


async def test_calls_that_run_longer_than_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written when they begin, with their outcome when they end, and once; others are drawn around them."""
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.01)
    path = tmp_path / "run.json"
    async with ThreadExecutor(2, name="io") as threads, ProcessExecutor(1, name="cpu") as pool:
        trace = pool.trace(path)
        threads.trace(trace)
        for number, executor in enumerate((pool, threads), 1):
            gate = Gate(str(tmp_path / executor.name))
            waiting = [executor.submit(hold, gate), *(executor.submit(pow, 2, n) for n in range(3))]
            await until(lambda: _begun(path, "hold") == number)  # noqa: B023  # it is awaited here
            gate.open()
            await wait_all(waiting)
        gate = Gate(str(tmp_path / "gate"))
        failing = pool.options(timeout=0.2, name="late").submit(hold, gate)
        await until(lambda: '"name":"late"' in path.read_text())
        with pytest.raises(TaskTimeoutError):
            await failing
    events = read(path)
    validate(events)
    assert [event["ph"] for event in events if event["name"] == "hold" and event["cat"] == "call"] == ["B", "E"] * 2
    run = read_run(path)
    assert [call.args["outcome"] for call in run.calls if call.name in {"hold", "late"}] == ["done", "done", "failed"]
    assert sum(call.name == "pow" for call in run.calls) == 6
    assert not any(call.unfinished for call in run.calls)


def _begun(path: Path, name: str) -> int:
    """How many calls of that name were written when they were seen to run."""
    lines = path.read_text().splitlines()
    return sum(line.startswith(f'{{"name":"{name}"') and '"ph":"B"' in line for line in lines)


async def test_trace_that_is_closed_while_calls_run(tmp_path: Path) -> None:
    """What runs when a trace is closed is in it, as unfinished."""
    path = tmp_path / "run.json"
    gate = Gate(str(tmp_path / "gate"))
    async with ThreadExecutor(1) as pool:
        with pool.trace(path):
            held = pool.submit(hold, gate)
            await until(lambda: gate.entered)
        gate.open()
        await held
    run = read_run(path)
    assert run.is_complete
    assert [(call.name, call.unfinished) for call in run.calls] == [("hold", True)]


async def test_trace_that_begins_while_calls_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that had started before is drawn as wide as it is, and what it runs is seen."""
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.01)
    path = tmp_path / "run.json"
    gate = Gate(str(tmp_path / "gate"))
    async with ThreadExecutor(2) as pool:
        held = [pool.submit(hold, gate) for _ in range(2)]
        await until(lambda: len(gate.entered) == 2)
        pool.trace(path)
        await until(lambda: path.read_text().count('"ph":"B"') == 2)
        gate.open()
        await wait_all(held)
    events = read(path)
    validate(events)
    assert len(read_run(path).lanes) == 2
    assert [call["ts"] for call in calls(events, "hold")] == [0, 0]


async def test_errors_are_not_kept(tmp_path: Path) -> None:
    """Of an error that waits to be written there is its text, and not what it refers to."""

    class Precious:
        pass

    def fail() -> NoReturn:
        error = ValueError("no")
        error.precious = Precious()  # type: ignore[attr-defined]
        refs.append(weakref.ref(error.precious))  # type: ignore[attr-defined]
        raise error

    refs: list[weakref.ref[Precious]] = []
    async with SerialExecutor() as pool:
        with pool.trace(tmp_path / "run.json"):
            with pytest.raises(ValueError):
                await pool.options(name="fail").submit(fail)
            gc.collect()
            assert refs[0]() is None
    (call,) = calls(read(tmp_path / "run.json"), "fail")
    assert call["args"]["error"] == "ValueError: no"


def test_loop_that_ends_without_closing(tmp_path: Path) -> None:
    """A pool that its loop closes completes its trace, without a warning."""
    path = tmp_path / "run.json"
    code = f"""
        import asyncio
        from aioparallel import ThreadExecutor

        async def main():
            pool = await ThreadExecutor(2).start()
            pool.trace({str(path)!r})
            await pool.submit(pow, 2, 2)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = read(path)
    assert len(calls(events, "pow")) == 1


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are written in time, also when the writer does not keep up, and of calls that have ended nothing is kept."""
    monkeypatch.setattr(tracing, "NOTES", 100)
    monkeypatch.setattr(tracing, "MOST_NOTES", 300)
    path = tmp_path / "run.json"
    async with SerialExecutor() as pool:
        trace = pool.trace(path)
        (watched,) = trace._watched
        for _ in range(1000):
            await pool.submit(pow, 2, 2)
            assert len(watched.notes) <= 300
        while watched.notes or trace._writer is not None:  # first who still writes, then what was noted meanwhile
            if trace._writer is not None:
                trace._writer.join()
            trace._flush()
        assert (watched.scribe._copies, watched.scribe._begun) == ({}, {})
        assert path.stat().st_size > 50_000


def test_backups_and_hosts(tmp_path: Path) -> None:
    """The copies of a call are shown where they ran, as winner and loser; a host's coming and going is marked."""
    path = tmp_path / "run.json"
    pool: Any = SerialExecutor(name="far")
    trace = Trace(path)
    trace.watch(pool)
    (watched,) = trace._watched
    now = trace._began + 1
    told: list[Any] = [
        HostUp(now, "a", 2),
        CallPlaced(now, 1, "f", "far-0@a", "a", 1, False),
        CallPlaced(now + 2, 1, "f", "far-1@b", "b", 1, True),
        CallEnded(now + 3, 1, "f", "far-1@b", "b", "done", 1, 1, True, 1, now, now + 2.1, 0.9, None),
        HostLost(now + 4, "a", OSError("no route"), True),
    ]
    for event in told:
        watched(event)
    trace.close()
    events = read(path)
    validate(events)
    loser, winner = sorted(calls(events, "f"), key=lambda event: event["ts"])
    assert (loser["args"]["outcome"], loser["args"]["backup"]) == ("lost the race", False)
    assert (winner["args"]["outcome"], winner["args"]["won_by_copy"]) == ("done", True)
    assert loser["pid"] != winner["pid"]
    assert [event["name"] for event in events if event.get("cat") == "host"] == ["a: up", "a: given up"]


def test_copies_that_ended_before(tmp_path: Path) -> None:
    """A copy whose worker died, or whose attempt was repeated, is drawn up to then, and not to the call's end."""
    path = tmp_path / "run.json"
    trace = Trace(path)
    trace.watch(SerialExecutor(name="far"))
    (watched,) = trace._watched
    now = trace._began
    told: list[Any] = [
        CallPlaced(now, 1, "f", "far-0@a", "a", 1, False),
        CallPlaced(now + 1, 1, "f", "far-1@b", "b", 1, True),
        CallRetried(now + 2, 1, "f", "far-0@a", "a", 1, now, 0.0, OSError("bad")),
        CallPlaced(now + 3, 1, "f", "far-0@a", "a", 2, False),
        CallPlaced(now + 4, 1, "f", "far-1@b", "b", 2, True),
        WorkerEnded(now + 5, "far-0@a", "a", 0, 7, False, "killed by SIGKILL", 1, None),
        CallEnded(now + 9, 1, "f", "far-1@b", "b", "done", 2, 2, True, 1, now, now + 4, 5.0, None),
    ]
    for event in told:
        watched(event)
    trace.close()
    events = read(path)
    validate(events)
    drawn = [
        (event["args"]["outcome"], round(event["ts"] / 1e6), round(event["dur"] / 1e6)) for event in calls(events, "f")
    ]
    assert drawn == [("failed", 0, 2), ("lost the race", 1, 1), ("lost", 3, 2), ("done", 4, 5)]


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that cannot be written is an error at once."""
    with pytest.raises(FileNotFoundError):
        SerialExecutor().trace(tmp_path / "missing" / "run.json")


async def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be written any more ends the trace, says so, and hurts no call."""
    monkeypatch.setattr(tracing, "NOTES", 10)
    async with SerialExecutor() as pool:
        with caplog.at_level(logging.ERROR, "aioparallel"):
            pool.trace("/dev/full")
            for n in range(100):
                assert await pool.submit(pow, 2, n) == 2**n
    assert "No space left" in caplog.text


async def test_odd_names(tmp_path: Path) -> None:
    """Names and errors may hold anything."""
    path = tmp_path / "run.json"
    name = 'a "quoted"\n\\ ünicode \ud800'

    def fail() -> NoReturn:
        raise ValueError('bad "\x00"\nmore')

    async with SerialExecutor() as pool:
        with pool.trace(path), pytest.raises(ValueError):
            await pool.options(name=name).submit(fail)
    (call,) = calls(read(path), name)
    assert call["args"]["error"] == 'ValueError: bad "\x00"'


async def test_closed_trace(tmp_path: Path) -> None:
    """A closed trace takes nobody more; closing it again does nothing; an empty one is valid."""
    path = tmp_path / "run.json"
    trace = Trace(path)
    trace.close()
    trace.close()
    with pytest.raises(ValueError, match="is closed"):
        SerialExecutor().trace(trace)
    assert [event["name"] for event in read(path)] == ["aioparallel", "end"]
