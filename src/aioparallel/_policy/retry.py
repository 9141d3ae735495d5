"""Whether, and when, a call that failed is begun again. Time and chance are arguments."""

from __future__ import annotations

import contextlib
import math

from .._model.call import Call
from .._model.options import Retry

__all__ = ["MAX_DEATHS", "pause_after_error", "pause_after_loss"]

MAX_DEATHS = 3
"""A call that has killed this many workers is poison."""

MAX_DOUBLINGS = 100
"""Of the first pause: more than anybody waits for, and less than a float can hold."""


def pause_after_error(call: Call, error: BaseException, now: float, chance: float) -> float | None:
    """Seconds until the call is begun again after *error*, or ``None``: it has failed.

    Args:
        call: The call, with ``attempts`` already counting the one that failed.
        error: What it raised.
        now: ``time.time()``, the clock of ``call.queued_at``.
        chance: A random number from 0 to 1, for the jitter.
    """
    retry = call.options.retry
    if retry is None or call.attempts >= retry.attempts:
        return None
    try:
        pause = _pause(retry, call.attempts, error, chance) if retry.wants(error) else math.inf
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
    if not allowed or deaths >= MAX_DEATHS:
        return None
    if retry is not None and (call.attempts >= retry.attempts or _too_late(call, retry, now)):
        return None
    return 0.0


def _pause(retry: Retry, attempt: int, error: BaseException, chance: float) -> float:
    pause = _backoff(retry, attempt) * (0.5 + chance)
    asked = getattr(error, "retry_after", None)
    return max(pause, float(asked)) if isinstance(asked, (int, float)) else pause


def _backoff(retry: Retry, attempt: int) -> float:
    if callable(retry.backoff):
        return max(0.0, float(retry.backoff(attempt)))
    return float(retry.backoff) * 2.0 ** min(attempt - 1, MAX_DOUBLINGS)


def _too_late(call: Call, retry: Retry, when: float) -> bool:
    return retry.deadline is not None and when > call.queued_at + retry.deadline
