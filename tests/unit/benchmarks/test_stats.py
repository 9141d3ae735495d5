"""The statistics of the tables."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import Spread, median, quantile

figures = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=50)


@pytest.mark.parametrize(("q", "expected"), [(0, 10), (0.25, 17.5), (0.5, 25), (0.99, 39.7), (1, 40)])
def test_a_quantile_lies_between_its_neighbours_in_proportion(q: float, expected: float) -> None:
    """A quantile that falls between two values is interpolated linearly."""
    assert quantile([40, 10, 30, 20], q) == pytest.approx(expected)


def test_the_only_value_is_every_quantile() -> None:
    """One value is its own p0, p50 and p99."""
    assert [quantile([7.0], q) for q in (0, 0.5, 0.99)] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_a_quantile_that_does_not_exist_is_refused(values: list[float], q: float) -> None:
    """No values, or a q outside 0 to 1, is a ValueError."""
    with pytest.raises(ValueError, match="no quantile"):
        quantile(values, q)


@given(figures)
def test_the_median_is_the_one_of_the_standard_library(values: list[float]) -> None:
    """For any values the median is what statistics.median says."""
    assert median(values) == pytest.approx(statistics.median(values))


@given(figures)
def test_a_spread_holds_its_median(values: list[float]) -> None:
    """The median of a spread never lies outside its ends."""
    spread = Spread.of(values)
    assert spread.low <= spread.median <= spread.high
    assert (spread.low, spread.high) == (min(values), max(values))
