"""Figures as people read them."""

from __future__ import annotations

import pytest

from aioparallel._seeing.words import count, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 us"),
        (15e-6, "15 us"),
        (0.0032, "3.2 ms"),
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (59.96, "1 min 0 s"),
        (245, "4 min 5 s"),
        (7380, "2 h 3 min"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    """A duration has the unit that suits it."""
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (10, "10 B"), (52_400_000, "52 MB"), (3_210_000_000, "3.2 GB")]
)
def test_size(value: int | None, text: str) -> None:
    """Memory has the unit that suits it."""
    assert size(value) == text


def test_count() -> None:
    """Thousands are told apart."""
    assert count(1234567) == "1,234,567"
