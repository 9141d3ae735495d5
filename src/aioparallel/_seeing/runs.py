"""A run, read from its trace, also from one that has no end because its program was killed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Run", "TracedCall", "read_run"]

GZIP = b"\x1f\x8b"
UNFINISHED = "unfinished"
_AS_GZIP = 31


class TracedCall(NamedTuple):
    """An attempt of a call. Times are seconds since the run began.

    Attributes:
        lane: Where it ran: numbers of the machine and of the lane there.
        args: What else is known of it: ``outcome``, ``attempt``, ``error``, ... The outcome of a call that never ended
            while the trace was written is ``unfinished``, and its duration how long it is known to have run.
    """

    lane: tuple[int, int]
    name: str
    begun_at: float
    duration: float
    args: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether it failed."""
        return self.args.get("outcome") == "failed"

    @property
    def is_last(self) -> bool:
        """Whether it decided how its call went on; others were tried again, or lost to a copy."""
        return not self.args.get("again") and self.args.get("outcome") not in {"lost the race", "lost"}

    @property
    def unfinished(self) -> bool:
        """Whether it ran when the trace ended."""
        return self.args.get("outcome") == UNFINISHED


@dataclass
class Run:
    """What a trace tells.

    Attributes:
        began: When the run began (``time.time``), if the trace says so.
        is_complete: Whether the trace has its end.
        machines: Names of machines by their numbers.
        lanes: Names of lanes by the numbers of machine and lane.
        calls: Attempts of calls.
        marks: What happened to workers and hosts: when, where, and what.
        counts: How many calls waited and ran at times.
    """

    began: float | None = None
    is_complete: bool = False
    machines: dict[int, str] = field(default_factory=dict)
    lanes: dict[tuple[int, int], str] = field(default_factory=dict)
    calls: list[TracedCall] = field(default_factory=list)
    marks: list[tuple[float, tuple[int, int], str]] = field(default_factory=list)
    counts: list[tuple[float, int, int, int]] = field(default_factory=list)
    _begun: dict[tuple[int, int], list[TracedCall]] = field(default_factory=dict)
    """Calls whose end is still to come, by their lanes; the one that began last comes last."""

    @property
    def seconds(self) -> float:
        """From its beginning to the last thing that happened."""
        ends = [call.begun_at + call.duration for call in self.calls]
        return max([0.0, *ends, *(at for at, _, _ in self.marks), *(at for at, *_ in self.counts)])

    def add(self, event: dict[str, Any]) -> None:
        """Take down one event; of kinds that are not ours, none."""
        phase, name, lane = event.get("ph"), str(event.get("name")), (event.get("pid", 0), event.get("tid", 0))
        args = event.get("args") or {}
        at = float(event.get("ts", 0)) * 1e-6
        if phase == "X":
            self.calls.append(TracedCall(lane, name, at, float(event.get("dur", 0)) * 1e-6, args))
        elif phase == "B":
            self._begun.setdefault(lane, []).append(TracedCall(lane, name, at, 0.0, args))
        elif phase == "E" and self._begun.get(lane):
            call = self._begun[lane].pop()
            self.calls.append(call._replace(duration=at - call.begun_at, args={**call.args, **args}))
        elif phase == "M" and name == "process_name":
            self.machines[lane[0]] = str(args.get("name"))
        elif phase == "M" and name == "thread_name":
            self.lanes[lane] = str(args.get("name"))
        elif phase == "M" and name == "aioparallel":
            self.began = args.get("began")
        elif phase == "C":
            self.counts.append((at, lane[0], int(args.get("queued", 0)), int(args.get("running", 0))))
        elif phase == "i" and event.get("s") == "g":
            self.is_complete = True
        elif phase == "i":
            self.marks.append((at, lane, name))

    def end(self) -> None:
        """There are no more events: what has begun, and has not ended, never did."""
        begun = [call for calls in self._begun.values() for call in calls]
        self._begun.clear()
        last = max([self.seconds, *(call.begun_at for call in begun)])
        self.calls += [
            call._replace(duration=last - call.begun_at, args={**call.args, "outcome": UNFINISHED}) for call in begun
        ]


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a trace.

    Args:
        path: The file, compressed or not.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no trace.
    """
    with open(path, "rb") as file:
        data = file.read()
    run = Run()
    for event in _events(_decompressed(data, path), path):
        run.add(event)
    run.end()
    return run


def _decompressed(data: bytes, path: Any) -> bytes:
    """As far as it goes: the end may be missing."""
    if not data.startswith(GZIP):
        return data
    try:
        return zlib.decompressobj(wbits=_AS_GZIP).decompress(data)
    except zlib.error as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _events(data: bytes, path: Any) -> Iterator[dict[str, Any]]:
    text = data.decode("utf-8", "replace")
    if not text.lstrip().startswith(("[", "{")):
        raise ValueError(f"{path} is no trace: expected what `pool.trace(path)` has written")
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            found = found.get("traceEvents", [])
    except ValueError:
        found = list(_lines(text))
    if not isinstance(found, list) or not all(isinstance(event, dict) for event in found) or not found:
        raise ValueError(f"{path} is no trace: expected what `pool.trace(path)` has written")
    yield from found


def _lines(text: str) -> Iterator[dict[str, Any]]:
    """One event in a line, up to the first that is cut off."""
    for line in text.lstrip().removeprefix("[").splitlines():
        stripped = line.strip().rstrip(",")
        if stripped:
            try:
                yield json.loads(stripped)
            except ValueError:
                return
