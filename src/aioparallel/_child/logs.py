"""Log records of a worker, sent to the loggers of the program that it works for.

Records are filtered here, by the levels that the program's loggers have, so what nobody
would see costs no trip. The handler is put in place as soon as something in the worker has
imported :mod:`logging`; a worker that logs nothing does not pay for it.
"""

from __future__ import annotations

import sys

from .current import current
from .lean import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PLAIN = (str, int, float, bool, type(None))


class Logs:
    """Forwards log records.

    Args:
        levels: The level of each of the program's loggers that has one; the root's name is empty.
        send: Sends a packed record.
    """

    def __init__(self, levels: dict[str, int], send: Callable[[bytes], None]) -> None:
        self._levels = levels
        self._send = send
        self.installed = False

    def install(self) -> None:
        """Put the handler in place, if something can log by now."""
        if "logging" not in sys.modules:
            return
        import logging

        self.installed = True
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        handler = logging.Handler()
        handler.emit = self._emit  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)

    def _emit(self, record: Any) -> None:
        call = current.get()
        fields = {name: value for name, value in vars(record).items() if isinstance(value, PLAIN)}
        fields.update(msg=_message(record), args=None, call=None if call is None else call.name)
        if record.exc_info:
            from logging import Formatter

            fields["exc_text"] = Formatter().formatException(record.exc_info)
        try:
            self._send(pickle.dumps(fields))
        except OSError:
            pass  # the program is gone


def _message(record: Any) -> str:
    try:
        return str(record.getMessage())
    except Exception as error:  # as the standard handlers, which print such a record's fault
        return f"{record.msg!r} % {record.args!r} ({type(error).__name__}: {error})"
