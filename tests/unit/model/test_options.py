"""What a call may be asked for."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest

from aioparallel._model.options import DEFAULT_OPTIONS, CallOptions, Retry


class Limit:
    """As much of a limit as options look at."""

    def request(self) -> None:
        """Admits everything."""


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 1},
        {"attempts": 5, "on": OSError},
        {"attempts": 5, "on": (OSError, KeyError)},
        {"attempts": 5, "on": ()},
        {"attempts": 5, "on": BaseException},
        {"attempts": 5, "on": lambda error: True},
        {"attempts": 5, "backoff": 0},
        {"attempts": 5, "backoff": lambda attempt: 1},
        {"attempts": 5, "deadline": math.inf},
        {"attempts": 10**6, "worker_lost": True},
    ],
)
def test_retries(options: dict[str, Any]) -> None:
    """A retry that makes sense is accepted, and keeps what it was given."""
    retry = Retry(**options)
    assert {name: getattr(retry, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"attempts": 0}, ValueError, r"Retry\(attempts=0\): expected a whole number of at least 1"),
        ({"attempts": -1}, ValueError, "attempts=-1"),
        ({"attempts": 2.0}, ValueError, r"attempts=2\.0"),
        ({"attempts": True}, ValueError, "attempts=True"),
        ({"attempts": "3"}, ValueError, "attempts='3'"),
        (
            {"attempts": 3, "on": "OSError"},
            TypeError,
            r"Retry\(on='OSError'\): expected exception types, or a function",
        ),
        ({"attempts": 3, "on": int}, TypeError, "on=<class 'int'>"),
        ({"attempts": 3, "on": None}, TypeError, "on=None"),
        ({"attempts": 3, "on": (OSError, "KeyError")}, TypeError, "KeyError"),
        ({"attempts": 3, "on": [OSError]}, TypeError, "on="),
        ({"attempts": 3, "on": OSError()}, TypeError, "on="),
        (
            {"attempts": 3, "backoff": -1},
            ValueError,
            r"Retry\(backoff=-1\): expected seconds, 0 or more, or a function",
        ),
        ({"attempts": 3, "backoff": math.inf}, ValueError, "backoff=inf"),
        ({"attempts": 3, "backoff": math.nan}, ValueError, "backoff=nan"),
        ({"attempts": 3, "backoff": "1"}, ValueError, "backoff='1'"),
        ({"attempts": 3, "deadline": 0}, ValueError, r"Retry\(deadline=0\): expected seconds, more than 0"),
        ({"attempts": 3, "deadline": math.nan}, ValueError, "deadline=nan"),
        ({"attempts": 3, "deadline": "1"}, ValueError, "deadline='1'"),
    ],
)
def test_nonsense_retries(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """A retry that makes no sense is refused when it is made, by an error that quotes what was given."""
    with pytest.raises(error, match=text):
        Retry(**options)


@pytest.mark.parametrize(
    ("on", "error", "wanted"),
    [
        (Exception, KeyError(), True),
        (Exception, KeyboardInterrupt(), False),
        ((), KeyError(), False),
        ((KeyError, OSError), TimeoutError(), True),
        (lambda error: "yes" in str(error), ValueError("yes"), True),
        (lambda error: [], ValueError("yes"), False),
    ],
)
def test_what_retries_want(on: Any, error: BaseException, wanted: bool) -> None:
    """A retry wants the exceptions of its types, or those that its predicate accepts."""
    assert Retry(3, on=on).wants(error) is wanted


def test_retries_are_values() -> None:
    """Retries are compared by what they say, cannot be changed, and travel."""
    retry = Retry(3, on=OSError, backoff=1.5, deadline=9, worker_lost=True)
    assert retry == Retry(3, on=OSError, backoff=1.5, deadline=9, worker_lost=True)
    assert retry != Retry(4)
    assert pickle.loads(pickle.dumps(retry)) == retry
    assert dataclasses.replace(retry, attempts=4).attempts == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        retry.attempts = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"timeout": 0}, ValueError, "timeout=0: expected seconds, more than 0, or None"),
        ({"timeout": -1}, ValueError, "timeout=-1"),
        ({"timeout": math.nan}, ValueError, "timeout=nan"),
        ({"timeout": "5"}, ValueError, "timeout='5'"),
        ({"retry": 0}, ValueError, "attempts=0"),
        ({"retry": True}, TypeError, "retry=True: expected a Retry, a number of attempts, or None"),
        ({"retry": "3"}, TypeError, "retry='3'"),
        ({"priority": 1.5}, TypeError, r"priority=1\.5: expected a whole number"),
        ({"priority": None}, TypeError, "priority=None"),
        ({"limit": 4}, TypeError, "limit=4: expected a Limit"),
        ({"name": 4}, TypeError, "name=4: expected text"),
        ({"tiemout": 4}, TypeError, "no such option: tiemout"),
    ],
)
def test_nonsense_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """An option that makes no sense is refused by an error that quotes what was given."""
    with pytest.raises(error, match=text):
        DEFAULT_OPTIONS.changed(**options)


def test_unknown_options() -> None:
    """The error for an option that does not exist lists those that do."""
    with pytest.raises(TypeError) as caught:
        DEFAULT_OPTIONS.changed(zeal=1, tiemout=2)
    assert str(caught.value).startswith("no such option: tiemout, zeal (there are timeout, retry, idempotent, priority")


def test_changes() -> None:
    """Changed options keep what was not changed, and leave the original alone."""
    limit = Limit()
    options = DEFAULT_OPTIONS.changed(timeout=5, limit=limit).changed(retry=3, idempotent=True, priority=-2, name="n")
    assert options == CallOptions(5, Retry(3), True, -2, limit, "n")
    assert CallOptions() == DEFAULT_OPTIONS
    assert options.changed(timeout=None, retry=None).timeout is None


def test_a_number_of_attempts() -> None:
    """A whole number stands for a retry of so many attempts."""
    assert CallOptions(retry=4).retry == Retry(4)  # type: ignore[arg-type]
