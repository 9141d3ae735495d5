"""What cancellation tests share: executors of each kind, gates, and proof that nothing is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aioparallel._child import folders
from aioparallel._workers import station
from tests.contract.kinds import Kind
from tests.tools import Gate


@pytest.fixture
async def opened(kind: Kind) -> AsyncIterator[Callable[..., Any]]:
    """Opens executors of the kind, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_pool(workers: int = 2, **options: Any) -> Any:
            return await stack.enter_async_context(kind.make(workers, **options))

        yield open_pool


@pytest.fixture
def gates(opened: object, tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """New gates, all of which are opened before executors are closed."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(str(tmp_path / f"gate{len(made)}")))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture(autouse=True)
def _no_folder_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The private folders of pools are gone after the test."""
    made: list[str] = []

    def private_folder() -> str:
        made.append(folders.private_folder())
        return made[-1]

    monkeypatch.setattr(station, "private_folder", private_folder)
    yield
    assert not [folder for folder in made if os.path.exists(folder)]
