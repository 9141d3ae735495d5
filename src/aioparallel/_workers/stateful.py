"""Functions that need a state in each worker: how they travel, and how they are called in threads."""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._child import states
from .._child.current import Current, current
from .._model.call import function_name

__all__ = ["StateCall"]

REST_SECONDS = 0.05
"""How often a worker that rests looks whether its call was cancelled."""


class StateCall:
    """A function of an item that calls the state of the worker it runs in.

    Executors whose workers are other processes send what it is made of (see ``shipping``). In this
    process, it is called as it is.

    Args:
        target: A factory of states, or a function that needs none.
        make: Whether it is a factory.
        kwargs: Keyword arguments for the factory.
        worker_kwargs: Those of each worker.
        workers: How many workers there are.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        make: bool,
        kwargs: Mapping[str, Any],
        worker_kwargs: Sequence[Mapping[str, Any]],
        workers: int,
    ) -> None:
        self.key = secrets.token_hex(8)
        self.how = "state"
        """What a worker makes of it: ``state``, ``prepare`` or ``close`` (see the child's ``load_function``)."""
        self.target = target
        self.make = make
        self.constants = dict(kwargs), [dict(each) for each in worker_kwargs]
        self.__qualname__ = function_name(target)
        self._build = states.builder(target, make, *self.constants)
        self._turns = _Turns(workers)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the state of the current worker, in this process."""
        call = current.get()
        assert call is not None, "an executor calls it"
        self._turns.begin(call)
        worked = False
        try:
            value = states.here(self.key).get(self._build)(*args, **kwargs)
            worked = True
        finally:
            self._turns.end(call.worker_index, worked)
        return value

    def closer(self) -> StateCall:
        """What closes the state of the worker that it is sent to."""
        closer = copy.copy(self)
        closer.how = "close"
        return closer

    def prepare(self) -> None:
        """Build the state of the current worker, if that has not happened."""
        states.here(self.key).get(self._build)

    def close_here(self) -> None:
        """Close the state of the current worker."""
        call = current.get()
        assert call is not None, "an executor calls it"
        states.close(self.key, states.run_alone, call.worker_index)

    def close(self) -> None:
        """Close all states in this process."""
        states.close(self.key, states.run_alone)


class _Turns:
    """Who fails at once would get nearly all of the work: it rests until each of the others has ended a call, too."""

    def __init__(self, workers: int) -> None:
        self._others = workers - 1
        self._changed = threading.Condition()
        self._resting: dict[int, int] = {}
        """How many calls of others must end before a worker that has failed goes on."""
        self._busy: set[int] = set()

    def begin(self, call: Current) -> None:
        """Wait until it is the worker's turn."""
        index = call.worker_index
        with self._changed:
            while self._resting.get(index, 0) > 0 and self._busy and not call.is_cancelled():
                self._changed.wait(REST_SECONDS)
            self._resting.pop(index, None)
            self._busy.add(index)

    def end(self, index: int, worked: bool) -> None:
        """A worker has ended a call."""
        with self._changed:
            self._busy.discard(index)
            for other in self._resting:
                self._resting[other] -= 1
            if not worked and self._others:
                self._resting[index] = self._others
            self._changed.notify_all()
