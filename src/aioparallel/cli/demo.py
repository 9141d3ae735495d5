"""``aioparallel demo``: threads read the Python files of a folder, processes measure them, and one does it all again.

With ``--remote`` the processes are those of a remote host, which is an ssh server in this very process.

It uses the public face of the package only, and so shows how that is used.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import sysconfig
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from time import perf_counter
from typing import TypeAlias, TypeVar

from aioparallel import (
    AioParallelError,
    Executor,
    ProcessExecutor,
    RemoteExecutor,
    SmartFuture,
    ThreadExecutor,
    Trace,
    wait_any,
    watch,
)
from aioparallel._child.cpus import available_cpus

from . import CommandError, show
from .analysis import FileMeasure, measure_sources
from .files import Failure, batches, find_files, read_files
from .findings import Report, Timings, as_json, as_text
from .progress import Progress

__all__ = ["add_arguments", "run"]

THREADS = 4

T = TypeVar("T")
Batch: TypeAlias = list[str]
Measured: TypeAlias = list[FileMeasure | Failure]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("folder", nargs="?", help="where the files are (default: this Python's standard library)")
    parser.add_argument(
        "--remote", action="store_true", help="measure on a host that is reached by ssh, and runs in this process"
    )
    parser.add_argument("--json", action="store_true", help="print the report for programs")
    parser.add_argument("--workers", type=_positive, metavar="N", help="worker processes (default: the CPUs there are)")
    parser.add_argument(
        "--top", type=_positive, default=10, metavar="N", help="how many each ranking shows (default: 10)"
    )
    parser.add_argument(
        "--watch", action="store_true", help="show on a board what runs where, in place of the progress"
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="write what happens to FILE, for Perfetto and `aioparallel report`"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Measure the files in parallel, then serially, and print a report."""
    folder = options.folder or sysconfig.get_path("stdlib")
    groups, closed = _look_into(folder)
    seconds: dict[str, float] = {}
    parallel, processes = asyncio.run(_in_parallel(folder, groups, options, seconds))
    serial = _serially(folder, groups, options.top, seconds)
    report = Report(
        folder=folder,
        files=[found for found in parallel if isinstance(found, FileMeasure)],
        failures=[*closed, *(found for found in parallel if isinstance(found, Failure))],
        timings=Timings(**seconds, threads=THREADS, processes=processes),
        top=options.top,
        agreed=parallel == serial,
    )
    show(json.dumps(as_json(report), indent=2) if options.json else as_text(report))
    return 0


def _look_into(folder: str) -> tuple[list[Batch], list[Failure]]:
    """The files to be measured, in batches, and the folders that are closed to us."""
    if not os.path.isdir(folder):
        raise CommandError(f"{folder} is not a folder" if os.path.exists(folder) else f"{folder} does not exist")
    files, closed = find_files(folder)
    if not files:
        reason = f", or none that can be reached ({closed[0].path}: {closed[0].reason})" if closed else ""
        raise CommandError(f"there are no Python files in {folder}{reason}")
    return list(batches(files)), closed


async def _in_parallel(
    folder: str, groups: list[Batch], options: argparse.Namespace, seconds: dict[str, float]
) -> tuple[Measured, int]:
    """Read in threads, then measure in processes; say also how many processes that were."""
    files = sum(map(len, groups))
    with _timed(seconds, "parallel"):
        async with (
            ThreadExecutor(THREADS) as threads,
            _workers(options) as processes,
            watch(threads, processes) if options.watch else nullcontext(),
        ):
            if options.trace:
                processes.trace(_trace(threads, options.trace))
            with _timed(seconds, "read"), _progress("Reading", files, options) as progress:
                reads = {threads.submit(read_files, folder, group): group for group in groups}
                sources = await _all(reads, progress)
            with _timed(seconds, "measure"), _progress("Measuring", files, options) as progress:
                measures = {
                    processes.submit(measure_sources, group, options.top): [source.path for source in group]
                    for group in sources
                }
                measured = await _all(measures, progress)
            workers = processes.status().workers
    return _flat(measured), workers


@asynccontextmanager
async def _workers(options: argparse.Namespace) -> AsyncGenerator[Executor]:
    """Where files are measured: here, or on a host."""
    if not options.remote:
        async with ProcessExecutor(options.workers) as pool:
            yield pool
        return
    from aioparallel.testing import ssh_host  # it imports asyncssh

    async with ssh_host(slots=options.workers or available_cpus()) as host, RemoteExecutor([host]) as pool:
        yield pool


def _trace(pool: ThreadExecutor, path: str) -> Trace:
    try:
        return pool.trace(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None


def _progress(doing: str, files: int, options: argparse.Namespace) -> Progress:
    """Nobody needs two who draw on one terminal."""
    return Progress(doing, files, io.StringIO() if options.watch else None)


async def _all(calls: Mapping[SmartFuture[list[T | Failure]], Batch], progress: Progress) -> list[list[T | Failure]]:
    """What the calls return. When one loses its worker, its files become failures, and the others go on."""
    results: list[list[T | Failure]] = []
    async for call in wait_any(calls):
        try:
            results.append(await call)
        except AioParallelError as error:
            results.append([Failure(path, str(error)) for path in calls[call]])
        progress.advance(len(calls[call]))
    return results


def _serially(folder: str, groups: list[Batch], top: int, seconds: dict[str, float]) -> Measured:
    """The same work, here and now."""
    measured: list[Measured] = []
    gc.freeze()  # or the collector would walk over the results of the other run too, and slow this one down
    try:
        with _timed(seconds, "serial"), Progress("Once more, serially", sum(map(len, groups))) as progress:
            for group in groups:
                measured.append(measure_sources(read_files(folder, group), top))
                progress.advance(len(group))
    finally:
        gc.unfreeze()
    return _flat(measured)


def _flat(groups: list[Measured]) -> Measured:
    """All in the order of their paths: calls end in any order."""
    return sorted((found for group in groups for found in group), key=lambda found: found.path)


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Generator[None]:
    begun = perf_counter()
    yield
    seconds[what] = perf_counter() - begun
