"""Whether, and when, a call that failed is begun again. Time and chance are arguments.

There are three budgets, each of which only its own kind of failure uses up: exceptions (``Retry.attempts``), lost
workers and hosts (``Retry.worker_lost``), and timeouts (``Retry.timeout``). A call that was taken back before it began,
or was cancelled, uses up none.
"""

from __future__ import annotations

import contextlib
import math

from .._child.pauses import growing_pause
from .._model.call import Call
from .._model.errors import TaskTimeoutError
from .._model.options import Retry

__all__ = ["MAX_DEATHS", "pause_after_error", "pause_after_loss"]

MAX_DEATHS = 3
"""A call that has killed this many workers is poison."""

MAX_LOSSES = 10
"""With as many machines a call may be lost, which proves nothing about it."""


def pause_after_error(call: Call, error: BaseException, now: float, chance: float) -> float | None:
    """Seconds until the call is begun again after *error*, or ``None``: it has failed.

    Args:
        call: The call; this failure is counted in it.
        error: What it raised, or that it ran too long.
        now: ``time.time()``, the clock of ``call.queued_at``.
        chance: A random number from 0 to 1, for the jitter.
    """
    retry = call.options.retry
    if retry is None:
        return None
    is_timeout = isinstance(error, TaskTimeoutError) and retry.timeout is not None
    if is_timeout:
        call.overdue += 1
        failures, most = call.overdue, _budget(retry.timeout, retry.attempts - 1)
    else:
        call.failures += 1
        failures, most = call.failures, retry.attempts - 1
    if failures > most:
        return None
    try:
        pause = _pause(retry, failures, error, chance) if is_timeout or retry.wants(error) else math.inf
    except Exception as problem:  # of the caller's own predicate or backoff
        with contextlib.suppress(Exception):
            error.add_note(f"not begun again, because its Retry failed: {problem!r}")
        return None
    return pause if pause < math.inf and not _too_late(call, retry, now + pause) else None


def pause_after_loss(call: Call, now: float) -> float | None:
    """Seconds until the call is begun again after its worker died, or ``None``: it has failed.

    Without the caller's word, a call whose effects are unknown never runs again.
    """
    retry = call.options.retry
    deaths = len(call.deaths or ())
    allowed = retry.worker_lost if retry is not None and retry.worker_lost is not None else call.options.idempotent
    if deaths >= MAX_DEATHS or deaths + call.losses > _budget(allowed, MAX_LOSSES):
        return None
    return None if retry is not None and _too_late(call, retry, now) else 0.0


def _budget(allowed: bool | int | None, otherwise: int) -> int:
    """How often: a number says it, True leaves it to somebody else, and False is never."""
    if allowed is True:
        return otherwise
    return int(allowed or 0)


def _pause(retry: Retry, failures: int, error: BaseException, chance: float) -> float:
    pause = _backoff(retry, failures) * (0.5 + chance)
    asked = getattr(error, "retry_after", None)
    return max(pause, float(asked)) if isinstance(asked, (int, float)) else pause


def _backoff(retry: Retry, failures: int) -> float:
    if callable(retry.backoff):
        return max(0.0, float(retry.backoff(failures)))
    return growing_pause(float(retry.backoff), failures)


def _too_late(call: Call, retry: Retry, when: float) -> bool:
    return retry.deadline is not None and when > call.queued_at + retry.deadline
