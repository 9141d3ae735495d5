"""One call, from ``submit`` to its end: a plain record, whose state only the ledger changes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextvars import Context
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from .info import CallInfo, CallState
from .options import CallOptions

if TYPE_CHECKING:
    from .._futures.smart import SmartFuture

__all__ = ["Call", "CallOwner", "Ending", "Phase", "Stop", "function_name", "plain_function"]


class Phase(IntEnum):
    """Where a call is. The transitions are drawn in :mod:`aioparallel._policy.ledger`."""

    WAITING = 0
    """For the futures among its arguments."""
    QUEUED = 1
    PLACED = 2
    """Sent to a worker; it may or may not have begun."""
    PAUSED = 3
    """Failed, and waiting to be begun again."""
    SETTLED = 4


class Stop(IntEnum):
    """Why a call that a worker holds is to be stopped."""

    CANCEL = 1
    TIMEOUT = 2


class Ending(IntEnum):
    """How a worker says that a call ended. The child sends these numbers."""

    OK = 0
    RAISED = 1
    WITHDRAWN = 2
    """It was taken back before it began."""


class CallOwner(Protocol):
    """The pool that a call belongs to, as far as the call needs it."""

    @property
    def kind(self) -> str: ...

    @property
    def grace(self) -> float: ...

    def _cancel_call(self, call: Call) -> bool: ...

    def _began(self, call: Call) -> float | None: ...

    def _is_waiting(self, call: Call) -> bool: ...


class Call:
    """A call and everything known of it. It stands behind its future (see ``contracts.Source``).

    Attributes:
        worker: The ledger's seat that it was given to last.
        seq: The number it was sent under.
        pin: The only seat that can run it, if there is one.
        avoid: The ledger's sites where it failed.
        failures: How often it failed by an exception, if that matters.
        overdue: How often it ran too long, if that matters.
        losses: How often it was lost with the machine that it ran on.
        race: The ledger's, while there are backup copies of it.
        copies: How many backup copies of it were made, for all of its attempts.
        kind: The verb of the wire: run, or a step of a stream.
        function: What the executor knows of the function, with its ``costs``.
        payload: What the executor made of the arguments.
        give_back: For a chunk: told from which item on a stuck worker will not run it.
        context: The contextvars that it runs in, on executors of this process.
    """

    # Most calls keep most of these defaults, and never pay for them.
    phase = Phase.WAITING
    stop: Stop | None = None
    attempts = 0
    deaths: list[str] | None = None
    worker: Any = None
    pin: Any = None
    avoid: frozenset[Any] = frozenset()
    failures = 0
    overdue = 0
    losses = 0
    race: Any = None
    copies = 0
    kind = 0
    seq = 0
    begun_at: float | None = None
    settled_at: float | None = None
    duration: float | None = None
    context: Context | None = None
    function: Any = None
    payload: Any = None
    give_back: Callable[[int], None] | None = None
    _name: str | None = None

    future: SmartFuture[Any]

    def __init__(
        self,
        owner: CallOwner,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> None:
        self.owner = owner
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.queued_at = time.time()

    def twin(self) -> Call:
        """A backup copy: what a worker needs of it, under the same future."""
        copy = Call(self.owner, self.fn, self.args, self.kwargs, self.options)
        copy.queued_at = self.queued_at
        copy.kind, copy.function, copy.payload = self.kind, self.function, self.payload
        copy.attempts = self.attempts - 1  # it is counted again when it is placed
        copy.race = self.race
        copy.future = self.future
        return copy

    @property
    def name(self) -> str:
        """The function's name, or the one that was chosen, for people."""
        name = self._name
        if name is None:  # whoever is watched is asked at each step
            name = self._name = self.options.name or function_name(self.fn)
        return name

    @property
    def grace(self) -> float:
        """How long a cancelled awaiter waits until the work has stopped."""
        return self.owner.grace

    def cancel(self) -> bool:
        """Stop the call for everybody (see ``contracts.Source``)."""
        return self.owner._cancel_call(self)

    def info(self) -> CallInfo:
        """How the call stands."""
        return CallInfo(
            state=str(self._state()),
            name=self.name,
            method=self.owner.kind,
            worker=None if self.worker is None else str(self.worker),
            host=None if self.worker is None else self.worker.site.name,
            attempts=self.attempts,
            copies=self.copies,
            queued_at=self.queued_at,
            begun_at=self._began(),
            settled_at=self.settled_at,
        )

    def _state(self) -> CallState:
        """The state before the end; the future knows its own end."""
        if self.phase is Phase.WAITING:
            return CallState.WAITING
        return CallState.QUEUED if self._began() is None else CallState.RUNNING

    def _began(self) -> float | None:
        if self.begun_at is None and self.phase is Phase.PLACED:
            return self.owner._began(self)
        return self.begun_at


def function_name(fn: Any) -> str:
    """A name for any callable: a function, a partial, an object with ``__call__``."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)  # some proxies answer with a proxy
    return name if isinstance(name, str) else type(fn).__qualname__


def plain_function(fn: Any) -> Any:
    """The function that a decorated one is made of: what an executor is to run, and any other callable as it is."""
    return fn._aioparallel_plain if hasattr(type(fn), "_aioparallel_plain") else fn  # of its type: a mock has any name
