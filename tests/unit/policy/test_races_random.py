"""Races under random events: whatever happens to calls and their copies, the books balance, and each call ends once."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from aioparallel._model.call import Call, Ending, Phase
from aioparallel._model.options import Retry
from aioparallel._policy.retry import MAX_DEATHS, MAX_LOSSES
from aioparallel._policy.seats import Seat, Standing
from tests.unit.policy.desk import lost, lost_with_its_host
from tests.unit.policy.test_races import Hosts

MAX_COPIES = 2


class Chaos(Hosts):
    """Hosts where anything may happen."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        super().__init__(rng.randrange(2, 6), slots=rng.randrange(1, 3), max_copies=MAX_COPIES)
        self.calls: list[Call] = []
        self.begins: Counter[Call] = Counter()

    def step(self) -> None:
        """Something happens."""
        doing = self.rng.choice([self._submit, self._submit, self._look, self._end, self._end, self._die, self._stop])
        doing()
        self.place()
        for seat in [seat for seat, _ in self.spawned if seat.standing is Standing.STARTING]:
            self.ledger.ready(seat)
        self.place()
        for call in list(self.pauses):
            self.resume(call)
        for seat in self.ledger.seats:
            for member in seat.held.values():
                self.began.setdefault(member, self.now)

    def _submit(self) -> None:
        retry = Retry(self.rng.randrange(1, 4), backoff=0) if self.rng.random() < 0.5 else None
        self.calls.append(self.submit(self.function, idempotent=self.rng.random() < 0.8, retry=retry))

    def _look(self) -> None:
        self.now += self.rng.choice([0.5, 1.2, 3.0])
        self.do(self.ledger.back_up(self.now))

    def _busy(self) -> Seat | None:
        return self.rng.choice([seat for seat in self.ledger.seats if seat.held] or [None])

    def _end(self, ending: Ending | None = None) -> None:
        seat = self._busy()
        if seat is None:
            return
        member = next(iter(seat.held.values()))
        ending = ending or self.rng.choice([Ending.OK, Ending.OK, Ending.RAISED, Ending.WITHDRAWN])
        self.begins[_origin(member)] += ending is not Ending.WITHDRAWN
        value = ValueError("no") if ending is Ending.RAISED else "value"
        self.do(self.ledger.ended(seat, [(member.seq, ending, value, 1.0)], self.now, 0.5))
        if ending is Ending.WITHDRAWN:
            self.began.pop(member, None)

    def _die(self) -> None:
        seat = self._busy()
        if seat is None:
            return
        running = [member for member in seat.held.values() if self.rng.random() < 0.8]
        for member in running:
            self.begins[_origin(member)] += 1
        error = self.rng.choice([lost, lost_with_its_host])
        self.do(self.ledger.gone(seat, [member.seq for member in running], error, self.now))

    def _stop(self) -> None:
        if self.calls:
            call = self.rng.choice(self.calls)
            if self.rng.random() < 0.5:
                self.cancel(call)
            elif call.phase is Phase.PLACED and call.worker.held.get(call.seq) is call:
                self.do(self.ledger.overdue(call))

    def finish(self) -> None:
        """Let everything that runs end well."""
        for _ in range(10_000):
            if self.ledger.idle:
                return
            self._end(Ending.OK)
            self.place()
            for call in list(self.pauses):
                self.resume(call)
        raise AssertionError("something is stuck")


def _origin(member: Call) -> Call:
    return member if member.race is None else member.race.call


def _most(call: Call) -> int:
    attempts = call.options.retry.attempts if call.options.retry else 1
    return attempts + (MAX_DEATHS - 1 + MAX_LOSSES + MAX_COPIES if call.options.idempotent else 0)


@pytest.mark.parametrize("block", range(10))
def test_races_under_random_events(block: int) -> None:
    """Each call is settled once, and begun no more often than its attempts, losses and copies allow."""
    copied = 0
    for seed in range(12):
        desk = Chaos(1000 * block + seed)
        for _ in range(60):
            desk.step()
        desk.finish()
        assert set(desk.ends) == set(desk.calls)
        for call in desk.calls:
            assert desk.begins[call] <= _most(call)
            assert call.copies <= (MAX_COPIES if call.options.idempotent else 0)
        counts = desk.ledger.counts
        assert counts.done + counts.failed + counts.cancelled == len(desk.calls)
        copied += counts.backups
    assert copied, "there are races"
