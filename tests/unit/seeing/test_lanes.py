"""Lanes: no two calls on one of them overlap, whatever order they are told in."""

from __future__ import annotations

import random

import pytest

from aioparallel._seeing.lanes import ManyLanes, OneLane, Span


class Drawn:
    """Lanes, and what is on each."""

    def __init__(self, width: int) -> None:
        self.spans: dict[int, list[Span]] = {}
        self.lanes = (OneLane if width == 1 else ManyLanes)(1, self._new)

    def _new(self, number: int) -> int:
        assert number == len(self.spans)
        self.spans[number] = []
        return number

    def settle(self) -> None:
        """Draw what has its place."""
        for span in self.lanes.settle():
            self.spans[span[3]].append(span)

    def run(self, begun_at: float, until: float, text: str) -> bool:
        """Draw a call that is seen to run; whether there was room for it."""
        self.settle()
        place = self.lanes.begin(begun_at)
        if place is not None:
            begun_at, lane = place
            ended_at = self.lanes.end(lane, until)
            self.spans[lane].append((begun_at, ended_at - begun_at, text, lane))
        return place is not None

    def overlaps(self) -> list[tuple[Span, Span]]:
        """Neighbours on one lane of which one begins before the other has ended."""
        return [
            (one, other)
            for spans in self.spans.values()
            for one, other in zip(spans, spans[1:], strict=False)
            if one[0] + one[1] > other[0] + 1e-9
        ]


def test_one_answer_for_several_calls() -> None:
    """Calls that a worker answered for at once, or late, are laid out one after the other, up to the last answer."""
    drawn = Drawn(1)
    for name in "abc":
        drawn.lanes.add(9.0, 1.0, name)
    drawn.settle()
    assert drawn.spans == {0: [(7.0, 1.0, "a", 0), (8.0, 1.0, "b", 0), (9.0, 1.0, "c", 0)]}


def test_no_call_begins_before_the_last_one_ended() -> None:
    """Where clocks make a call begin too early, it is shortened."""
    drawn = Drawn(1)
    drawn.lanes.add(1.0, 1.0, "a")
    drawn.settle()
    drawn.lanes.add(1.5, 1.5, "b")
    drawn.settle()
    assert drawn.spans == {0: [(1.0, 1.0, "a", 0), (2.0, 1.0, "b", 0)]}


def test_a_wide_worker_has_a_lane_for_each_call_that_overlaps() -> None:
    """A long call that is told of last gets a lane of its own; short ones share one."""
    drawn = Drawn(2)
    for n in range(5):
        drawn.lanes.add(float(n), 0.5, "short")
    drawn.lanes.add(0.0, 6.0, "long")
    drawn.settle()
    assert [[span[2] for span in spans] for spans in drawn.spans.values()] == [["short"] * 5, ["long"]]


def test_a_call_that_is_seen_to_run_has_its_lane() -> None:
    """What a worker answers for later, but ran before, is drawn before; what it runs next, behind."""
    drawn = Drawn(1)
    drawn.settle()
    assert drawn.lanes.begin(5.0) == (5.0, 0)
    assert drawn.lanes.begin(6.0) is None  # the end of the first is not known yet
    drawn.lanes.add(4.5, 1.0, "before")
    assert drawn.lanes.settle() == [(4.0, 1.0, "before", 0)]
    assert drawn.lanes.end(0, 7.0) == 7.0
    drawn.lanes.add(6.5, 1.0, "after")
    assert drawn.lanes.settle() == [(7.0, 0.5, "after", 0)]
    assert drawn.lanes.begin(7.2) == (7.5, 0)
    assert drawn.lanes.end(0, 7.0) == 7.5


def test_calls_that_are_seen_to_run_on_a_wide_worker() -> None:
    """Each has a lane of its own for as long as it runs, and leaves it to others afterwards."""
    drawn = Drawn(2)
    assert [drawn.lanes.begin(1.0), drawn.lanes.begin(2.0)] == [(1.0, 0), (2.0, 1)]
    drawn.lanes.add(3.0, 1.0, "short")
    assert drawn.lanes.settle() == [(3.0, 1.0, "short", 2)]
    assert drawn.lanes.end(1, 5.0) == 5.0
    assert drawn.lanes.begin(5.0) == (5.0, 1)


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
        if dice.random() > 0.1 or not drawn.run(begun_at, at, "call"):
            drawn.lanes.add(begun_at, at - begun_at, "call")
    drawn.settle()
    for spans in drawn.spans.values():
        spans.sort()
    assert drawn.overlaps() == []
    assert sum(map(len, drawn.spans.values())) == len(ends)
    assert len(drawn.spans) <= 2 * width
