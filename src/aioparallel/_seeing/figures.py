"""What a run amounts to: how well lanes were used, how long functions took, what was slow, what failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from .._policy.latency import Latencies
from .runs import Run, TracedCall

__all__ = ["FunctionFigures", "LaneFigures", "by_function", "by_lane", "failures", "latencies", "slowest", "unfinished"]


class LaneFigures(NamedTuple):
    """How one lane was used.

    Attributes:
        busy: The share of the run that it spent in calls.
    """

    lane: tuple[int, int]
    name: str
    machine: str
    calls: int
    seconds: float
    busy: float


class FunctionFigures(NamedTuple):
    """What the calls of one function took, in seconds."""

    name: str
    calls: int
    failed: int
    total: float
    p50: float
    p95: float
    longest: float


def by_lane(run: Run) -> list[LaneFigures]:
    """Each lane, in the order of machines and lanes; those that never ran anything, too."""
    counts: Counter[tuple[int, int]] = Counter()
    seconds: dict[tuple[int, int], float] = defaultdict(float)
    for call in run.calls:
        counts[call.lane] += 1
        seconds[call.lane] += call.duration
    whole = run.seconds or 1.0
    return [
        LaneFigures(
            lane,
            run.lanes.get(lane, f"lane {lane[1]}"),
            run.machines.get(lane[0], f"machine {lane[0]}"),
            counts[lane],
            seconds[lane],
            min(1.0, seconds[lane] / whole),
        )
        for lane in sorted({*run.lanes, *counts})
    ]


def by_function(run: Run) -> list[FunctionFigures]:
    """Each function by its calls that have ended, the one that took most time in all in front."""
    groups: dict[str, list[TracedCall]] = defaultdict(list)
    for call in run.calls:
        if not call.unfinished:  # nobody knows what it would have taken
            groups[call.name].append(call)
    figures = [_function(name, calls) for name, calls in groups.items()]
    return sorted(figures, key=lambda function: -function.total)


def _function(name: str, calls: list[TracedCall]) -> FunctionFigures:
    durations = sorted(call.duration for call in calls)

    def quantile(share: float) -> float:
        return durations[min(len(durations) - 1, int(share * len(durations)))]

    failed = sum(call.failed for call in calls)
    return FunctionFigures(name, len(calls), failed, sum(durations), quantile(0.5), quantile(0.95), durations[-1])


def slowest(run: Run, number: int) -> list[TracedCall]:
    """The calls that took longest."""
    return sorted(run.calls, key=lambda call: -call.duration)[:number]


def unfinished(run: Run) -> list[TracedCall]:
    """The calls that ran when the trace ended, those that had run longest in front."""
    return sorted((call for call in run.calls if call.unfinished), key=lambda call: call.begun_at)


def failures(run: Run) -> Counter[str]:
    """How often calls failed with what."""
    return Counter(f"{call.name}: {call.args.get('error', 'it is not known why')}" for call in run.calls if call.failed)


def latencies(run: Run) -> Latencies:
    """How long calls took that have ended."""
    found = Latencies()
    found.extend([call.duration for call in run.calls if not call.unfinished])
    return found
