"""What the tests of futures share: a fake source of work, and turns of the loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future as ThreadFuture
from typing import Any

import pytest

from aioparallel._futures.smart import SmartFuture
from aioparallel._model.info import CallInfo, CallState


class Work:
    """A source whose end the test decides.

    Args:
        stops: ``"later"`` (when the test calls :meth:`stop`), ``"at once"``, or ``"never"`` (it has ended, it says).
        loop: The loop of its future; the running one by default.
    """

    def __init__(
        self,
        stops: str = "later",
        *,
        grace: float = 30,
        name: str = "work",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.grace = grace
        self.cancels = 0
        self.threads: list[int] = []
        self._stops = stops
        self._name = name
        self.future: SmartFuture[Any] = SmartFuture(self, loop or asyncio.get_running_loop())

    def cancel(self) -> bool:
        self.cancels += 1
        self.threads.append(threading.get_ident())
        if self._stops == "at once":
            self.stop()
        return self._stops != "never"

    def info(self) -> CallInfo:
        return CallInfo(CallState.RUNNING, name=self._name, method="fake", worker="w1", attempts=1, queued_at=1.0)

    def end(self, value: Any = None) -> bool:
        return self.future._set_result(value)

    def fail(self, error: BaseException) -> bool:
        return self.future._set_exception(error)

    def stop(self) -> bool:
        return self.future._set_cancelled()


class OtherLoop:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="other loop")
        self.thread.start()

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run ``fn`` on that loop, and wait here until it has returned."""
        answer: ThreadFuture[Any] = ThreadFuture()

        def run() -> None:
            try:
                answer.set_result(fn(*args))
            except BaseException as error:
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return answer.result(10)

    def run(self, coroutine: Any) -> ThreadFuture[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def work(self, stops: str = "later", **options: Any) -> Work:
        return Work(stops, loop=self.loop, **options)

    def close(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
        self.loop.close()


@pytest.fixture
def work() -> type[Work]:
    return Work


@pytest.fixture
def other_loop() -> Iterator[OtherLoop]:
    other = OtherLoop()
    yield other
    other.close()


@pytest.fixture
def turns() -> Callable[[], Awaitable[None]]:
    """Let the loop do all that it can do without anything happening outside."""

    async def turns(count: int = 25) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return turns


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the library has logged, after everything that can be collected is."""
    caplog.set_level(logging.DEBUG)

    def complaints() -> list[str]:
        gc.collect()
        return [record.getMessage() for record in caplog.records if record.name == "aioparallel"]

    return complaints
