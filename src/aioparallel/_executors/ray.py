"""RayExecutor: calls run on a Ray cluster, or on a Ray of its own on this machine.

Ray schedules. To the ledger all of it is one worker that runs any number of calls at a time, which is no more than
book-keeping: what is queued here waits for ``max_workers``, if that was given, and everything else is Ray's.
:mod:`.rayerrands` carries the calls there and their answers back, over the connection of :mod:`.._workers.raylink`.

When the executor closes, its calls have ended, its actors are closed and killed, and it leaves the connection.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

from .._futures.smart import SmartFuture
from .._model.call import Call, function_name
from .._model.checks import checked_count
from .._model.options import CallOptions
from .._model.shapes import Shape, shape_of
from .._policy.ledger import Ledger
from .._policy.seats import Seat
from .._policy.steps import Halt, Place
from .._workers.raylink import Link, enter
from .._workers.shipping import Function, Functions, pack_arguments
from .pool import Executor, Run, View
from .processes import WorkerSteps, packed_chunk
from .rayerrands import Errands
from .rayoptions import RayOptions
from .stream import Stream

__all__ = ["RayExecutor"]

MANY = 2**31
"""So many calls may be at Ray."""


class RayExecutor(Executor):
    """Runs calls on Ray: on a cluster, or on a local Ray that it starts.

    It costs about a millisecond for each call, and a local Ray four seconds and half a gigabyte: up to a few machines,
    processes and ssh hosts are quicker. Executors of one process share its connection to Ray.

    Functions travel as to worker processes. The cluster needs Ray and the same Python; modules that are imported by
    name must be there, for which ``runtime_env`` can care (``{"working_dir": "."}``).

    Args:
        address: ``None`` starts a local Ray, unless ``RAY_ADDRESS`` is set or this process is connected already;
            ``"auto"`` is the cluster that runs on this machine; or the address of its head, ``"host:6379"``.
        num_cpus: How many CPUs each call takes, for Ray to schedule by; 1 by default.
        num_gpus: How many GPUs each call takes.
        resources: What else each call takes: names and numbers.
        runtime_env: The environment that calls run in (``env_vars``, ``working_dir``, ``pip``, ...).
        max_workers: How many calls are given to Ray at a time. ``None``: all of them, so that a cluster that grows
            sees what there is to do.
        init: Further arguments of ``ray.init``, such as ``{"num_cpus": 8}`` for the size of a local Ray.
        name: Seen in errors, logs and :meth:`~Executor.status`.
        max_pending: How many calls may wait here; those that were given to Ray do not count.
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.

    Raises:
        ModuleNotFoundError: Ray is not installed.

    Cancellation:
        Kills the worker process that runs the call.

    What may still be running:
        Nothing of ours. A local Ray that was started here ends with the last executor; any other one goes on.

    Example:
        ::

            async with RayExecutor("head:6379", num_gpus=1) as pool:
                models = await wait_all([pool.submit(train, seed) for seed in range(8)])
                fast = pool.options(num_gpus=0, num_cpus=0.5)
    """

    kind = "ray"
    chunk_seconds = 0.05
    """What a chunk of a map may take: a call is far dearer than in a process of our own ..."""
    ahead = 8
    """... and longer on its way, so more of them have to be there."""

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        max_workers: int | None = None,
        init: Mapping[str, Any] | None = None,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
    ) -> None:
        super().__init__(name=name, max_pending=max_pending, grace=grace)
        if not isinstance(address, (str, type(None))):
            raise TypeError(f"address={address!r}: expected text, such as 'auto' or 'head:6379', or None")
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError("RayExecutor needs ray: pip install 'aioparallel[ray]'", name="ray")
        self.address = address
        self.max_workers = None if max_workers is None else checked_count("max_workers", max_workers)
        self.init = dict(init or {})
        self._defaults = RayOptions(num_cpus=num_cpus, num_gpus=num_gpus, resources=resources, runtime_env=runtime_env)
        self._functions = Functions()
        self._link: Link | None = None
        self._errands: Errands | None = None

    def options(self, **options: Any) -> View:
        """The same executor, with other options for the calls made through it.

        Args:
            **options: Any of ``timeout``, ``retry``, ``idempotent``, ``priority`` and ``limit``, as everywhere, and of
                ``num_cpus``, ``num_gpus``, ``resources`` and ``runtime_env``.

        Returns:
            The view; it has all methods of an executor.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.
        """
        return View(self, self._defaults.changed(**options))

    # What executors fill in

    def _new_ledger(self) -> Ledger:
        return Ledger()

    async def _enter_link(self) -> None:
        self._link = enter(self.address, self.init)
        await self._link.until_up()

    async def _open(self, run: Run) -> None:
        await self._enter_link()
        self._errands = Errands(self, run)
        seat = Seat(0, width=self.max_workers or MANY, carrier=self.name)
        run.ledger.add(seat)
        run.ledger.ready(seat)

    async def _close(self, run: Run) -> None:
        errands, self._errands = self._errands, None
        if errands is not None:
            await errands.close()
        link, self._link = self._link, None
        if link is not None:
            await link.leave()

    def _capacity(self) -> int:
        """How many calls may run at a time, by what the cluster had when it was entered."""
        if self.max_workers is not None:
            return self.max_workers
        resources = {} if self._link is None else self._link.resources
        return max(1, int(resources.get("CPU", 1) / (self._defaults.num_cpus or 1)))

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        **internal: Any,
    ) -> SmartFuture[Any]:
        return super()._submit(fn, args, kwargs, self._defaults.with_all_of(options), **internal)

    def _prepare(self, call: Call) -> None:
        if call.function is None:
            call.function = self._functions.get(call.fn)
        call.payload = pack_arguments(call.args, call.kwargs, call.function.name)

    def _stream(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream[Any]:
        return Stream(WorkerSteps(self, fn, args, kwargs, options), function_name(fn))

    def _map_target(
        self, fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Function:
        """A function of one item, which holds all that the calls of a map have in common; stored once."""
        return self._functions.for_map(fn, star, kwstar, args, kwargs, None, beside=True)

    def _takes_chunks(self, fn: Callable[..., Any]) -> bool:
        return shape_of(fn) is Shape.PLAIN

    def _chunk(
        self,
        target: Function,
        fn: Callable[..., Any],
        items: tuple[Any, ...],
        options: CallOptions,
        stop_at_failure: bool,
    ) -> Call:
        payload = pack_arguments(items, {}, target.name)
        return packed_chunk(self, target, fn, payload, self._defaults.with_all_of(options), stop_at_failure)

    def _place(self, run: Run, step: Place) -> None:
        assert self._errands is not None, "Ray is there before the ledger has a seat for it"
        for call in step.calls:
            self._errands.send(call)

    def _halt(self, run: Run, step: Halt) -> None:
        assert self._errands is not None, "Ray holds the call"
        self._errands.halt(step.call)
