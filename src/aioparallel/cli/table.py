"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["as_table"]


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them; those that are empty throughout are left out."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    lines = [[line[place] for place in kept] for line in (head, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(kept))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
