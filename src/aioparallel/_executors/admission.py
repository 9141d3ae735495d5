"""Limits on an executor: which of its calls hold a place behind a limit, or wait for one."""

from __future__ import annotations

from collections.abc import Callable

from .._futures.limits import Ticket
from .._model.call import Call

__all__ = ["Admissions"]


class Admissions:
    """The tickets of a run's calls: a call takes one before it is queued, and another for each further attempt."""

    def __init__(self) -> None:
        self._tickets: dict[Call, Ticket] = {}

    def ask(self, call: Call, go: Callable[[], None]) -> None:
        """Have ``go`` called as soon as the call's limit admits it; at once, if it does so now.

        Raises:
            Exception: What the limit's key raises, when it is asked for the first attempt.
        """
        last = self._tickets.get(call)
        ticket = call.options.limit.request(call.args, call.kwargs, go) if last is None else last.again(go)
        self._tickets[call] = ticket
        if ticket.admitted:
            go()

    def pause(self, call: Call, error: BaseException) -> None:
        """An attempt of the call has failed; it will ask again."""
        if call in self._tickets:
            self._tickets[call].end(error)

    def end(self, call: Call, error: BaseException | None = None) -> None:
        """The call has ended."""
        ticket = self._tickets.pop(call, None)
        if ticket is not None:
            ticket.end(error)

    def end_all(self) -> None:
        """The run is over."""
        for call in list(self._tickets):
            self.end(call)
