"""A tally: what has happened in one pool since somebody began to watch, in constant memory."""

from __future__ import annotations

from collections import Counter, deque

from .._model.events import CallEnded, CallRetried, Event, HostLost, HostUp, WorkerEnded
from .._policy.latency import Latencies

__all__ = ["Record", "Tally"]

LAST = 5
"""So many deaths and lost hosts are remembered."""
KINDS = 100
"""So many kinds of failures are told apart."""
SHOWN = 200


class Record:
    """What one worker has done, or all of them together, their predecessors in the same place included."""

    __slots__ = ("busy", "cancelled", "deaths", "done", "failed", "items", "latencies", "retried")

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = self.retried = self.deaths = self.items = 0
        self.busy = 0.0
        """Seconds it spent in calls that have ended, and in attempts that failed."""
        self.latencies = Latencies()

    def add(self, event: CallEnded) -> None:
        """A call has ended."""
        if event.outcome == "done":
            self.done += 1
            self.items += event.items
        elif event.outcome == "failed":
            self.failed += 1
        else:
            self.cancelled += 1
        if event.begun_at is not None:
            seconds = event.at - event.begun_at if event.duration is None else event.duration
            self.busy += seconds
            self.latencies.add(seconds)


class Tally:
    """An observer that adds up."""

    def __init__(self) -> None:
        self.total = Record()
        self.by_worker: dict[str, Record] = {}
        self.news: deque[tuple[float, str]] = deque(maxlen=LAST)
        """The last deaths and losses: when, and what."""
        self.failures: Counter[str] = Counter()
        """How often calls failed with what."""
        self.slots: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Something has happened."""
        if isinstance(event, CallEnded):
            self._ended(event)
        elif isinstance(event, CallRetried):
            self._retried(event)
        elif isinstance(event, WorkerEnded):
            self._died(event)
        elif isinstance(event, HostLost):
            how = "cannot be used" if event.permanent else "is lost"
            why = first_line(event.error).removeprefix(f"{event.host}: ")
            self._tell(event.at, f"{event.host} {how}: {why}")
        elif isinstance(event, HostUp):
            self.slots[event.host] = event.slots

    def _ended(self, event: CallEnded) -> None:
        self.total.add(event)
        if event.worker is not None:
            self._of(event.worker).add(event)
        if event.error is not None:
            what = f"{event.name}: {type(event.error).__name__}: {first_line(event.error)}"
            self.failures[what if what in self.failures or len(self.failures) < KINDS else "others"] += 1

    def _retried(self, event: CallRetried) -> None:
        for record in (self.total, self._of(event.worker)):
            record.retried += 1
            if event.begun_at is not None:
                record.busy += max(0.0, event.at - event.begun_at)

    def _died(self, event: WorkerEnded) -> None:
        if not event.asked:
            self.total.deaths += 1
            self._of(event.worker).deaths += 1
            process = "" if event.pid is None else f" (pid {event.pid})"
            self._tell(event.at, f"{event.worker}{process} died: {event.reason}")

    def _tell(self, at: float, text: str) -> None:
        """Once, when it was last: what is tried again and again must not push out everything else."""
        for old in [told for told in self.news if told[1] == text]:
            self.news.remove(old)
        self.news.append((at, text))

    def _of(self, worker: str) -> Record:
        record = self.by_worker.get(worker)
        if record is None:
            record = self.by_worker[worker] = Record()
        return record


def first_line(error: BaseException) -> str:
    """What an error says, as far as there is room for it."""
    try:
        text = str(error).partition("\n")[0]
    except Exception as trouble:  # of the user's own class
        text = f"<its text cannot be made: {type(trouble).__name__}>"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
