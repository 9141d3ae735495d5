"""Durations remembered in a histogram."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._policy.latency import GROWTH, MANY, SMALLEST, Latencies

durations = st.lists(st.floats(SMALLEST, 1e6), min_size=1, max_size=200)
shares = st.floats(0, 1)
WITHIN = GROWTH**0.5 * 1.0001
"""The middle of a bucket is at most so far from its edges."""


def remembered(seconds: list[float]) -> Latencies:
    latencies = Latencies()
    latencies.extend(seconds)
    return latencies


@given(durations, shares)
def test_quantiles_are_right_to_one_percent(seconds: list[float], share: float) -> None:
    """A quantile is within about 1 % of the duration that this share of all do not exceed."""
    exact = sorted(seconds)[max(1, math.ceil(share * len(seconds))) - 1]
    found = remembered(seconds).quantile(share)
    assert found is not None
    assert exact / WITHIN <= found <= exact * WITHIN
    assert WITHIN < 1.011


@given(durations, durations, shares)
def test_histograms_can_be_added(some: list[float], others: list[float], share: float) -> None:
    """Two histograms added say what one of all the durations would."""
    both = remembered(some)
    both.merge(remembered(others))
    assert both.count == len(some) + len(others)
    assert both.quantile(share) == remembered(some + others).quantile(share)


@given(durations)
def test_buckets_come_in_order_and_hold_everything(seconds: list[float]) -> None:
    """The buckets are told from the shortest to the longest, and count every duration once."""
    buckets = list(remembered(seconds).buckets())
    assert buckets == sorted(buckets)
    assert sum(count for _, count in buckets) == len(seconds)


def test_without_data() -> None:
    """There is no quantile before there is a duration."""
    assert Latencies().quantile(0.5) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-9, SMALLEST])
def test_tiny_durations_share_a_bucket(seconds: float) -> None:
    """What is too short to be told apart is remembered all the same."""
    latencies = remembered([seconds])
    assert latencies.quantile(1) == pytest.approx(SMALLEST, rel=0.02)


def test_memory_does_not_grow() -> None:
    """A million durations take no more memory than the buckets that they fall into."""
    latencies = Latencies()
    for _ in range(100):
        latencies.extend([0.001, 0.002] * 5000)
    assert latencies.count == 1_000_000
    assert len(latencies._fresh) <= MANY
    assert len(list(latencies.buckets())) == 2
