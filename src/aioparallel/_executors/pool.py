"""The pool that every executor with workers is: it feeds the ledger and carries out what it says.

One open pool is one :class:`Run`: a loop, a supervisor, a ledger. Closing ends the run;
opening again makes a new one, on whatever loop.

Guarantees:

* ``submit`` works from any thread; everything else happens on the run's loop.
* However a run ends, every call is settled, and afterwards nothing of the run is left.
* The supervisor's body is the only place that opens and closes workers.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

import anyio

from .._futures.dataflow import pending_in, substitute
from .._futures.joining import Join
from .._futures.patience import hastened
from .._futures.smart import SmartFuture
from .._futures.supervisor import Supervisor
from .._model.call import Call, Phase, function_name, plain_function
from .._model.errors import ExecutorClosedError, PoolFullError
from .._model.options import DEFAULT_OPTIONS, CallOptions
from .._policy.ledger import Ledger
from .._policy.steps import Halt, Instruction, Pause, Place, Retire, Settle, Spawn, Suspend, Verdict, WorkerEnd
from .admission import Admissions
from .stream import LocalSteps, Stream

if TYPE_CHECKING:
    from os import PathLike

    from .._model.events import Observer
    from .._model.status import PoolStatus, WorkerStatus
    from .._seeing.observers import Observation, Observers
    from .._seeing.trace import Trace
    from .mapoptions import Errors, MapKeywords
    from .mapping import ParallelMap

__all__ = ["Executor", "Run", "View"]

P = ParamSpec("P")
R = TypeVar("R")

SLOW_CLOSE = 5.0
"""Seconds that closing may take beyond the grace, before what is left is given up."""
SHORTEST_GRACE = 0.1
"""So often it is looked at most whether a pool that is being opened can be closed."""
GIVE_UP_SECONDS = 2.0
"""So long it may take to give up what is left."""


class Hands(Protocol):
    """Those who run the calls of a run."""

    async def give_up(self) -> None:
        """End everything at once, by force; wait for nothing that may not come. It may be closed, or half closed."""


class Run:
    """One time that a pool is open."""

    def __init__(self, pool: Executor, ledger: Ledger) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.ledger = ledger
        self.hands: Hands | None = None
        """Those who run its calls, once ``_open`` has found them."""
        self.opened = False
        self.closing = False
        self.drain = True
        self.is_shut_down = False
        """Whether its task was cancelled, as a loop does that shuts down."""
        self.by_force = False
        """Whether nothing is waited for any more."""
        self.arriving: deque[tuple[Call, list[SmartFuture[Any]]]] = deque()
        """Calls that other threads have submitted, and this run's thread has not seen yet; with their arguments that
        are futures."""
        self.expected = False
        """Whether this run's thread is going to look at them."""
        self.waiting: set[Call] = set()
        """Calls that wait for the futures among their arguments, for their limit, or for what is looked at first."""
        self.held: list[Call] = []
        """Those of them that are queued as soon as that was looked at, and count as if they were."""
        self.admissions = Admissions()
        self.quiet = asyncio.Event()
        """Set when something ended; whoever waits for room or for the end looks again."""
        self.close_asked = asyncio.Event()
        self.supervisor = Supervisor(
            pool._supervise, f"aioparallel {pool.name}", on_done=lambda: pool._settle_rest(self)
        )

    @property
    def idle(self) -> bool:
        return self.ledger.idle and not self.waiting and not self.arriving

    @property
    def pending(self) -> int:
        """How many calls wait for a worker."""
        return self.ledger.queued + len(self.arriving)

    def unqueued(self) -> list[Call]:
        """The calls that the ledger has not seen."""
        return [*(call for call, _ in list(self.arriving)), *self.waiting]


