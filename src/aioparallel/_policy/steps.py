"""What a ledger answers with: instructions, which whoever asked carries out."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .._child.pauses import growing_pause
from .._model.call import Call, Ending
from .._model.errors import WorkerStartError

if TYPE_CHECKING:
    from .seats import Seat, Site

__all__ = ["Halt", "Instruction", "Pause", "Place", "Retire", "Settle", "Spawn", "Suspend", "Verdict", "WorkerEnd"]


FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0


class Verdict(IntEnum):
    """How a settled call ended."""

    OK = 0
    FAILED = 1
    CANCELLED = 2


class Place(NamedTuple):
    """Send these calls to this worker, in this order, each under its ``call.seq``."""

    seat: Seat
    calls: list[Call]


class Settle(NamedTuple):
    """Settle these calls' futures: (call, how it ended, its value or error)."""

    ends: list[tuple[Call, Verdict, Any]]


class Halt(NamedTuple):
    """Stop this call: take it back if it has not begun, kill it if it has."""

    seat: Seat
    call: Call


class Spawn(NamedTuple):
    """Start a worker for this seat."""

    seat: Seat
    failures: int = 0

    @property
    def pause(self) -> float:
        """Seconds until then: after failures less and less often."""
        return growing_pause(FIRST_PAUSE, self.failures, LONGEST_PAUSE) if self.failures else 0.0


class Retire(NamedTuple):
    """Let this worker end: it holds nothing."""

    seat: Seat


class Pause(NamedTuple):
    """Resume this call in the ledger after so many seconds; this is what it failed with, and when that had begun."""

    call: Call
    seconds: float
    error: BaseException
    begun_at: float | None = None


class Suspend(NamedTuple):
    """No worker can be started at this site, for this reason: use it no more for a while."""

    site: Site
    error: WorkerStartError


Instruction = Place | Settle | Halt | Spawn | Retire | Pause | Suspend
WorkerEnd = tuple[int, Ending, Any, float]
"""(number the call was sent under, how it ended, value or error, seconds it took)."""
