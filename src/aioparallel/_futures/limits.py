"""Limit: so many at once, and so many starts in a time, for each key.

Each key has a gate. Who wants to pass takes a ticket, which is admitted at once or waits in the gate's queue; a ticket
that has ended makes room. A gate opens by itself only for the passing of time, for which it asks its clock.

A limit may be shared by event loops in several threads: its state is guarded by a lock that is never held while
anybody's code runs, and each ticket is told on its own loop.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from asyncio import AbstractEventLoop
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Protocol

from .loops import at_home

__all__ = ["Clock", "ForItem", "Limit", "Ticket", "admitted"]

MAX_IDLE = 1000
"""So many gates there may be before those that nobody uses are swept; and then twice as many as were left."""


class Clock(Protocol):
    """Where a limit gets its time from; an event loop is one."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


class Limit:
    """At most so many at once, and so many starts per time, for each key.

    Give it to maps, decorated functions and executors' options: all that use the same object share it. It is taken
    before a call is queued for a worker, and again for each further attempt. A call that fails with an exception that
    has a ``retry_after`` (seconds) pauses its key for so long.

    Args:
        concurrency: How many may run at a time; ``None`` for any number.
        rate: How many may start per ``per`` seconds; ``None`` for any number.
        per: The time that ``rate`` refers to, in seconds.
        burst: How many may start at once after a quiet time; 1 spaces them evenly.
        key: What the limit is counted for. It gets the item in a map, and the call's arguments elsewhere; without
            it there is one count for all.
        clock: Where time comes from: anything with ``time()`` and ``call_later(delay, callback)``.

    Raises:
        ValueError, TypeError: An argument makes no sense.

    Cancellation:
        A call that is cancelled while it waits for the limit gives up its place, and one that runs makes room when it
        has stopped.

    Example:
        ::

            polite = Limit(concurrency=2, rate=5, key=lambda url: urlsplit(url).hostname)
            async for page in parmap(fetch, urls, method="coroutine", ordered=False, limit=polite):
                ...
    """

    def __init__(
        self,
        concurrency: int | None = None,
        rate: float | None = None,
        per: float = 1.0,
        burst: float = 1,
        key: Callable[..., Hashable] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        _check("concurrency", concurrency, least=1)
        _check("burst", burst, least=1)
        for name, value in (("rate", rate), ("per", per)):
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise ValueError(f"Limit({name}={value!r}): expected more than 0")
        if key is not None and not callable(key):
            raise TypeError(f"Limit(key={key!r}): expected a function of the item, or of the call's arguments")
        self.concurrency = concurrency
        self.rate = rate
        self.per = per
        self.burst = burst
        self.key = key
        self._pace = 0.0 if rate is None else per / rate
        self._clock = clock
        self._lock = threading.Lock()
        self._gates: dict[Hashable, _Gate] = {}
        self._most_gates = MAX_IDLE

    def admit(self, *args: Any, **kwargs: Any) -> _Admission:
        """Wait until the limit admits one, and hold a place until the end of ``async with``.

        Args:
            *args: What ``key`` gets.
            **kwargs: What ``key`` gets.

        Returns:
            An async context manager, for one use.

        Raises:
            Exception: From entering it: what ``key`` raises.

        Cancellation:
            While waiting: gives up the place in the queue.

        Example:
            ::

                async with limit.admit(url):
                    response = await client.get(url)
        """
        return _Admission(self, args, kwargs)

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any], admitted: Callable[[], None]) -> Ticket:
        """Ask to be admitted; for those who cannot await. To be called on an event loop.

        Args:
            args: What ``key`` gets.
            kwargs: What ``key`` gets.
            admitted: Called on this loop once the ticket is admitted, unless it is so already when this returns.

        Returns:
            The ticket; whoever has it must end it.
        """
        return self._enter(None if self.key is None else self.key(*args, **kwargs), admitted)

    def _enter(self, key: Hashable, admitted: Callable[[], None]) -> Ticket:
        with self._lock:
            gate = self._gates.get(key)
            if gate is None:
                self._sweep()
                gate = self._gates[key] = _Gate(self, key)
            ticket = Ticket(gate, asyncio.get_running_loop(), admitted)
            gate.enter(ticket)
        return ticket

    def for_item(self, item: Any) -> ForItem:
        """The same limit for the call of a map's item: whatever its arguments, ``key`` gets the item.

        Args:
            item: The item.

        Returns:
            What can be requested as the limit itself.
        """
        return ForItem(self, item)

    def __repr__(self) -> str:
        what = {"concurrency": self.concurrency, "rate": self.rate}
        said = [f"{name}={value}" for name, value in what.items() if value is not None]
        said += [f"per={self.per}", f"burst={self.burst}"] if self.rate is not None else []
        said += [f"key={getattr(self.key, '__name__', self.key)}"] if self.key is not None else []
        return f"Limit({', '.join(said)})"

    def _now(self) -> float:
        return time.monotonic() if self._clock is None else self._clock.time()

    def _sweep(self) -> None:
        """Forget gates that are as good as new, now and then: each time all of them are looked at."""
        if len(self._gates) >= self._most_gates:
            now = self._now()
            self._gates = {key: gate for key, gate in self._gates.items() if not gate.is_idle(now)}
            self._most_gates = max(MAX_IDLE, 2 * len(self._gates))


