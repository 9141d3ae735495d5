"""The executors of an event loop: those that decorated functions and maps use when they are not given one.

Each loop has its own. The default ones are made when they are first used, opened in the background, and ended by
what ends their loop: its shutdown cancels all tasks, their supervisors among them. :func:`configure` puts
other executors in their place for a while.
"""

from __future__ import annotations

import asyncio
import importlib.util
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from importlib import import_module
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakKeyDictionary

import anyio

from .._executors.pool import Executor
from .._futures.abroad import PATIENCE
from .._futures.loops import running_loop
from .._model.info import Method
from .._model.slots import Slot, occupied
from .current import in_worker

__all__ = ["Configuration", "aclose", "configure", "executor_for", "home_loop"]

T = TypeVar("T")

DEFAULTS = {
    Method.SERIAL: ("serial", "SerialExecutor"),
    Method.COROUTINE: ("coroutine", "CoroutineExecutor"),
    Method.THREAD: ("thread", "ThreadExecutor"),
    Method.PROCESS: ("process", "ProcessExecutor"),
    Method.RAY: ("ray", "RayExecutor"),
}
"""Where the default executors are defined: each is imported when it is first used."""


def executor_for(method: Method | None = None, on: Executor | None = None) -> Executor | None:
    """The executor for a call that is made here, open or about to be; ``None`` if the call is to run in place.

    Calls run in place in workers, so that processes never multiply, and where one of the callers holds a slot of the
    same kind, so that nothing waits for a slot that it holds itself.

    Args:
        method: The kind of executor that is wanted of the ambient ones.
        on: A particular executor, instead.

    Raises:
        RuntimeError: No event loop runs here, or there is no default for this method.
    """
    if in_worker():
        return None
    slot = occupied()
    if on is not None:
        if not _is_open(on):
            home_loop(slot)  # without one, that is what there is to complain of
        return None if _holds(slot, on) else on
    assert method is not None, "a call has a method, or an executor of its own"
    loop = home_loop(slot)
    ambient = _ambients.get(loop)
    pool = None if ambient is None else ambient.find(method)
    if pool is None or not _is_open(pool):
        pool = _on_thread_of(loop, lambda: _ambient_of(loop).open(method, slot))
    return None if _holds(slot, pool) else pool


def home_loop(slot: Slot | None) -> AbstractEventLoop:
    """The event loop that a call made here belongs to.

    Raises:
        RuntimeError: There is none.
    """
    # A thread may run an event loop for a moment of its own, which is no place for executors.
    loop = slot.loop if slot is not None and not slot.loop.is_closed() else running_loop()
    if loop is None:
        raise RuntimeError(
            "no event loop runs here, and a parallel call needs one: make it in a coroutine (`async def main(): ...`, "
            "`asyncio.run(main())`), or use `aioparallel.blocking`, which needs none"
        )
    return loop


class Ambient:
    """The executors of one event loop."""

    def __init__(self) -> None:
        self.configurations: list[Configuration] = []
        self.defaults: dict[Method, Executor] = {}

    def find(self, method: Method) -> Executor | None:
        """What the latest configuration says, or else the default, if it was ever used."""
        for configuration in reversed(self.configurations):
            if method in configuration.executors:
                return configuration.executors[method]
        return self.defaults.get(method)

    def open(self, method: Method, slot: Slot | None) -> Executor:
        """The same, but a default executor is made when it is first used, and opened when it is not."""
        pool = self.find(method)
        if pool is None:
            pool = self.defaults[method] = _new_default(method)
        if self.defaults.get(method) is pool and not _holds(slot, pool):
            pool._ensure_open()
        return pool

    async def aclose(self, drain: bool) -> None:
        """Close the default executors, and what configurations opened; forget the configurations."""
        try:
            for _ in Method:  # what runs on one of them may be the first to use another
                await _close(filter(_is_open, self._ours()), drain)
        finally:
            self.defaults.clear()
            self.configurations.clear()

    def _ours(self) -> list[Executor]:
        return [*self.defaults.values(), *(pool for each in self.configurations for pool in each.opened)]


_ambients: WeakKeyDictionary[AbstractEventLoop, Ambient] = WeakKeyDictionary()


def _ambient_of(loop: AbstractEventLoop) -> Ambient:
    return _ambients.setdefault(loop, Ambient())


class Configuration:
    """Executors that take the place of the ambient ones: :func:`configure` makes it."""

    def __init__(self, executors: Mapping[Method, Executor]) -> None:
        self.executors = executors
        self.opened: list[Executor] = []
        self._ambient: Ambient | None = None

    async def start(self) -> Self:
        """Open the executors that are not open, and use all of them on this event loop.

        Returns:
            The configuration itself, to be closed later.

        Raises:
            RuntimeError: It is in use already.
            WorkerStartError, HostError: An executor cannot be opened; then none of them is.

        Cancellation:
            Closes what was opened, and waits for that.
        """
        if self._ambient is not None:
            raise RuntimeError("this configuration is in use already: close it first, or make another one")
        ambient = _ambient_of(asyncio.get_running_loop())
        try:
            for pool in dict.fromkeys(self.executors.values()):
                if not _is_open(pool):
                    self.opened.append(pool)
                    await pool.start()
        except BaseException:
            await self._close_opened(drain=False)
            raise
        ambient.configurations.append(self)
        self._ambient = ambient
        return self

    async def aclose(self, drain: bool = True) -> None:
        """Close the executors that :meth:`start` opened, and use what was used before. A second time nothing happens.

        Args:
            drain: Wait for what was submitted; otherwise cancel it.

        Cancellation:
            Cancels what is left, waits until it has stopped, and then is cancelled.

        What may still be running:
            The executors that were open before.
        """
        try:
            await self._close_opened(drain)
        finally:
            ambient, self._ambient = self._ambient, None
            if ambient is not None and self in ambient.configurations:
                ambient.configurations.remove(self)

    async def _close_opened(self, drain: bool) -> None:
        try:
            await _close(self.opened, drain)
        finally:
            self.opened.clear()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose(drain=error is None)

    def __repr__(self) -> str:
        executors = ", ".join(f"{method}={pool!r}" for method, pool in self.executors.items())
        return f"configure({executors})"


