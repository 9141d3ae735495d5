"""Placement: which idle worker gets the next call, and that choosing stays cheap and right however many there are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from aioparallel._policy.placement import (
    HostLoad,
    LastIdle,
    LeastLoaded,
    Placement,
    RoundRobin,
    WeightedRandom,
    placement_for,
)
from aioparallel._policy.seats import Seat, Site


class Fixed:
    """A user's policy: the host of this name, however it is said."""

    def __init__(self, choice: Any) -> None:
        self.choice = choice
        self.asked: list[HostLoad] = []

    def choose(self, hosts: Sequence[HostLoad], /) -> Any:
        self.asked = list(hosts)
        return self.choice


def site(name: str, workers: int, weight: float = 1.0) -> Site:
    """A site with so many workers, none of which is offered yet."""
    made = Site(name, weight)
    for index in range(workers):
        seat = Seat(index, site=made)
        made.seats[seat] = None
    return made


def offer(placement: Placement, *sites: Site) -> None:
    for each in sites:
        for seat in each.seats:
            placement.offer(seat)


def shares(placement: Placement, draws: int = 4000) -> dict[str, float]:
    """How often each site is chosen while all its workers stay idle."""
    found = Counter(str(placement.choose().site) for _ in range(draws))
    return {name: count / draws for name, count in found.items()}


POLICIES = [WeightedRandom(1), RoundRobin(), LeastLoaded(), Fixed("b")]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_only_idle_workers_are_chosen(policy: Any) -> None:
    """Whatever the policy: whoever is chosen is idle, all idle workers are chosen in the end, and nobody else."""
    placement = placement_for(policy)
    sites = [site("a", 3), site("b", 1, weight=5.0), site("c", 2)]
    offer(placement, *sites)
    offer(placement, *sites)  # offering again changes nothing
    taken = set()
    while placement:
        seat = placement.choose()
        assert seat in placement
        placement.withdraw(seat)
        placement.withdraw(seat)  # nor does that
        assert seat not in placement
        taken.add(seat)
    assert taken == {seat for each in sites for seat in each.seats}
    assert list(placement) == []


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_what_is_chosen_at_random_times(policy: Any) -> None:
    """Workers that come and go in any order are never mistaken for one another."""
    chance = random.Random(7)
    placement = placement_for(policy)
    sites = [site(name, 4, weight) for name, weight in (("a", 1.0), ("b", 3.0), ("c", 1.0))]
    seats = [seat for each in sites for seat in each.seats]
    idle: set[Seat] = set()
    for _ in range(2000):
        seat = chance.choice(seats)
        if seat in idle:
            placement.withdraw(seat)
            idle.discard(seat)
        else:
            placement.offer(seat)
            idle.add(seat)
        assert set(placement) == idle
        if idle:
            avoid = {chance.choice(sites)}
            chosen = placement.choose(avoid)
            assert chosen in idle
            assert chosen.site not in avoid or all(other.site in avoid for other in idle)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_avoiding(policy: Any) -> None:
    """A site to be avoided is avoided while another has an idle worker, and chosen when none has."""
    placement = placement_for(policy)
    good, bad = site("a", 1), site("b", 5)
    offer(placement, good, bad)
    assert all(placement.choose({bad}).site is good for _ in range(20))
    assert placement.elsewhere({bad}) in good.seats
    placement.withdraw(next(iter(good.seats)))
    assert placement.choose({bad}).site is bad
    assert placement.elsewhere({bad}) is None


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_sites_are_forgotten(policy: Any) -> None:
    """Nothing is kept of a site none of whose workers is idle: it may be gone for good."""
    placement = placement_for(policy)
    offer(placement, site("kept", 1))
    for _ in range(200):
        passing = site("passing", 2)
        offer(placement, passing)
        for seat in passing.seats:
            placement.withdraw(seat)
    assert max(len(table) for table in vars(placement).values() if isinstance(table, (dict, list))) <= 100


def test_last_idle() -> None:
    """On one machine the worker that became idle last goes first, so that those which idle for long can be let go."""
    placement, here = LastIdle(), site("here", 3)
    first, second, third = here.seats
    for seat in (second, third, first):
        placement.offer(seat)
    assert placement.choose() is first
    placement.withdraw(first)
    assert placement.choose() is third


def test_weighted_random() -> None:
    """A host's share is its free slots times its weight."""
    placement = placement_for(WeightedRandom(3))
    offer(placement, site("small", 2), site("large", 6), site("heavy", 2, weight=4.0))
    found = shares(placement)
    assert found["small"] == pytest.approx(2 / 16, abs=0.03)
    assert found["large"] == pytest.approx(6 / 16, abs=0.03)
    assert found["heavy"] == pytest.approx(8 / 16, abs=0.03)


def test_a_seed_repeats_the_choices() -> None:
    """The same seed gives the same choices."""

    def choices() -> list[str]:
        placement = placement_for(WeightedRandom(11))
        offer(placement, site("a", 2), site("b", 3, weight=2.0))
        return [str(placement.choose().site) for _ in range(50)]

    assert choices() == choices()


def test_round_robin() -> None:
    """The hosts take turns, whatever their sizes."""
    placement = placement_for(RoundRobin())
    offer(placement, site("a", 1), site("b", 9), site("c", 3))
    assert [str(placement.choose().site) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_least_loaded() -> None:
    """The host with the largest part of its slots free comes first, and of equal ones the heaviest."""
    placement = placement_for(LeastLoaded())
    half, free, heavy = site("half", 4), site("free", 1), site("heavy", 2, weight=2.0)
    offer(placement, half, free, heavy)
    for seat in list(half.seats)[:2]:
        placement.withdraw(seat)
    assert str(placement.choose().site) == "heavy"
    placement.withdraw(next(iter(heavy.seats)))
    assert str(placement.choose().site) == "free"
    placement.withdraw(next(iter(free.seats)))
    assert str(placement.choose().site) == "heavy", "half of each is free, and it is the heavier one"


@pytest.mark.parametrize("say", [lambda name: name, lambda name: HostLoad(name, 1.0, 2, 2)], ids=["name", "load"])
def test_a_policy_of_the_users_own(say: Any) -> None:
    """A policy sees every host with a free slot and how it is loaded, and may answer with one of these or its name."""
    policy = Fixed(say("b"))
    placement = placement_for(policy)
    offer(placement, site("a", 3), site("b", 2, weight=2.0), site("full", 1))
    placement.withdraw(next(seat for seat in placement if str(seat.site) == "full"))
    assert str(placement.choose().site) == "b"
    assert policy.asked == [HostLoad("a", 1.0, 3, 3), HostLoad("b", 2.0, 2, 2)]


def test_a_policy_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A policy that raises, or names no host, leaves the choice to us; each failure is logged once, with its traceback."""

    class Broken:
        def __init__(self) -> None:
            self.answers = iter([KeyError("here"), KeyError("here"), "nowhere", KeyError("there")])

        def choose(self, hosts: Sequence[HostLoad], /) -> Any:
            answer = next(self.answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    placement = placement_for(Broken())
    offer(placement, site("a", 1), site("b", 1))
    assert [str(placement.choose().site) for _ in range(4)] == ["a"] * 4
    told = [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert told == [("here",), ("there",)]


def test_no_policy() -> None:
    """What cannot choose is refused, with what is expected."""
    with pytest.raises(TypeError, match=r"policy='fast': expected WeightedRandom\(\), RoundRobin\(\), LeastLoaded\(\)"):
        placement_for("fast")  # type: ignore[arg-type]
