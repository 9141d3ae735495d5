"""What tests of the blocking door share: executors of each kind, and that the door is shut after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioparallel import blocking
from tests.tools import Gate, Log

KINDS = {"thread": blocking.ThreadExecutor, "process": blocking.ProcessExecutor}


@pytest.fixture(autouse=True)
def _shut() -> Iterator[None]:
    """The executors that verbs have opened by themselves stay until they are closed."""
    yield
    blocking.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(str(tmp_path / "gate"))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))


@pytest.fixture
def opened(gate: Gate) -> Iterator[Callable[..., Any]]:
    """Makes executors, which are shut down after the test; the gate is opened before, for calls that are held at it."""
    made: list[blocking.Executor] = []

    def make(kind: str, workers: int = 2, **options: Any) -> Any:
        made.append(KINDS[kind](workers, **options))
        return made[-1]

    yield make
    gate.open()
    for executor in made:
        executor.shutdown()


@pytest.fixture
def pool(kind: str, opened: Callable[..., Any]) -> Any:
    return opened(kind)