def configure(
    *,
    serial: Executor | None = None,
    coroutine: Executor | None = None,
    thread: Executor | None = None,
    process: Executor | None = None,
    remote: Executor | None = None,
    ray: Executor | None = None,
) -> Configuration:
    """Choose the executors that decorated functions and maps use on this event loop.

    Nothing changes before ``async with`` or ``start()``. Executors that are not open are opened then, and closed at
    the end; those that are open stay open. What is not named stays as it was, and at the end everything is as it
    was. Configurations may be nested; the latest counts.

    Any executor may stand in for any method: ``configure(process=SerialExecutor())`` is a way to debug.

    Args:
        serial: For ``method="serial"``.
        coroutine: For ``method="coroutine"``, which is what ``async def`` gets by default.
        thread: For ``method="thread"``, which is what a plain ``def`` gets by default.
        process: For ``method="process"``.
        remote: For ``method="remote"``.
        ray: For ``method="ray"``.

    Returns:
        A configuration: an async context manager, with ``start()`` and ``aclose()`` for where that does not fit.

    Raises:
        TypeError: One of them is no executor.

    Cancellation:
        Of the body of ``async with``: cancels what was submitted to the executors that this opened, and closes them.

    What may still be running:
        After the end, the executors that were open before.

    Example:
        ::

            async with configure(process=ProcessExecutor(8), thread=ThreadExecutor(64)):
                print(await crunch(3, 4))
    """
    given = {
        Method.SERIAL: serial,
        Method.COROUTINE: coroutine,
        Method.THREAD: thread,
        Method.PROCESS: process,
        Method.REMOTE: remote,
        Method.RAY: ray,
    }
    executors = {method: pool for method, pool in given.items() if pool is not None}
    for method, pool in executors.items():
        if not isinstance(pool, Executor):
            raise TypeError(f"configure({method}={pool!r}): expected an executor, such as ProcessExecutor()")
    return Configuration(executors)


async def aclose(drain: bool = True) -> None:
    """Close the ambient executors of this event loop, those that :func:`configure` opened included.

    Needed only where a loop never ends, as in a notebook: otherwise the loop's own shutdown does it. What is used
    afterwards is opened anew.

    Args:
        drain: Wait for what was submitted; otherwise cancel it.

    Cancellation:
        Cancels what is left, waits until it has stopped, and then is cancelled.

    What may still be running:
        Nothing, but for threads whose function does not return after it was cancelled.

    Example:
        ::

            await aioparallel.aclose()  # the last cell of a notebook
    """
    ambient = _ambients.get(asyncio.get_running_loop())
    if ambient is not None:
        await ambient.aclose(drain)


def _is_open(pool: Executor) -> bool:
    run = pool._run
    return run is not None and not run.closing and not run.supervisor.done


def _holds(slot: Slot | None, pool: Executor) -> bool:
    return slot is not None and pool.kind in slot.held


def _new_default(method: Method) -> Executor:
    if method in DEFAULTS:
        module, name = DEFAULTS[method]
        executor: Executor = getattr(import_module(f".._executors.{module}", __package__), name)()
        return executor
    if method is Method.RAY and importlib.util.find_spec("ray") is None:
        raise ModuleNotFoundError("method='ray' needs ray: pip install 'aioparallel[ray]'", name="ray")
    raise RuntimeError(f"method='{method}' needs to be told where: {_HOW[method]}")


_HOW = {
    Method.REMOTE: "`async with configure(remote=RemoteExecutor(load_hosts())): ...`",
    Method.RAY: "`async with configure(ray=RayExecutor()): ...`",
}


def _on_thread_of(loop: AbstractEventLoop, fn: Callable[[], T]) -> T:
    """What ``fn`` returns or raises when it is called on the loop's thread; blocks if that is another one."""
    if loop is running_loop():
        return fn()
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(fn())
        except Exception as error:
            answer.set_exception(error)

    loop.call_soon_threadsafe(ask)
    while not answer.done() and not loop.is_closed():
        wait([answer], PATIENCE)
    if not answer.done():
        raise RuntimeError("the event loop of this call was closed")
    return answer.result()


async def _close(pools: Iterable[Executor], drain: bool) -> None:
    """Close executors together: what runs on one of them may still be making calls to another."""
    pools = dict.fromkeys(pools)
    try:
        if drain:
            await _until_idle(pools)
    except BaseException:
        drain = False
        raise
    finally:
        async with anyio.create_task_group() as group:
            for pool in pools:
                group.start_soon(pool.aclose, drain)


async def _until_idle(pools: Iterable[Executor]) -> None:
    while busy := [pool for pool in pools if pool.task_count]:
        for pool in busy:
            await _until_quiet(pool)


async def _until_quiet(pool: Executor) -> None:
    if pool._run is not None:
        await pool._until(pool._run, lambda: not pool.task_count)
