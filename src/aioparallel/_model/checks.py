"""Checks of what users give, with errors that say what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["checked_count", "checked_items"]


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """The value, if it is a whole number and large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {least}")
    return value


def checked_items(items: Any) -> Iterable[Any]:
    """The input of a map, if it can be iterated over; does not begin to."""
    kind = type(items)
    if not any(hasattr(kind, name) for name in ("__aiter__", "__iter__", "__getitem__")):
        raise TypeError(f"expected items to map over, sync or async, got {items!r}")
    return items  # type: ignore[no-any-return]
