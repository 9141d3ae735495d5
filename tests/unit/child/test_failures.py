"""Exceptions on their way home: what a worker packs, and what the executor makes of it."""

from __future__ import annotations

import asyncio
import enum
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aioparallel._child import failures
from aioparallel._child.packing import Unpicklable
from aioparallel._model.errors import CallExitedError, PicklingError, RemoteError, RemoteTraceback
from aioparallel._workers.returning import unpack_failure


class Fields(Exception):
    """Its ``__init__`` takes what ``args`` does not hold."""

    def __init__(self, host: str, code: int) -> None:
        super().__init__(f"{host} answered {code}")
        self.host, self.code = host, code


class Formatted(Exception):
    """Made of one text, which becomes another."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such name: {name}")


class Keyword(ValueError):
    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Missing(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "is missing", path)


class Reduced(Exception):
    """Says by itself how it is pickled."""

    def __init__(self, *parts: str) -> None:
        super().__init__("-".join(parts))
        self.parts = parts

    def __reduce__(self) -> Any:
        return Reduced, self.parts


class Impostor(Exception):
    """Its pickle makes something else, and so would a better one if it could be made."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        return ValueError, ("not me",)


class Mute(KeyError):
    """Cannot say its text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Locked(LookupError):
    """Holds what does not travel."""

    def __init__(self, text: str = "locked") -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Explosive(Exception):
    """Goes off when it is unpickled, and so does what stands for it."""

    def __setstate__(self, state: object) -> None:
        raise SystemExit("boom")


class OddNotes(Exception):
    __notes__ = None  # type: ignore[assignment]


class OddArgs(Exception):
    args = None  # type: ignore[assignment]


class Code(enum.IntEnum):
    BAD = 4


class Stop(BaseException):
    pass


def raised(make: Callable[[], BaseException]) -> BaseException:
    """The exception as a call of a user's function would raise it."""
    try:
        raise make()
    except BaseException as error:
        return error


def arrives(error: BaseException) -> BaseException:
    return unpack_failure(failures.pack(error), "f", "process-0 (pid 7), attempt 1")


def same(error: BaseException) -> Any:
    """What arrives, of which it is certain that it is no stand-in."""
    again = arrives(error)
    assert type(again) is type(error)
    assert not isinstance(again, RemoteError)
    return again


def stand_in(error: BaseException) -> RemoteError:
    again = arrives(error)
    assert isinstance(again, RemoteError)
    return again


