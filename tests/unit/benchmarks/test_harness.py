"""Rounds, processes, and contestants that are missing or broken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cli, harness, runner
from benchmarks.harness import launch, rotations, run_case
from benchmarks.measuring import finished, latencies, typical
from benchmarks.record import Reading
from benchmarks.suite import BEST_RIVAL, Case, Contestant, Metric, Sample, load_cases

FLOOR = "raw blocking socket pair"


async def count(subject: int, size: int) -> Sample:
    """Gives what it was asked."""
    return {"count": subject * size}


def sample_case(*names: str) -> Case:
    """A case that measures nothing real."""
    case = Case("sample", "{size} pieces", (Metric("count", "pieces"),), count, size=2000, quick=10)
    for name in names:
        case.contestant(name)(one)
    return case


@asynccontextmanager
async def one() -> AsyncIterator[int]:
    """A contestant."""
    yield 1


@asynccontextmanager
async def broken() -> AsyncIterator[int]:
    """A contestant whose set-up fails."""
    raise OSError("out of order\nfor long")
    yield 1


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 7])
def test_every_round_asks_everybody_once_in_another_order(rounds: int) -> None:
    """Each round is a rotation of the first, and no two of up to as many rounds as contestants are alike."""
    orders = list(rotations("abcde", rounds))
    assert orders[0] == list("abcde")
    assert all("".join(order) in "abcdeabcde" and len(order) == 5 for order in orders)
    assert len({tuple(order) for order in orders}) == min(rounds, 5)


def test_rounds_are_interleaved() -> None:
    """All contestants are measured once before any of them is measured again."""
    asked: list[str] = []

    def measure(_case: Case, contestant: Contestant, _size: int) -> Reading:
        asked.append(contestant.name)
        return Reading(sample={"count": len(asked)})

    result = run_case(sample_case("a", "b", "c"), rounds=3, measure=measure)
    assert ["".join(sorted(asked[start : start + 3])) for start in (0, 3, 6)] == ["abc"] * 3
    assert [len(entry.samples) for entry in result.entries] == [3, 3, 3]
    assert result.title == "2 000 pieces"


@pytest.mark.parametrize("reading", [Reading(skipped="not here"), Reading(failed="broken")])
def test_one_who_cannot_be_measured_does_not_stop_the_others(reading: Reading) -> None:
    """A skipped or failed contestant is not asked again; the others have all their rounds."""
    asked: list[str] = []

    def measure(_case: Case, contestant: Contestant, _size: int) -> Reading:
        asked.append(contestant.name)
        return reading if contestant.name == "b" else Reading(sample={"count": 1})

    result = run_case(sample_case("a", "b"), rounds=4, measure=measure)
    assert asked.count("b") == 1
    assert [entry.name for entry in result.measured()] == ["a"]
    assert len(result.entries[0].samples) == 4


def test_quick_is_one_round_of_the_small_size() -> None:
    """--quick uses the case's quick size, once."""
    sizes: list[int] = []

    def measure(_case: Case, _contestant: Contestant, size: int) -> Reading:
        sizes.append(size)
        return Reading(sample={"count": 1})

    result = run_case(sample_case("a"), quick=True, measure=measure)
    assert (sizes, result.rounds, result.quick) == ([10], 1, True)


def test_only_those_who_were_asked_for_are_measured() -> None:
    """``only`` chooses contestants by a part of their names."""
    result = run_case(
        sample_case("anyio", "execnet", "loky"), rounds=1, only=["net", "any"], measure=lambda *_: Reading(sample={})
    )
    assert [entry.name for entry in result.entries] == ["anyio", "execnet"]


def test_a_contestant_is_opened_and_measured() -> None:
    """The runner gives the case what the contestant yields, and returns the sample."""
    contestant = Contestant("one", "rival", one)
    assert runner.measure(sample_case(), contestant, 5) == Reading(sample={"count": 5})


