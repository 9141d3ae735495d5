"""Tables, ratios, goals and the Markdown page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.record import CaseResult, Entry, Reading, Run
from benchmarks.render import BEGIN, END, NOTHING, put_between, render
from benchmarks.report import as_markdown, as_text, goal_lines, human, problem_lines, table
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Role

LATENCY = Metric("p50", "us")
RATE = Metric("rate", "calls/s", "higher")


def entry(name: str, role: Role, metric: Metric, *values: float) -> Entry:
    """Somebody who was measured once for each value."""
    return Entry(name, role, [{metric.name: value} for value in values])


def outcome(metric: Metric, entries: list[Entry], *goals: Goal) -> CaseResult:
    """The result of a case with one metric."""
    return CaseResult("sample", "a sample", [metric], list(goals), 3, False, entries)


def latencies(*goals: Goal) -> CaseResult:
    """Ours at 40 us between a floor of 32 and rivals of 80 and 160."""
    entries = [
        entry("slow", "rival", LATENCY, 160),
        entry("floor", "floor", LATENCY, 32),
        entry("fast", "rival", LATENCY, 80),
        entry("toy", "reference", LATENCY, 1),
        entry("ours", "ours", LATENCY, 30, 40, 90),
    ]
    return outcome(LATENCY, entries, *goals)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (0.314, "0.31"),
        (42.13, "42.1"),
        (412.4, "412"),
        (3900, "3 900"),
        (325_400, "325 k"),
        (9.81e6, "9.81 M"),
    ],
)
def test_figures_have_three_digits_or_so(value: float, shown: str) -> None:
    """A figure is shown with about three digits, thousands and millions by their letters."""
    assert human(value) == shown


def test_the_table_ranks_by_the_first_metric_and_relates_each_row() -> None:
    """Rows come best first, each with how many times as good it is as ours, the best rival and the floor."""
    rows = {row[0]: row[1:] for row in table(latencies())[1:]}
    assert list(rows) == ["toy", "floor", "ours", "fast", "slow"]
    assert rows["ours"] == ["ours", "40.0 (30.0-90.0)", "1.00", "2.00", "0.80"]
    assert rows["slow"] == ["", "160 (160-160)", "0.25", "0.50", "0.20"]


def test_a_higher_rate_is_better() -> None:
    """For a rate the largest figure leads and the ratio is turned round."""
    rows = table(outcome(RATE, [entry("slow", "rival", RATE, 10), entry("ours", "ours", RATE, 40)]))
    assert [row[0] for row in rows[1:]] == ["ours", "slow"]
    assert [row[3] for row in rows[1:]] == ["1.00", "0.25"]


def test_a_reference_is_no_rival() -> None:
    """The best rival is sought among the rivals alone."""
    best = latencies().best_rival(LATENCY)
    assert best is not None
    assert best.name == "fast"


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("p50", "floor", factor=1.3), "p50 at most 1.3 x floor: met, 40.0 of 41.6 us (ours)"),
        (Goal("p50", "floor", factor=1.2), "p50 at most 1.2 x floor: MISSED, 40.0 of 38.4 us (ours)"),
        (Goal("p50", BEST_RIVAL, factor=0.6), "p50 at most 0.6 x the best rival, fast: met, 40.0 of 48.0 us (ours)"),
        (Goal("p50", "floor", plus=7), "p50 at most floor + 7.00 us: MISSED, 40.0 of 39.0 us (ours)"),
        (Goal("p50", None, plus=50), "p50 at most 50.0 us: met, 40.0 of 50.0 us (ours)"),
        (Goal("p50", "nobody"), "p50 at most nobody: open, not measured"),
        (Goal("p50", "floor", ours="other"), "p50 at most floor: open, not measured"),
    ],
)
def test_a_goal_says_what_it_asks_and_whether_it_is_met(goal: Goal, verdict: str) -> None:
    """A goal compares the medians; without both of them it is open."""
    assert goal_lines(latencies(goal)) == [f"goal: {verdict}"]


def test_a_goal_on_a_rate_is_a_least_value() -> None:
    """Where more is better, the goal is met from the bound upwards."""
    entries = [entry("rival", "rival", RATE, 10), entry("ours", "ours", RATE, 39)]
    (line,) = goal_lines(outcome(RATE, entries, Goal("rate", "rival", factor=4)))
    assert line == "goal: rate at least 4 x rival: MISSED, 39.0 of 40.0 calls/s (ours)"


def test_whoever_has_no_figures_is_named_below_the_table() -> None:
    """Skipped and failed contestants are not in the table but are told with the reason."""
    gone, broken = Entry("gone", "rival"), entry("broken", "rival", LATENCY, 1)
    gone.add(Reading(skipped="gone is not installed"))
    broken.add(Reading(failed="OSError: no"))
    result = outcome(LATENCY, [gone, broken, entry("floor", "floor", LATENCY, 2)])
    assert [row[0] for row in table(result)[1:]] == ["floor"]
    assert problem_lines(result) == ["skipped: gone: gone is not installed", "failed: broken: OSError: no"]


def test_a_result_without_any_figures_can_be_shown() -> None:
    """A case nobody could be measured in still gives its heading."""
    result = outcome(LATENCY, [], Goal("p50", BEST_RIVAL))
    assert "sample: a sample" in as_text(result)
    assert as_markdown(result).startswith("### sample")


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    """What was saved is loaded as it was."""
    run = Run(machine.describe(), [latencies(Goal("p50", BEST_RIVAL))])
    run.save(tmp_path / "results" / "run.json")
    assert Run.load(tmp_path / "results" / "run.json") == run


def test_the_last_run_of_a_case_is_rendered() -> None:
    """A case that several runs hold is shown once, as the last one found it."""
    old, new = latencies(), latencies()
    new.title = "a newer sample"
    text = render([Run(machine.describe(), [old]), Run(machine.describe(), [new])])
    assert "a newer sample" in text
    assert "a sample" not in text
    assert text.count("### sample") == 1


def test_rendering_nothing_says_so() -> None:
    """Without results the page says that there are none."""
    assert render([]) == NOTHING


def test_only_what_lies_between_the_markers_is_replaced() -> None:
    """The page around the markers stays, and rendering twice changes nothing."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put_between(page, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert put_between(once, "new") == once


def test_a_page_without_markers_is_refused() -> None:
    """Nothing is written into a page that has no place for it."""
    with pytest.raises(ValueError, match="must hold"):
        put_between("no markers", "new")


@pytest.mark.parametrize(("load", "warned"), [(0.9, False), (1.5, True)])
def test_a_busy_machine_is_warned_of(load: float, warned: bool) -> None:
    """A load above half of the cores gives a warning."""
    told = machine.load_warning({"load": [load, 0, 0], "cores": 2})
    assert (told is not None) is warned
