"""Draws what was measured: ``python -m benchmarks.plots`` makes the pictures of the documentation.

Needs matplotlib, which the ``bench`` extra brings along.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.record import Run
from benchmarks.render import RESULTS, ROOT, latest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.record import CaseResult, Entry

__all__ = ["draw_cases", "draw_ledger", "main"]

PICTURES = ROOT / "docs" / "pictures"
SIMULATED = RESULTS / "simulator"
"""Where ``python -m benchmarks.simulator --json`` keeps its figures."""
OURS, RIVAL, BEST, FLOOR = "#c2410c", "#94a3b8", "#334155", "#0f766e"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aioparallel",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_cases(results: Sequence[CaseResult], file: Path) -> None:
    """One row for each case: how many times as good as ours each contestant was, by the case's first metric."""
    plt = _matplotlib()
    shown = [each for each in results if each.first("ours") and (each.measured("rival") or each.measured("floor"))]
    figure, axes = plt.subplots(figsize=(8.2, 0.8 + 0.34 * len(shown)), layout="constrained")
    for row, result in enumerate(reversed(shown)):
        _draw_case(axes, row, result)
    axes.axvline(1.0, color=OURS, linewidth=1.2)
    axes.set_xscale("log")
    axes.margins(y=0.5 / max(1, len(shown)))
    axes.set_yticks(range(len(shown)), [result.name for result in reversed(shown)])
    axes.set_xlabel("times as good as aioparallel (log scale): left of the line is slower, right of it faster")
    for colour, text in ((OURS, "aioparallel"), (BEST, "the best rival"), (RIVAL, "other rivals"), (FLOOR, "floor")):
        axes.scatter([], [], color=colour, s=18, label=text)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    _save(figure, file)


def _draw_case(axes: Any, row: int, result: CaseResult) -> None:
    ours, best = result.first("ours"), result.best_rival(result.primary)
    assert ours is not None, "only those are shown"
    for entry in result.measured("rival"):
        if entry is not best:
            axes.scatter(_ratio(result, entry, ours), row, color=RIVAL, s=14, zorder=2)
    if best is not None:
        ratio = _ratio(result, best, ours)
        axes.scatter(ratio, row, color=BEST, s=22, zorder=3)
        axes.annotate(
            best.name, (ratio, row), (0, 5), textcoords="offset points", ha="center", fontsize=6.5, color=BEST
        )
    floor = result.first("floor")
    if floor is not None:
        axes.scatter(_ratio(result, floor, ours), row, color=FLOOR, marker="|", s=60, zorder=3)


def _ratio(result: CaseResult, entry: Entry, ours: Entry) -> float:
    metric = result.primary
    return metric.advantage(entry.spread(metric.name).median, ours.spread(metric.name).median)


def draw_ledger(simulated: dict[str, Any], file: Path) -> None:
    """What an event costs with more and more slots, and a call that waits among more and more of them."""
    plt = _matplotlib()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.8), layout="constrained")
    sizes = simulated["sizes"]
    left.plot([each["slots"] for each in sizes], [each["rate"] for each in sizes], "o-", color=OURS)
    left.set(xscale="log", ylim=(0, None), xlabel="slots", ylabel="events per second")
    memory = simulated["memory"]
    right.plot([each["waiting"] for each in memory], [each["bytes"] for each in memory], "o-", color=OURS)
    right.set(xscale="log", ylim=(0, None), xlabel="calls that wait", ylabel="bytes for each of them")
    _save(figure, file)


def _matplotlib() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    from matplotlib import pyplot as plt

    return plt


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None, "Creator": "python -m benchmarks.plots"})
    print(file.relative_to(ROOT))


def main(argv: Sequence[str]) -> None:
    """Draw the named results, or all published ones."""
    files = [Path(name) for name in argv] or sorted(RESULTS.glob("*.json"))
    if files:
        draw_cases([result for _, result in latest([Run.load(file) for file in files])], PICTURES / "performance.svg")
    simulated = sorted(SIMULATED.glob("*.json"))
    if simulated:
        draw_ledger(json.loads(simulated[-1].read_text(encoding="utf-8")), PICTURES / "ledger.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