def test_a_contestant_that_fails_is_reported_in_one_line() -> None:
    """An exception becomes the reason, by its type and its first line."""
    contestant = Contestant("broken", "rival", broken)
    assert runner.measure(sample_case(), contestant, 5) == Reading(failed="OSError: out of order")


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("json", None),
        ("json.JSONDecoder.decode", None),
        ("json.Nothing", "json.Nothing is not built yet"),
        ("no_such_module", "no_such_module is not installed"),
        ("no_such_module.thing", "no_such_module is not installed"),
    ],
)
def test_what_a_contestant_needs_is_looked_up(need: str, reason: str | None) -> None:
    """A missing module and a missing attribute of it are told apart."""
    assert runner.missing(need) == reason


def test_a_contestant_is_skipped_by_what_it_lacks() -> None:
    """A contestant that lacks something is not even opened."""
    contestant = Contestant("broken", "rival", broken, needs=("json", "no_such_module"))
    assert runner.measure(sample_case(), contestant, 5) == Reading(skipped="no_such_module is not installed")


def test_a_real_contestant_is_measured_in_a_process_of_its_own() -> None:
    """The floor of the no-op case gives all of its metrics."""
    case = load_cases()["noop"]
    reading = launch(case, case.contestants[FLOOR], 50)
    assert reading.sample is not None, reading
    assert 0 < reading.sample["p50"] <= reading.sample["p99"]


def test_a_measurement_that_takes_too_long_is_given_up() -> None:
    """After its timeout the runner is killed and reported."""
    case = replace(load_cases()["noop"], timeout=0.01)
    assert launch(case, case.contestants[FLOOR], 50) == Reading(failed="no result within 0.01 s")


def test_a_runner_that_dies_is_reported_with_its_last_line() -> None:
    """A runner that leaves no reading is told by its exit code and what it said last."""
    case = replace(load_cases()["noop"], name="no such case")
    reading = launch(case, case.contestants[FLOOR], 50)
    assert reading.failed == "exited with code 1: KeyError: 'no such case'"


def test_bytecode_may_be_written_by_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import times do not depend on a setting of the shell that runs the benchmarks."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in harness.environment()


async def test_sync_and_async_calls_are_both_timed() -> None:
    """Latencies are taken of plain calls and of awaited ones, as many as asked for."""

    async def call() -> None:
        pass

    assert len(await latencies(call, 20, warm_up=3)) == 20
    assert len(await latencies(lambda: None, 20, warm_up=3)) == 20


async def test_slow_calls_end_with_their_budget() -> None:
    """Calls stop when their time is used up, however many were asked for."""
    assert await latencies(lambda: None, 10**9, warm_up=1, budget=0.001)


async def test_a_job_is_run_as_often_as_said_and_its_last_value_kept() -> None:
    """``typical`` repeats the job and returns what it gave last."""
    values = iter([1, 2, 3])
    seconds, value = await typical(lambda: finished(next(values)), times=3)
    assert seconds >= 0
    assert value == 3


def test_the_cases_agree_with_themselves() -> None:
    """Every goal names a metric and contestants of its case, and every case but a pure comparison has ours."""
    for case in load_cases().values():
        names = {None, BEST_RIVAL, *case.contestants}
        metrics = {metric.name for metric in case.metrics}
        assert all(goal.metric in metrics and goal.than in names and goal.ours in names for goal in case.goals)
        assert "ours" in {contestant.role for contestant in case.contestants.values()}
        assert case.quick < case.size


def test_two_contestants_of_one_name_are_refused() -> None:
    """A contestant's name is unique within its case."""
    with pytest.raises(ValueError, match="two contestants named 'a'"):
        sample_case("a").contestant("a")


def test_the_command_line_lists_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """--list names every case and measures nothing."""
    assert cli.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(load_cases())


def test_an_unknown_case_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A case that does not exist ends the program with code 2 and the names of those that do."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["nap"])
    assert "no such case: nap; there are arrays" in capsys.readouterr().err


def test_figures_are_printed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run prints the machine and a table, and --json keeps the figures."""
    file = tmp_path / "run.json"
    assert cli.main(["noop", "--quick", "--only", FLOOR, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "cores, load before:" in printed
    assert FLOOR in printed
    (case,) = json.loads(file.read_text(encoding="utf-8"))["cases"]
    assert [entry["name"] for entry in case["entries"]] == [FLOOR]
