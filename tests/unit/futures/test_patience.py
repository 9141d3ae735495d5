"""Whether there is still somebody who wants to see cancelled work stop."""

from __future__ import annotations

import asyncio

import pytest

from aioparallel._futures.patience import hastened, lose_patience
from tests.unit.futures.conftest import Work


async def wait_and_go(work: Work) -> None:
    """Await work, be cancelled, and be cancelled once more while it stops."""
    task = asyncio.ensure_future(work.future._wait())
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_twice_hastens() -> None:
    """Who closes something hears at once that somebody has left who waited for work to stop, be it earlier or later."""
    work = Work()
    heard: list[str] = []
    with hastened(lambda: heard.append("later")):
        assert not heard
        await wait_and_go(work)
        assert heard == ["later"]
    with hastened(lambda: heard.append("earlier")):
        assert heard == ["later", "earlier"]
    work.stop()


async def test_what_has_stopped_since_is_forgotten() -> None:
    """Impatience is over when the work that somebody did not wait for has stopped."""
    work = Work()
    await wait_and_go(work)
    work.stop()
    with hastened(lambda: pytest.fail("nobody is impatient")):
        pass


async def test_one_cancellation_hastens_nobody() -> None:
    """Who is cancelled once waits in patience."""
    work = Work()
    task = asyncio.ensure_future(work.future._wait())
    await asyncio.sleep(0)
    with hastened(lambda: pytest.fail("nobody is impatient")):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        work.stop()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_loop_that_nobody_waits_for() -> None:
    """Patience with a whole loop may be lost, for good, though nobody has left who waited for work to stop."""
    heard: list[str] = []
    with hastened(lambda: heard.append("later")):
        lose_patience()
        assert heard == ["later"]
    with hastened(lambda: heard.append("earlier")):
        assert heard == ["later", "earlier"]
