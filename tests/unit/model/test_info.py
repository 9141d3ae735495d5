"""What can be known of a call: frozen records."""

from __future__ import annotations

import pickle

import pytest

from aioparallel._model.info import CallInfo, CallState, CurrentCall, Method

RECORDS = [CallInfo("queued", name="f", attempts=2, queued_at=1.0), CurrentCall(3, "f", host="node1")]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record: CallInfo | CurrentCall) -> None:
    """A record cannot be changed, and travels."""
    with pytest.raises(AttributeError):
        record.name = "g"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("text", ["process", "PROCESS", "Process"])
def test_methods_by_name(text: str) -> None:
    """A method is found by its name in any case."""
    assert Method(text) is Method.PROCESS


@pytest.mark.parametrize("value", ["processes", "", None, 3])
def test_unknown_methods(value: object) -> None:
    """What is no method's name is refused."""
    with pytest.raises(ValueError, match="is not a valid Method"):
        Method(value)


def test_states_and_methods_are_strings() -> None:
    """States and methods are compared with, and shown as, plain strings."""
    assert CallState.RUNNING == "running"
    assert f"{CallState.DONE} by {Method.THREAD}" == "done by thread"
    assert str(Method.RAY) == "ray"
