"""Errors: what they say, and that they travel."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from aioparallel._model import errors
from aioparallel._model.errors import (
    AioParallelError,
    CallExitedError,
    HostError,
    PicklingError,
    PoisonTaskError,
    RemoteError,
    RemoteTraceback,
    TaskTimeoutError,
    WorkerLostError,
)

LOST: dict[str, Any] = {
    "call": "resize",
    "worker": "cpu-3",
    "pid": 48121,
    "host": "node1",
    "exitcode": 1,
    "signal": "SIGKILL",
    "running_for": 12.41,
    "max_rss": 300 * 2**20,
    "out_of_memory": "the kernel acted",
    "last_output": "almost\ndone\n",
    "stack": "in resize",
    "ended": [1, 2],
}
FIELDS: dict[str, dict[str, Any]] = {
    "CallExitedError": {"code": 3},
    "PicklingError": {"path": "args[0].lock", "culprit": "<lock>"},
    "WorkerLostError": LOST,
    "PoisonTaskError": {**LOST, "history": ("died once", "died twice")},
    "TaskTimeoutError": {"call": "f", "timeout": 1.5, "stack": "in f"},
    "HostError": {
        "host": "node1",
        "phase": "python",
        "permanent": True,
        "tried": (("python3.11", "not found"), ("python3", "3.12.1")),
        "mismatch": "3.12.1",
    },
    "RemoteError": {"type_name": "lib.Special", "reason": "its class is not here"},
}
CLASSES = [getattr(errors, name) for name in errors.__all__ if name not in {"RemoteTraceback", "InsecureHostWarning"}]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("message", ["what happened", ""])
@pytest.mark.parametrize("dup", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_errors_travel(kind: type[AioParallelError], message: str, dup: Any) -> None:
    """Every error keeps its text, fields and notes when it is pickled or copied."""
    fields = FIELDS.get(kind.__name__, {})
    error = kind(message, **fields)
    error.add_note("mine")
    again = dup(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert {name: getattr(again, name) for name in fields} == fields
    assert again.__notes__ == ["mine"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_fields_can_be_asked_for(kind: type[AioParallelError]) -> None:
    """Every field that an error documents is there, also when nothing is known of it."""
    error = kind("text")
    texts = [(parent.__doc__ or "").partition("Attributes:")[2] for parent in kind.__mro__]
    words = {line.strip().partition(":")[0] for text in texts for line in text.split("\n")}
    documented = {word for word in words if word.isidentifier()}
    assert documented >= FIELDS.get(kind.__name__, {}).keys()
    for name in documented:
        getattr(error, name)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_have_one_root(kind: type[AioParallelError]) -> None:
    """Every error is an ``AioParallelError``, and says what it is when it is shown."""
    assert issubclass(kind, AioParallelError)
    assert repr(kind("first\nsecond")) == f"{kind.__name__}('first')"


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (TaskTimeoutError, TimeoutError),
        (PicklingError, pickle.PicklingError),
        (PoisonTaskError, WorkerLostError),
    ],
)
def test_errors_are_caught_as_usual(kind: type[Exception], base: type[Exception]) -> None:
    """Errors that the standard library knows are caught by its classes."""
    with pytest.raises(base):
        raise kind("text")


def test_remote_traceback() -> None:
    """A worker's traceback survives pickling, and is set apart when it is shown."""
    again = pickle.loads(pickle.dumps(RemoteTraceback("Traceback ...")))
    assert (again.text, str(again)) == ("Traceback ...", "\n\nTraceback ...")


# What they say


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "a worker (pid None) was lost"),
        (
            {"worker": "cpu-3", "pid": 7, "signal": "SIGSEGV", "call": "f", "running_for": 12.41},
            "cpu-3 (pid 7) was killed by SIGSEGV while running f, 12.4 s in",
        ),
        ({"worker": "cpu-3", "pid": 7, "exitcode": 0}, "cpu-3 (pid 7) exited with code 0"),
        ({"worker": "w", "pid": 7, "host": "node1", "exitcode": 3}, "w (pid 7) on node1 exited with code 3"),
        (
            {"worker": "w", "pid": 7, "signal": "SIGKILL", "max_rss": 300 * 2**20},
            (
                "w (pid 7) was killed by SIGKILL\n"
                "Nothing in aioparallel sent that signal. On Linux it is usually the out-of-memory killer: "
                "look for the pid in `dmesg`, and use fewer workers or less memory per call.\n"
                "Its peak memory was 300 MiB."
            ),
        ),
        (
            {"worker": "w", "pid": 7, "signal": "SIGKILL", "out_of_memory": "the kernel acted"},
            "w (pid 7) was killed by SIGKILL\nOut of memory: the kernel acted",
        ),
        (
            {"worker": "w", "pid": 7, "exitcode": 1, "last_output": "almost\ndone\n"},
            "w (pid 7) exited with code 1\nIts last output:\nalmost\ndone",
        ),
    ],
)
def test_lost_workers(fields: dict[str, Any], text: str) -> None:
    """A lost worker's error says who died, how, of what and when, and what to do about it."""
    assert str(WorkerLostError(**fields)) == text


def test_lost_workers_with_a_message() -> None:
    """A message of its own stands before the evidence."""
    error = WorkerLostError("it could not be set up", exitcode=1, max_rss=2**20)
    assert str(error) == "it could not be set up\nIts peak memory was 1 MiB."


def test_poison() -> None:
    """A call that was set aside tells the death of each worker that it killed."""
    error = PoisonTaskError("f killed 2 workers and is not run again", history=("w0 died", "w1 died"))
    assert str(error) == "f killed 2 workers and is not run again\nw0 died\nw1 died"


def test_timeouts() -> None:
    """A timeout tells its limit, and where the call was."""
    error = TaskTimeoutError(call="f", timeout=1.5)
    assert str(error) == "f ran longer than its timeout of 1.5 s"
    error.stack = "  File x, line 3 in f"
    assert str(error) == "f ran longer than its timeout of 1.5 s\nIt was here:\n  File x, line 3 in f"


def test_messages_are_shown_as_they_are() -> None:
    """Errors with a message show that, and those without show nothing made up."""
    assert str(HostError("node1: no route", host="node1", phase="connect")) == "node1: no route"
    assert str(CallExitedError()) == ""
    assert str(RemoteError("x", type_name="lib.Special")) == "x"
