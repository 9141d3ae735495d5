"""What the current code holds."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context

from aioparallel._model.slots import Slot, occupied, occupy


async def test_slots_add_up() -> None:
    """A slot knows its loop, its kind, and the kinds that its callers hold."""
    loop = asyncio.get_running_loop()
    outer = copy_context()
    outer.run(occupy, Slot(loop, frozenset({"coroutine"})))
    assert outer.run(occupied) == Slot(loop, frozenset({"coroutine"}))
    inner = outer.run(copy_context)
    inner.run(occupy, Slot(loop, frozenset({"thread"})))
    assert inner.run(occupied) == Slot(loop, frozenset({"coroutine", "thread"}))
    assert outer.run(occupied) == Slot(loop, frozenset({"coroutine"}))


async def test_outside_of_calls() -> None:
    """Outside of calls nothing is held, and a thread that code starts by itself holds nothing either."""
    assert occupied() is None
    found: list[Slot | None] = []

    def inside() -> None:
        occupy(Slot(asyncio.get_running_loop(), frozenset({"thread"})))
        thread = threading.Thread(target=lambda: found.append(occupied()))
        thread.start()
        thread.join()

    copy_context().run(inside)
    assert found == [None]


async def test_tasks_inherit() -> None:
    """A task that a call starts holds what the call holds."""

    async def held() -> frozenset[str]:
        slot = occupied()
        return frozenset() if slot is None else slot.held

    def inside() -> asyncio.Task[frozenset[str]]:
        occupy(Slot(asyncio.get_running_loop(), frozenset({"coroutine"})))
        return asyncio.get_running_loop().create_task(held())

    assert await copy_context().run(inside) == {"coroutine"}
