"""What an agent is told and says, for tests that talk with one."""

from __future__ import annotations

from typing import Any

from aioparallel._child import messages, mux

__all__ = ["OPEN", "message", "messages_in"]

OPEN: dict[str, Any] = {"op": "open", "folder": None, "threads": 1, "max_memory": None, "lease": None}
"""What an agent on another machine is told first."""


def message(**fields: Any) -> bytes:
    """A message to an agent, in its frame."""
    text = messages.dumps(fields)
    return mux.head(mux.MESSAGE, 0, len(text)) + text


def messages_in(data: bytes | bytearray) -> list[dict[str, Any]]:
    """The messages among the frames that an agent has sent so far."""
    frames = mux.Splitter().feed(bytes(data))
    return [messages.loads(bytes(body)) for kind, _, body in frames if kind == mux.MESSAGE]
