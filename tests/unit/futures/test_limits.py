"""Limits, with a clock that the test turns."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from aioparallel._futures import limits
from aioparallel._futures.limits import MAX_IDLE, Limit

pytestmark = pytest.mark.timeout(20)


class ManualClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self.timers.append((self.now + delay, callback))

    async def advance(self, seconds: float) -> None:
        """Let time pass, then let everybody do what there is to do."""
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback in due:
            callback()
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Guests:
    """Tasks that pass a limit and stay behind it until they are sent away."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.inside: list[Any] = []
        self.tasks: dict[Any, asyncio.Task[None]] = {}
        self.leave: dict[Any, asyncio.Future[None]] = {}

    async def come(self, *names: Any) -> None:
        for name in names:
            self.leave[name] = asyncio.get_running_loop().create_future()
            self.tasks[name] = asyncio.create_task(self._stay(name))
        await settle()

    async def go(self, *names: Any, error: Exception | None = None) -> None:
        for name in names:
            if error is None:
                self.leave[name].set_result(None)
            else:
                self.leave[name].set_exception(error)
        await settle()

    async def _stay(self, name: Any) -> None:
        try:
            async with self.limit.admit(name):
                self.inside.append(name)
                try:
                    await self.leave[name]
                finally:
                    self.inside.remove(name)
        except TryLaterError:
            pass

    async def all_go(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


class TryLaterError(Exception):
    def __init__(self, retry_after: Any) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def guests(clock: ManualClock) -> Any:
    made: list[Guests] = []

    def make(*args: Any, **options: Any) -> Guests:
        made.append(Guests(Limit(*args, clock=clock, **options)))
        return made[-1]

    yield make
    for each in made:
        await each.all_go()


async def test_concurrency(guests: Any) -> None:
    """No more than ``concurrency`` are inside; who comes next goes in, in the order of coming, when somebody leaves."""
    hall = guests(2)
    await hall.come("a", "b", "c", "d")
    assert hall.inside == ["a", "b"]
    await hall.go("a")
    assert hall.inside == ["b", "c"]
    await hall.go("b", "c")
    assert hall.inside == ["d"]


async def test_rate_spaces_starts_evenly(guests: Any, clock: ManualClock) -> None:
    """``rate`` starts per ``per`` seconds are spaced evenly: one every ``per / rate`` seconds."""
    hall = guests(rate=4, per=2.0)
    await hall.come(*range(4))
    assert hall.inside == [0]
    await clock.advance(0.4)
    assert hall.inside == [0]
    await clock.advance(0.1)
    assert hall.inside == [0, 1]
    await clock.advance(0.5)
    assert hall.inside == [0, 1, 2]


async def test_burst_after_a_quiet_time(guests: Any, clock: ManualClock) -> None:
    """``burst`` may start at once after a quiet time, and then no more than the rate allows."""
    hall = guests(rate=1, burst=3)
    await hall.come(*range(6))
    assert hall.inside == [0, 1, 2]
    await clock.advance(1)
    assert hall.inside == [0, 1, 2, 3]
    await clock.advance(100)
    assert hall.inside == [0, 1, 2, 3, 4, 5]
    await hall.come(6, 7)
    assert len(hall.inside) == 7, "two of the burst's three were used just now"


async def test_a_long_quiet_time_saves_no_more_than_the_burst(guests: Any, clock: ManualClock) -> None:
    """However long nobody came, no more than ``burst`` start at once."""
    hall = guests(rate=10, burst=2)
    await clock.advance(1000)
    await hall.come(*range(5))
    assert hall.inside == [0, 1]


async def test_keys_are_counted_for_themselves(guests: Any) -> None:
    """With a key, one key that is full keeps nobody of another key waiting."""
    hall = guests(1, key=lambda name: name[0])
    await hall.come("a1", "a2", "b1", "b2", "c1")
    assert hall.inside == ["a1", "b1", "c1"]
    await hall.go("b1")
    assert hall.inside == ["a1", "c1", "b2"]


async def test_retry_after_pauses_its_key_only(guests: Any, clock: ManualClock) -> None:
    """An exception with ``retry_after`` closes its own key for so many seconds."""
    hall = guests(1, key=lambda name: name[0])
    await hall.come("a1", "a2", "b1", "b2")
    await hall.go("a1", error=TryLaterError(30))
    await hall.go("b1")
    assert hall.inside == ["b2"]
    await clock.advance(29)
    assert hall.inside == ["b2"]
    await clock.advance(1)
    assert hall.inside == ["b2", "a2"]


@pytest.mark.parametrize("retry_after", ["soon", None, []])
async def test_retry_after_that_is_no_number(guests: Any, retry_after: Any) -> None:
    """A ``retry_after`` that is no number of seconds is none."""
    hall = guests(1)
    await hall.come("a", "b")
    await hall.go("a", error=TryLaterError(retry_after))
    assert hall.inside == ["b"]


async def test_concurrency_and_rate_together(guests: Any, clock: ManualClock) -> None:
    """Both must hold: a free place is of no use before the time, and the time not without a place."""
    hall = guests(1, rate=1)
    await hall.come("a", "b", "c")
    await hall.go("a")
    assert hall.inside == []
    await clock.advance(1)
    assert hall.inside == ["b"]
    await clock.advance(5)
    assert hall.inside == ["b"]
    await hall.go("b")
    assert hall.inside == ["c"]


async def test_who_gives_up_waiting_loses_nothing_for_others(guests: Any) -> None:
    """Cancelling who waits takes it out of the queue."""
    hall = guests(1)
    await hall.come("a", "b", "c")
    hall.tasks["b"].cancel()
    await settle()
    await hall.go("a")
    assert hall.inside == ["c"]


async def test_who_is_cancelled_when_admitted_passes_it_on(guests: Any) -> None:
    """A place that was given to somebody who is cancelled in the same moment goes to the next."""
    hall = guests(1)
    await hall.come("a", "b", "c")
    hall.leave["a"].set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    hall.tasks["b"].cancel()
    await settle()
    assert hall.inside == ["c"]


async def test_ticket_ends_once(clock: ManualClock) -> None:
    """Ending a ticket twice makes room for one only."""
    limit = Limit(1, clock=clock)
    tickets = [limit.request((), {}, lambda: None) for _ in range(3)]
    tickets[0].end()
    tickets[0].end()
    assert [ticket.admitted for ticket in tickets] == [True, True, False]


async def test_ticket_tells_in_a_turn_of_its_own(clock: ManualClock) -> None:
    """Who waited is told by the loop, not from within what made room; and not at all once it has ended."""
    limit = Limit(1, clock=clock)
    told: list[str] = []
    first = limit.request((), {}, lambda: None)
    second = limit.request((), {}, lambda: told.append("second"))
    third = limit.request((), {}, lambda: told.append("third"))
    first.end()
    assert second.admitted
    assert not told
    second.end()
    await settle()
    assert told == ["third"]
    third.end()


async def test_key_that_raises(clock: ManualClock) -> None:
    """What the key raises is raised to who asks, and nothing is taken."""
    limit = Limit(1, key=lambda name: 1 // name, clock=clock)
    with pytest.raises(ZeroDivisionError):
        async with limit.admit(0):
            pass
    async with limit.admit(1):
        pass


async def test_many_keys_are_forgotten(clock: ManualClock) -> None:
    """A limit does not remember every key that was ever used, only those that matter."""
    limit = Limit(1, rate=1000, key=lambda name: name, clock=clock)
    async with limit.admit("held"):
        for number in range(5 * MAX_IDLE):
            clock.now += 1
            async with limit.admit(number):
                pass
        assert len(limit._gates) <= MAX_IDLE
        assert "held" in limit._gates


async def test_without_a_clock_the_loop_keeps_time() -> None:
    """By default time is the event loop's."""
    limit = Limit(rate=50)
    began = asyncio.get_running_loop().time()
    for _ in range(4):
        async with limit.admit():
            pass
    assert asyncio.get_running_loop().time() - began >= 0.058


def test_limit_is_shared_by_event_loops() -> None:
    """A limit may be used on one loop after the other, and by loops in several threads at a time."""
    limit = Limit(1)
    order: list[str] = []

    async def enter(name: str) -> None:
        async with limit.admit():
            order.append(name)
            await asyncio.sleep(0.005)
            order.append(name)

    async def many(name: str) -> None:
        await asyncio.gather(*[enter(f"{name}{number}") for number in range(10)])

    async def main() -> None:
        await asyncio.gather(*[asyncio.to_thread(asyncio.run, many(name)) for name in "ab"])

    asyncio.run(main())
    assert len(order) == 40
    assert order[::2] == order[1::2], "nobody came in before the one inside had left"


def test_loop_that_ended_is_passed_over() -> None:
    """A loop that was closed while somebody waited on it holds up nobody else."""
    limit = Limit(1)
    holder: list[Any] = []

    async def hold() -> None:
        holder.append(limit.request((), {}, lambda: None))

    async def wait() -> None:
        holder.append(limit.request((), {}, lambda: None))

    async def enter() -> None:
        async with limit.admit():
            pass

    async def main() -> None:
        entering = asyncio.ensure_future(enter())
        await settle()
        holder[0].end()
        await asyncio.wait_for(entering, 10)

    asyncio.run(hold())
    asyncio.run(wait())
    asyncio.run(main())
    holder[1].end()
    gc.collect()


async def test_many_busy_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys are in use, each is looked at only now and then to see whether it can be forgotten."""
    looks = 0
    is_idle = limits._Gate.is_idle

    def counted(gate: Any, now: float) -> bool:
        nonlocal looks
        looks += 1
        return is_idle(gate, now)

    monkeypatch.setattr(limits._Gate, "is_idle", counted)
    limit = Limit(rate=0.001, key=lambda number: number)
    for number in range(8 * MAX_IDLE):
        limit.request((number,), {}, lambda: None).end()
    assert len(limit._gates) == 8 * MAX_IDLE
    assert looks <= 8 * MAX_IDLE


@pytest.mark.timeout(30)
async def test_crowd_that_leaves() -> None:
    """To give up a place costs the same wherever it is in the queue, however long that is."""
    limit = Limit(1)
    tickets = [limit.request((), {}, lambda: None) for _ in range(100_000)]
    for ticket in reversed(tickets):
        ticket.end()
    async with limit.admit():
        pass


def test_loop_that_ended_before_it_looked() -> None:
    """Who waits for time to pass is not forgotten because a loop was closed that would have looked after the gate."""
    limit = Limit(rate=100)

    async def leave_early() -> None:
        limit.request((), {}, lambda: None).end()
        limit.request((), {}, lambda: None).end()  # had to wait, and gave up: a look is arranged all the same

    async def enter_twice() -> None:
        for _ in range(2):
            async with asyncio.timeout(10), limit.admit():
                pass

    asyncio.run(leave_early())
    asyncio.run(enter_twice())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"rate": 0}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"per": 0}, "per"),
        ({"burst": 0}, "burst"),
        ({"key": "host"}, "key"),
    ],
    ids=str,
)
def test_nonsense_is_refused(options: dict[str, Any], name: str) -> None:
    """A limit that makes no sense cannot be made; the error names the argument."""
    with pytest.raises((ValueError, TypeError), match=name):
        Limit(**options)


def test_repr() -> None:
    """``repr`` shows what is limited."""
    assert repr(Limit(2)) == "Limit(concurrency=2)"
    assert repr(Limit(rate=5, key=len)) == "Limit(rate=5, per=1.0, burst=1, key=len)"
