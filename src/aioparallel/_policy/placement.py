"""Which of the idle workers gets the next call.

A :class:`Placement` keeps the workers that can begin a call now, by the sites that they are at, and chooses among them.
Choosing costs the same with ten workers as with thirty thousand. Chance is an argument.
"""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, count
from typing import NamedTuple, Protocol

from .seats import Seat, Site

__all__ = [
    "AnyPolicy",
    "HostLoad",
    "LastIdle",
    "LeastLoaded",
    "Placement",
    "Policy",
    "RoundRobin",
    "WeightedRandom",
    "placement_for",
]

Avoid = Collection[Site]

_log = logging.getLogger("aioparallel")


class Placement(ABC):
    """The idle workers, and a way to choose one.

    Sites that a call should avoid are avoided as long as anything else is idle.
    """

    def __init__(self) -> None:
        self.sites: dict[Site, None] = {}
        """Those that have an idle worker."""

    def __bool__(self) -> bool:
        return bool(self.sites)

    def __iter__(self) -> Iterator[Seat]:
        return (seat for site in self.sites for seat in site.idle)

    def __contains__(self, seat: object) -> bool:
        return isinstance(seat, Seat) and seat in seat.site.idle

    def offer(self, seat: Seat) -> None:
        """A worker can begin a call now; nothing changes if it could before."""
        idle = seat.site.idle
        if seat not in idle:
            idle[seat] = None
            self.sites[seat.site] = None
            self._changed(seat.site, 1)

    def withdraw(self, seat: Seat) -> None:
        """A worker cannot begin a call now."""
        site = seat.site
        if seat in site.idle:
            del site.idle[seat]
            if not site.idle:
                del self.sites[site]
            self._changed(site, -1)

    def choose(self, avoid: Avoid = ()) -> Seat:
        """The worker that gets the next call; to be asked only while some are idle."""
        return next(reversed(self._choose(avoid).idle))

    def elsewhere(self, avoid: Avoid) -> Seat | None:
        """A worker at none of these sites, if there is one."""
        site = self._choose(avoid)
        return None if site in avoid else next(reversed(site.idle))

    @abstractmethod
    def _choose(self, avoid: Avoid) -> Site:
        """A site with an idle worker."""

    def _changed(self, site: Site, by: int) -> None:
        """A site has one idle worker more, or less."""

    def _others(self, avoid: Avoid) -> list[Site]:
        """The sites that need not be avoided; all of them if there are no others. For rare cases: it looks at each."""
        return [site for site in self.sites if site not in avoid] or list(self.sites)


class LastIdle(Placement):
    """The worker that became idle last, so that those which idle for long can be let go."""

    def _choose(self, avoid: Avoid) -> Site:
        return next(iter(self.sites)) if not avoid else self._others(avoid)[0]


class ByWeight(Placement):
    """Any worker, those of a heavy site as often as its weight says."""

    TRIES = 8

    def __init__(self, chance: Callable[[], float]) -> None:
        super().__init__()
        self._chance = chance
        self._sites: dict[float, list[Site]] = {}
        """For each weight, its sites, each as often as it has idle workers; ``rank`` says where."""
        self._places: dict[Site, list[int]] = {}

    def _changed(self, site: Site, by: int) -> None:
        tickets = self._sites.setdefault(site.weight, [])
        places = self._places.setdefault(site, [])
        if by > 0:
            places.append(len(tickets))
            tickets.append(site)
            return
        hole, last = places.pop(), tickets.pop()
        if hole < len(tickets):  # the last ticket fills the hole
            tickets[hole] = last
            moved = self._places[last]
            moved[moved.index(len(tickets))] = hole
        elif not tickets:
            del self._sites[site.weight]
        if not places:
            del self._places[site]  # it may be gone for good

    def _choose(self, avoid: Avoid) -> Site:
        for _ in range(self.TRIES):
            site = self._draw()
            if site not in avoid:
                return site
        others = self._others(avoid)
        tickets = list(accumulate(site.weight * len(site.idle) for site in others))
        return others[min(bisect_right(tickets, self._chance() * tickets[-1]), len(others) - 1)]

    def _draw(self) -> Site:
        kinds = list(self._sites.items())
        if len(kinds) == 1:
            tickets = kinds[0][1]
        else:
            sums = list(accumulate(weight * len(tickets) for weight, tickets in kinds))
            tickets = kinds[min(bisect_right(sums, self._chance() * sums[-1]), len(kinds) - 1)][1]
        return tickets[int(self._chance() * len(tickets))]


class InTurn(Placement):
    """Each site after all the others."""

    def _choose(self, avoid: Avoid) -> Site:
        site = next((site for site in self.sites if site not in avoid), None) or next(iter(self.sites))
        del self.sites[site]  # it goes to the end
        self.sites[site] = None
        return site


