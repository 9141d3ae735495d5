"""Turns results into tables: for the terminal and for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.record import CaseResult, Entry
    from benchmarks.suite import Goal, Metric

__all__ = ["as_markdown", "as_text", "goal_lines", "human", "problem_lines", "table"]

ABSENT = "-"


def human(value: float) -> str:
    """A figure of three digits or so: ``9.81 M``, ``325 k``, ``3 900``, ``42.1``, ``0.31``."""
    for limit, divisor, suffix in ((1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= limit:
            return _digits(value / divisor) + suffix
    return _digits(value)


def _digits(value: float) -> str:
    size = abs(value)
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.replace(",", " ")


def table(result: CaseResult) -> list[list[str]]:
    """A header row, and one row for each measured contestant, the best first.

    The last three columns say how many times as good as ours, as the best rival and as the first floor the row is
    (by the first metric): 2.0 is twice as good, 0.5 half as good.
    """
    metric = result.primary
    others = [result.first("ours"), result.best_rival(metric), result.first("floor")]
    header = ["contestant", "", *map(_heading, result.metrics), "x ours", "x best rival", "x floor"]
    return [header, *(_row(result, entry, others) for entry in _ranked(result))]


def _heading(metric: Metric) -> str:
    return f"{metric.name}, {metric.unit} (min-max)"


def _ranked(result: CaseResult) -> list[Entry]:
    name = result.primary.name
    backwards = result.primary.better == "higher"
    return sorted(result.measured(), key=lambda entry: entry.spread(name).median, reverse=backwards)


def _row(result: CaseResult, entry: Entry, others: list[Entry | None]) -> list[str]:
    figures = [_figure(entry, metric) for metric in result.metrics]
    ratios = [_ratio(result.primary, entry, other) for other in others]
    return [entry.name, "" if entry.role == "rival" else entry.role, *figures, *ratios]


def _figure(entry: Entry, metric: Metric) -> str:
    spread = entry.spread(metric.name)
    return f"{human(spread.median)} ({human(spread.low)}-{human(spread.high)})"


def _ratio(metric: Metric, entry: Entry, other: Entry | None) -> str:
    if other is None:
        return ABSENT
    ratio = metric.advantage(entry.spread(metric.name).median, other.spread(metric.name).median)
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def goal_lines(result: CaseResult) -> list[str]:
    """For each goal, what it asks for and whether it is met."""
    return [_goal_line(result, goal) for goal in result.goals]


def _goal_line(result: CaseResult, goal: Goal) -> str:
    metric = result.metric(goal.metric)
    ours = result.find(goal.ours, metric)
    other = result.find(goal.than, metric) if goal.than else None
    asked = f"goal: {goal.metric} {_asked(goal, metric, other)}"
    if ours is None or (goal.than and other is None):
        return f"{asked}: open, not measured"
    value = ours.spread(metric.name).median
    bound = goal.plus + (goal.factor * other.spread(metric.name).median if other else 0.0)
    met = value <= bound if metric.better == "lower" else value >= bound
    limit = f"{human(value)} of {human(bound)} {metric.unit}"
    return f"{asked}: {'met' if met else 'MISSED'}, {limit} ({ours.name})"


def _asked(goal: Goal, metric: Metric, other: Entry | None) -> str:
    bound = "at most" if metric.better == "lower" else "at least"
    if goal.than is None:
        return f"{bound} {human(goal.plus)} {metric.unit}"
    factor = "" if goal.factor == 1 else f"{goal.factor:g} x "
    plus = f" + {human(goal.plus)} {metric.unit}" if goal.plus else ""
    name = goal.than if other is None or other.name == goal.than else f"{goal.than}, {other.name}"
    return f"{bound} {factor}{name}{plus}"


def problem_lines(result: CaseResult) -> list[str]:
    """Who was skipped and who failed, and why."""
    skipped = [f"skipped: {entry.name}: {entry.skipped}" for entry in result.entries if entry.skipped]
    failed = [f"failed: {entry.name}: {entry.failed}" for entry in result.entries if entry.failed]
    return skipped + failed


def as_text(result: CaseResult) -> str:
    """The result for a terminal."""
    lines = [f"{result.name}: {result.title}", _how(result), "", *_aligned(table(result)), ""]
    return "\n".join([*lines, *goal_lines(result), *problem_lines(result)]).rstrip()


def _how(result: CaseResult) -> str:
    rounds = f"{result.rounds} interleaved rounds" if result.rounds > 1 else "one round"
    return f"{rounds}{', quick: not for comparison' if result.quick else ''}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Names to the left, figures to the right.
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def as_markdown(result: CaseResult) -> str:
    """The result as a section of a Markdown page."""
    header, *rows = table(result)
    rule = ["---" if place < 2 else "---:" for place in range(len(header))]
    lines = [f"### {result.name}", "", f"{result.title}; {_how(result)}.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
    notes = [f"- {line}" for line in goal_lines(result) + problem_lines(result)]
    return "\n".join([*lines, "", *notes]).rstrip()
