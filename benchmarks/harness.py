"""Runs the contestants of a case in interleaved rounds, each measurement in a fresh process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from benchmarks.record import CaseResult, Entry, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.suite import Case, Contestant

__all__ = ["launch", "rotations", "run_case"]

ROOT = Path(__file__).resolve().parent.parent
GONE = (ProcessLookupError, PermissionError)
"""What signalling a group gives when nothing of it runs; macOS says the second of zombies."""
LEFTOVER_GRACE = 2.0
"""How long helper processes of a rival may outlive it, to clean up after it."""

T = TypeVar("T")


def rotations(items: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """The order of each round: every time rotated a bit further, all the way round in the end."""
    for number in range(rounds):
        shift = number * len(items) // rounds
        yield [*items[shift:], *items[:shift]]


def run_case(
    case: Case,
    *,
    rounds: int | None = None,
    quick: bool = False,
    only: Sequence[str] = (),
    measure: Callable[[Case, Contestant, int], Reading] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> CaseResult:
    """Measure the contestants of a case.

    A contestant that is skipped or fails is left out of the rounds that follow; the others go on.

    Args:
        case: What to run.
        rounds: How often each contestant is measured; by default what the case says, once when ``quick``.
        quick: Use the small size: to see whether it works, not to compare.
        only: Measure only contestants with one of these texts in their names.
        measure: How one measurement is made; in a process of its own by default.
        tell: Gets a line about each measurement.
    """
    measure = measure or launch
    rounds = rounds or (1 if quick else case.rounds)
    size = case.size_for(quick=quick)
    chosen = [item for item in case.contestants.values() if not only or any(text in item.name for text in only)]
    entries = {item.name: Entry(item.name, item.role) for item in chosen}
    for number, order in enumerate(rotations(chosen, rounds), 1):
        for contestant in order:
            entry = entries[contestant.name]
            if entry.skipped or entry.failed:
                continue
            tell(f"{case.name}: round {number}/{rounds}: {contestant.name}")
            entry.add(measure(case, contestant, size))
    title = case.title.format(size=f"{size:,}".replace(",", " "))
    return CaseResult(case.name, title, list(case.metrics), list(case.goals), rounds, quick, list(entries.values()))


def launch(case: Case, contestant: Contestant, size: int) -> Reading:
    """Measure one contestant once, in a process group of its own that is ended afterwards."""
    with TemporaryDirectory() as folder:
        out, log = Path(folder, "reading.json"), Path(folder, "stderr")
        command = [sys.executable, "-m", "benchmarks.runner", case.name, contestant.name, str(out), str(size)]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                process.wait(case.timeout)
            except subprocess.TimeoutExpired:
                return Reading(failed=f"no result within {case.timeout:g} s")
            finally:
                _end_group(process)
        return _read(out, log, process.returncode)


def environment() -> dict[str, str]:
    """Ours, with this checkout first on the path: for the runner, its workers and its scripts.

    Bytecode may be written, else ``import`` would time the compiler, and for this checkout alone.
    """
    places = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def _read(out: Path, log: Path, code: int) -> Reading:
    if out.exists():
        return Reading(**json.loads(out.read_text(encoding="utf-8")))
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Reading(failed=f"exited with code {code}: {said[-1] if said else 'and said nothing'}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the runner if it still runs, and whatever it left behind when that does not go by itself."""
    if process.poll() is not None:
        deadline = time.monotonic() + LEFTOVER_GRACE
        while time.monotonic() < deadline and _group_lives(process.pid):
            time.sleep(0.005)
    with suppress(*GONE):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except GONE:
        return False
    return not _only_zombies(group)


def _only_zombies(group: int) -> bool:
    """Whether all that is left of a group waits for an init process that takes its time; Linux can tell."""
    states = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in parentheses: the state, the parent, the process group.
            state, _, pgrp, *_ = file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            if int(pgrp) == group:
                states.add(state)
    return states == {"Z"}
