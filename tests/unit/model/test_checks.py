"""Checks of what users give."""

from __future__ import annotations

from typing import Any

import pytest

from aioparallel._model.checks import checked_count, checked_items


def test_counts() -> None:
    """A whole number that is large enough is a count."""
    assert checked_count("workers", 3) == 3
    assert checked_count("total", 0, least=0) == 0


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "2", None])
def test_what_is_no_count(value: Any) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(ValueError, match=f"workers={value!r}: expected a whole number of at least 1"):
        checked_count("workers", value)


def test_items() -> None:
    """What can be iterated over is taken as it is, and nothing is taken from it."""
    items = iter([1, 2])
    assert checked_items(items) is items
    assert list(items) == [1, 2]
    with pytest.raises(TypeError, match="expected items to map over, sync or async, got 3"):
        checked_items(3)