# As themselves


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("k"),
        OSError(2, "No such file", "path"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
        StopIteration(5),
        ValueError(float("nan")),
        ValueError(object()),
        ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [KeyError(2)])]),
        asyncio.CancelledError(),
        GeneratorExit(),
        Stop("now"),
        Fields("node", 503),
        Formatted("bob"),
        Keyword(reason="why"),
        Missing("there"),
        Reduced("a", "b"),
        OddNotes("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_arrive_as_themselves(error: BaseException) -> None:
    """An exception keeps its class, arguments, text and fields, whatever its ``__init__`` takes."""
    again = same(raised(lambda: error))
    assert len(again.args) == len(error.args)
    if not any(type(arg) is object for arg in error.args):
        assert str(again) == str(error)
        assert repr(again) == repr(error)
    fields = {name: value for name, value in vars(error).items() if name != "__notes__"}
    assert {name: vars(again)[name] for name in fields} == fields


def test_operating_system_errors_keep_their_number() -> None:
    """An ``OSError`` of a user's own class keeps its number, text and path."""
    again = same(Missing("there"))
    assert (again.errno, again.strerror, again.filename) == (2, "is missing", "there")


def test_local_classes() -> None:
    """An exception of a class defined in a function arrives as that very class."""

    class Local(ValueError):
        pass

    assert same(Local("here")).args == ("here",)


def test_groups() -> None:
    """An exception group arrives with all that it holds."""
    group = same(ExceptionGroup("several", [Fields("a", 1), Formatted("b")]))
    assert [str(error) for error in group.exceptions] == ["a answered 1", "no such name: b"]
    assert group.exceptions[0].host == "a"


def test_notes_arrive() -> None:
    """Notes arrive, and one is added that says who raised the exception."""
    error = raised(lambda: ValueError("x"))
    error.add_note("mine")
    assert same(error).__notes__ == ["mine", "raised by f on process-0 (pid 7), attempt 1"]


def test_traceback_arrives() -> None:
    """The worker's traceback is the cause, with the chain of causes that it had there."""

    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    try:
        fail()
    except ValueError as error:
        cause = arrives(error).__cause__
    assert isinstance(cause, RemoteTraceback)
    text = str(cause)
    assert text.index("KeyError: 'first'") < text.index("The above exception was") < text.index("ValueError: second")
    assert "in fail" in text


def test_own_frames_are_not_shown() -> None:
    """A traceback begins with the user's code, not with ours."""
    scope = {"__package__": failures.__package__, "__name__": "ours"}
    exec(compile("def ours(fn):\n    fn()", "ours.py", "exec"), scope)

    def fail() -> None:
        raise ValueError("x")

    try:
        scope["ours"](fail)  # type: ignore[operator]
    except ValueError as error:
        assert error.__traceback__ is not None
        inner = error.with_traceback(error.__traceback__.tb_next)
        text = failures.text(inner)
    assert "ours.py" not in text
    assert "in fail" in text


# As stand-ins


@pytest.mark.parametrize(
    ("error", "nearest", "reason"),
    [
        (Locked(), LookupError, "cannot pickle '_thread.lock' object"),
        (Impostor("me"), Exception, "its pickle makes a different ValueError"),
        (Explosive("short", "fuse"), Exception, "SystemExit: boom"),
        (OddArgs("odd"), Exception, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_stand_ins(error: BaseException, nearest: type, reason: str) -> None:
    """An exception that cannot be rebuilt has a stand-in of the nearest built-in class, which says why."""
    if isinstance(error, Explosive):
        error.__dict__["state"] = 1
    again = stand_in(raised(lambda: error))
    assert isinstance(again, nearest)
    assert type(again).__name__ == type(error).__name__
    assert str(again) == str(error)
    assert again.type_name == f"{__name__}.{type(error).__qualname__}"
    assert reason in again.reason
    assert isinstance(again.__cause__, RemoteTraceback)


def test_stand_ins_say_so() -> None:
    """A stand-in keeps the notes, and adds what it stands for and why."""
    error = Locked()
    error.add_note("mine")
    mine, stands, who = stand_in(error).__notes__
    assert mine == "mine"
    assert stands.startswith(f"stands in for {__name__}.Locked, which cannot be rebuilt here: TypeError: cannot pickle")
    assert who == "raised by f on process-0 (pid 7), attempt 1"


def test_mute_exceptions() -> None:
    """An exception that cannot say its text does no harm."""
    assert isinstance(arrives(raised(Mute)), KeyError)
    locked = raised(Mute)
    locked.lock = Locked().lock  # type: ignore[attr-defined]
    again = stand_in(locked)
    assert isinstance(again, KeyError)
    assert str(again) == "(its text cannot be made)"


def test_groups_that_cannot_be_rebuilt() -> None:
    """A group that holds what does not travel has a stand-in that names it, with all tracebacks in its cause."""
    again = stand_in(raised(lambda: ExceptionGroup("several", [ValueError("x"), Locked("y")])))
    assert again.type_name == "builtins.ExceptionGroup"
    assert str(again) == "several (2 sub-exceptions)"
    assert "ValueError: x" in str(again.__cause__)


# Neither


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (lambda: SystemExit(), None, "f ended by sys.exit(None) on"),
        (lambda: SystemExit(3), 3, "f ended by sys.exit(3) on"),
        (lambda: SystemExit("bye"), "bye", "f ended by sys.exit('bye') on"),
        (lambda: SystemExit(Code.BAD), 4, "f ended by sys.exit(4) on"),
        (lambda: SystemExit([1, 2]), "[1, 2]", "f ended by sys.exit('[1, 2]') on"),
        (lambda: SystemExit(Locked().lock), None, "f ended by sys.exit("),
        (lambda: KeyboardInterrupt(), None, "f ended by KeyboardInterrupt on"),
    ],
)
def test_exits(make: Callable[[], BaseException], code: object, text: str) -> None:
    """``sys.exit`` in a call is an error that tells the code, as far as it can travel."""
    error = arrives(raised(make))
    assert type(error) is CallExitedError
    assert text in str(error)
    assert str(error).endswith("; the worker lives on")
    if code is not None or "None" in text or "Keyboard" in text:
        assert error.code == code


def test_unpicklable_results() -> None:
    """A result that cannot travel is an error that names the path to the culprit."""
    error = arrives(Unpicklable("the result of f[0] cannot be pickled: <lock>", "the result of f[0]", "<lock>"))
    assert type(error) is PicklingError
    assert (str(error), error.path, error.culprit) == (
        "the result of f[0] cannot be pickled: <lock>",
        "the result of f[0]",
        "<lock>",
    )


def test_unloadable_functions() -> None:
    """A function that cannot be rebuilt is an error with the worker's traceback as its cause."""
    packed = failures.pack_unloadable(raised(lambda: ModuleNotFoundError("No module named 'x'")), "the function f")
    error = unpack_failure(packed, "f", "w")
    assert type(error) is PicklingError
    said = "the function f cannot be rebuilt in the worker: ModuleNotFoundError: No module named 'x'"
    assert (str(error), error.path) == (said, "the function f")
    assert "ModuleNotFoundError" in str(error.__cause__)
    assert isinstance(unpack_failure(failures.pack_unloadable(Mute(), "f"), "f", "w"), PicklingError)


def test_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows more about an error adds it before it is packed; advice that itself fails does no harm."""

    def advise(error: BaseException) -> None:
        error.add_note("look elsewhere")

    def fail(error: BaseException) -> None:
        raise RuntimeError

    monkeypatch.setattr(failures, "advisers", [fail, advise])
    error = unpack_failure(failures.pack(raised(lambda: ValueError("x"))), "f", "w")
    assert error.__notes__[0] == "look elsewhere"
    assert "look elsewhere" in str(error.__cause__)
    unloadable = unpack_failure(failures.pack_unloadable(ValueError("x"), "f"), "f", "w")
    assert "look elsewhere" in str(unloadable.__cause__)


def test_what_is_packed_is_plain() -> None:
    """A packed failure can be opened by whoever has nothing but Python."""
    what, pickled, text, portrait, reason = pickle.loads(failures.pack(raised(lambda: ValueError("x"))))
    assert (what, portrait, reason) == ("raised", ("builtins.ValueError", "x", "ValueError", []), "")
    assert isinstance(pickled, bytes)
    assert text.startswith("Traceback (most recent call last)")
