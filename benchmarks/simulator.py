"""The real ledger and policies with thousands of hosts that are not there: ``python -m benchmarks.simulator``.

Time is virtual, and every decision is the real one: calls wait, are placed by weight, straggle, are copied, fail, are
begun again, and workers die. What it costs is CPU time, so that a busy machine matters little; the simulator's own work
is measured apart, by the same events without a ledger, and taken off.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import resource
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from aioparallel import Backups, Retry, WorkerLostError
from aioparallel._model.call import Call, Ending
from aioparallel._model.options import CallOptions
from aioparallel._policy.batching import Costs
from aioparallel._policy.ledger import Ledger
from aioparallel._policy.placement import WeightedRandom, placement_for
from aioparallel._policy.seats import Seat, Site
from aioparallel._policy.steps import Halt, Instruction, Pause, Place, Settle, Spawn

__all__ = ["Simulator", "measure"]

SLOTS = (10, 100, 1000, 10_000, 32_000)
SLOTS_PER_HOST = 64
QUEUE = 2000
"""So many calls wait at any time."""
STRAGGLERS, TIMES = 0.02, 20.0
FAILURES = 0.01
DEATHS = 0.0005


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
    """

    slots: int
    seed: int = 1
    now: float = 1e9
    events: int = 0
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
        self.events = 0

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
        self.events += 1
        if self.ledger.enqueue(call):
            self._do(self.ledger.place())
        return call

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
            self.events += 1
            value = None if ending is Ending.OK else OSError()
            self._do(ledger.ended(seat, [(number, ending, value, self.now - self.began[call])], self.now))
            self.began.pop(call, None)
            self._go_on(seat)
        elif what == "gone":
            seat, call, number = about
            if seat.held.get(number) is not call:
                return
            self.events += 1
            self._do(ledger.gone(seat, [number], lambda _: WorkerLostError("", signal="SIGKILL"), self.now))
            self.began.pop(call, None)
        elif what == "ready":
            self.events += 1
            ledger.ready(about)
        elif what == "resume":
            self.events += 1
            ledger.resume(about)
        else:
            self.events += 1
            self._do(ledger.back_up(self.now))
            self._later(0.5, "tick", None)
        if ledger.queued:
            self._do(ledger.place())

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
    cpu = time.process_time()
    simulator.run(calls)
    cpu = time.process_time() - cpu
    gc.unfreeze()
    counts = simulator.ledger.counts
    own = _own_work(simulator.events)
    rate = simulator.events / max(1e-9, cpu - own)
    extra = counts.backups / calls
    return Figures(slots, calls, simulator.events, rate, simulator.now - began, extra, counts.retried, counts.deaths)


def _own_work(events: int) -> float:
    """The CPU time that the simulator itself takes for so many events: the queue, chance, and the calls."""
    rng = random.Random(1)
    sample = 20_000
    due: list[tuple[float, int, str, Any]] = [(rng.random(), -n, "", None) for n in range(1000)]
    due.sort()
    cpu = time.process_time()
    for number in range(sample):
        heappush(due, (rng.lognormvariate(0.0, 0.3) * (TIMES if rng.random() < 0.02 else 1), number, "ended", None))
        heappop(due)
        Call(OWNER, work, (), {}, OPTIONS)
    return (time.process_time() - cpu) / sample * events / 2  # a call is two events


def memory_per_call(calls: int = 100_000) -> float:
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


def main() -> None:
    """Print a table of all sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000, help="for each size (default: %(default)s)")
    parser.add_argument("--slots", type=int, nargs="*", default=SLOTS, help="the sizes")
    options = parser.parse_args()
    for line in table(measure(slots, options.calls) for slots in options.slots):
        print(line, flush=True)
    print(f"\n{memory_per_call():.0f} bytes for each call that waits;", end=" ")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB in all")


if __name__ == "__main__":
    main()
