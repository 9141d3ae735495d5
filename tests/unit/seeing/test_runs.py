"""Reading traces: whole ones, cut ones, foreign ones, and what is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from aioparallel import SerialExecutor
from aioparallel._seeing.figures import by_function, by_lane, failures, latencies, slowest, unfinished
from aioparallel._seeing.runs import Run, TracedCall, read_run


@pytest.fixture
async def trace(tmp_path: Path) -> Path:
    """A trace of 20 calls, one of which failed."""
    path = tmp_path / "run.json.gz"
    async with SerialExecutor(name="here") as pool:
        pool.trace(path)
        for n in range(19):
            await pool.submit(pow, 2, n)
        with pytest.raises(ZeroDivisionError):
            await pool.submit(divmod, 1, 0)
    return path


def test_whole(trace: Path) -> None:
    """A complete trace gives all calls, names and marks."""
    run = read_run(trace)
    assert run.is_complete
    assert run.began is not None
    assert [call.name for call in run.calls].count("pow") == 19
    assert [call.name for call in run.calls if call.failed] == ["divmod"]
    assert list(run.machines.values()) == ["here (serial)"]
    assert set(run.lanes.values()) == {"here"}
    assert run.seconds > 0


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("compressed", [True, False])
def test_cut(trace: Path, share: float, compressed: bool, tmp_path: Path) -> None:
    """Of a file that ends anywhere, everything up to there is read, and it is known to be incomplete."""
    data = trace.read_bytes() if compressed else gzip.decompress(trace.read_bytes())
    cut = tmp_path / "cut.json"
    cut.write_bytes(data[: int(share * len(data))])
    run = read_run(cut)
    assert not run.is_complete
    assert len(run.calls) < 20


def test_other_form(tmp_path: Path) -> None:
    """A trace of another program, in the format's other form, is read as far as it has calls."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"traceEvents": [{"ph": "X", "name": "f", "ts": 1, "dur": 2, "pid": 1, "tid": 1}]}))
    assert read_run(path).calls == [TracedCall((1, 1), "f", 1e-6, 2e-6, {})]


def test_calls_in_two_parts(tmp_path: Path) -> None:
    """A call that was written in two parts is one; one without its second part is unfinished, up to the last word."""
    path = tmp_path / "run.json"
    lines = [
        {"ph": "B", "name": "f", "ts": 1e6, "pid": 1, "tid": 1, "args": {"id": 1, "attempt": 2}},
        {"ph": "B", "name": "g", "ts": 2e6, "pid": 1, "tid": 2, "args": {"id": 2}},
        {"ph": "E", "name": "f", "ts": 4e6, "pid": 1, "tid": 1, "args": {"id": 1, "outcome": "done"}},
        {"ph": "E", "name": "stray", "ts": 4e6, "pid": 1, "tid": 1},
        {"ph": "C", "name": "calls", "ts": 5e6, "pid": 1, "tid": 0, "args": {"queued": 0, "running": 1}},
    ]
    path.write_text("[\n" + "".join(json.dumps(line) + ",\n" for line in lines))
    run = read_run(path)
    done, still = run.calls
    assert (done.name, done.begun_at, done.duration) == ("f", 1, 3)
    assert done.args == {"id": 1, "attempt": 2, "outcome": "done"}
    assert (still.name, still.begun_at, still.duration, still.unfinished) == ("g", 2, 3, True)
    assert unfinished(run) == [still]
    assert [function.name for function in by_function(run)] == ["f"]
    assert latencies(run).count == 1


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8bhello", b"[]", b"[1, 2]", b'{"a": 1}', b"\x00\xff"])
def test_no_trace(data: bytes, tmp_path: Path) -> None:
    """What is no trace is refused in words."""
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"bad\.json is (no trace|damaged)"):
        read_run(path)


def run_of(*calls: tuple[int, str, float, float, str]) -> Run:
    """A run of calls: lane, name, beginning, duration, outcome."""
    run = Run(machines={1: "m"}, lanes={(1, 1): "a", (1, 2): "b"})
    for lane, name, begun_at, duration, outcome in calls:
        args: dict[str, Any] = {"outcome": outcome, **({"error": "E: no"} if outcome == "failed" else {})}
        run.calls.append(TracedCall((1, lane), name, begun_at, duration, args))
    return run


def test_figures() -> None:
    """Lanes, functions, slow calls and failures are summed up."""
    run = run_of((1, "f", 0, 4, "done"), (1, "f", 4, 4, "failed"), (1, "g", 8, 2, "done"))
    first, second = by_lane(run)
    assert (first.name, first.machine, first.calls, first.seconds, first.busy) == ("a", "m", 3, 10, 1.0)
    assert (second.calls, second.busy) == (0, 0.0)
    f, g = by_function(run)
    assert (f.name, f.calls, f.failed, f.total, f.longest) == ("f", 2, 1, 8, 4)
    assert (g.name, g.p50, g.p95) == ("g", 2, 2)
    assert [call.begun_at for call in slowest(run, 2)] == [0, 4]
    assert failures(run) == {"f: E: no": 1}
    assert latencies(run).count == 3


def test_figures_of_nothing() -> None:
    """A run without calls has no figures."""
    assert by_lane(Run()) == by_function(Run()) == slowest(Run(), 5) == []
