"""Messages between an executor and its agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._child.messages import MessageError, dumps, loads

values = st.one_of(st.none(), st.integers(), st.text(), st.text(st.characters(codec="latin-1")))
names = st.text("abcdefgh_", min_size=1)


@given(st.dictionaries(names, values, min_size=1))
def test_round_trip(message: dict[str, str | int | None]) -> None:
    """A message of texts, whole numbers and nothing arrives as it was."""
    assert loads(dumps(message)) == message


@pytest.mark.parametrize("text", ["\ud800", "a\nb=1\0c", '"quoted"', "\\x41", "ümläut \U0001f600"])
def test_any_text(text: str) -> None:
    """Texts may hold lines, quotes, escapes and half characters, as paths do."""
    assert loads(dumps({"text": text, "n": 1})) == {"text": text, "n": 1}


def test_truth_is_a_number() -> None:
    """True and false travel as numbers."""
    assert loads(dumps({"yes": True, "no": False})) == {"yes": 1, "no": 0}


@pytest.mark.parametrize("text", [b"", b"noequals", b"a=1\nb", b"a=x", b"a=1.5", b"a=[]", b"a=__import__('os')"])
def test_nonsense(text: bytes) -> None:
    """What is no message is refused, and nothing in it is run."""
    with pytest.raises(MessageError):
        loads(text)
