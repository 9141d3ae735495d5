"""The real ledger and policies with thousands of hosts that are not there: ``python -m benchmarks.simulator``.

Time is virtual, and every decision is the real one: calls wait, are placed by weight, straggle, are copied, fail, are
begun again, and workers die. What counts is the time inside the ledger.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import resource
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from aioparallel import Backups, Retry, WorkerLostError
from aioparallel._model.call import Call, Ending
from aioparallel._model.options import CallOptions
from aioparallel._policy.batching import Costs
from aioparallel._policy.ledger import Ledger
from aioparallel._policy.placement import WeightedRandom, placement_for
from aioparallel._policy.seats import Seat, Site
from aioparallel._policy.steps import Halt, Instruction, Pause, Place, Settle, Spawn
from benchmarks import machine

__all__ = ["Simulator", "measure", "measure_short"]

T = TypeVar("T")

SLOTS = (10, 100, 1000, 10_000, 32_000)
SLOTS_PER_HOST = 64
QUEUE = 2000
"""So many calls wait at any time."""
STRAGGLERS, TIMES = 0.02, 20.0
FAILURES = 0.01
DEATHS = 0.0005
SHORT = 5e-6
"""Seconds."""
SHORT_CALLS = 200_000
"""All of them are there before the first is queued."""
WAITING = (1000, 10_000, 100_000, 1_000_000)
"""Calls, for what each of them takes in memory."""


class Function:
    """What an executor knows of a function."""

    name = "f"

    def __init__(self) -> None:
        self.costs = Costs()


class Owner:
    """As much of an executor as a call needs."""

    kind = "simulator"
    grace = 1.0

    def _began(self, call: Call) -> float | None:
        return None


def work() -> None:
    """Nobody runs it."""


OWNER: Any = Owner()
OPTIONS = CallOptions(idempotent=True, retry=Retry(3, backoff=0.1))


@dataclass
class Simulator:
    """A pool with so many slots, and a virtual clock.

    Attributes:
        now: The clock, in seconds.
        events: What the ledger was told so far.
        took: Seconds that it thought about that.
    """

    slots: int
    seed: int = 1
    now: float = 1e9
    events: int = 0
    took: float = 0.0
    settled: int = 0
    began: dict[Call, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.function = Function()
        self.ledger = Ledger(
            placement=placement_for(WeightedRandom(self.seed)), backups=Backups(), since=self.began.get
        )
        self._due: list[tuple[float, int, str, Any]] = []
        self._number = 0
        hosts = max(2, math.ceil(self.slots / SLOTS_PER_HOST))
        sites = [Site(f"node{index}", weight=1 + index % 3) for index in range(hosts)]
        for index in range(self.slots):
            self._do(self.ledger.add(Seat(index, spare=None, site=sites[index % hosts])))
        while self._due:
            self._next()
        self._later(0.5, "tick", None)
        self.events, self.took = 0, 0.0

    def run(self, calls: int) -> None:
        """Have so many calls made."""
        left = calls
        while self.settled < calls:
            while left and self.ledger.queued < QUEUE:
                self.submit()
                left -= 1
            self._next()

    def submit(self) -> Call:
        """One more call."""
        call = Call(OWNER, work, (), {}, OPTIONS)
        call.function = self.function
        call.future = OWNER  # nobody awaits it
        if self._tell(self.ledger.enqueue, call):
            self._place()
        return call

    def _tell(self, what: Callable[..., T], *about: Any) -> T:
        """Tell the ledger one thing."""
        self.events += 1
        return self._timed(what, *about)

    def _place(self) -> None:
        """Let the ledger place what waits: a part of the event before."""
        self._do(self._timed(self.ledger.place))

    def _timed(self, what: Callable[..., T], *about: Any) -> T:
        begun = perf_counter()
        answer = what(*about)
        self.took += perf_counter() - begun
        return answer

    # What happens

    def _later(self, seconds: float, what: str, about: Any) -> None:
        self._number += 1
        heappush(self._due, (self.now + seconds, self._number, what, about))

    def _next(self) -> None:
        self.now, _, what, about = heappop(self._due)
        ledger = self.ledger
        if what == "ended":
            call, seat, number, ending = about
            if seat.held.get(number) is not call:
                return  # it was killed meanwhile
            value = None if ending is Ending.OK else OSError()
            ends = [(number, ending, value, self.now - self.began[call])]
            self._do(self._tell(ledger.ended, seat, ends, self.now))
            self.began.pop(call, None)
            self._go_on(seat)
        elif what == "gone":
            seat, call, number = about
            if seat.held.get(number) is not call:
                return
            self._do(self._tell(ledger.gone, seat, [number], lambda _: WorkerLostError("", signal="SIGKILL"), self.now))
            self.began.pop(call, None)
        elif what == "ready":
            self._do(self._tell(ledger.ready, about))
        elif what == "resume":
            self._tell(ledger.resume, about)
        else:
            self._do(self._tell(ledger.back_up, self.now))
            self._later(0.5, "tick", None)
        if ledger.queued:
            self._place()

    def _do(self, steps: list[Instruction]) -> None:
        for step in steps:
            if type(step) is Place:
                if len(step.seat.held) == len(step.calls):
                    self._go_on(step.seat)
            elif type(step) is Settle:
                self.settled += len(step.ends)
            elif type(step) is Halt:
                self._later(0.001, "gone", (step.seat, step.call, step.call.seq))
            elif type(step) is Spawn:
                self._later(0.2, "ready", step.seat)
            elif type(step) is Pause:
                self._later(step.seconds, "resume", step.call)

    def _go_on(self, seat: Seat) -> None:
        """A worker begins the next call that it holds."""
        call = next(iter(seat.held.values()), None)
        if call is None:
            return
        self.began[call] = self.now
        rng = self.rng
        seconds = rng.lognormvariate(0.0, 0.3) * (TIMES if rng.random() < STRAGGLERS else 1.0)
        if rng.random() < DEATHS:
            self._later(seconds / 2, "gone", (seat, call, call.seq))
            return
        ending = Ending.RAISED if rng.random() < FAILURES else Ending.OK
        self._later(seconds, "ended", (call, seat, call.seq, ending))


@dataclass(frozen=True)
class Figures:
    """What a simulation gave."""

    slots: int
    calls: int
    events: int
    rate: float
    virtual: float
    extra: float
    retried: int
    deaths: int


def measure(slots: int, calls: int) -> Figures:
    """Simulate so many calls on so many slots."""
    simulator = Simulator(slots)
    began = simulator.now
    gc.collect()
    gc.freeze()
    simulator.run(calls)
    gc.unfreeze()
    counts = simulator.ledger.counts
    rate = simulator.events / simulator.took
    virtual = simulator.now - began
    extra = counts.backups / calls
    return Figures(slots, calls, simulator.events, rate, virtual, extra, counts.retried, counts.deaths)


def measure_short(slots: int, calls: int, times: int = 5) -> float:
    """The same for calls of microseconds on one machine, which come and go by the hundred: events per second."""
    ledger, function = Ledger(), Function()
    function.costs.add(SHORT, SHORT)
    for index in range(slots):
        seat = Seat(index, spare=None)
        ledger.add(seat)
        ledger.ready(seat)
    return 2 * calls / min(_seconds_for_short(ledger, function, calls) for _ in range(times))


def _seconds_for_short(ledger: Ledger, function: Function, calls: int) -> float:
    waiting = [Call(OWNER, work, (), {}, CallOptions()) for _ in range(calls)]
    for call in waiting:
        call.function = function
    begun = perf_counter()
    steps = deque(step for call in waiting if ledger.enqueue(call) for step in ledger.place())
    while steps:
        step = steps.popleft()
        if type(step) is Place:
            ledger.ended(step.seat, [(call.seq, Ending.OK, None, SHORT) for call in step.calls], 1e9)
            steps += ledger.place()
    return perf_counter() - begun


def memory_per_call(calls: int) -> float:
    """Bytes for each call that waits in the ledger, the record of the call included."""
    simulator = Simulator(10)
    for _ in range(20):
        simulator.submit()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(calls):
        simulator.submit()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / calls


def table(figures: Iterator[Figures]) -> Iterator[str]:
    """The figures as a table in Markdown, line by line."""
    yield "| slots | calls | virtual time, s | copies | begun again | deaths | events | events/s |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for each in figures:
        yield (
            f"| {each.slots:,} | {each.calls:,} | {each.virtual:,.0f} | {each.extra:.1%} | {each.retried:,} "
            f"| {each.deaths:,} | {each.events:,} | {each.rate:,.0f} |"
        ).replace(",", " ")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of all sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000, help="for each size (default: %(default)s)")
    parser.add_argument("--slots", type=int, nargs="*", default=SLOTS, help="the sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, after each size")
    options = parser.parse_args(argv)
    about = machine.describe()
    sizes: list[Figures] = []

    def save(**others: object) -> None:
        if options.json:
            figures = {"machine": about, "sizes": [asdict(each) for each in sizes], **others}
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    def measured() -> Iterator[Figures]:
        for slots in options.slots:
            sizes.append(measure(slots, options.calls))
            save()
            yield sizes[-1]

    for line in table(measured()):
        print(line, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nat most {peak:.0f} MB so far", flush=True)
    short = measure_short(2, min(options.calls, SHORT_CALLS))
    memory = [{"waiting": calls, "bytes": memory_per_call(calls)} for calls in WAITING]
    save(short_rate=short, memory=memory, peak_mb=peak)
    print(f"{short:,.0f} events/s from short calls on 2 local workers".replace(",", " "))
    for each in memory:
        print(f"{each['bytes']:.0f} bytes for each of {each['waiting']:,} calls that wait".replace(",", " "))


if __name__ == "__main__":
    main()
