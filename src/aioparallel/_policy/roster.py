"""Who can take calls: the workers of a pool, how they stand, and which of them has room.

The life of a worker (``Standing``)::

    STARTING --ready--> READY --retire--> RETIRING --gone--> GONE
        \\                 \\                  \\
         `--gone (start failure) `--gone (death)  `--gone

A worker that is ready is, as far as new calls go, one of these:

* idle: it can begin a call now;
* ahead: it is in a call, what it holds is short, and it may be sent more that is short;
* pinned: calls wait that only it can run, and it has room for one;
* resting, where failures are shared out fairly: the others go first;
* or it has no room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .._model.call import Call
from .batching import MAX_CALLS
from .placement import LastIdle, Placement
from .seats import NOWHERE, Seat, Site, Standing

__all__ = ["MAX_HELD", "Roster"]

MAX_HELD = 1024
"""A worker holds at most so many calls; each needs a flag of its own on the worker's page."""
TRIPS_AHEAD = 1.5
"""A worker elsewhere is sent so much more ahead as it can do while an answer and the next call travel."""


class Roster:
    """The workers.

    Args:
        max_tasks: A worker is worn after so many calls.
        vacant: Seats for which workers are started when calls wait for one.
        fair: A worker whose call failed rests until each of the others has ended one as well.
        placement: Chooses among idle workers.
    """

    def __init__(
        self, *, max_tasks: int | None, vacant: Iterable[Seat], fair: bool, placement: Placement | None
    ) -> None:
        self._here = Site()
        self.seats: dict[Seat, None] = {}
        self.idle: Placement = placement if placement is not None else LastIdle()
        self.ahead: dict[Seat, None] = {}
        self.pinned: dict[Seat, None] = {}
        self.resting: dict[Seat, int] = {}
        """Workers that rest after a failure, and how many calls of others must end before they go on."""
        self.vacant = list(vacant)
        self.ready = 0
        self.starting = 0
        self.running = 0
        """How many calls run, as far as can be told."""
        self.width = sum(seat.width for seat in self.vacant)
        """How many calls may run at a time when all workers are there."""
        self.fair = fair
        self.max_tasks = math.inf if max_tasks is None else max_tasks

    # Coming and going

    def add(self, seat: Seat) -> None:
        """A worker is about to start."""
        if seat.site is NOWHERE:
            seat.site = self._here
        self.seats[seat] = None
        seat.site.seats[seat] = None
        self.starting += 1
        self.width += seat.width

    def has_started(self, seat: Seat) -> None:
        """A worker takes calls."""
        seat.standing = Standing.READY
        self.starting -= 1
        self.ready += 1
        seat.site.ready += 1
        self.offer(seat)

    def leave(self, seat: Seat, standing: Standing) -> None:
        """A worker takes no more calls."""
        if seat.standing is Standing.READY:
            self.ready -= 1
            seat.site.ready -= 1
        self.starting -= seat.standing is Standing.STARTING
        seat.standing = standing
        self.offer(seat)

    def remove(self, seat: Seat) -> None:
        """A worker is gone."""
        del self.seats[seat]
        del seat.site.seats[seat]
        self.width -= seat.width
        self.running -= seat.running
        seat.running = 0
        self.resting.pop(seat, None)

    def successor(self, seat: Seat) -> Seat:
        """A seat for the worker that replaces one that is gone."""
        return Seat(seat.index, seat.width, seat.spare, seat.site)

    def resize(self, seat: Seat, width: int) -> None:
        """A worker runs so many calls at a time from now on."""
        self.width += width - seat.width
        seat.width = width
        self.offer(seat)

    # Room

    def offer(self, seat: Seat) -> None:
        """What a worker holds, or how it stands, has changed: note what it could be given now."""
        held, width = len(seat.held), seat.width
        running = min(width, held)
        self.running += running - seat.running
        seat.running = running
        has_room = held < width + (seat.spare or 0)
        if seat.pinned and has_room:
            self.pinned[seat] = None
        can_take = seat.standing is Standing.READY and not seat.worn and seat.ended + held < self.max_tasks
        if self.resting:
            can_take = can_take and seat not in self.resting
        if can_take and has_room:
            self.idle.offer(seat)
        else:
            self.idle.withdraw(seat)
            if can_take and seat.spare is None and width == 1 and not seat.pinned and _takes_ahead(seat, held):
                self.ahead[seat] = None
                return
        if seat in self.ahead:
            del self.ahead[seat]

    def room(self, seat: Seat, function: Any, waiting: int) -> int:
        """How many of the calls that wait a worker is given now: all that fit, or a fair share of short ones."""
        if seat.spare is not None:
            return seat.width + seat.spare - len(seat.held)
        full: int = 1 if function is None else function.costs.calls_per_frame
        if full == 1:
            return 1
        fair = -(-waiting // (2 * self.ready))
        life = int(min(full, self.max_tasks - seat.ended - len(seat.held)))
        return max(1, min(full, fair, life))

    def has_free_hand(self) -> bool:
        """Whether some worker has nothing to do, or might be started."""
        return bool(self.idle or self.vacant)

    # Fair shares

    def share_out(self, seat: Seat, *, failed: bool) -> None:
        """A call of this worker has ended, or the worker has: who rests for that goes on."""
        resting = self.resting
        for other in resting:
            resting[other] -= 1
        if failed and seat.standing is Standing.READY:
            resting[seat] = len(self.seats) - 1
        if not resting:
            return
        others = self.running - seat.running  # what the worker itself holds may not have been offered yet
        busy = (seat.held and seat not in resting) or others > sum(each.running for each in resting if each is not seat)
        for other in [other for other, calls in resting.items() if calls <= 0 or not busy]:
            del resting[other]
            self.offer(other)

    # Checks

    def check(self) -> None:
        """Raise :exc:`AssertionError` if what is noted is not so."""
        ready = [seat for seat in self.seats if seat.standing is Standing.READY]
        assert self.ready == len(ready), "ready workers are miscounted"
        starting = [seat for seat in self.seats if seat.standing is Standing.STARTING]
        assert self.starting == len(starting), "starting workers are miscounted"
        assert self.width == sum(seat.width for seat in (*self.seats, *self.vacant)), "width is miscounted"
        assert self.running == sum(min(seat.width, len(seat.held)) for seat in self.seats), "running is miscounted"
        busy = [seat for seat in self.seats if seat.held and seat not in self.resting]
        assert busy or not self.resting, "all workers rest"
        assert self.resting.keys() <= self.seats.keys(), "a worker rests in peace"
        for site in {seat.site for seat in self.seats}:
            assert site.ready == sum(seat.standing is Standing.READY for seat in site.seats), "a site is miscounted"
            assert bool(site.idle) == (site in self.idle.sites), "an idle site is forgotten"
        for seat in self.seats:
            self._check_seat(seat)

    def _check_seat(self, seat: Seat) -> None:
        assert list(seat.held) == sorted(seat.held), "a worker holds calls out of order"
        assert seat.standing is Standing.READY or not seat.held, "a worker that is not ready holds calls"
        window = MAX_HELD + MAX_CALLS if seat.spare is None else seat.spare
        assert len(seat.held) <= seat.width + window, "a worker holds more than its window"
        if seat.standing is Standing.READY and not seat.held:
            assert seat.worn or seat in self.idle or seat in self.resting, "an idle worker is forgotten"
            assert not seat.pinned or seat in self.pinned, "a stream is forgotten"

    def streaming(self) -> dict[Seat, None]:
        """Every worker that may have pinned calls: also one that is gone, as long as somebody asks for it."""
        return {**self.seats, **self.pinned}

    def pinned_calls(self) -> list[Call]:
        """Every call that waits for one particular worker."""
        return [call for seat in self.streaming() for call in seat.pinned]


def _takes_ahead(seat: Seat, held: int) -> bool:
    """Whether a busy worker may hold more: only if what it holds, and what comes, is short."""
    function = seat.function
    if function is None:
        return False
    costs = function.costs
    most: int = 4 * costs.calls_per_frame - 3
    if seat.site.trip and costs.seconds is not None:
        most += math.ceil(TRIPS_AHEAD * seat.site.trip / max(costs.seconds, 1e-7))
    return held < most and held < MAX_HELD
