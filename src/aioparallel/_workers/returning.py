"""How answers become values and exceptions again, whatever a worker sent."""

from __future__ import annotations

import builtins
import pickle
from typing import Any

from .._child import failures
from .._model.errors import CallExitedError, PicklingError, RemoteError, RemoteTraceback

__all__ = ["cannot_be_rebuilt", "unpack_failure"]


def cannot_be_rebuilt(error: BaseException, name: str) -> PicklingError:
    """The error for a result whose pickle arrived but does not load here."""
    problem = PicklingError(
        f"the result of {name} arrived but cannot be rebuilt here ({type(error).__name__}: {error})",
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
    pickled: bytes | None, text: str, portrait: tuple[str, str, str, list[str]], reason: str, *, name: str, where: str
) -> BaseException:
    error = None
    if pickled is not None:
        try:
            error = pickle.loads(pickled)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            reason = f"{type(problem).__name__}: {problem}"
    if not isinstance(error, BaseException):
        error = _stand_in(portrait, reason)
    error.__cause__ = RemoteTraceback(text)
    error.add_note(f"raised by {name} on {where}")
    return error


def _stand_in(portrait: tuple[str, str, str, list[str]], reason: str) -> BaseException:
    """An exception of the nearest built-in class, so that the caller's ``except`` still catches it."""
    type_name, said, base_name, notes = portrait
    base = getattr(builtins, base_name, Exception)
    bases = (RemoteError,) if issubclass(RemoteError, base) else (RemoteError, base)
    try:
        kind = type(type_name.rpartition(".")[2], bases, {"__module__": "aioparallel"})
        error = kind(said, type_name=type_name, reason=reason)
    except TypeError:  # a built-in class whose layout does not mix
        error = RemoteError(said, type_name=type_name, reason=reason)
    for note in notes:
        error.add_note(note)
    error.add_note(f"stands in for {type_name}, which cannot be rebuilt here: {reason}")
    return error
