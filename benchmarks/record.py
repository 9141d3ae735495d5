"""What a run found, as plain data that survives a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.stats import Spread
from benchmarks.suite import BEST_RIVAL, Goal, Metric, Role, Sample

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CaseResult", "Entry", "Reading", "Run"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of one contestant: exactly one of the three is set."""

    sample: Sample | None = None
    skipped: str | None = None
    failed: str | None = None


@dataclass(slots=True)
class Entry:
    """One contestant's rounds. A contestant that was skipped or failed once is not asked again."""

    name: str
    role: Role
    samples: list[Sample] = field(default_factory=list)
    skipped: str | None = None
    failed: str | None = None

    @property
    def measured(self) -> bool:
        """Whether its samples may be used."""
        return bool(self.samples) and self.failed is None

    def add(self, reading: Reading) -> None:
        """Take in the reading of one more round."""
        self.skipped, self.failed = reading.skipped, reading.failed
        if reading.sample is not None:
            self.samples.append(reading.sample)

    def spread(self, metric: str) -> Spread:
        """The median and the ends of one metric."""
        return Spread.of([sample[metric] for sample in self.samples])


@dataclass(slots=True)
class CaseResult:
    """Everything that was found about one case."""

    name: str
    title: str
    metrics: list[Metric]
    goals: list[Goal]
    rounds: int
    quick: bool
    entries: list[Entry]

    @property
    def primary(self) -> Metric:
        """The metric that ranks."""
        return self.metrics[0]

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)

    def measured(self, role: Role | None = None) -> list[Entry]:
        """The entries that have figures, of one role or of all."""
        return [entry for entry in self.entries if entry.measured and role in {None, entry.role}]

    def first(self, role: Role) -> Entry | None:
        """The first measured entry of a role: ours, or the floor that counts."""
        return next(iter(self.measured(role)), None)

    def best_rival(self, metric: Metric) -> Entry | None:
        """The rival with the best median."""
        rivals = self.measured("rival")
        choose = min if metric.better == "lower" else max
        return choose(rivals, key=lambda entry: entry.spread(metric.name).median, default=None)

    def find(self, name: str | None, metric: Metric) -> Entry | None:
        """The measured entry that a goal means by ``name``; ``None`` stands for our first one."""
        if name is None:
            return self.first("ours")
        if name == BEST_RIVAL:
            return self.best_rival(metric)
        return next((entry for entry in self.measured() if entry.name == name), None)


@dataclass(slots=True)
class Run:
    """One run of the benchmarks, on one machine."""

    machine: dict[str, Any]
    cases: list[CaseResult] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what :meth:`save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["machine"], [_case_result(item) for item in data["cases"]])


def _case_result(data: dict[str, Any]) -> CaseResult:
    parts = {
        "metrics": [Metric(**item) for item in data["metrics"]],
        "goals": [Goal(**item) for item in data["goals"]],
        "entries": [Entry(**item) for item in data["entries"]],
    }
    return CaseResult(**{**data, **parts})
