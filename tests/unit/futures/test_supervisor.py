"""The end of a supervisor is told, however it comes."""

from __future__ import annotations

import pytest

from aioparallel._futures.supervisor import Supervisor
from aioparallel._model.errors import ExecutorClosedError


class TestOnDone:
    async def test_after_the_body(self):
        """on_done is called once, when the body and the group have ended."""
        log = []

        async def body(supervisor):
            log.append("body")

        supervisor = Supervisor(body, "test", on_done=lambda: log.append("done"))
        await supervisor.wait_done()
        assert log == ["body", "done"]
        assert supervisor.done

    async def test_cancelled_before_the_first_step(self):
        """A supervisor that is cancelled before its body begins is done, and no longer waited for."""
        log = []

        async def body(supervisor):
            raise AssertionError("never begun")

        supervisor = Supervisor(body, "test", on_done=lambda: log.append("done"))
        supervisor.cancel()
        with pytest.raises(ExecutorClosedError, match="before it was ready"):
            await supervisor.wait_ready()
        await supervisor.wait_done()
        assert log == ["done"]
