"""Figures as people read them."""

from __future__ import annotations

__all__ = ["count", "seconds", "size"]


def seconds(value: float | None) -> str:
    """A duration: ``15 us``, ``3.2 ms``, ``12.3 s``, ``4 min 5 s``, ``2 h 3 min``; a dash for none."""
    if value is None:
        return "-"
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    if value < 1:
        return f"{value * 1e3:.{1 if value < 0.1 else 0}f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: int | None) -> str:
    """Memory: ``52 MB``; a dash for none."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def count(value: int) -> str:
    """A number with its thousands told apart: ``12,345``."""
    return f"{value:,}"
