"""StatefulPool: workers that each build a state once, and use it for every item."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from .._child.cpus import available_cpus
from .._executors.mapoptions import Errors, MapKeywords, MapOptions
from .._executors.mapping import ParallelMap, make_map
from .._executors.pool import Executor
from .._futures.smart import SmartFuture
from .._model.call import function_name
from .._model.checks import checked_count
from .._model.errors import ExecutorClosedError
from .._model.info import Method
from .._model.shapes import shape_of
from .._workers.stateful import StateCall
from .ambient import executor_for
from .current import in_worker
from .parallel import Settings

if TYPE_CHECKING:
    from .._model.status import PoolStatus

__all__ = ["Passing", "StatefulPool"]

Passing = Literal["single", "args", "kwargs"]

OWN = {Method.PROCESS, Method.THREAD, Method.RAY}
"""Kinds of workers that a pool makes for itself."""

PASSING: dict[str, dict[str, Any]] = {
    "single": {},
    "args": {"star": True},
    "kwargs": {"star": None, "kwstar": True},
}
"""How each way of passing is written as options of a map."""


class StatefulPool:
    """Workers that each have a state of their own: a model on its GPU, a connection, a simulator.

    A class is instantiated in each worker when that starts, never in this process, and the instance is called for every
    item. Anything else that can be called makes states likewise if ``kwargs`` or ``worker_kwargs`` are given; without
    them it is called for every item itself.

    A worker that is replaced gets the same index, and builds a fresh state. A worker whose calls fail gets no more
    of the work than the others. A state is closed when its worker ends by itself: by ``__exit__`` (if it has
    ``__enter__``, too, which is called first), or ``close()``, or ``aclose()``.

    Args:
        factory: What makes a state in each worker.
        workers: How many; by default the CPUs that this process may use, or what ``on`` runs at a time.
        method: The kind of workers: ``"process"``, ``"thread"``, ``"ray"`` (actors), ``"remote"`` with ``hosts``, or
            another whose executor is configured.
        kwargs: Keyword arguments for the factory, the same for all workers.
        worker_kwargs: Those of each worker, which win; as many as there are workers.
        on: Run on this executor. Its workers build their states when they first need them, and keep them until this
            pool is closed.
        **options: Further options of the :class:`ProcessExecutor`, :class:`ThreadExecutor`, :class:`RayExecutor` or
            :class:`RemoteExecutor`, such as ``name``, ``env``, ``num_gpus`` or ``grace``; and ``hosts``, for
            ``method="remote"``: there is a worker for each of their slots. With ``workers`` or ``worker_kwargs`` each
            host has to say how many it has, and workers are counted in the order of the hosts.

    Raises:
        TypeError, ValueError: An argument makes no sense; raised at once.

    Cancellation:
        Of a call or a map: as on the executor of this kind. A worker that is killed for it is replaced, and its
        successor builds a fresh state.

    What may still be running:
        After the end of ``async with``: nothing, but for threads that do not return.

    Example:
        ::

            async with StatefulPool(Classifier, workers=4, kwargs={"model": path},
                                    worker_kwargs=[{"gpu": i} for i in range(4)]) as pool:
                async for outcome in pool.map(images, ordered=False, errors="return"):
                    ...
                label = await pool.submit(image)
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        workers: int | None = None,
        *,
        method: Method | str = "process",
        kwargs: Mapping[str, Any] | None = None,
        worker_kwargs: Sequence[Mapping[str, Any]] | None = None,
        on: Executor | None = None,
        **options: Any,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"expected a class, or a function, got {factory!r}")
        self._settings = Settings().changed(**({"method": method} if on is None else {"on": on}))
        self._options = options
        if self._is_remote:
            workers = _count_slots(options, workers, worker_kwargs)
        self._workers = _worker_count(workers, worker_kwargs)
        self._owned: Executor | None = None
        self._pool: Executor | None = None
        make = _is_factory(factory, kwargs is not None or worker_kwargs is not None)
        if make and shape_of(factory).is_async:
            raise TypeError(f"{function_name(factory)} is an `async def`, and a state must be made by a plain function")
        self._call = StateCall(factory, make, kwargs or {}, worker_kwargs or (), self._workers)
        self._check_options(on)

    def _check_options(self, on: Executor | None) -> None:
        if not self._has_own_workers:
            refused = [name for name in self._options if name != "hosts" or not self._is_remote]
            if refused:
                raise TypeError(f"{', '.join(refused)}: these are options of the executor that is used")
        else:
            self._own()  # it refuses nonsense

    @property
    def _has_own_workers(self) -> bool:
        return (self._is_remote or self._settings.method in OWN) and not in_worker()

    @property
    def _is_remote(self) -> bool:
        """Whether its workers are to be on hosts of its own."""
        return self._settings.method is Method.REMOTE and "hosts" in self._options

    def _own(self) -> Executor:
        options = {"name": f"stateful {self._settings.method}", **self._options}
        if self._settings.method is Method.RAY:
            from .._executors.rayactors import StateActors

            return StateActors(self._call, self._workers, **options)
        from .._executors.stateful import StateHosts, StateProcesses, StateThreads

        if self._is_remote:
            return StateHosts(self._call, **options)
        kind = StateProcesses if self._settings.method is Method.PROCESS else StateThreads
        return kind(self._call, self._workers, **options)

    # Life

    async def start(self) -> Self:
        """Open the pool, and return when every worker has built its state. Opening an open one does nothing.

        Returns:
            The pool itself.

        Raises:
            WorkerStartError: A state cannot be built; says why.

        Cancellation:
            Closes the pool again, and waits for that.

        What may still be running:
            The workers with their states, until :meth:`aclose`.
        """
        if self._pool is None:
            if self._has_own_workers:
                self._owned = self._pool = self._own()
                try:
                    await self._owned.start()
                except BaseException:
                    self._owned = self._pool = None
                    raise
            else:
                self._pool = executor_for(self._settings.method, self._settings.on) or await self._in_place()
        return self

    async def _in_place(self) -> Executor:
        """In a worker, the state lives in that worker, and calls run one after the other."""
        from .._executors.serial import SerialExecutor

        self._owned = SerialExecutor()
        return await self._owned.start()

    async def aclose(self, drain: bool = True) -> None:
        """Close the pool and its states. Closing a closed one does nothing; it may be started again.

        Args:
            drain: Wait for what was submitted; otherwise cancel it.

        Cancellation:
            Cancels what is left, waits until it has stopped, and then is cancelled.

        What may still be running:
            Nothing, but for threads whose function does not return after it was cancelled.
        """
        pool, owned = self._pool, self._owned
        self._pool = self._owned = None
        if owned is not None:
            await owned.aclose(drain)
            self._call.close()
        elif pool is not None:
            from .._executors.stateful import close_states

            await close_states(pool, self._call)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose(drain=error is None)

    # Calls

    def submit(self, /, *args: Any, **kwargs: Any) -> SmartFuture[Any]:
        """Call the state of whichever worker is free; waits for nothing.

        Args:
            *args: Positional arguments for the state's ``__call__``.
            **kwargs: Keyword arguments for it.

        Returns:
            The call's future.

        Raises:
            PicklingError: Something cannot travel to the worker; names what and where.
            ExecutorClosedError: The pool is not open.

        Cancellation:
            Of the future, or of its last awaiter: as for :meth:`Executor.submit`.

        What may still be running:
            The call, although nobody awaits it.

        Example:
            ::

                label = await pool.submit(image)
        """
        return self._opened().submit(self._call, *args, **kwargs)

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        passing: Passing = "single",
        errors: Errors = "raise",
        **options: Unpack[MapKeywords],
    ) -> ParallelMap[Any]:
        """Call the states for each of the items, lazily. May be used again and again.

        Args:
            items: The input.
            passing: ``"single"``: the item is the argument; ``"args"``: it is several; ``"kwargs"``: it is a mapping of
                keyword arguments.
            errors: As for :func:`parmap`.
            **options: The other keywords of :func:`parmap`, but for ``star``, ``kwstar``, ``args`` and ``kwargs``.

        Returns:
            The results, as from :func:`parmap`.

        Raises:
            TypeError, ValueError: An argument makes no sense; raised at once.

        Cancellation:
            See :class:`ParallelMap`.

        What may still be running:
            See :class:`ParallelMap`; the pool stays open.

        Example:
            ::

                async for outcome in pool.map(images, ordered=False, errors="return"):
                    ...
        """
        if passing not in PASSING:
            raise ValueError(f"passing={passing!r}: expected one of {', '.join(map(repr, PASSING))}")
        if taken := sorted({"star", "kwstar", "args", "kwargs"} & set(options)):
            raise TypeError(f"map() has no option {', '.join(taken)}: use passing=, and kwargs= of the pool")
        keywords = {"errors": errors, "chunksize": 1, **options, **PASSING[passing]}
        return make_map(self._call, items, MapOptions.of("map", keywords), lambda: nullcontext(self._opened()))

    def status(self) -> PoolStatus:
        """How the pool stands; only looks.

        Returns:
            A frozen record, as of the executor that the workers belong to.

        Raises:
            ExecutorClosedError: The pool is not open.
        """
        return self._opened().status()

    def _opened(self) -> Executor:
        if self._pool is None:
            raise ExecutorClosedError(
                f"{self!r} is not open: use `async with StatefulPool(...) as pool:` or `await pool.start()` first"
            )
        return self._pool

    def __repr__(self) -> str:
        state = "closed" if self._pool is None else "open"
        return f"<StatefulPool of {self._workers} {function_name(self._call.target)}, {state}>"


