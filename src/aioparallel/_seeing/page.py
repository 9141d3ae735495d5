"""A run as one page of HTML, which needs nothing else: no network, no other file."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .figures import by_function, by_lane, failures, latencies, slowest, unfinished
from .picture import histogram
from .runs import Run
from .words import count, seconds

__all__ = ["page"]

MOST_CALLS = 20_000
"""So many calls are drawn: the longest."""
SLOWEST = 15
FUNCTIONS = 30
MARKS = 200
UNFINISHED = 50
OUTCOMES = {"failed": 1, "cancelled": 2, "lost the race": 3, "unfinished": 4}
"""As the page's script knows them; 0 is ``done``."""


def page(run: Run, title: str) -> str:
    """The page.

    Args:
        run: What it shows.
        title: Its title, usually the name of the trace.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": html.escape(title),
        "SUMMARY": _summary(run),
        "UNFINISHED": _unfinished(run),
        "LANES": _lanes(run),
        "FUNCTIONS": _functions(run),
        "SLOWEST": _slowest(run),
        "HISTOGRAM": html.escape("\n".join(line.text for line in histogram(latencies(run)))),
        "FAILURES": _failures(run),
        "MARKS": _marks(run),
        "DATA": json.dumps(_data(run), separators=(",", ":")).replace("</", "<\\/"),
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text)
    return template


def _summary(run: Run) -> str:
    lanes = by_lane(run)
    whole, still = [call for call in run.calls if call.is_last], unfinished(run)
    retried = sum(bool(call.args.get("again")) for call in run.calls)
    busy = sum(lane.busy for lane in lanes) / len(lanes) if lanes else 0.0
    when = "" if run.began is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.began))
    facts = [
        ("took", seconds(run.seconds)),
        ("calls", count(len(whole))),
        ("failed", count(sum(call.failed for call in whole))),
        ("retried", count(retried) if retried else ""),
        ("unfinished", count(len(still)) if still else ""),
        ("lanes", count(len(lanes))),
        ("busy", f"{busy:.0%}"),
        ("began", when),
    ]
    shown = "".join(f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for name, value in facts if value)
    cut = "" if run.is_complete else '<p class="bad">The trace has no end: its program was killed, or still runs.</p>'
    return f'<div class="facts">{shown}</div>{cut}'


def _unfinished(run: Run) -> str:
    """What ran in the end, if anything did: often the reason why there is no more."""
    found = unfinished(run)
    if not found:
        return ""
    rows = (
        (
            html.escape(call.name),
            count(int(call.args.get("id", 0))),
            html.escape(run.lanes.get(call.lane, "")),
            seconds(call.begun_at),
            f"{seconds(call.duration)} or more",
        )
        for call in found[:UNFINISHED]
    )
    more = f"<p>and {count(len(found) - UNFINISHED)} more</p>" if len(found) > UNFINISHED else ""
    table = _table(("call", "number", "lane", "began at", "had run for"), rows)
    return f'<h2>Running when the trace ended</h2><section id="unfinished">{table}{more}</section>'


def _lanes(run: Run) -> str:
    rows = (
        (
            html.escape(lane.machine),
            html.escape(lane.name),
            count(lane.calls),
            seconds(lane.seconds),
            f'<meter min="0" max="1" value="{lane.busy:.3f}"></meter> {lane.busy:.0%}',
        )
        for lane in by_lane(run)
    )
    return _table(("where", "lane", "calls", "in calls", "busy"), rows)


def _functions(run: Run) -> str:
    rows = (
        (
            html.escape(each.name),
            count(each.calls),
            count(each.failed),
            seconds(each.total),
            seconds(each.p50),
            seconds(each.p95),
            seconds(each.longest),
        )
        for each in by_function(run)[:FUNCTIONS]
    )
    return _table(("function", "calls", "failed", "in all", "p50", "p95", "longest"), rows)


def _slowest(run: Run) -> str:
    rows = (
        (
            html.escape(call.name),
            html.escape(run.lanes.get(call.lane, "")),
            seconds(call.begun_at),
            seconds(call.duration),
            html.escape(str(call.args.get("outcome", ""))),
        )
        for call in slowest(run, SLOWEST)
    )
    return _table(("call", "lane", "began at", "took", "outcome"), rows)


def _failures(run: Run) -> str:
    found = failures(run).most_common(SLOWEST)
    rows = ((count(times), html.escape(what)) for what, times in found)
    return _table(("times", "what"), rows) if found else "<p>Nothing failed.</p>"


def _marks(run: Run) -> str:
    rows = (
        (seconds(at), html.escape(run.lanes.get(lane) or run.machines.get(lane[0], "")), html.escape(what))
        for at, lane, what in sorted(run.marks)[:MARKS]
    )
    return _table(("at", "where", "what"), rows)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data(run: Run) -> dict[str, Any]:
    """What the timeline draws."""
    lanes = by_lane(run)
    place = {lane.lane: number for number, lane in enumerate(lanes)}
    names: dict[str, int] = {}
    calls = [
        (
            place[call.lane],
            round(call.begun_at * 1e6),
            round(call.duration * 1e6),
            names.setdefault(call.name, len(names)),
            OUTCOMES.get(str(call.args.get("outcome")), 0),
            int(call.args.get("id", 0)),
        )
        for call in sorted(slowest(run, MOST_CALLS), key=lambda call: call.begun_at)
    ]
    return {
        "seconds": run.seconds,
        "lanes": [f"{lane.name}" for lane in lanes],
        "names": list(names),
        "calls": calls,
        "left_out": len(run.calls) - len(calls),
        "marks": [
            (place[lane], round(at * 1e6), what) for at, lane, what in sorted(run.marks)[:MARKS] if lane in place
        ],
        "counts": [(round(at * 1e6), queued, running) for at, _, queued, running in run.counts],
    }
