"""How answers become values and exceptions again, whatever a worker sent."""

from __future__ import annotations

import builtins
import pickle
from typing import Any

from .._child import failures
from .._child.packing import described
from .._model.errors import CallExitedError, PicklingError, RemoteError, RemoteTraceback

__all__ = ["cannot_be_rebuilt", "unpack_failure"]

Portrait = tuple[str, str, str, list[str]]
"""Of an exception: class name, text, nearest built-in class, notes."""


def cannot_be_rebuilt(error: BaseException, name: str) -> PicklingError:
    """The error for a result whose pickle arrived but does not load here."""
    problem = PicklingError(
        f"the result of {name} arrived but cannot be rebuilt here ({described(error)})",
        path=f"the result of {name}",
    )
    problem.__cause__ = error
    return problem


def unpack_failure(payload: Any, name: str, where: str) -> BaseException:
    """Rebuild what a call raised, or something that stands in for it.

    Args:
        payload: What :func:`aioparallel._child.failures.pack` made.
        name: The function's name.
        where: The worker and the attempt, for the exception's notes.
    """
    what, *details = pickle.loads(payload)
    if what == failures.EXITED:
        kind, code = details
        how = f"sys.exit({code!r})" if kind == "SystemExit" else kind
        return CallExitedError(f"{name} ended by {how} on {where}; the worker lives on", code=code)
    if what == failures.UNPICKLABLE:
        message, path, culprit = details
        return PicklingError(message, path=path, culprit=culprit)
    if what == failures.UNLOADABLE:
        thing, reason, text = details
        error = PicklingError(f"{thing} cannot be rebuilt in the worker: {reason}", path=thing)
        error.__cause__ = RemoteTraceback(text)
        return error
    return _raised(*details, name=name, where=where)


def _raised(
    pickled: bytes | None, text: str, portrait: Portrait, reason: str, *, name: str, where: str
) -> BaseException:
    error = None
    if pickled is not None:
        try:
            error = pickle.loads(pickled)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            reason = described(problem)
    if not isinstance(error, BaseException):
        error = _stand_in(portrait, reason)
    _annotate(error, text, f"raised by {name} on {where}")
    return error


def _annotate(error: BaseException, text: str, note: str) -> None:
    """Add to an exception, also to one that allows no changes, as a frozen dataclass does."""
    notes = getattr(error, "__notes__", None)
    BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))
    BaseException.__setattr__(error, "__notes__", [*(notes if isinstance(notes, list) else ()), note])


def _stand_in(portrait: Portrait, reason: str) -> RemoteError:
    """An exception of the nearest built-in class possible, so that the caller's ``except`` still catches it."""
    type_name, _, base_name, notes = portrait
    nearest: type = getattr(builtins, base_name, Exception)
    error = next(error for base in nearest.__mro__ if (error := _stand_in_as(base, portrait, reason)) is not None)
    for note in notes:
        error.add_note(note)
    error.add_note(f"stands in for {type_name}, which cannot be rebuilt here: {reason}")
    return error


def _stand_in_as(base: type, portrait: Portrait, reason: str) -> RemoteError | None:
    """A stand-in that also is a *base*; ``None`` for the few classes that cannot be made of a text alone."""
    type_name, said, *_ = portrait
    bases = (RemoteError,) if issubclass(RemoteError, base) else (RemoteError, base)
    own = {"__module__": "aioparallel", "__reduce__": lambda self: (_stand_in, (portrait, reason), vars(self))}
    try:
        error: RemoteError = type(type_name.rpartition(".")[2], bases, own)(said, type_name=type_name, reason=reason)
    except TypeError:
        return None
    return error