def _count_slots(
    options: dict[str, Any], workers: int | None, worker_kwargs: Sequence[Mapping[str, Any]] | None
) -> int | None:
    """How many workers the hosts have, if they say so; they must if that matters."""
    from .._executors.remote import checked_hosts

    options["hosts"] = hosts = checked_hosts(options["hosts"])
    threads = options.get("threads_per_worker", 1)
    known = [-(-host.slots // threads) for host in hosts if host.slots is not None]
    count = sum(known) if len(known) == len(hosts) else None
    if count is None and (workers is not None or worker_kwargs is not None):
        silent = ", ".join(str(host) for host in hosts if host.slots is None)
        raise ValueError(f"how many workers do the hosts have? Give each `slots=`, when it matters: {silent}")
    if workers is not None and workers != count:
        raise ValueError(f"workers={workers}, but the hosts have slots for {count}")
    return count


def _worker_count(workers: int | None, worker_kwargs: Sequence[Mapping[str, Any]] | None) -> int:
    if workers is not None:
        checked_count("workers", workers)
    if worker_kwargs is None:
        return workers or available_cpus()
    if workers is not None and len(worker_kwargs) != workers:
        raise ValueError(f"worker_kwargs has {len(worker_kwargs)} entries for {workers} workers: give one for each")
    return checked_count("the length of worker_kwargs", len(worker_kwargs))


def _is_factory(target: Callable[..., Any], has_arguments: bool) -> bool:
    """Whether it makes states, rather than being what is called for every item."""
    return has_arguments or inspect.isclass(target.func if isinstance(target, partial) else target)
