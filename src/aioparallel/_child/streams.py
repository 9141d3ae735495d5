"""Generators and coroutines in a worker: one event loop that stays, and streams in steps.

A stream is a generator that lives here between the calls that advance it. One step makes
items for at most ``STEP_SECONDS`` or ``STEP_ITEMS``, answers, and leaves the worker to
others; a stream whose consumer is slow holds nothing but its generator.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from time import monotonic

from . import failures, stacks, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Step = tuple[list[Any], bool, bytes | None]
    """Items, whether the stream has ended, and what it raised."""

STEP_SECONDS = 0.01
STEP_ITEMS = 64
TURNS_TO_END = 5
"""Turns of the loop that a task which is just ending has, before it counts as left behind."""


class Loop:
    """The worker's event loop: made when it is first needed, and kept."""

    def __init__(self) -> None:
        self._runner: Any = None
        self._own: Any = None
        self._shared = False
        self._lock = allocate_lock()

    def share(self) -> None:
        """Several threads will use the loop, so it gets one of its own."""
        self._shared = True
        stacks.add_tasks(self.tasks)

    def run(self, coroutine: Any, name: str, keep: set[Any] | None = None) -> Any:
        """Run a coroutine to its end; tasks that it leaves behind are put into *keep*, or cancelled and reported."""
        import asyncio

        with self._lock:
            if self._runner is None:
                self._runner = asyncio.Runner()
                if self._shared:
                    start_thread(self._runner.get_loop().run_forever)
                else:
                    stacks.add_tasks(self.tasks)
        if self._shared:
            loop = self._runner.get_loop()
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        return self._runner.run(self._alone(coroutine, name, keep))

    def tasks(self) -> list[Any]:
        """What waits in the loop: first the call's own task, if that does, and then any others."""
        import asyncio

        if self._runner is None:
            return []
        loop = self._runner.get_loop()
        waiting = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        return sorted(waiting, key=lambda task: task is not self._own)

    async def _alone(self, coroutine: Any, name: str, keep: set[Any] | None) -> Any:
        import asyncio

        before = asyncio.all_tasks()
        self._own = asyncio.current_task()
        try:
            return await coroutine
        finally:
            self._own = None
            left = asyncio.all_tasks() - before
            if keep is None:
                await self.end(left, name)
            else:
                keep |= left

    async def end(self, left: set[Any], name: str) -> None:
        """Cancel the tasks that something left behind, and say so."""
        import asyncio

        for _ in range(TURNS_TO_END):
            left = {task for task in left if not task.done()}
            if not left:
                return
            await asyncio.sleep(0)
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)
        names = ", ".join(sorted(task.get_name() for task in left))
        print(f"{name} left {len(left)} tasks behind; they were cancelled: {names}", file=sys.stderr)

    def close(self) -> None:
        """Close the loop, if there is one that no other thread runs."""
        if self._runner is not None and not self._shared:
            self._runner.close()
            self._runner = None


def start_thread(target: Callable[..., object], *args: object) -> None:
    """Start a thread that does not keep the process alive."""
    from threading import Thread

    Thread(target=target, args=args, daemon=True).start()


class Streams:
    """The streams that live in this worker."""

    def __init__(self) -> None:
        self.loop = Loop()
        self._open: dict[int, tuple[Any, set[Any]]] = {}
        """Each generator, and the tasks that it has going between its steps."""

    def step(self, verb: int, id: int, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Open a stream, advance it, or close it. After opening, ``args`` is the id it was opened under."""
        if verb == wire.STREAM_OPEN:
            self._open[id] = fn(*args, **kwargs), set()
            return self._advance(id)
        (id,) = args
        if verb == wire.STREAM_CLOSE:
            return self._close(*self._open.pop(id, (None, set())))
        return self._advance(id)

    def close(self) -> None:
        """Close every stream, and the event loop."""
        for stream, tasks in self._open.values():
            try:
                self._close(stream, tasks)
            except BaseException as error:  # nobody awaits it any more
                print(failures.text(error), file=sys.stderr)
        self._open.clear()
        self.loop.close()

    def _advance(self, id: int) -> Step:
        stream, tasks = self._open[id]
        step = self._step_async(stream, tasks) if hasattr(stream, "__anext__") else _step(stream)
        if step[1]:
            del self._open[id]
            self._end(tasks)
        return step

    def _step_async(self, stream: Any, tasks: set[Any]) -> Step:
        async def advance() -> Step:
            items: list[Any] = []
            started = monotonic()
            try:
                while len(items) < STEP_ITEMS and (not items or monotonic() - started < STEP_SECONDS):
                    items.append(await stream.__anext__())
            except StopAsyncIteration:
                return items, True, None
            except BaseException as error:
                return items, True, failures.pack(error)
            return items, False, None

        step: Step = self.loop.run(advance(), "a stream", tasks)
        return step

    def _close(self, stream: Any, tasks: set[Any]) -> None:
        try:
            if hasattr(stream, "aclose"):
                self.loop.run(stream.aclose(), "a stream", tasks)
            elif hasattr(stream, "close"):
                stream.close()
        finally:
            self._end(tasks)

    def _end(self, tasks: set[Any]) -> None:
        if tasks:
            self.loop.run(self.loop.end(tasks, "a stream"), "a stream")


def _step(stream: Any) -> Step:
    items: list[Any] = []
    started = monotonic()
    try:
        while len(items) < STEP_ITEMS and (not items or monotonic() - started < STEP_SECONDS):
            items.append(next(stream))
    except StopIteration:
        return items, True, None
    except BaseException as error:
        return items, True, failures.pack(error)
    return items, False, None
