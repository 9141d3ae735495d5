"""Log records that workers send, given to this program's own loggers."""

from __future__ import annotations

import logging
import pickle

__all__ = ["handle", "levels"]


def levels() -> dict[str, int]:
    """The level of every logger that has one; the root's name is empty."""
    found = {"": logging.getLogger().level}
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


def handle(packed: bytes | memoryview, worker: str) -> None:
    """Let this program's handlers have a worker's record; it says ``worker`` and ``call`` beside the usual."""
    fields = pickle.loads(packed)
    record = logging.makeLogRecord({**fields, "worker": worker})
    logger = logging.getLogger(record.name if record.name != "root" else None)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
