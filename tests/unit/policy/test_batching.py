"""How many calls travel in one frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._policy.batching import FRAME_SECONDS, MAX_CALLS, Costs

seconds = st.floats(0, 100)


@pytest.mark.parametrize(
    ("took", "calls"),
    [(None, 1), (0.0, MAX_CALLS), (1e-6, MAX_CALLS), (10e-6, 200), (1e-3, 2), (2e-3, 1), (5.0, 1)],
)
def test_frames_hold_so_much_work(took: float | None, calls: int) -> None:
    """A frame holds two milliseconds of calls: at least one, and one while nothing is known."""
    costs = Costs()
    if took is not None:
        costs.add(took, took)
    assert costs.calls_per_frame == pytest.approx(calls, abs=1)
    assert 1 <= costs.calls_per_frame <= MAX_CALLS


@given(seconds, seconds)
def test_longer_counts_at_once(before: float, after: float) -> None:
    """A longer call counts at once, a shorter one by a quarter."""
    costs = Costs()
    costs.add(before, before)
    costs.add(after, after)
    expected = after if after > before else before + 0.25 * (after - before)
    assert costs.seconds == pytest.approx(expected)


def test_one_long_call_counts_for_all() -> None:
    """One call that takes longer than a frame, among many short ones, makes the next ones travel alone."""
    costs = Costs()
    costs.add(1e-6, 1e-5)
    assert costs.calls_per_frame == MAX_CALLS
    costs.add(1e-4, 2 * FRAME_SECONDS)
    assert costs.calls_per_frame == 1


def test_the_past_is_forgotten() -> None:
    """A function that has become short travels by the hundred again after a dozen calls."""
    costs = Costs()
    costs.add(0.1, 0.1)
    frames = []
    while costs.calls_per_frame < 100:
        costs.add(1e-6, 1e-6)
        frames.append(costs.calls_per_frame)
    assert frames == sorted(frames)
    assert len(frames) < 40
