"""Measures one contestant of one case, once: ``python -m benchmarks.runner CASE CONTESTANT OUT SIZE``.

Each measurement has a process of its own, so no contestant inherits the threads, the event
loop policy, the idle workers or the memory of another one, and none can take the others along when it dies.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.record import Reading
from benchmarks.suite import Case, Contestant, Sample, load_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["measure", "missing"]


def missing(need: str) -> str | None:
    """Why ``need`` (``module`` or ``module.attribute``) cannot be had; ``None`` when it can."""
    module, _, path = need.partition(".")
    if find_spec(module) is None:
        return f"{module} is not installed"
    if path:
        try:
            attrgetter(path)(import_module(module))
        except (AttributeError, ImportError):
            return f"{need} is not built yet"
    return None


def measure(case: Case, contestant: Contestant, size: int) -> Reading:
    """Open one contestant, measure it, close it."""
    for need in contestant.needs:
        if reason := missing(need):
            return Reading(skipped=reason)
    try:
        return Reading(sample=_run(case, contestant, size))
    except Exception as error:
        traceback.print_exc()
        return Reading(failed=f"{type(error).__name__}: {error}".split("\n", 1)[0][:200])


def _run(case: Case, contestant: Contestant, size: int) -> Sample:
    async def main() -> Sample:
        async with contestant.open() as subject:
            return await case.measure(subject, size)

    if contestant.loop == "trio":
        sample: Sample = import_module("trio").run(main)
        return sample
    return asyncio.run(main())


def main(argv: Sequence[str]) -> None:
    """Measure what the command line says, and write the reading to its file."""
    case_name, contestant_name, out, size = argv
    case = load_cases()[case_name]
    reading = measure(case, case.contestants[contestant_name], int(size))
    Path(out).write_text(json.dumps(asdict(reading)), encoding="utf-8")


# Rivals that spawn their workers import this module again in each of them.
if __name__ == "__main__":
    main(sys.argv[1:])
