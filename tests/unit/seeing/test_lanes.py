"""Lanes: no two calls on one of them overlap, whatever order they are told in."""

from __future__ import annotations

import random

import pytest

from aioparallel._seeing.lanes import Lanes, Span


class Drawn:
    """Lanes, and what is on each."""

    def __init__(self, width: int) -> None:
        self.spans: dict[int, list[Span]] = {}
        self.lanes = Lanes(1, width, self._new, self._write)

    def _new(self, number: int) -> int:
        assert number == len(self.spans)
        self.spans[number] = []
        return number

    def _write(self, span: Span, lane: int) -> None:
        self.spans[lane].append(span)

    def overlaps(self) -> list[tuple[Span, Span]]:
        """Neighbours on one lane of which one begins before the other has ended."""
        return [
            (one, other)
            for spans in self.spans.values()
            for one, other in zip(spans, spans[1:], strict=False)
            if one.begun_at + one.duration > other.begun_at + 1e-9
        ]


def test_one_answer_for_several_calls() -> None:
    """Calls that a worker answered for at once, or late, are laid out one after the other, up to the last answer."""
    drawn = Drawn(1)
    for name in "abc":
        drawn.lanes.add(9.0, 1.0, name)
    drawn.lanes.settle()
    assert drawn.spans == {0: [Span(7.0, 1.0, "a"), Span(8.0, 1.0, "b"), Span(9.0, 1.0, "c")]}


def test_no_call_begins_before_the_last_one_ended() -> None:
    """Where clocks make a call begin too early, it is shortened."""
    drawn = Drawn(1)
    drawn.lanes.add(1.0, 1.0, "a")
    drawn.lanes.settle()
    drawn.lanes.add(1.5, 1.5, "b")
    drawn.lanes.settle()
    assert drawn.spans == {0: [Span(1.0, 1.0, "a"), Span(2.0, 1.0, "b")]}


def test_a_wide_worker_has_a_lane_for_each_call_that_overlaps() -> None:
    """A long call that is told of last gets a lane of its own; short ones share one."""
    drawn = Drawn(2)
    for n in range(5):
        drawn.lanes.add(float(n), 0.5, "short")
    drawn.lanes.add(0.0, 6.0, "long")
    drawn.lanes.settle()
    assert [[span.text for span in spans] for spans in drawn.spans.values()] == [["short"] * 5, ["long"]]


@pytest.mark.parametrize("width", [1, 2, 8])
@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps(width: int, seed: int) -> None:
    """However calls overlap and are told of, none overlap on a lane, all are drawn, and there are few lanes."""
    dice = random.Random(seed)
    drawn = Drawn(width)
    ends = []
    for _ in range(width):  # as many members, each in one call after the other
        now = 0.0
        for _ in range(50):
            begun_at = now + dice.choice([0.0, dice.random()])
            now = begun_at + dice.choice([0.0, dice.random(), 20 * dice.random()])
            ends.append((now, begun_at))
    for at, begun_at in sorted(ends):
        drawn.lanes.add(begun_at, at - begun_at, "call")
    drawn.lanes.settle()
    assert drawn.overlaps() == []
    assert sum(map(len, drawn.spans.values())) == len(ends)
    assert len(drawn.spans) <= 2 * width
