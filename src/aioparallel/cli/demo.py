"""``aioparallel demo``: threads read the Python files of a folder, processes measure them, one process does it again.

It uses nothing but the public face of the package, and so shows how that is used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import stat
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypeAlias, TypeVar

from aioparallel import AioParallelError, ProcessExecutor, SmartFuture, ThreadExecutor, wait_any

from . import CommandError
from .analysis import Failure, FileMeasure, Source, measure_sources, read_files
from .progress import Progress
from .report import Report, Timings, as_json, as_text

__all__ = ["add_arguments", "run"]

THREADS = 4
BATCH = 256_000
"""How many bytes of files go into one call: a tenth of a second of work, beside which a call costs nothing."""

OTHERS = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
"""Folders whose files belong to others."""
