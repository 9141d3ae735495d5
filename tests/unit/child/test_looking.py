"""Looking at a worker's page from outside, with a clock of our own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from aioparallel._child import page as pages
from aioparallel._child import wire
from aioparallel._child.looking import ANSWERS, IDLE_LOOKS, KILL, MAX_LOOK_SECONDS, PATIENCE, SPLIT, Watch
from aioparallel._child.page import CANCELLED, TAKEN_BACK, Page
from tests.unit.child.peer import Answer, read_answers


class Scene:
    """A worker that does what the test says, and who watches it."""

    def __init__(self, path: str) -> None:
        pages.create(path)
        self.page = Page(path)
        self.watch = Watch(self.page)
        self.now = 1000.0

    def begin(self, number: int) -> bool:
        """The worker begins a call; returns whether that was asked back."""
        return self.page.begin(number, self.now)

    def look(self, after: float = 0.0) -> list[tuple[str, Any, Any]]:
        self.now += after
        return self.watch.look(self.now)

    def flags(self, *numbers: int) -> list[int]:
        return [self.page.flags[number] for number in numbers]


@pytest.fixture
def scene(folder: str) -> Iterator[Scene]:
    found = Scene(f"{folder}/p")
    yield found
    found.page.close()


def answers(found: list[tuple[str, Any, Any]]) -> list[Answer]:
    ((what, body, _),) = found
    assert what == ANSWERS
    return read_answers(body)


# Halting


def test_running_call_is_killed(scene: Scene) -> None:
    """A call that runs when it is halted is killed, once, and its flag says that it was cancelled."""
    scene.begin(1)
    scene.watch.halt(1, stack=True)
    assert scene.watch.next_look == 0
    assert scene.look() == [(KILL, 1, True)]
    assert scene.look(1) == []
    assert scene.flags(1) == [CANCELLED]


def test_call_that_begins_later_is_given_back(scene: Scene) -> None:
    """A call that is halted before it begins never does, and nothing is killed for it."""
    scene.begin(1)
    scene.watch.halt(2, stack=False)
    assert scene.look() == []
    assert scene.begin(2)


def test_halted_call_behind_a_long_one_is_given_back_soon(scene: Scene) -> None:
    """A halted call need not wait for the long one before it."""
    scene.begin(1)
    scene.watch.halt(2, stack=False)
    scene.look()
    scene.look(PATIENCE + 0.001)
    assert [(answer.number, answer.ending) for answer in answers(scene.look(0.001))] == [(2, wire.WITHDRAWN)]


def test_call_that_has_ended_is_left_alone(scene: Scene) -> None:
    """To halt a call that the worker has passed sets no flag: it would stay up for another call."""
    scene.begin(1)
    scene.begin(2)
    scene.watch.halt(1, stack=False)
    scene.page.end()
    scene.watch.halt(1, stack=False)
    assert scene.flags(1) == [0]
    assert scene.look() == []


def test_spared_call_is_killed_when_it_runs_again(scene: Scene) -> None:
    """A call that was spared is looked at again."""
    scene.begin(1)
    scene.watch.halt(1, stack=False)
    assert scene.look() == [(KILL, 1, False)]
    scene.watch.spared(1)
    assert scene.watch.next_look == 0
    assert scene.look() == [(KILL, 1, False)]


def test_forgotten_call_is_not_killed(scene: Scene) -> None:
    """Once the executor has the answer of a halted call, its flag goes down, and nobody looks for it."""
    scene.begin(1)
    scene.watch.halt(1, stack=False)
    scene.watch.forget(1)
    assert scene.flags(1) == [0]
    assert scene.look() == []


def test_answers_do_not_wait_behind_the_last_call(scene: Scene) -> None:
    """An answer that lies in the outbox does not wait until a long call has ended, also when none is behind that."""
    answer = wire.ANSWER.pack(1, 0, wire.WITHDRAWN, 0, 0)
    scene.page.box[: len(answer)] = answer
    scene.page.commit(len(answer))
    scene.begin(2)
    scene.watch.look_behind(2)
    assert scene.look() == []
    assert [each.number for each in answers(scene.look(PATIENCE + 0.001))] == [1]
    scene.watch.look_behind(2)
    assert scene.look(1) == [], "it was told"
    assert scene.watch.next_look == math.inf


def test_call_that_was_given_back_stays_flagged_until_the_worker_comes_to_it(scene: Scene) -> None:
    """Although the executor knows already that a call was given back, the worker must not begin it."""
    scene.begin(1)
    scene.watch.halt(2, stack=False)
    scene.watch.forget(2)
    assert scene.begin(2)


def test_who_waits_for_a_kill_looks_on(scene: Scene) -> None:
    """As long as a halted call has not begun, there is a next look; when it was killed, there is none."""
    scene.watch.halt(1, stack=False)
    for _ in range(20):
        scene.look(0.01)
    assert scene.watch.next_look <= scene.now + MAX_LOOK_SECONDS
    scene.begin(1)
    assert scene.look(0.01) == [(KILL, 1, False)]
    assert scene.look(PATIENCE + 0.001) == []
    assert scene.watch.next_look == math.inf


# What waits


def test_what_waits_behind_a_long_call(scene: Scene) -> None:
    """Calls behind a long one get their flags at one look, and are surely given back at the next."""
    scene.begin(3)
    scene.watch.look_behind(5)
    assert scene.look() == []
    assert scene.look(PATIENCE + 0.001) == []
    assert scene.flags(3, 4, 5, 6) == [0, TAKEN_BACK, TAKEN_BACK, 0]
    assert [answer.number for answer in answers(scene.look(0.001))] == [4, 5]
    assert scene.watch.next_look == math.inf


def test_answers_before_a_long_call(scene: Scene) -> None:
    """Answers that lie in the outbox while a long call runs come with what is given back."""
    earlier = wire.ANSWER.pack(2, 7, wire.OK, 0, 4) + b"\x80\x05N."
    scene.page.box[: len(earlier)] = earlier
    scene.page.commit(len(earlier))
    scene.begin(3)
    scene.watch.look_behind(4)
    for _ in range(2):
        scene.look(PATIENCE + 0.001)
    assert answers(scene.look(0.001)) == [Answer(2, 7, wire.OK, None), Answer(4, 0, wire.WITHDRAWN, None)]


def test_short_calls_are_left_alone(scene: Scene) -> None:
    """Nothing is taken from a worker that goes on from call to call."""
    scene.watch.look_behind(40)
    for number in range(1, 40):
        assert not scene.begin(number)
        assert scene.look(0.004) == []
    assert scene.flags(*range(1, 41)) == [0] * 40


def test_worker_that_goes_on_meanwhile(scene: Scene) -> None:
    """If the worker goes on between two looks, nothing is sure; what it meets with a flag it gives back itself."""
    scene.begin(1)
    scene.watch.look_behind(4)
    scene.look()
    scene.look(PATIENCE + 0.001)
    assert scene.begin(2)
    scene.page.flag(2, 0)  # as the worker does
    assert scene.look(0.001) == []
    assert scene.look(PATIENCE + 0.001) == []
    assert [answer.number for answer in answers(scene.look(0.001))] == [3, 4]


def test_idle_worker_is_not_looked_at_for_long(scene: Scene) -> None:
    """A worker without a call is looked at a few times only: what it was sent may be on its way."""
    scene.watch.look_behind(4)
    for _ in range(IDLE_LOOKS):
        scene.look(0.01)
    assert scene.watch.next_look == math.inf
    scene.watch.look_behind(4)
    assert scene.watch.next_look == 0


def test_looks_become_rare(scene: Scene) -> None:
    """While nothing changes, looks become rarer; when something does, they are frequent again."""
    scene.begin(1)
    scene.watch.halt(2, stack=False)
    pauses = []
    for _ in range(8):
        scene.look(0.0001)
        pauses.append(scene.watch.next_look - scene.now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(MAX_LOOK_SECONDS)
    scene.begin(3)
    scene.look(0.0001)
    assert scene.watch.next_look - scene.now == pytest.approx(pauses[0])


# Chunks


def test_long_item_in_a_chunk(scene: Scene) -> None:
    """A chunk that is stuck in an item is asked back, and at the next look surely ends with that item."""
    scene.begin(7)
    scene.page.notes.tags[0] = scene.page.notes.NONE
    scene.watch.look_behind(7, chunks=True)
    assert scene.look() == []
    assert scene.look(0.01) == []
    assert scene.look(0.01) == []
    assert scene.flags(7) == [TAKEN_BACK]
    assert scene.look(0.01) == [(SPLIT, 7, 2)]
    assert scene.watch.next_look == math.inf


def test_chunk_of_short_items_is_left_alone(scene: Scene) -> None:
    """As long as items end between two looks, a chunk is whole."""
    scene.begin(7)
    scene.watch.look_behind(7, chunks=True)
    for item in range(30):
        scene.page.notes.tags[item] = scene.page.notes.NONE
        assert scene.look(0.05) == []
    assert scene.flags(7) == [0]


def test_plain_calls_are_not_split(scene: Scene) -> None:
    """A call that is no chunk gets no flag while it runs, whatever an earlier chunk has left on the page."""
    scene.begin(7)
    scene.watch.look_behind(8)
    for _ in range(4):
        scene.look(0.01)
    assert scene.flags(7) == [0]
