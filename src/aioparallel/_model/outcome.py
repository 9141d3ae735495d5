"""What becomes of the items of a map whose failures are told as well: a frozen record of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Outcome"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How one item of a map ended.

    Attributes:
        index: The item's place in the input, from 0.
        item: The item itself.
        value: What the function returned, ``None`` if it failed.
        error: What it raised, ``None`` if it succeeded.
        worker: Who ran it.
        duration: Seconds from its beginning to its end. Short items that travelled together share their time equally.
    """

    index: int
    item: Any
    value: T | None = None
    error: BaseException | None = None
    worker: str | None = None
    duration: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the item succeeded."""
        return self.error is None
