"""Exceptions on their way home: packed so that they always arrive, as themselves or as a stand-in."""

from __future__ import annotations

import builtins
import copyreg

from .lean import pickle
from .packing import ATOMS, Unpicklable, described, dumps_by_value, dumps_with, pickler, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RAISED, EXITED, UNPICKLABLE, UNLOADABLE = "raised", "exited", "unpicklable", "unloadable"
"""What happened to the call: the first element of a packed failure."""

advisers: list[Callable[[BaseException], None]] = []
"""What knows more about some errors than they say, and adds it to them as notes."""


def pack(error: BaseException) -> bytes:
    """Pack what a call raised."""
    if isinstance(error, Unpicklable):
        return pickle.dumps((UNPICKLABLE, str(error), error.path, error.culprit))
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return pickle.dumps((EXITED, type(error).__name__, _plain(getattr(error, "code", None))))
    _advise(error)
    pickled, reason = _round_trip(error)
    return pickle.dumps((RAISED, pickled, text(error), _portrait(error), reason))


def pack_unloadable(error: BaseException, what: str) -> bytes:
    """Pack that *what* (the function, or its arguments) could not be rebuilt in the worker."""
    _advise(error)
    return pickle.dumps((UNLOADABLE, what, described(error), text(error)))


def text(error: BaseException) -> str:
    """The traceback as Python prints it, without our own frames at the top."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_globals.get("__package__") == __package__:
        own = own.tb_next
    try:
        import traceback

        return "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    except Exception as problem:  # a __str__ or __repr__ that raises
        return f"{type(error).__qualname__} (its traceback cannot be printed: {type(problem).__name__})\n"


def _advise(error: BaseException) -> None:
    for advise in advisers:
        try:
            advise(error)
        except Exception:  # an error that does not let itself be looked at
            pass


def _plain(code: Any) -> Any:
    """An exit code, in a type that the other side has."""
    if type(code) in ATOMS:
        return code
    return int(code) if isinstance(code, int) else shown(code)


def _round_trip(error: BaseException) -> tuple[bytes | None, str]:
    """The exception's pickle, if the same can be made of it again, and else why not."""
    reason = ""
    for dumps in (_dumps, _dumps_without_init):
        try:
            pickled = dumps(error)
            again = pickle.loads(pickled)
            if _is_same(again, error):
                return pickled, ""
            reason = reason or f"its pickle makes a different {type(again).__qualname__}"
        except BaseException as problem:
            reason = reason or described(problem)
    return None, reason


def _dumps(error: BaseException) -> bytes:
    try:
        return pickle.dumps(error, 5)
    except Exception:
        return dumps_by_value(error)


def _dumps_without_init(error: BaseException) -> bytes:
    """Exceptions are rebuilt from ``args``, but what ``__init__`` takes is often something else."""

    class Pickler(pickler()):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException):
                return copyreg.__newobj__, (type(obj), *obj.args), _state(obj)  # type: ignore[attr-defined]
            return super().reducer_override(obj)

    return dumps_with(Pickler, error, None)


def _state(error: BaseException) -> dict[str, Any]:
    state = {**vars(error), "args": error.args}
    if isinstance(error, OSError):
        state |= {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
    return state


def _is_same(again: BaseException, error: BaseException) -> bool:
    return type(again).__qualname__ == type(error).__qualname__ and _known_args(again) == _known_args(error)


def _known_args(error: BaseException) -> list[str]:
    """Those that look the same wherever they are."""
    return [repr(arg) for arg in error.args if type(arg) in ATOMS]


def _portrait(error: BaseException) -> tuple[str, str, str, list[str]]:
    """What a stand-in is drawn from: class name, text, nearest built-in class, notes."""
    kind = type(error)
    base = next(base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base)
    notes = getattr(error, "__notes__", None)
    try:
        said = str(error)
    except Exception:
        said = "(its text cannot be made)"
    kept = [note for note in notes if type(note) is str] if isinstance(notes, list) else []
    return f"{kind.__module__}.{kind.__qualname__}", said, base, kept
