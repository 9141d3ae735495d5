"""One call in a process that somebody else keeps: what the ``anyio`` engine runs there."""

from __future__ import annotations

import os
from typing import Any

from . import failures, packing
from .current import Current, borrow_process, current
from .streams import Loop
from .wire import OK, RAISED
from .worker import is_coroutine, load_function

_prepared: set[str] = set()
_before: dict[str, str | None] = {}
"""What the environment had where the last call's pool has put something else."""
_loop = Loop()

Setup = tuple[str, dict[str, str], tuple[str, ...], "bytes | None"]
"""The pool's key, environment, modules to import, initializer."""

Who = tuple[int, str, int, int]
"""Id of the call, name of the function, attempt, worker index."""


def run(setup: Setup, who: Who, function: bytes, arguments: bytes) -> tuple[int, bytes]:
    """Run a call; whatever happens, short of the end of the process, is returned."""
    name = who[1]
    borrow_process()
    current.set(Current(*who, None, lambda: False))
    try:
        _prepare(*setup)
        fn = load_function(function)
        args, kwargs = packing.loads_arguments(arguments, [])
    except BaseException as error:
        return RAISED, failures.pack_unloadable(error, f"{name}, or its arguments, or its worker's set-up,")
    try:
        value = fn(*args, **kwargs)
        if is_coroutine(value):
            value = _loop.run(value, name)
    except BaseException as error:
        return RAISED, failures.pack(error)
    return _pack(value, name)


def _prepare(key: str, env: dict[str, str], preload: tuple[str, ...], initializer: bytes | None) -> None:
    _set_environment(env)
    if key not in _prepared:
        for module in preload:
            __import__(module)
        if initializer is not None:
            load_function(initializer)()
        _prepared.add(key)


def _set_environment(env: dict[str, str]) -> None:
    """Pools share the process: what was set for another one is not for us."""
    for name, value in _before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _before.clear()
    _before.update((name, os.environ.get(name)) for name in env)
    os.environ.update(env)


def _pack(value: Any, name: str) -> tuple[int, bytes]:
    try:
        return OK, packing.dumps_result(value, None)
    except BaseException as error:
        problem = packing.explain(value, error, f"the result of {name}", packing.dumps_by_value)
        return RAISED, failures.pack(problem)
