"""Calls in a process that belongs to somebody else's scheduler, such as Ray's: it comes and goes as that likes.

A call arrives as one envelope (who it is, its function unless that is known here, its arguments), with large buffers
beside it, and is answered in the same way. Whatever happens, short of the end of the process, is an answer.
"""

from __future__ import annotations

import sys
from time import monotonic

from . import chunks, failures, packing, wire
from .current import Current, current
from .lean import pickle
from .streams import Streams
from .wire import OK, RAISED
from .worker import close_states, is_coroutine, load_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Who = tuple[int, str, int, int, list[str]]
    """Id of the call, name of the function, attempt, worker index, and where else modules are found."""
    Answer = tuple[int, float, bytes]
    """Ending, seconds, payload."""
    Packed = tuple[str, Any, Sequence[Any]]
    """Of a function: its key, its pickle, and what is large of it."""

MAX_KNOWN = 1000
"""So many functions are kept, before all are forgotten and loaded anew."""
MAX_LARGE = 2
"""So many of those that hold something large, which is memory that all processes share."""

_functions: dict[str, Any] = {}
_large: dict[str, Any] = {}
_streams = Streams()


def answer(envelope: bytes, *large: Any) -> bytes | list[Any]:
    """Run a call, and return its packed :data:`Answer`; in a list with the buffers of its result, if there are any.

    Args:
        envelope: A pickled tuple: who the call is, the verb, the function's key, its pickle, how many of what is large
            are the function's, and the pickle of the arguments.
        large: What is large of the function, then of the arguments: the pickle, where the envelope has ``None`` for it,
            and buffers.
    """
    who, verb, key, packed, count, payload = pickle.loads(envelope)
    began = monotonic()
    arguments = large[count:] if payload is None else (payload, *large[count:])
    ending, result, buffers = _run(who, verb, (key, packed, large[:count]), *arguments)
    packed = pickle.dumps((ending, monotonic() - began, result))
    return [packed, *buffers] if buffers else packed


def leave() -> None:
    """The process ends, or at least what stays in it between calls."""
    close_states(lambda ending: _streams.loop.run(ending, "closing a state"))
    _streams.close()


def _run(who: Who, verb: int, function: Packed, payload: Any, *buffers: Any) -> tuple[int, bytes, list[Any]]:
    id, name, attempt, index, path = who
    follow(path)
    current.set(Current(id, name, attempt, index, None, lambda: False))
    what = f"the function {name}"
    try:
        fn = _load(*function)
        what = f"the arguments of {name}"
        # Theirs is memory that all processes share; functions may write to their arguments, wherever they run.
        args, kwargs = packing.loads_arguments(payload, [memoryview(bytearray(buffer)) for buffer in buffers])
    except BaseException as error:
        return RAISED, failures.pack_unloadable(error, what), []
    try:
        value = _call(verb, id, name, fn, args, kwargs)
    except BaseException as error:
        return RAISED, failures.pack(error), []
    return _pack(value, name)


def _load(key: str, packed: Any, large: Sequence[Any]) -> Any:
    known, most = (_large, MAX_LARGE) if large else (_functions, MAX_KNOWN)
    if key not in known:
        while len(known) >= most:
            del known[next(iter(known))]
        known[key] = _unpack(*large) if packed is None else _unpack(packed, *large)
    return known[key]


def _unpack(packed: Any, *buffers: Any) -> Any:
    if not buffers:
        return load_function(packed)
    _, function, star, kwstar, constants, _ = pickle.loads(packed)
    return chunks.bind(load_function(function), star, kwstar, *packing.loads_arguments(constants, list(buffers)))


def _call(verb: int, id: int, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if verb == wire.RUN:
        value = fn(*args, **kwargs)
        return _streams.loop.run(value, name) if is_coroutine(value) else value
    if verb in (wire.CHUNK, wire.CHUNK_TO_FAILURE):
        return _run_chunk(fn, args, verb == wire.CHUNK_TO_FAILURE)
    return _streams.step(verb, id, fn, args, kwargs)


def _run_chunk(fn: Callable[[Any], Any], items: Sequence[Any], stop_at_failure: bool) -> tuple[list[Any], Any]:
    """What the items returned, as many as have ended, and the packed failures of some of them."""
    values: list[Any] = []
    failed: dict[int, bytes] = {}
    for index, item in enumerate(items):
        try:
            values.append(fn(item))
        except BaseException as error:
            values.append(None)
            failed[index] = failures.pack(error)
            if stop_at_failure:
                break
    try:
        packing.dumps_result(values, [])
    except Exception:
        for index, value in enumerate(values):
            try:
                packing.dumps_result(value, [])
            except BaseException as error:
                values[index] = None
                failed[index] = failures.pack(packing.explain(value, error, "the result", packing.dumps_by_value))
    return values, failed


def _pack(value: Any, name: str) -> tuple[int, bytes, list[Any]]:
    buffers: list[memoryview] = []
    try:
        payload = packing.dumps_result(value, buffers)
    except BaseException as error:
        problem = packing.explain(value, error, f"the result of {name}", packing.dumps_by_value)
        return RAISED, failures.pack(problem), []
    return OK, payload, [pickle.PickleBuffer(buffer) for buffer in buffers]


def follow(path: list[str]) -> None:
    """Find modules where the program finds them, as far as these places are here."""
    import os

    sys.path.extend(place for place in path if place not in sys.path and os.path.isdir(place))
