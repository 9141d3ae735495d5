"""A call, as a plain record."""

from __future__ import annotations

import functools
import xmlrpc.client
from typing import Any
from unittest.mock import Mock

import pytest

from aioparallel._model.call import Call, Ending, Phase, Stop, function_name, plain_function
from aioparallel._model.options import CallOptions
from aioparallel._policy.seats import Seat, Site


class Owner:
    kind = "test"
    grace = 2.5

    def __init__(self) -> None:
        self.cancelled: list[Call] = []
        self.began: float | None = None

    def _cancel_call(self, call: Call) -> bool:
        self.cancelled.append(call)
        return True

    def _began(self, call: Call) -> float | None:
        return self.began

    def _is_waiting(self, call: Call) -> bool:
        return False


class Thing:
    def method(self) -> None:
        """Has a qualified name."""

    def __call__(self) -> None:
        """Its object is known by its class."""


def call(fn: Any = print, **options: Any) -> tuple[Call, Owner]:
    owner = Owner()
    return Call(owner, fn, (), {}, CallOptions(**options)), owner


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (len, "len"),
        (Thing, "Thing"),
        (Thing.method, "Thing.method"),
        (Thing().method, "Thing.method"),
        (Thing(), "Thing"),
        (functools.partial(functools.partial(len), 1), "len"),
        (functools.partial(Thing()), "Thing"),
    ],
)
def test_names(fn: Any, name: str) -> None:
    """Every callable has a name for people."""
    assert function_name(fn) == name


def test_names_of_what_answers_to_any_name() -> None:
    """Mocks and proxies, which have every attribute, are known by their class."""
    assert function_name(Mock()) == "Mock"
    with xmlrpc.client.ServerProxy("http://localhost:1") as proxy:
        assert function_name(proxy) == "ServerProxy"


def test_plain_functions() -> None:
    """What a decorated function is made of is found, and a mock is not mistaken for one."""

    class Decorated:
        @property
        def _aioparallel_plain(self) -> Any:
            return len

    mock = Mock()
    assert plain_function(Decorated()) is len
    assert plain_function(mock) is mock
    assert plain_function(print) is print


def test_chosen_names() -> None:
    """A name that was chosen stands for the function's own."""
    assert call(len)[0].name == "len"
    assert call(len, name="count")[0].name == "count"


@pytest.mark.parametrize(
    ("phase", "began", "state"),
    [
        (Phase.WAITING, None, "waiting"),
        (Phase.QUEUED, 5.0, "queued"),
        (Phase.PLACED, None, "queued"),
        (Phase.PLACED, 5.0, "running"),
        (Phase.PAUSED, 5.0, "queued"),
    ],
)
def test_states(phase: Phase, began: float | None, state: str) -> None:
    """A call runs when its worker says that it has begun; what is sent and not begun is queued."""
    found, owner = call()
    found.phase, owner.began = phase, began
    assert found.info().state == state
    assert found.info().begun_at == (5.0 if state == "running" else None)


def test_info() -> None:
    """A call tells what is known of it."""
    found, _ = call(len)
    found.attempts, found.worker = 2, Seat(0, site=Site("node1"), carrier=Thing.__name__)
    found.begun_at, found.settled_at = 7.0, 9.0
    info = found.info()
    assert (info.name, info.method, info.worker, info.host, info.attempts) == ("len", "test", "Thing", "node1", 2)
    assert (info.queued_at, info.begun_at, info.settled_at) == (found.queued_at, 7.0, 9.0)


def test_cancelling() -> None:
    """Cancelling a call is its pool's affair, and so is how long that may take."""
    found, owner = call()
    assert found.cancel() is True
    assert owner.cancelled == [found]
    assert found.grace == 2.5


def test_calls_do_not_share_state() -> None:
    """What is noted on one call is not seen on another."""
    first, second = call()[0], call()[0]
    first.attempts, first.deaths, first.stop = 1, ["died"], Stop.CANCEL
    assert (second.attempts, second.deaths, second.stop, second.phase) == (0, None, None, Phase.WAITING)


def test_numbers_that_workers_send() -> None:
    """The endings that a worker sends are those that the ledger knows."""
    from aioparallel._child import wire

    assert [Ending.OK, Ending.RAISED, Ending.WITHDRAWN] == [wire.OK, wire.RAISED, wire.WITHDRAWN]


def test_cancelling_wins() -> None:
    """Of two reasons to stop a call the smaller wins, which is that somebody cancelled it."""
    assert min(Stop) is Stop.CANCEL
