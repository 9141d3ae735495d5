"""How answers become exceptions again."""

from __future__ import annotations

import builtins
import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from aioparallel._child import failures
from aioparallel._model.errors import PicklingError, RemoteError, RemoteTraceback
from aioparallel._workers.returning import cannot_be_rebuilt, unpack_failure

BUILTINS = sorted(
    {
        kind
        for kind in vars(builtins).values()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == "builtins"
    },
    key=lambda kind: kind.__name__,
)
NOT_OF_A_TEXT_ALONE = {
    UnicodeDecodeError: UnicodeError,
    UnicodeEncodeError: UnicodeError,
    UnicodeTranslateError: UnicodeError,
    ExceptionGroup: Exception,
    BaseExceptionGroup: Exception,
}


def packed(pickled: bytes | None, base: str = "ValueError", *, notes: list[str] | None = None) -> bytes:
    """A failure as a worker packs it."""
    portrait = ("lib.errors.Special", "what it said", base, notes or [])
    return pickle.dumps((failures.RAISED, pickled, "Traceback ...", portrait, "it is special"))


def unpacked(payload: bytes) -> Any:
    return unpack_failure(payload, "f", "process-0 (pid 7), attempt 2")


@pytest.mark.parametrize("base", BUILTINS, ids=lambda base: base.__name__)
def test_stand_ins_are_caught(base: type[BaseException]) -> None:
    """A stand-in is caught by whoever catches the original's built-in class, for every such class."""
    error = unpacked(packed(None, base.__name__))
    assert isinstance(error, NOT_OF_A_TEXT_ALONE.get(base, base))
    assert isinstance(error, RemoteError)
    assert isinstance(error, Exception)
    assert (str(error), error.type_name, error.reason) == ("what it said", "lib.errors.Special", "it is special")
    assert f"{type(error).__module__}.{type(error).__qualname__}" == "aioparallel.Special"


@pytest.mark.parametrize("base", BUILTINS, ids=lambda base: base.__name__)
def test_stand_ins_travel_on(base: type[BaseException]) -> None:
    """A stand-in can be pickled in its turn, with its fields and notes."""
    error = unpacked(packed(None, base.__name__, notes=["mine"]))
    error.item = 3
    again = pickle.loads(pickle.dumps(error))
    assert type(again).__mro__[1:] == type(error).__mro__[1:]
    assert (str(again), again.type_name, again.item) == (str(error), error.type_name, 3)
    assert again.__notes__ == error.__notes__


def test_exceptions_that_cannot_be_rebuilt_here() -> None:
    """When an exception's class is not here, its stand-in says so."""
    error = unpacked(packed(b"cno_such_module\nSpecial\n."))
    assert isinstance(error, ValueError)
    assert error.reason == "ModuleNotFoundError: No module named 'no_such_module'"
    assert error.__notes__ == [
        (
            "stands in for lib.errors.Special, which cannot be rebuilt here: "
            "ModuleNotFoundError: No module named 'no_such_module'"
        ),
        "raised by f on process-0 (pid 7), attempt 2",
    ]


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('boom')",)


@pytest.mark.parametrize("pickled", [pickle.dumps(Bomb()), pickle.dumps("no exception"), b"garbage"])
def test_pickles_that_make_no_exception(pickled: bytes) -> None:
    """Whatever an exception's pickle does, the call fails, and nothing else."""
    error = unpacked(packed(pickled))
    assert isinstance(error, RemoteError)
    assert isinstance(error, ValueError)


def test_interrupts_are_for_the_program() -> None:
    """A Ctrl-C while an exception is rebuilt is the program's."""
    with pytest.raises(KeyboardInterrupt):
        unpacked(packed(b"cbuiltins\nexec\n(S'raise KeyboardInterrupt'\ntR."))


def test_traceback() -> None:
    """The worker's traceback is the cause, and shows where Python shows causes."""
    error = unpacked(packed(pickle.dumps(ValueError("x"))))
    assert type(error) is ValueError
    assert isinstance(error.__cause__, RemoteTraceback)
    assert str(error.__cause__) == "\n\nTraceback ..."


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception that allows no changes."""

    def __reduce__(self) -> Any:
        return Frozen, ()


def test_frozen_exceptions() -> None:
    """An exception that allows no changes has its cause and note all the same."""
    error = unpacked(packed(pickle.dumps(Frozen())))
    assert type(error) is Frozen
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__notes__ == ["raised by f on process-0 (pid 7), attempt 2"]


def test_results_that_cannot_be_rebuilt() -> None:
    """A result that cannot be rebuilt is an error that names its function, and why."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    cause = ModuleNotFoundError("No module named 'x'")
    error = cannot_be_rebuilt(cause, "f")
    assert type(error) is PicklingError
    assert error.__cause__ is cause
    assert (str(error), error.path) == (
        "the result of f arrived but cannot be rebuilt here (ModuleNotFoundError: No module named 'x')",
        "the result of f",
    )
    assert "Mute, which cannot say its text" in str(cannot_be_rebuilt(Mute(), "f"))
