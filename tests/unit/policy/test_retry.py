"""Whether and when a call is begun again."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._model.call import Call
from aioparallel._model.errors import TaskTimeoutError
from aioparallel._model.options import Retry
from aioparallel._policy.retry import MAX_DEATHS, pause_after_error, pause_after_loss
from tests.unit.policy.desk import Desk


def tried(times: int, retry: Retry | None = None, *, idempotent: bool = False, deaths: int = 0) -> Call:
    """A call, submitted at 1000, that has been begun so often."""
    call = Desk().call(retry=retry, idempotent=idempotent)
    call.attempts = times
    call.failures = times - 1  # the last one is about to be counted
    call.deaths = ["died"] * deaths
    return call


def asking(seconds: object) -> Exception:
    """An error that asks for a pause."""
    error = OSError("too many requests")
    error.retry_after = seconds  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("attempts", "tries", "again"),
    [(1, 1, False), (2, 1, True), (2, 2, False), (5, 4, True), (5, 5, False)],
)
def test_attempts_count_the_first(attempts: int, tries: int, again: bool) -> None:
    """A call is begun as often as its retry says, the first time included."""
    pause = pause_after_error(tried(tries, Retry(attempts)), ValueError(), 1000, 0.5)
    assert (pause is not None) is again


def test_no_retry() -> None:
    """Without a retry an error is the end."""
    assert pause_after_error(tried(1), ValueError(), 1000, 0.5) is None


@pytest.mark.parametrize(
    ("on", "error", "again"),
    [
        (Exception, ValueError(), True),
        (OSError, ValueError(), False),
        (OSError, TaskTimeoutError(), True),
        ((KeyError, ValueError), ValueError(), True),
        ((KeyError, ValueError), OSError(), False),
        (lambda error: "busy" in str(error), OSError("busy"), True),
        (lambda error: "busy" in str(error), OSError("gone"), False),
        (lambda error: 1 / 0, OSError(), False),
    ],
)
def test_what_is_worth_another_attempt(on: type | Callable[..., bool], error: Exception, again: bool) -> None:
    """Only what the retry names, by type or by predicate, is tried again."""
    pause = pause_after_error(tried(1, Retry(3, on=on)), error, 1000, 0.5)
    assert (pause is not None) is again


@given(st.integers(1, 10), st.floats(0, 1), st.floats(0.001, 10))
def test_pauses_double(attempt: int, chance: float, first: float) -> None:
    """The pause doubles with each attempt, and chance makes it half as long to one and a half times as long."""
    pause = pause_after_error(tried(attempt, Retry(99, backoff=first)), ValueError(), 1000, chance)
    assert pause == pytest.approx(first * 2 ** (attempt - 1) * (0.5 + chance))


@pytest.mark.parametrize("backoff", [0, 0.1])
def test_many_attempts(backoff: float) -> None:
    """After thousands of attempts there is still a pause."""
    pause = pause_after_error(tried(9_999, Retry(10_000, backoff=backoff)), ValueError(), 1000, 0.5)
    assert pause is not None
    assert math.isfinite(pause)


@pytest.mark.parametrize(
    ("backoff", "pause"),
    [
        (lambda attempt: 10.0 * attempt, 30.0),
        (lambda attempt: -1, 0.0),
        (lambda attempt: math.nan, 0.0),
        (lambda attempt: math.inf, None),
        (lambda attempt: None, None),
        (lambda attempt: {}[attempt], None),
    ],
)
def test_backoff_of_the_callers(backoff: Callable[[int], float], pause: float | None) -> None:
    """The pause may be a function of the attempt; one that gives nonsense ends the call, and nothing else."""
    assert pause_after_error(tried(3, Retry(9, backoff=backoff)), ValueError(), 1000, 0.5) == pause


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(7, 7.0), (7.5, 7.5), (0.01, 0.1), (-3, 0.1), (math.nan, 0.1), ("7", 0.1), (None, 0.1), (math.inf, None)],
)
def test_retry_after(asked: object, pause: float | None) -> None:
    """An error that says when to come back makes the pause at least that long."""
    assert pause_after_error(tried(1, Retry(2)), asking(asked), 1000, 0.5) == pause


@pytest.mark.parametrize(("now", "again"), [(1000, True), (1009.8, True), (1009.95, False), (1011, False)])
def test_deadline(now: float, again: bool) -> None:
    """Nothing is begun again later than the deadline after its submission, pause included."""
    retry = Retry(9, deadline=10, worker_lost=True)
    assert (pause_after_error(tried(1, retry), ValueError(), now, 0.5) is not None) is again
    assert (pause_after_loss(tried(1, retry), now) is not None) is (now <= 1010)


@pytest.mark.parametrize(
    ("retry", "idempotent", "tries", "deaths", "again"),
    [
        (None, False, 1, 1, False),
        (None, True, 1, 1, True),
        (None, True, 2, MAX_DEATHS - 1, True),
        (None, True, 3, MAX_DEATHS, False),
        (Retry(5), False, 1, 1, False),
        (Retry(5), True, 1, 1, True),
        (Retry(5, worker_lost=True), False, 1, 1, True),
        (Retry(5, worker_lost=True), False, 3, MAX_DEATHS, False),
        (Retry(5, worker_lost=False), True, 1, 1, False),
        (Retry(2, worker_lost=True), False, 2, 2, True),
        (Retry(2, worker_lost=1), False, 2, 1, True),
        (Retry(2, worker_lost=1), False, 2, 2, False),
        (Retry(9, worker_lost=0), True, 1, 1, False),
        (Retry(1), True, 1, 1, True),
    ],
)
def test_lost_workers(retry: Retry | None, idempotent: bool, tries: int, deaths: int, again: bool) -> None:
    """After a death a call is begun again by the caller's word, within its attempts, and until it is poison."""
    call = tried(tries, retry, idempotent=idempotent, deaths=deaths)
    assert pause_after_loss(call, 1000) == (0.0 if again else None)


def test_errors_that_take_no_notes() -> None:
    """A retry that raises does no harm to an error that allows no changes."""

    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    assert pause_after_error(tried(1, Retry(2, on=lambda error: 1 / 0)), Frozen(), 1000, 0.5) is None
