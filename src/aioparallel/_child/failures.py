"""Exceptions on their way home: packed so that they always arrive, as themselves or as a stand-in."""

from __future__ import annotations

import builtins
import pickle
import traceback
from typing import Any

from .packing import Unpicklable, dumps_by_value

RAISED, EXITED, UNPICKLABLE, UNLOADABLE = "raised", "exited", "unpicklable", "unloadable"
"""What happened to the call: the first element of a packed failure."""


def pack(error: BaseException) -> bytes:
    """Pack what a call raised."""
    if isinstance(error, Unpicklable):
        return pickle.dumps((UNPICKLABLE, str(error), error.path, error.culprit))
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        code = getattr(error, "code", None)
        return pickle.dumps((EXITED, type(error).__name__, code if isinstance(code, (int, str)) else repr(code)))
    pickled, reason = _round_trip(error)
    return pickle.dumps((RAISED, pickled, text(error), _portrait(error), reason))


def pack_unloadable(error: BaseException, what: str) -> bytes:
    """Pack that *what* (the function, or its arguments) could not be rebuilt in the worker."""
    return pickle.dumps((UNLOADABLE, what, f"{type(error).__name__}: {error}", text(error)))


def text(error: BaseException) -> str:
    """The traceback as Python prints it, without our own frames at the top."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_globals.get("__package__") == __package__:
        own = own.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    except Exception as problem:  # a __str__ or __repr__ that raises
        return f"{type(error).__qualname__} (its traceback cannot be printed: {type(problem).__name__})\n"


def _round_trip(error: BaseException) -> tuple[bytes | None, str]:
    """The exception's pickle, if the same can be made of it again."""
    try:
        pickled = _dumps(error)
        again = pickle.loads(pickled)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        return None, f"{type(problem).__name__}: {problem}"
    if type(again).__qualname__ != type(error).__qualname__:
        return None, f"its pickle makes a {type(again).__qualname__}"
    return pickled, ""


def _dumps(error: BaseException) -> bytes:
    try:
        return pickle.dumps(error, 5)
    except Exception:
        return dumps_by_value(error)


def _portrait(error: BaseException) -> tuple[str, str, str, list[str]]:
    """What a stand-in is drawn from: class name, text, nearest built-in class, notes."""
    kind = type(error)
    base = next(base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base)
    notes: list[Any] = getattr(error, "__notes__", [])
    try:
        said = str(error)
    except Exception:
        said = "(its text cannot be made)"
    return f"{kind.__module__}.{kind.__qualname__}", said, base, [note for note in notes if isinstance(note, str)]
