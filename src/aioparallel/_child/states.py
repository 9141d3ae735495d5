"""State that lives in a worker: built there, called for every item, closed when the worker ends.

Each worker of a pool has its own, by its index; a process may have several, of different pools. The same serves
workers that are threads of the executor's own process.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock

from . import failures
from .current import current
from .lean import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Key = tuple[str, int]
    """Of the pool, and the worker's index."""


class State:
    """What one worker has built, or is about to build."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._built = False
        self._value: Any = None
        self._entered: Any = None

    def get(self, build: Callable[[], Any]) -> Any:
        """The state; the first who asks builds it, and others wait. What building raises is raised to who asked."""
        if not self._built:
            with self._lock:
                if not self._built:
                    self._enter(build())
        return self._value

    def prepare(self, build: Callable[[], Any]) -> None:
        """Build the state ahead of the calls that need it."""
        self.get(build)

    def _enter(self, value: Any) -> None:
        kind = type(value)
        if hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
            self._value = value.__enter__()
            self._entered = value
        else:
            self._value = value
        self._built = True

    def close(self, run: Callable[[Any], object]) -> None:
        """Close it, by whatever it has for that; an error is written down, for nobody is left to be told."""
        built, self._built = self._built, False
        if not built:
            return
        value, entered = self._value, self._entered
        self._value = self._entered = None
        try:
            if entered is not None:
                entered.__exit__(None, None, None)
                return
            close = getattr(value, "close", None) or getattr(value, "aclose", None)
            ended = close() if callable(close) else None
            if hasattr(type(ended), "__await__"):
                run(ended)
        except BaseException as error:
            sys.stderr.write(f"the state of a worker could not be closed:\n{failures.text(error)}")


_states: dict[Key, State] = {}


def here(pool: str) -> State:
    """The state of a pool's worker that the current call runs in."""
    call = current.get()
    assert call is not None, "only calls and initializers ask"
    return _states.setdefault((pool, call.worker_index), State())


def builder(
    target: Callable[..., Any], make: bool, shared: dict[str, Any], own: list[dict[str, Any]]
) -> Callable[[], Any]:
    """What builds the state of the current worker.

    Args:
        target: A class or another factory; or the function that is called for every item.
        make: Whether it is a factory.
        shared: Keyword arguments for the factory, the same for all workers.
        own: Those of each worker, which win; none for workers beyond the end.
    """

    def build() -> Any:
        call = current.get()
        assert call is not None, "only calls and initializers build"
        mine = own[call.worker_index] if call.worker_index < len(own) else {}
        return target(**{**shared, **mine}) if make else target

    return build


def caller(pool: str, build: Callable[[], Any]) -> Callable[..., Any]:
    """What is called for an item: the state of whichever worker runs it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return here(pool).get(build)(*args, **kwargs)

    return call


def load(
    load_function: Callable[[bytes], Any], how: str, pool: str, target: bytes, make: bool, constants: bytes
) -> Callable[..., Any]:
    """What a worker makes of a function that was sent to call its state, to build it, or to close it."""
    if how == "close":
        return lambda: close(pool, run_alone)
    build = builder(load_function(target), make, *pickle.loads(constants))
    return caller(pool, build) if how == "state" else lambda: here(pool).prepare(build)


def close(pool: str, run: Callable[[Any], object], index: int | None = None) -> None:
    """Close the states of a pool in this process, or only that of one worker."""
    for key in [key for key in _states if key[0] == pool and index in (None, key[1])]:
        _states.pop(key).close(run)


def close_all(run: Callable[[Any], object]) -> None:
    """The process ends: close whatever is there."""
    while _states:
        _states.popitem()[1].close(run)


def run_alone(awaitable: Any) -> None:
    """Run what closing returned, where there is no event loop for it."""
    import asyncio

    async def run() -> None:
        await awaitable

    asyncio.run(run())
