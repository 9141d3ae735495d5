"""Workers as the ledger sees them, and the sites that they are at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
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

    name: str | None = None
    weight: float = 1.0
    trip: float = 0.0
    is_open: bool = True
    start_failures: int = 0
    seats: dict[Seat, None] = field(default_factory=dict, repr=False)
    ready: int = 0
    idle: dict[Seat, None] = field(default_factory=dict, repr=False)
    rank: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.name or "this machine"


NOWHERE = Site()


@dataclass(slots=True, eq=False)
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

    index: int
    width: int = 1
    spare: int | None = 0
    site: Site = NOWHERE
    standing: Standing = Standing.STARTING
    held: dict[int, Call] = field(default_factory=dict)
    function: Any = None
    pinned: deque[Call] = field(default_factory=deque)
    pins: int = 0
    last_seq: int = 0
    running: int = 0
    ended: int = 0
    start_failures: int = 0
    worn: bool = False
    surplus: bool = False
    idle_since: float = 0.0
    carrier: Any = None

    def __str__(self) -> str:
        return str(self.carrier) if self.carrier is not None else f"worker {self.index}"
