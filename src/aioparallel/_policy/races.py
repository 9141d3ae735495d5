"""Races: a call and its backup copies, of which the first to succeed wins.

A race begins with the first copy, and its members are the call itself and its copies, each with a worker of its own.

===================  ===============================================================================================
a member ...         and then
===================  ===============================================================================================
succeeds             the call has its value, at once; the other members are stopped, and their workers stay taken
                     until they are
fails, or is lost    nothing, as long as another member runs; after the last, the call fails with what the member that
                     began first failed with, and the others' errors are notes of it
was taken back       it is no member any more; if it was the call itself and nobody else runs, the call is queued again
===================  ===============================================================================================

To cancel the call stops all members, and it is cancelled when the last has stopped. Each member has a time of its own:
one that runs too long is stopped, and has failed.
"""

from __future__ import annotations

import contextlib
from typing import Any

from .._model.call import Call

__all__ = ["Race"]


class Race:
    """One call, its copies, and how they ended."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.running: dict[Call, None] = {call: None}
        """Members that a worker holds, those that are being stopped included, in the order of their placement."""
        self.copies: list[Call] = []
        self.errors: list[tuple[Call, BaseException]] = []
        self.winner: Call | None = None

    def add(self) -> Call:
        """A new copy, to be given to a worker."""
        copy = self.call.twin()
        self.call.copies += 1
        self.copies.append(copy)
        self.running[copy] = None
        return copy

    def leave(self, member: Call) -> None:
        """A worker does not hold this member any more."""
        del self.running[member]

    def failed(self, member: Call, error: BaseException) -> None:
        """Remember what a member failed with."""
        self.errors.append((member, error))

    @property
    def newest(self) -> Call:
        """The member that was placed last, of those that a worker holds."""
        return next(reversed(self.running))

    @property
    def sites(self) -> frozenset[Any]:
        """Where the members run, or did."""
        return frozenset(member.worker.site for member in (self.call, *self.copies))

    def withdraw(self, copy: Call) -> None:
        """A copy was taken back before it began: it does not count."""
        self.copies.remove(copy)
        self.call.copies -= 1

    def forget(self, copy: Call) -> None:
        """A copy has ended: let go of what it was sent with, for whoever keeps the future keeps the race."""
        copy.args = copy.kwargs = copy.payload = None  # type: ignore[assignment]
        del copy.future

    def error(self) -> BaseException:
        """What the call failed with, when all members have failed."""
        order = [self.call, *self.copies]
        errors = sorted(self.errors, key=lambda entry: order.index(entry[0]))
        (_, first), *others = errors
        for copy, error in others:
            with contextlib.suppress(Exception):
                first.add_note(f"its backup copy on {copy.worker.site} failed as well: {type(error).__name__}: {error}")
        return first