class Executor(ABC):
    """What all executors share: life cycle, ``submit``, options and status.

    It is for annotations, and for asking what something is; programs make one of the kinds.

    Args:
        name: Seen in errors, logs and :meth:`status`.
        max_pending: How many calls may wait for a worker; ``submit`` raises
            :exc:`~aioparallel.PoolFullError` beyond that, :meth:`submit_wait` waits.
        grace: Seconds that a cancelled call has to stop before whoever awaits it goes on.

    Cancellation:
        Of the body of ``async with``: cancels what was submitted, and waits until it has stopped. An exception in the
        body does the same; otherwise leaving the block waits for what was submitted.

    What may still be running:
        After :meth:`aclose`, or the end of ``async with``: nothing, but for threads that do not return.

    Example:
        ::

            def crunch_all(pool: Executor) -> list[SmartFuture[int]]:
                return [pool.submit(crunch, n) for n in range(10)]
    """

    kind: str
    """The name of the :class:`~aioparallel.Method` that runs calls here."""
    _observers: Observers | None = None
    """There while somebody observes; before and afterwards nothing is paid for that."""

    def __init__(self, *, name: str | None = None, max_pending: float = math.inf, grace: float = 5.0) -> None:
        if not max_pending >= 1:
            raise ValueError(f"max_pending={max_pending!r}: expected at least 1, or math.inf")
        if not grace >= 0:
            raise ValueError(f"grace={grace!r}: expected seconds, 0 or more")
        self.name = name or self.kind
        self.max_pending = max_pending
        self.grace = grace
        self._run: Run | None = None

    # Life cycle

    async def start(self) -> Self:
        """Open the executor, and return when it takes calls. Opening an open one does nothing.

        Returns:
            The executor itself.

        Raises:
            WorkerStartError: No worker can be started; the message holds the reason.
            ExecutorClosedError: It is open on another event loop.

        Cancellation:
            Closes the executor again, and waits for that.

        What may still be running:
            The executor's workers, until :meth:`aclose`; or until the event loop shuts down, which ends them too.

        Example:
            ::

                pool = await ProcessExecutor(4).start()  # where `async with` does not fit: fixtures, notebook cells
                ...
                await pool.aclose()
        """
        run = self._ensure_open()
        try:
            await run.supervisor.wait_ready()
        except BaseException as error:
            self._hurry(run)
            await self._end(run)
            if error is run.supervisor.error and not isinstance(error, Exception):
                raise self._closed() from None  # somebody else closed it, or cancelled a start of theirs
            raise
        return self

    async def aclose(self, drain: bool = True) -> None:
        """Close the executor. Closing a closed one does nothing.

        One that is still being opened, and to which nothing was submitted, has ``grace`` seconds to come to that.

        Args:
            drain: Wait for what was submitted; otherwise cancel it.

        Cancellation:
            Cancels what is left, waits until it has stopped, and then is cancelled.

        What may still be running:
            Nothing, but for threads whose function does not return after it was cancelled.
        """
        run = self._run
        if run is None:
            return
        if not drain:
            self._hurry(run)
        await self._end(run)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose(drain=error is None)

    async def shutdown_if_idle(self) -> bool:
        """Close the executor if no call is anywhere in it.

        Returns:
            Whether it is closed now.

        Cancellation:
            As for :meth:`aclose`.

        What may still be running:
            All that runs, if it returned ``False``; otherwise nothing.
        """
        if self._run is not None and not self._run.idle:
            return False
        await self.aclose()
        return True

    # Calls

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, R] | SmartFuture[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> SmartFuture[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SmartFuture[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SmartFuture[Any]:
        """Hand over a call; waits for nothing.

        Futures among the arguments, at any depth of list, tuple, dict and set, are awaited
        first. May be used from any thread.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments: all of them, for options of the call go to :meth:`options`.

        Returns:
            The call's future.

        Raises:
            PicklingError: Something cannot travel to the worker; names what and where.
            PoolFullError: ``max_pending`` calls wait already.
            ExecutorClosedError: The executor is not open.
            TypeError: ``fn`` is no function, or none that this executor can run; says which can.

        Cancellation:
            Of the future, or of its last awaiter: a queued call never begins, a running one is stopped.

        What may still be running:
            The call, although nobody awaits it: it runs to its end, and a failure that nobody saw is logged.

        Example:
            ::

                power = pool.submit(pow, 2, 100)
                print(await power)
        """
        return self._submit(plain_function(fn), args, kwargs, DEFAULT_OPTIONS)

    @overload
    async def submit_wait(
        self, fn: Callable[P, Coroutine[Any, Any, R] | SmartFuture[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> SmartFuture[R]: ...
    @overload
    async def submit_wait(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SmartFuture[R]: ...
    async def submit_wait(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SmartFuture[Any]:
        """Like :meth:`submit`, but wait for room when ``max_pending`` calls are waiting.

        Those who wait get room in the order in which they came.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The call's future: to be awaited in its turn.

        Raises:
            PicklingError, ExecutorClosedError, TypeError: As for :meth:`submit`.

        Cancellation:
            Before the call is handed over: nothing was submitted.

        What may still be running:
            As for :meth:`submit`.

        Example:
            ::

                async for url in endless:
                    calls.append(await pool.submit_wait(fetch, url))  # never more than max_pending wait
        """
        return await self._submit_wait(plain_function(fn), args, kwargs, DEFAULT_OPTIONS)

    def options(self, **options: Any) -> View:
        """The same executor, with other options for the calls made through it.

        Args:
            **options: Any of ``timeout`` (seconds from the start of execution), ``retry``,
                ``idempotent``, ``priority``, ``limit`` and ``name``.

        Returns:
            A view with ``submit``, ``submit_wait``, ``map`` and ``options``. It may be kept, and made before the
            executor is open.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.

        Example:
            ::

                careful = pool.options(timeout=5, retry=Retry(2), idempotent=True)
                await careful.submit(fetch, url)
        """
        return View(self, DEFAULT_OPTIONS.changed(**options))

    def map(
        self, fn: Callable[..., Any], items: Any, /, *, errors: Errors = "raise", **options: Unpack[MapKeywords]
    ) -> ParallelMap[Any]:
        """Call ``fn`` for each of the items, lazily.

        Args:
            fn: The function.
            items: The input, plain or async; not touched before the map begins.
            errors: ``"raise"``, ``"finish"`` or ``"return"``: what becomes of a failure (see :func:`parmap`).
            **options: The other keywords of :func:`parmap`, but for those that choose an executor.

        Returns:
            The results: an async iterator, an awaitable (of a list), and an async context manager.

        Raises:
            TypeError, ValueError: An argument makes no sense; raised at once.

        Cancellation:
            See :class:`ParallelMap`.

        What may still be running:
            See :class:`ParallelMap`.

        Example:
            ::

                async for page in pool.map(fetch, urls, ordered=False):
                    ...
        """
        return self._map(fn, items, {"errors": errors, **options}, DEFAULT_OPTIONS)

    # Looking

    @property
    def task_count(self) -> int:
        """How many calls have been submitted and not ended."""
        run = self._run
        return 0 if run is None else run.pending + run.ledger.placed + len(run.waiting)

    def status(self, *, per_worker: bool = False) -> PoolStatus:
        """How the executor stands; only looks. May be used from any thread.

        Args:
            per_worker: Say also of each worker how it stands, and what it runs since when.

        Returns:
            A frozen record: workers, calls by state, how long they take, deaths.
        """
        from .._model.status import PoolStatus

        each: tuple[WorkerStatus, ...] = ()
        if per_worker:
            from .._seeing.workers import workers_of

            each = workers_of(self)
        ledger = Ledger() if self._run is None else self._run.ledger
        running = ledger.running
        waiting = 0 if self._run is None else len(self._run.waiting) + len(self._run.arriving)
        counts = ledger.counts
        return PoolStatus(
            name=self.name,
            kind=self.kind,
            workers=self._worker_count(ledger),
            queued=ledger.queued + ledger.placed - running + waiting,
            running=running,
            done=counts.done,
            failed=counts.failed,
            cancelled=counts.cancelled,
            retried=counts.retried,
            backups=counts.backups,
            backups_won=counts.backups_won,
            backup_seconds=counts.backup_seconds,
            deaths=counts.deaths,
            abandoned=self._abandoned,
            p50=ledger.latencies.quantile(0.5),
            p95=ledger.latencies.quantile(0.95),
            per_worker=each,
        )

    def observe(self, observer: Observer) -> Observation:
        """Have somebody told what happens here: to calls, workers and hosts.

        It may be asked for before the executor is opened, and holds when it is opened again. Nothing is paid for it
        when nobody observes.

        Args:
            observer: A function of one argument, the event: a record of :mod:`aioparallel.events`. It is called on the
                event loop's thread, in the middle of things: it should be quick. One that raises is named in the
                log, and told nothing more.

        Returns:
            The observation, which ends by its ``close()``, or with a ``with`` block.

        Raises:
            TypeError: It cannot be called.

        Example:
            ::

                events = []
                with pool.observe(events.append):
                    await pool.submit(pow, 2, 10)
        """
        return self._observe(observer)

    def _observe(self, observer: Observer, *, steps: bool = True) -> Observation:
        from .._seeing.observers import Observers

        if self._observers is None:
            self._observers = Observers(self._unobserved)
        return self._observers.add(observer, steps=steps)

    def _unobserved(self) -> None:
        self._observers = None

    def trace(self, target: str | PathLike[str] | Trace) -> Trace:
        """Write down what happens, for Perfetto, ``chrome://tracing`` and ``aioparallel report``.

        The file is complete when the executor has been closed, or the trace. It can be read at any time, also after
        a crash: what is missing then is the last second.

        Args:
            target: Where to: a path, whose file is compressed if it ends in ``.gz``; or the trace of another
                executor, to have both in one.

        Returns:
            The trace, which may be closed earlier by its ``close()``, or with a ``with`` block.

        Raises:
            OSError: The file cannot be written.

        Example:
            ::

                async with ProcessExecutor() as pool:
                    pool.trace("run.json.gz")
                    await pool.map(crunch, items)
        """
        from .._seeing.trace import Trace

        trace = target if isinstance(target, Trace) else Trace(target)
        trace.watch(self)
        return trace

    def __repr__(self) -> str:
        if self._run is None:
            return f"<{type(self).__name__} {self.name!r} closed>"
        status = self.status()
        return (
            f"<{type(self).__name__} {self.name!r} workers={status.workers} queued={status.queued} "
            f"running={status.running} done={status.done} failed={status.failed}>"
        )

    # What each kind of executor fills in

    @abstractmethod
    def _new_ledger(self) -> Ledger: ...

    @abstractmethod
    async def _open(self, run: Run) -> None:
        """Start workers; return when calls can be taken."""

    @abstractmethod
    async def _close(self, run: Run) -> None:
        """End every worker. Runs shielded; every call is settled already."""

    @abstractmethod
    def _place(self, run: Run, step: Place) -> None:
        """Send calls to a worker."""

    @abstractmethod
    def _halt(self, run: Run, step: Halt) -> None:
        """Take a call back, or stop it."""

    def _prepare(self, call: Call) -> None:
        """Make a call ready to travel; raises when it cannot."""

    def _spawn(self, run: Run, step: Spawn) -> None:
        """Start a worker."""

    def _retire(self, run: Run, step: Retire) -> None:
        """Let an idle worker end."""

    def _suspend(self, run: Run, step: Suspend) -> None:
        """Use a site no more for a while."""

    def _capacity(self) -> int:
        """How many calls may run at a time."""
        return 1 if self._run is None else max(1, self._run.ledger.width)

    def _full_capacity(self) -> int:
        """The same, when all of its workers are there that can be expected."""
        return self._capacity()

    def _began(self, call: Call) -> float | None:
        """When a call that a worker holds began, or ``None`` if it waits there."""
        return call.begun_at

    def _is_waiting(self, call: Call) -> bool:
        """Whether a call has certainly not begun, so that to cancel it stops nothing."""
        return call.phase in {Phase.WAITING, Phase.QUEUED, Phase.PAUSED}

    def _has_room(self, run: Run) -> bool:
        """Whether one more call may wait."""
        if self.max_pending == math.inf:
            return True
        return run.pending + len(run.held) + run.ledger.placed - run.ledger.running < self.max_pending

    def _worker_count(self, ledger: Ledger) -> int:
        return len(ledger.seats)

    @property
    def _abandoned(self) -> int:
        """How many threads are in a call that has been given up."""
        return 0

    # The run

    def _ensure_open(self) -> Run:
        """The run, opened here and now if need be; calls may be submitted at once."""
        run = self._run
        if run is not None and (run.supervisor.done or run.loop.is_closed()):
            self._run = run = None
        if run is None:
            run = self._run = Run(self, self._new_ledger())
        elif run.loop is not asyncio.get_running_loop():
            raise ExecutorClosedError(f"{self.name} is open on another event loop: close it there, or make another")
        elif run.closing:
            raise ExecutorClosedError(f"{self.name} is closing; await its aclose() before you open it again")
        return run

    async def _supervise(self, supervisor: Supervisor) -> None:
        run = self._run
        assert run is not None, "set before the supervisor's task first runs"
        try:
            if self._observers:
                self._observers.opened(self.name, self.kind)
            await self._try_open(run)
            run.opened = True
            if self._observers:
                self._observers.crews_started(run.ledger.seats)
            supervisor.set_ready()
            self._pump(run)
            await run.close_asked.wait()
            if run.drain:
                await self._until(run, lambda: run.idle or not run.drain)
        except asyncio.CancelledError:
            run.is_shut_down = True
            raise
        finally:
            run.closing = run.ledger.closing = True
            await self._shut(run)

    async def _shut(self, run: Run) -> None:
        """Stop what runs, and end the workers: in peace; by force if that takes too long, or nobody waits for it.

        That is so when this task is cancelled while it is here, or when the loop shuts down while work was left behind
        that somebody had cancelled: both are what a second Ctrl-C does.
        """
        in_peace = False
        try:
            with anyio.move_on_after(0 if run.by_force else self.grace + SLOW_CLOSE, shield=True) as patience:
                with hastened(patience.cancel) if run.is_shut_down else nullcontext():
                    await self._stop_all(run)
                    await self._close(run)
                    in_peace = True
        finally:
            if not in_peace and run.hands is not None:
                with anyio.move_on_after(GIVE_UP_SECONDS, shield=True):
                    await run.hands.give_up()

    async def _try_open(self, run: Run) -> None:
        try:
            await self._open(run)
        except Exception as error:
            self._carry_out(run, run.ledger.fail_all(error))
            raise

    async def _stop_all(self, run: Run) -> None:
        """Cancel whatever is left, and wait at most ``grace`` until it has stopped."""
        self._end_unqueued(run)
        self._carry_out(run, run.ledger.cancel_all())
        with anyio.move_on_after(self.grace):
            await self._until(run, lambda: run.idle)

    def _settle_rest(self, run: Run) -> None:
        """The workers are gone, or never were; what they never answered ends here."""
        run.closing = run.ledger.closing = True
        self._end_unqueued(run)
        self._carry_out(run, run.ledger.cancel_queued())
        run.admissions.end_all()
        for seat in run.ledger.seats:
            for call in seat.held.values():
                if call.phase is not Phase.SETTLED:
                    if self._observers and not call.future.done():
                        self._observers.ended(call, Verdict.CANCELLED, None)
                    call.future._set_cancelled("its executor was closed before it stopped")
        if self._run is run:
            self._run = None
            observers = self._observers
            if observers:
                observers.crews_ended(run.ledger.seats)  # which may be too much for the last of them
                observers.closed(self.name)

    def _end_unqueued(self, run: Run) -> None:
        """End what has not come to the ledger: cancelled, or failed as what has come there, if no worker can start."""
        error = run.ledger.start_error
        for call in run.unqueued():
            if error is not None and call.phase is Phase.WAITING:
                self._forget_arguments(run, call)
                self._fail(run, call, error)
            else:
                self._cancel_call(call)

    async def _until(self, run: Run, condition: Callable[[], bool]) -> None:
        while not condition():
            run.quiet.clear()
            await run.quiet.wait()

    async def _end(self, run: Run) -> None:
        run.closing = True
        run.close_asked.set()
        run.quiet.set()
        if not run.opened:
            self._watch_opening(run)
        try:
            await run.supervisor.wait_done()
        except BaseException:
            self._hurry(run)
            with anyio.CancelScope(shield=True):
                await run.supervisor.wait_done()
            raise
        finally:
            self._settle_rest(run)  # although the supervisor asks for it too: that may come a moment later

    async def _end_by_force(self, run: Run) -> None:
        """End at once, by force, whatever does not stop."""
        run.by_force = True
        run.supervisor.cancel()
        await run.supervisor.wait_done()

    def _watch_opening(self, run: Run) -> None:
        """It is to be closed, and is not open yet: unless calls wait for that, it has ``grace`` to come to it."""

        def look() -> None:
            if run.opened or run.supervisor.done:
                return
            if run.idle:
                self._hurry(run)
            else:
                self._watch_opening(run)

        if self.grace < math.inf:
            run.loop.call_later(max(self.grace, SHORTEST_GRACE), look)

    def _hurry(self, run: Run) -> None:
        """Wait no longer for what was submitted, nor for workers that are still being started."""
        if run.drain:
            run.drain = False
            run.closing = True
            run.quiet.set()
            if not run.opened:
                run.supervisor.cancel()

    # Submitting

    def _stream(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream[Any]:
        """The items of a generator function that runs here."""
        steps = LocalSteps(lambda step, args, kwargs: self._submit(step, args, kwargs, options), fn, args, kwargs)
        return Stream(steps, function_name(fn))

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        verb: int = 0,
        pin: Any = None,
        function: Any = None,
        watcher: Callable[[SmartFuture[Any]], object] | None = None,
    ) -> SmartFuture[Any]:
        run = self._run
        if run is None or run.closing:
            raise (None if run is None else run.ledger.start_error) or self._closed()
        if not self._has_room(run):
            raise PoolFullError(
                f"{self.name}: as many calls wait already as max_pending={self.max_pending} allows; "
                "use `await pool.submit_wait(...)` to wait for room"
            )
        call = Call(self, fn, args, kwargs, options)
        if verb:
            call.kind, call.pin = verb, pin
        if function is not None:
            call.function = function
        future: SmartFuture[Any] = SmartFuture(call, run.loop)
        call.future = future
        if watcher is not None:
            future._watch(watcher)
        pending = pending_in(args, kwargs)
        if not pending:
            self._prepare(call)
        if threading.get_ident() == run.thread:
            if pending or options.limit is not None:
                self._accept(run, call, pending)
            else:
                self._enqueue(run, call)
        else:
            self._send_home(run, call, pending)
        return future

    async def _submit_wait(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        *,
        function: Any = None,
    ) -> SmartFuture[Any]:
        run = self._run
        if run is not None:
            await self._until(run, lambda: run.closing or self._has_room(run))
        return self._submit(fn, args, kwargs, options, function=function)

    def _submit_chunk(
        self,
        target: Any,
        fn: Callable[..., Any],
        items: tuple[Any, ...],
        options: CallOptions,
        *,
        stop_at_failure: bool,
        give_back: Callable[[int], None],
    ) -> SmartFuture[Any]:
        """Hand over a chunk of a map, on the loop's thread.

        Args:
            target: What ``_map_target`` has made of the function.
            fn: The function.
            items: The items.
            options: For the chunk as one call.
            stop_at_failure: Whether the chunk ends with the first item that fails.
            give_back: Told from which item on the chunk will not run them, where that is found out while it runs.

        Returns:
            The future of (values, failures by index), for as many of the items as have ended; the others did
            not begin. If it fails with a :exc:`WorkerLostError`, ``error.ended`` is the same for the items before the
            one that ran, or ``None`` where that is not known.
        """
        run = self._run
        if run is None or run.closing:
            raise self._closed()
        call = self._chunk(target, fn, items, options, stop_at_failure)
        call.give_back = give_back
        call.future = SmartFuture(call, run.loop)
        self._send_chunk(run, call)
        return call.future

    def _chunk(
        self, target: Any, fn: Callable[..., Any], items: tuple[Any, ...], options: CallOptions, stop_at_failure: bool
    ) -> Call:
        """A call for a chunk, ready to travel; for executors that take chunks."""
        raise NotImplementedError

    def _send_chunk(self, run: Run, call: Call) -> None:
        self._enqueue(run, call)

    def _map(
        self, fn: Callable[..., Any], items: Any, keywords: Mapping[str, Any], defaults: CallOptions
    ) -> ParallelMap[Any]:
        from .mapping import map_on  # a program without maps does not pay for them

        return map_on(self, plain_function(fn), items, keywords, defaults)

    def _send_home(self, run: Run, call: Call, pending: list[SmartFuture[Any]]) -> None:
        """Hand a call that another thread submits to the run's own thread, which is woken once for many."""
        run.arriving.append((call, pending))
        if run.expected:
            return
        run.expected = True
        try:
            run.loop.call_soon_threadsafe(self._accept_all, run)
        except RuntimeError:  # the loop has been closed
            run.expected = False
            run.arriving.remove((call, pending))
            raise self._closed() from None

    def _accept_all(self, run: Run) -> None:
        run.expected = False  # first: whoever comes from now on knocks again
        for _ in range(len(run.arriving)):  # and waits for the next turn, so that results have theirs
            self._accept(run, *run.arriving.popleft())

    def _accept(self, run: Run, call: Call, pending: list[SmartFuture[Any]]) -> None:
        if call.phase is Phase.SETTLED:
            return
        if run.supervisor.done or (run.closing and not run.drain):
            self._fail(run, call, self._closed())
            return
        if pending:
            run.waiting.add(call)
            call.payload = Join(pending, lambda error: self._arguments_ready(run, call, error), run.loop)
        else:
            self._admit(run, call)

    def _arguments_ready(self, run: Run, call: Call, error: BaseException | None) -> None:
        run.waiting.discard(call)
        call.payload = None
        if call.phase is not Phase.WAITING:
            return
        error = error or self._fill_in(call)
        if error is not None:
            self._fail(run, call, error)
        else:
            self._admit(run, call)

    def _fill_in(self, call: Call) -> BaseException | None:
        """Put the values in the futures' places; returns what is wrong with them, if anything is."""
        try:
            call.args, call.kwargs = substitute(call.args, call.kwargs)
            self._prepare(call)
        except Exception as error:
            return error
        return None

    def _admit(self, run: Run, call: Call) -> None:
        """Queue a call, as soon as its limit lets it."""
        if call.options.limit is None:
            self._enqueue(run, call)
            return
        run.waiting.add(call)
        try:
            run.admissions.ask(call, lambda: self._admitted(run, call))
        except Exception as problem:  # of the limit's key
            run.waiting.discard(call)
            self._fail(run, call, problem)

    def _admitted(self, run: Run, call: Call) -> None:
        run.waiting.discard(call)
        if call.phase is Phase.WAITING:
            self._enqueue(run, call)

    def _fail(self, run: Run, call: Call, error: BaseException) -> None:
        """The call ends before it was queued."""
        call.phase = Phase.SETTLED
        call.settled_at = time.time()
        run.ledger.counts.failed += 1
        run.admissions.end(call)
        if self._observers:
            self._observers.ended(call, Verdict.FAILED, error)
        call.future._set_exception(error)
        run.quiet.set()

    def _enqueue(self, run: Run, call: Call) -> None:
        if self._observers:
            self._observers.queued(call)
        place = run.ledger.place_at_once(call)
        if place is not None:
            if self._observers:
                self._observers.placed(place)
            self._place(run, place)
            return
        try:
            placeable = run.ledger.enqueue(call)
        except Exception as error:
            self._fail(run, call, error)
            return
        if placeable:
            self._pump(run)

    def _closed(self) -> ExecutorClosedError:
        run = self._run
        if run is not None and run.closing and not run.supervisor.done:
            return ExecutorClosedError(f"{self.name} is closing: it ends what it has, and takes nothing new")
        return ExecutorClosedError(
            f"{self.name} is not open: "
            f"use `async with {type(self).__name__}(...) as pool:`, or `await pool.start()` first"
        )

    # Carrying out what the ledger says

    def _pump(self, run: Run) -> None:
        """Give calls to workers with room."""
        steps = run.ledger.place()
        if steps:
            self._carry_out(run, steps)

    def _answered(self, run: Run, seat: Any, ends: Iterable[WorkerEnd]) -> None:
        """A worker says how calls ended."""
        self._carry_out(run, run.ledger.ended(seat, ends, time.time(), random.random()))
        if run.ledger.queued:
            self._pump(run)

    def _carry_out(self, run: Run, steps: list[Instruction]) -> None:
        for step in steps:
            if type(step) is Place:
                if self._observers:
                    self._observers.placed(step)
                self._place(run, step)
            elif type(step) is Settle:
                self._settle(run, step)
            elif type(step) is Halt:
                self._halt(run, step)
            elif type(step) is Spawn:
                self._spawn(run, step)
            elif type(step) is Pause:
                if self._observers:
                    self._observers.paused(step)
                run.admissions.pause(step.call, step.error)
                run.loop.call_later(step.seconds, self._resume, run, step.call)
            elif type(step) is Retire:
                self._retire(run, step)
            elif type(step) is Suspend:
                self._suspend(run, step)

    def _settle(self, run: Run, step: Settle) -> None:
        for call, verdict, value in step.ends:
            if call.options.limit is not None:
                run.admissions.end(call, value if verdict is Verdict.FAILED else None)
            call.args = call.kwargs = call.payload = call.context = None  # type: ignore[assignment]
            call.settled_at = call.settled_at or time.time()
            if self._observers:
                self._observers.ended(call, verdict, value)
            future = call.future
            del call.future  # it refers to the call: both would wait for the garbage collector
            if verdict is Verdict.OK:
                future._set_result(value)
            elif verdict is Verdict.FAILED:
                future._set_exception(value)
            else:
                future._set_cancelled(f"{call.name} was cancelled")
        if not run.quiet.is_set():
            run.quiet.set()

    def _resume(self, run: Run, call: Call) -> None:
        if call.options.limit is None or call.phase is not Phase.PAUSED:
            self._begin_again(run, call)
        else:
            run.admissions.ask(call, lambda: self._begin_again(run, call))

    def _begin_again(self, run: Run, call: Call) -> None:
        run.ledger.resume(call)
        self._pump(run)

    def _recall(self, future: SmartFuture[Any]) -> bool:
        """Cancel a call, unless it has begun and cannot be stopped; on the run's thread.

        Returns:
            Whether it will be cancelled.
        """
        return future.cancel()

    def _forget_arguments(self, run: Run, call: Call) -> None:
        """The call waits for nothing any more."""
        if call in run.waiting:
            run.waiting.discard(call)
            if isinstance(call.payload, Join):
                call.payload.abandon()

    def _cancel_waiting(self) -> None:
        """Cancel every call that has not begun; on the run's thread."""
        run = self._run
        if run is None:
            return
        for call in run.unqueued():
            self._cancel_call(call)
        self._carry_out(run, run.ledger.cancel_queued())
        for call in [call for seat in run.ledger.seats for call in seat.held.values()]:
            is_copy = call.race is not None and call.race.call is not call
            if call.phase is Phase.PLACED and self._began(call) is None and not is_copy:
                self._recall(call.future)

    def _cancel_call(self, call: Call) -> bool:
        run = self._run
        if run is None or call.phase is Phase.SETTLED:
            return False
        self._forget_arguments(run, call)
        steps = run.ledger.cancel(call)
        if steps is None:
            return False
        self._carry_out(run, steps)
        return True


class View:
    """An executor with other options: :meth:`Executor.options` makes it."""

    def __init__(self, pool: Executor, options: CallOptions) -> None:
        self._pool = pool
        self._options = options

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, R] | SmartFuture[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> SmartFuture[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SmartFuture[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SmartFuture[Any]:
        """Like :meth:`Executor.submit`, with this view's options."""
        return self._pool._submit(plain_function(fn), args, kwargs, self._options)

    @overload
    async def submit_wait(
        self, fn: Callable[P, Coroutine[Any, Any, R] | SmartFuture[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> SmartFuture[R]: ...
    @overload
    async def submit_wait(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SmartFuture[R]: ...
    async def submit_wait(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> SmartFuture[Any]:
        """Like :meth:`Executor.submit_wait`, with this view's options."""
        return await self._pool._submit_wait(plain_function(fn), args, kwargs, self._options)

    def map(
        self, fn: Callable[..., Any], items: Any, /, *, errors: Errors = "raise", **options: Unpack[MapKeywords]
    ) -> ParallelMap[Any]:
        """Like :meth:`Executor.map`; the view's options hold unless others are given here."""
        return self._pool._map(fn, items, {"errors": errors, **options}, self._options)

    def options(self, **options: Any) -> View:
        """The same view, with further options."""
        return View(self._pool, self._options.changed(**options))

    def __repr__(self) -> str:
        return f"<{self._pool!r} with {self._options}>"
