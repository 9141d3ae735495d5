"""What tests of faults share: a resident pool, and gates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aioparallel import ProcessExecutor
from tests.tools import Gate, Log


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    """Opens process pools, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_pool(workers: int = 2, **options: Any) -> ProcessExecutor:
            return await stack.enter_async_context(ProcessExecutor(workers, **{"engine": "resident", **options}))

        yield open_pool


@pytest.fixture
async def pool(opened: Callable[..., Any]) -> ProcessExecutor:
    return await opened()


@pytest.fixture
def gate(opened: object, tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(str(tmp_path / "gate"))
    yield gate
    gate.open()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(str(tmp_path / "log"))
