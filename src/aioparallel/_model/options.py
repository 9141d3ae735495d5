"""What a call may be asked for, beside its arguments: frozen, and refused at birth when it is nonsense."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

__all__ = ["DEFAULT_OPTIONS", "Backups", "CallOptions", "Retry"]

Predicate = Callable[[BaseException], bool]


@dataclass(frozen=True)
class Retry:
    """How often, when and for what a failed call is begun again.

    A cancelled call is never retried. Each kind of failure has a budget of its own: one that uses up its attempts
    by exceptions has not used up those of a worker that dies, for the function may be right and the machine wrong.

    Args:
        attempts: How often the call may fail by an exception in all: ``Retry(3)`` begins it at most twice again.
        on: Exception types, or a predicate of the exception, that are worth another attempt.
        backoff: The first pause in seconds, doubled each time, with jitter; or a function of
            the attempt that failed (1 for the first). An exception with a ``retry_after``
            attribute (seconds) makes the pause at least that long.
        deadline: Seconds from submission after which nothing is queued for another attempt. What runs, or waits for a
            worker, is not stopped by it: that is what ``timeout``, and ``asyncio.timeout`` around the call, are for.
        worker_lost: Whether to begin again when the worker, or its host, was lost while it ran the call: the call may
            have had its effects. ``None``: only if the call is ``idempotent``. A number: so many times.
        timeout: Whether to begin again when the call ran longer than its ``timeout``. ``None``: if ``on`` says so of a
            :exc:`TaskTimeoutError`, and then it counts as an exception. A number: so many times.

    Example:
        ::

            pool.options(retry=Retry(3, on=(OSError, TimeoutError)))
    """

    attempts: int
    on: type[BaseException] | tuple[type[BaseException], ...] | Predicate = Exception
    backoff: float | Callable[[int], float] = 0.1
    deadline: float | None = None
    worker_lost: bool | int | None = None
    timeout: bool | int | None = None

    def __init__(
        self,
        attempts: int,
        *,
        on: type[BaseException] | tuple[type[BaseException], ...] | Predicate = Exception,
        backoff: float | Callable[[int], float] = 0.1,
        deadline: float | None = None,
        worker_lost: bool | int | None = None,
        timeout: bool | int | None = None,
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"Retry(attempts={attempts!r}): expected a whole number of at least 1")
        if not _are_exceptions(on) and (isinstance(on, type) or not callable(on)):
            raise TypeError(f"Retry(on={on!r}): expected exception types, or a function of the exception")
        if not callable(backoff) and not (isinstance(backoff, (int, float)) and 0 <= backoff < math.inf):
            raise ValueError(f"Retry(backoff={backoff!r}): expected seconds, 0 or more, or a function")
        if deadline is not None and not (isinstance(deadline, (int, float)) and deadline > 0):
            raise ValueError(f"Retry(deadline={deadline!r}): expected seconds, more than 0")
        for name, budget in (("worker_lost", worker_lost), ("timeout", timeout)):
            if budget is not None and not (isinstance(budget, int) and budget >= 0):
                raise ValueError(f"Retry({name}={budget!r}): expected True, False, a number of times, or None")
        for name, value in zip(
            ("attempts", "on", "backoff", "deadline", "worker_lost", "timeout"),
            (attempts, on, backoff, deadline, worker_lost, timeout),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    def wants(self, error: BaseException) -> bool:
        """Whether this exception is worth another attempt."""
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))


def _are_exceptions(on: Any) -> bool:
    kinds = on if isinstance(on, tuple) else (on,)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


@dataclass(frozen=True)
class Backups:
    """When a call that is late gets a backup copy on another host, and how many there may be.

    Only calls that are ``idempotent`` are copied. The first copy that succeeds gives the result, and the others are
    killed; a copy that fails decides nothing while another runs.

    Args:
        after: How long a call runs before it is late: ``"p95"`` (longer than 95 of 100 finished calls of the same
            function; any ``"p1"`` to ``"p99"``), or seconds.
        min_completed: So many calls of a function must have finished before a quantile of them says anything.
        max_copies: Of one call, at most so many.
        max_extra: Of all calls that may be copied, at most this part; a fraction.
        interval: Seconds between two looks for late calls.

    While more than half of the pool's slots hold late calls nothing is copied: that is an outage, not a straggler.

    Example:
        ::

            RemoteExecutor(hosts, backups=Backups(after="p95", max_extra=0.1))
    """

    after: str | float = "p95"
    min_completed: int = 10
    max_copies: int = 3
    max_extra: float = 0.1
    interval: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.after, str):
            digits = self.after.removeprefix("p")
            if not (self.after.startswith("p") and digits.isdecimal() and 1 <= int(digits) <= 99):
                raise ValueError(f"Backups(after={self.after!r}): expected 'p95', any of 'p1' to 'p99', or seconds")
        elif isinstance(self.after, bool) or not isinstance(self.after, (int, float)) or not self.after > 0:
            raise ValueError(f"Backups(after={self.after!r}): expected 'p95', or seconds, more than 0")
        for name in ("min_completed", "max_copies"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Backups({name}={value!r}): expected a whole number of at least 1")
        for name in ("max_extra", "interval"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"Backups({name}={value!r}): expected a number, more than 0")

    @property
    def quantile(self) -> float | None:
        """The part of all calls that are not late; ``None`` if ``after`` is in seconds."""
        return int(self.after.removeprefix("p")) / 100 if isinstance(self.after, str) else None


@dataclass(frozen=True)
class CallOptions:
    """The options of one call.

    Attributes:
        timeout: Seconds from the start of execution after which the call is stopped.
        retry: What to do when it fails; an integer means ``Retry(n)``.
        idempotent: The caller's word that the call may safely happen twice.
        priority: Higher goes first.
        limit: A :class:`~aioparallel.Limit` that must admit the call before it starts.
        name: Seen in errors, logs and status instead of the function's own.
    """

    timeout: float | None = None
    retry: Retry | None = None
    idempotent: bool = False
    priority: int = 0
    limit: Any = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not (isinstance(self.timeout, (int, float)) and self.timeout > 0):
            raise ValueError(f"timeout={self.timeout!r}: expected seconds, more than 0, or None")
        if isinstance(self.retry, int) and not isinstance(self.retry, bool):
            object.__setattr__(self, "retry", Retry(self.retry))
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise TypeError(f"retry={self.retry!r}: expected a Retry, a number of attempts, or None")
        if not isinstance(self.idempotent, bool):
            raise TypeError(f"idempotent={self.idempotent!r}: expected True or False")
        if not isinstance(self.priority, int):
            raise TypeError(f"priority={self.priority!r}: expected a whole number")
        if self.limit is not None and not hasattr(self.limit, "request"):
            raise TypeError(f"limit={self.limit!r}: expected a Limit, for instance Limit(concurrency=4), or None")
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name={self.name!r}: expected text, or None")

    def changed(self, **changes: Any) -> CallOptions:
        """The same options, with some of them changed.

        Raises:
            TypeError: There is no such option; the message lists those there are.
        """
        known = [field.name for field in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise TypeError(f"no such option: {', '.join(unknown)} (there are {', '.join(known)})")
        return replace(self, **changes)


DEFAULT_OPTIONS = CallOptions()
