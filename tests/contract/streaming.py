"""How tests of executors make streams: below the decorator, which has tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioparallel._model.options import DEFAULT_OPTIONS
from tests.contract import jobs
from tests.contract.kinds import Kind

_ASYNC = {jobs.count_to: jobs.count_to_async, jobs.endless: jobs.endless_async}


def stream(pool: Any, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The items of a generator function that runs on the executor."""
    return pool._stream(fn, args, kwargs, DEFAULT_OPTIONS)


def fit_stream(kind: Kind, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The generator function in a form that this kind takes."""
    return _ASYNC.get(fn, fn) if kind.coroutines else fn
