"""Ctrl-C, in programs without an event loop: the first stops what runs and waits for it, the second waits no longer.

Nothing here counts: a Ctrl-C that comes while another is handled has that one for its ``__context__``. So whoever is
reached by it knows, wherever the first was raised and whichever executors it has passed since; and after a program has
handled one and goes on, the next one is a first again.
"""

from __future__ import annotations

import sys

__all__ = ["interruption_of_program", "is_second"]


def is_second(error: BaseException | None) -> bool:
    """Whether this is a Ctrl-C that came while another one was handled, as by waiting for what it had stopped.

    If so, Python is told not to show the other one's traceback above it: both tell of the same.
    """
    if not isinstance(error, KeyboardInterrupt) or not isinstance(error.__context__, KeyboardInterrupt):
        return False
    error.__suppress_context__ = True
    return True


def interruption_of_program() -> KeyboardInterrupt | None:
    """The Ctrl-C that has ended the main program; for whoever is told that it has ended."""
    error = getattr(sys, "last_value", None)  # what Python has printed, as nobody has caught it
    return error if isinstance(error, KeyboardInterrupt) else None
