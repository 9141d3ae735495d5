"""What contract tests share: an executor of the kind, open, and a gate for its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.kinds import Kind
from tests.tools import Gate, Log


@pytest.fixture
async def opened(kind: Kind) -> AsyncIterator[Callable[..., Any]]:
    """Opens executors of the kind, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_pool(workers: int = 2, **options: Any) -> Any:
            return await stack.enter_async_context(kind.make(workers, **options))

        yield open_pool


@pytest.fixture
async def pool(opened: Callable[..., Any]) -> Any:
    return await opened()


@pytest.fixture
def gate(opened: object, tmp_path: Path) -> Iterator[Gate]:
    """A gate, opened before executors are closed, so that threads which were abandoned at it can end."""
    gate = Gate(str(tmp_path / "gate"))
    yield gate
    gate.open()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))
