"""Messages between an executor and its host agent: flat, and made of plain values.

A message is one line for each field, ``name=value``, where the value is ``None``, a whole
number, or text in quotes with the escapes of Python. Reading one runs nothing and makes
nothing but such values, so neither side has to trust the other. (JSON would do as well,
but importing it costs the agent a third of its start.)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Value = str | int | None


class MessageError(ValueError):
    """What arrived is no message."""


def dumps(message: Mapping[str, Value]) -> bytes:
    """Write a message."""
    return "\n".join(f"{name}={_write(value)}" for name, value in message.items()).encode("ascii")


def loads(text: bytes) -> dict[str, Value]:
    """Read a message.

    Raises:
        MessageError: It is none.
    """
    message: dict[str, Value] = {}
    for line in text.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if not equals:
            raise MessageError(f"no value in {line[:100]!r}")
        message[name.decode("ascii")] = _read(value)
    return message


def _write(value: Value) -> str:
    if isinstance(value, str):
        return '"' + value.encode("unicode_escape", "surrogatepass").decode("ascii")
    return "" if value is None else str(int(value))


def _read(value: bytes) -> Value:
    if value.startswith(b'"'):
        return value[1:].decode("unicode_escape")
    try:
        return int(value) if value else None
    except ValueError:
        raise MessageError(f"not a value: {value[:100]!r}") from None