class ByLoad(Placement):
    """The site with the largest part of its workers idle; of equal ones, the heaviest."""

    def __init__(self) -> None:
        super().__init__()
        self._order = count()
        self._heap: list[tuple[float, float, int, Site]] = []
        """Sites as they once stood; ``rank`` is the number of the entry that counts."""

    def _changed(self, site: Site, by: int) -> None:
        site.rank = next(self._order)
        if site.idle:
            load = 1 - len(site.idle) / max(1, len(site.seats))
            heappush(self._heap, (load, -site.weight, site.rank, site))
        if len(self._heap) > 64 + 4 * len(self.sites):
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapify(self._heap)

    def _counts(self, entry: tuple[float, float, int, Site]) -> bool:
        return entry[2] == entry[3].rank and bool(entry[3].idle)

    def _choose(self, avoid: Avoid) -> Site:
        aside: list[tuple[float, float, int, Site]] = []
        found: Site | None = None
        while self._heap and found is None:
            entry = self._heap[0]
            if not self._counts(entry):
                heappop(self._heap)
            elif entry[3] in avoid:
                aside.append(heappop(self._heap))
            else:
                found = entry[3]
        for entry in aside:
            heappush(self._heap, entry)
        return found or aside[0][3]


class ByHand(Placement):
    """As somebody else's policy says; where that fails, or names no host of those, the first one it is."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = policy
        self._complaint = ""

    def _choose(self, avoid: Avoid) -> Site:
        sites = {str(site): site for site in self._others(avoid)}
        loads = [HostLoad(name, site.weight, len(site.seats), len(site.idle)) for name, site in sites.items()]
        chosen = None
        try:
            found = self._policy.choose(loads)
            chosen = sites.get(found.name if isinstance(found, HostLoad) else str(found))
        except Exception as error:  # whoever asks is in the middle of something, and serves other calls as well
            self._complain(error)
        return chosen or next(iter(sites.values()))

    def _complain(self, error: Exception) -> None:
        """Tell each failure once, and not for each call."""
        if self._complaint != repr(error):
            self._complaint = repr(error)
            _log.warning("the placement policy %r failed; another host is used", self._policy, exc_info=error)


# What users choose from


class HostLoad(NamedTuple):
    """A host that has a free slot, as a placement policy sees it.

    Attributes:
        name: The host's name.
        weight: Its weight.
        slots: How many workers it has.
        free: How many of them have nothing to do.
    """

    name: str
    weight: float
    slots: int
    free: int


class Policy(Protocol):
    """Chooses the host that gets the next call. One of your own needs this one method.

    It is asked for each call, with every host that has a free slot; hosts that the call should avoid are left out
    unless there are no others. If it raises, that is logged, and some host is used.
    """

    def choose(self, hosts: Sequence[HostLoad], /) -> HostLoad:
        """The host that gets the next call."""
        ...


class WeightedRandom:
    """Chance decides: a host's share is its free slots times its weight.

    Args:
        seed: For the same choices every time; ``None`` for others.

    Cancellation:
        Does not apply: choosing takes no time.

    Example:
        ::

            RemoteExecutor([Host("big", weight=3), Host("small")], policy=WeightedRandom())
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed

    def _placement(self) -> Placement:
        return ByWeight(random.Random(self._seed).random)


class RoundRobin:
    """The hosts take turns, whatever their sizes and weights.

    Cancellation:
        Does not apply: choosing takes no time.

    Example:
        ::

            RemoteExecutor(["node1", "node2"], policy=RoundRobin())
    """

    def _placement(self) -> Placement:
        return InTurn()


class LeastLoaded:
    """The host with the largest part of its slots free gets the next call; of equal ones, that with the highest weight.

    Cancellation:
        Does not apply: choosing takes no time.

    Example:
        ::

            RemoteExecutor(["node1", "node2"], policy=LeastLoaded())
    """

    def _placement(self) -> Placement:
        return ByLoad()


AnyPolicy = WeightedRandom | RoundRobin | LeastLoaded | Policy


def placement_for(policy: AnyPolicy) -> Placement:
    """What chooses among idle workers as the policy says.

    Raises:
        TypeError: It is none.
    """
    if isinstance(policy, (WeightedRandom, RoundRobin, LeastLoaded)):
        return policy._placement()
    if not callable(getattr(policy, "choose", None)):
        raise TypeError(
            f"policy={policy!r}: expected WeightedRandom(), RoundRobin(), LeastLoaded(), or an object with a method "
            "`choose(hosts)` that returns one of them"
        )
    return ByHand(policy)
