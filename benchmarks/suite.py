"""The vocabulary of the benchmarks: a case, its contestants, its metrics and its goals.

A case is a function that measures one contestant; contestants are async context managers
that yield what is measured, so that set-up and tear-down stay outside of the timing::

    @case("noop", title="...", metrics=[Metric("p50", "us")], size=1000, quick=100)
    async def noop(call: Callable[[], Any], size: int) -> Sample: ...

    @noop.contestant("anyio.to_process", needs="anyio")
    @asynccontextmanager
    async def anyio_to_process() -> AsyncIterator[Callable[[], Any]]: ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

__all__ = [
    "BEST_RIVAL",
    "CASES",
    "Case",
    "Contestant",
    "Goal",
    "Metric",
    "Role",
    "Sample",
    "case",
    "load_cases",
]

Role = Literal["ours", "rival", "floor", "reference"]
"""``floor``: the least that the mechanism can cost. ``reference``: shown, but it does not do the same job,
so it does not count as a rival."""

Sample = dict[str, float]
"""What one round of one contestant gave: a value for each metric."""

Open = Callable[[], AbstractAsyncContextManager[Any]]
Measure = Callable[[Any, int], Awaitable[Sample]]
OpenT = TypeVar("OpenT", bound=Open)

BEST_RIVAL = "the best rival"


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of a case's table. The first metric of a case is the one that ranks and gives the ratios."""

    name: str
    unit: str
    better: Literal["lower", "higher"] = "lower"

    def advantage(self, value: float, other: float) -> float:
        """How many times as good ``value`` is as ``other``; above 1 means better."""
        if value == other:
            return 1.0
        good, bad = (other, value) if self.better == "lower" else (value, other)
        return good / bad if bad else float("inf")


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours must be at least as good as ``factor * reference + plus``.

    Attributes:
        metric: Which metric it is about.
        than: The contestant that gives the reference, :data:`BEST_RIVAL`, or ``None`` for zero: ``plus`` alone.
        factor: What the reference is multiplied with.
        plus: What is added, in the metric's unit.
        ours: Which of our contestants; the case's first one by default.
    """

    metric: str
    than: str | None
    factor: float = 1.0
    plus: float = 0.0
    ours: str | None = None


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who can do the job of a case.

    Attributes:
        name: Unique within the case.
        role: What its figures stand for.
        open: Gives the async context manager whose value is measured.
        needs: Modules that must be installed, or attributes of modules that must exist.
        loop: Which event loop it runs on.
    """

    name: str
    role: Role
    open: Open
    needs: tuple[str, ...] = ()
    loop: Literal["asyncio", "trio"] = "asyncio"


@dataclass(slots=True)
class Case:
    """One question, and everybody who answers it.

    Attributes:
        name: What it is called on the command line.
        title: One line; ``{size}`` stands for the size.
        metrics: The columns, the most important first.
        measure: Measures an opened contestant at a given size.
        size: How much work one measurement is (calls, items, bytes: the title says).
        quick: The size under ``--quick``.
        rounds: How many rounds are run by default.
        goals: What ours must reach.
        timeout: After how many seconds one measurement is given up.
        contestants: By name, in the order of the first round.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Measure
    size: int
    quick: int
    rounds: int = 3
    goals: tuple[Goal, ...] = ()
    timeout: float = 60.0
    contestants: dict[str, Contestant] = field(default_factory=dict)

    def contestant(
        self,
        name: str,
        *,
        role: Role = "rival",
        needs: str | Sequence[str] = (),
        loop: Literal["asyncio", "trio"] = "asyncio",
    ) -> Callable[[OpenT], OpenT]:
        """Register the async context manager function below as a contestant."""
        if name in self.contestants:
            raise ValueError(f"{self.name} has two contestants named {name!r}")
        required = (needs,) if isinstance(needs, str) else tuple(needs)

        def register(open_: OpenT) -> OpenT:
            self.contestants[name] = Contestant(name, role, open_, required, loop)
            return open_

        return register

    def size_for(self, *, quick: bool) -> int:
        """How much work one measurement is."""
        return self.quick if quick else self.size


CASES: dict[str, Case] = {}


def case(
    name: str,
    *,
    title: str,
    metrics: Sequence[Metric],
    size: int,
    quick: int,
    rounds: int = 3,
    goals: Sequence[Goal] = (),
    timeout: float = 60.0,
) -> Callable[[Measure], Case]:
    """Turn the measuring function below into a case and register it."""
    if name in CASES:
        raise ValueError(f"there are two cases named {name!r}")

    def register(measure: Measure) -> Case:
        made = Case(name, title, tuple(metrics), measure, size, quick, rounds, tuple(goals), timeout)
        CASES[name] = made
        return made

    return register


def load_cases() -> dict[str, Case]:
    """Import every module of ``benchmarks.cases`` and return all cases, by name."""
    folder = importlib.import_module("benchmarks.cases")
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    return dict(sorted(CASES.items()))
