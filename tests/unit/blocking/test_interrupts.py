"""The first Ctrl-C and the second."""

from __future__ import annotations

import sys
import traceback

import pytest

from aioparallel.blocking.interrupts import interruption_of_program, is_second


def interrupted(first: BaseException, second: BaseException) -> BaseException:
    """An exception that came while another was handled."""
    try:
        try:
            raise first
        finally:
            raise second
    except BaseException as error:
        return error


def test_second() -> None:
    """A Ctrl-C is a second one while another is handled, however far that is up, and then shows one traceback."""
    error = interrupted(KeyboardInterrupt("first"), KeyboardInterrupt("second"))
    assert "first" in "".join(traceback.format_exception(error))
    assert is_second(error)
    assert "first" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(None, id="none"),
        pytest.param(KeyboardInterrupt(), id="first"),
        pytest.param(interrupted(ValueError(), KeyboardInterrupt()), id="while another error is handled"),
        pytest.param(interrupted(KeyboardInterrupt(), ValueError()), id="no Ctrl-C"),
    ],
)
def test_not_second(error: BaseException | None) -> None:
    """Nothing else is a second Ctrl-C, and keeps its context."""
    assert not is_second(error)
    assert error is None or not error.__suppress_context__


def test_interruption_of_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program was ended by Ctrl-C if that is what nobody has caught."""
    monkeypatch.delattr(sys, "last_value", raising=False)
    assert interruption_of_program() is None
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    assert interruption_of_program() is None
    error = KeyboardInterrupt()
    monkeypatch.setattr(sys, "last_value", error)
    assert interruption_of_program() is error