class ForItem:
    """A limit whose key is that of one item."""

    __slots__ = ("_item", "_limit")

    def __init__(self, limit: Limit, item: Any) -> None:
        self._limit = limit
        self._item = item

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any], admitted: Callable[[], None]) -> Ticket:
        """Like :meth:`Limit.request`, with the item for an argument."""
        return self._limit.request((self._item,), {}, admitted)


class Ticket:
    """A place in the queue of a gate, and then behind it."""

    __slots__ = ("_admitted", "_ended", "_gate", "admitted", "loop")

    def __init__(self, gate: _Gate, loop: AbstractEventLoop, admitted: Callable[[], None]) -> None:
        self.admitted = False
        self.loop = loop
        self._gate = gate
        self._admitted = admitted
        self._ended = False

    def end(self, error: BaseException | None = None) -> None:
        """Make room for others, whether it was admitted or not. Ending it again does nothing.

        Args:
            error: What the call ended with; its ``retry_after`` pauses the key.
        """
        if not self._ended:
            self._ended = True
            self._gate.leave(self, error)

    def again(self, admitted: Callable[[], None]) -> Ticket:
        """A new ticket for the same key, for another attempt of what this one was for."""
        return self._gate.limit._enter(self._gate.key, admitted)

    def tell(self) -> None:
        """Tell whoever waits, in a turn of its own loop; on any thread."""
        try:
            at_home(self.loop, self.loop.call_soon, self._tell)
        except RuntimeError:
            pass  # the loop was closed, and nobody waits any more

    def _tell(self) -> None:
        if not self._ended:
            self._admitted()


class _Gate:
    """What is counted for one key."""

    def __init__(self, limit: Limit, key: Hashable) -> None:
        self.key = key
        self.limit = limit
        self._running = 0
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._free_at = -math.inf
        """When the bucket will be, or was, full: each start moves it by the pace."""
        self._paused_until = -math.inf
        self._timed_at = math.inf
        """When the next look was arranged for ..."""
        self._timed_on: AbstractEventLoop | None = None
        """... and the loop it was arranged on, which may be closed before."""

    def is_idle(self, now: float) -> bool:
        """Whether it differs in nothing from a new one."""
        return not self._running and not self._waiting and max(self._free_at, self._paused_until) <= now

    def enter(self, ticket: Ticket) -> None:
        """Admit a ticket, or let it wait behind the others. With the lock."""
        now = self.limit._now()
        if not self._waiting and self._opens_at(now) <= now:
            self._pass(ticket, now)
        else:
            self._waiting[ticket] = None
            self._arrange_look(now)

    def leave(self, ticket: Ticket, error: BaseException | None) -> None:
        """A ticket has ended; who is next may pass."""
        limit = self.limit
        with limit._lock:
            if ticket.admitted:
                self._running -= 1
            else:
                self._waiting.pop(ticket, None)
            pause = getattr(error, "retry_after", None)
            if isinstance(pause, (int, float)):
                self._paused_until = max(self._paused_until, limit._now() + pause)
        self._look()

    def _look(self) -> None:
        passed: list[Ticket] = []
        with self.limit._lock:
            now = self.limit._now()
            while self._waiting and self._opens_at(now) <= now:
                ticket, _ = self._waiting.popitem(last=False)
                if not ticket.loop.is_closed():
                    self._pass(ticket, now)
                    passed.append(ticket)
            self._arrange_look(now)
        for ticket in passed:
            ticket.tell()

    def _look_again(self) -> None:
        self._timed_at = math.inf
        self._look()

    def _pass(self, ticket: Ticket, now: float) -> None:
        ticket.admitted = True
        self._running += 1
        self._free_at = max(self._free_at, now) + self.limit._pace

    def _opens_at(self, now: float) -> float:
        """When the next one may pass; infinite if that depends on somebody leaving."""
        limit = self.limit
        if limit.concurrency is not None and self._running >= limit.concurrency:
            return math.inf
        slack = limit._pace * (limit.burst - 1)
        return max(self._paused_until, self._free_at - slack if limit._pace else now)

    def _arrange_look(self, now: float) -> None:
        opens_at = self._opens_at(now)
        ticket = next((ticket for ticket in self._waiting if not ticket.loop.is_closed()), None)
        is_arranged = self._timed_on is not None and not self._timed_on.is_closed() and self._timed_at <= opens_at
        if ticket is None or opens_at == math.inf or is_arranged:
            return
        self._timed_at, self._timed_on = opens_at, ticket.loop
        clock: Clock = self.limit._clock or ticket.loop
        at_home(ticket.loop, clock.call_later, opens_at - now, self._look_again)


async def admitted(limit: Limit | ForItem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ticket:
    """Wait until the limit admits one.

    Returns:
        The ticket; whoever has it must end it.

    Cancellation:
        Gives up the place in the queue, or behind the gate.
    """
    told = asyncio.Event()
    ticket = limit.request(args, kwargs, told.set)
    try:
        if not ticket.admitted:
            await told.wait()
    except BaseException:
        ticket.end()
        raise
    return ticket


class _Admission:
    """What :meth:`Limit.admit` returns."""

    def __init__(self, limit: Limit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._limit = limit
        self._args = args
        self._kwargs = kwargs
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> None:
        self._ticket = await admitted(self._limit, self._args, self._kwargs)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._ticket is not None, "taken on entering"
        self._ticket.end(error)


def _check(name: str, value: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least or value != int(value):
        raise ValueError(f"Limit({name}={value!r}): expected a whole number of at least {least}")
