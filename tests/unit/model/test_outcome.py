"""What becomes of an item: a frozen record."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from aioparallel import Outcome


def test_outcomes() -> None:
    """An outcome is good when there is no error, whatever its value."""
    assert Outcome(0, "a", value=None).ok
    assert not Outcome(1, "b", error=ValueError()).ok


def test_outcomes_are_frozen() -> None:
    """An outcome cannot be changed, and travels."""
    outcome = Outcome(0, "item", value=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.value = 6  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(outcome)) == outcome
