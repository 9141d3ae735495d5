"""Workers as the ledger sees them, and the sites that they are at."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any

from .._model.call import Call

__all__ = ["NOWHERE", "Seat", "Site", "Standing"]


class Standing(IntEnum):
    """How a worker stands."""

    STARTING = 0
    READY = 1
    RETIRING = 2
    GONE = 3


class Site:
    """Where workers are: this machine, or a host.

    Attributes:
        name: The host's; ``None`` for this machine.
        weight: How much more of the work it gets than others, for each of its workers.
        trip: Seconds that a call takes to get there, and its answer to come back.
        is_open: Whether workers that end there are replaced.
        start_failures: So many workers in a row died there before they were ready.
        seats: Those that are there, or are about to be.
        ready: How many of them take calls.
        idle: Those that can begin a call now; the one that became idle last comes last.
        rank: What a placement keeps for it.
    """

    __slots__ = ("idle", "is_open", "name", "rank", "ready", "seats", "start_failures", "trip", "weight")

    def __init__(self, name: str | None = None, weight: float = 1.0, *, is_open: bool = True) -> None:
        self.name = name
        self.weight = weight
        self.trip = 0.0
        self.is_open = is_open
        self.start_failures = 0
        self.seats: dict[Seat, None] = {}
        self.ready = 0
        self.idle: dict[Seat, None] = {}
        self.rank: Any = None

    def __str__(self) -> str:
        return self.name or "this machine"


NOWHERE = Site()


class Seat:
    """A worker as the ledger sees it.

    Attributes:
        index: Its place in the pool; a replacement gets the same one.
        width: How many calls it runs at a time.
        spare: How many more it may hold that have not begun; ``None``: as many as fill two frames
            of short calls.
        site: Where it is; by default at the one site of its ledger.
        held: The calls it holds by the number they were sent under, in that order.
        function: The function of the calls it was given last; or the one before it, if that was stopped.
        pinned: Calls that only this worker can run: the next step of a stream that lives there.
        pins: How many streams live there.
        running: How many calls it runs, as far as the ledger can tell.
        ended: How many calls it has ended.
        start_failures: So many before it, at this place, died before they were ready.
        worn: Whether it is to be replaced as soon as it holds nothing.
        surplus: Whether it ends because there is too little to do.
        idle_since: When it ended its last call (``time.time``).
        carrier: What the executor talks to; the ledger never looks at it.
    """

    __slots__ = (
        "carrier",
        "ended",
        "function",
        "held",
        "idle_since",
        "index",
        "last_seq",
        "pinned",
        "pins",
        "running",
        "site",
        "spare",
        "standing",
        "start_failures",
        "surplus",
        "width",
        "worn",
    )

    def __init__(
        self,
        index: int,
        width: int = 1,
        spare: int | None = 0,
        site: Site = NOWHERE,
        *,
        ended: int = 0,
        carrier: Any = None,
    ) -> None:
        self.index = index
        self.width = width
        self.spare = spare
        self.site = site
        self.standing = Standing.STARTING
        self.held: dict[int, Call] = {}
        self.function: Any = None
        self.pinned: deque[Call] = deque()
        self.pins = 0
        self.last_seq = 0
        self.running = 0
        self.ended = ended
        self.start_failures = 0
        self.worn = False
        self.surplus = False
        self.idle_since = 0.0
        self.carrier = carrier

    def __str__(self) -> str:
        return str(self.carrier) if self.carrier is not None else f"worker {self.index}"
