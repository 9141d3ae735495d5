"""Executors for code without an event loop: :class:`concurrent.futures.Executor` over those that have one.

An executor is a door: it hands calls to a pool on the portal's loop, and gives their futures back. Its life::

    NEW --first call--> OPEN --shutdown, dropped, or the program ends--> CLOSED

* NEW costs nothing; one that is never used starts nothing.
* Every call that was accepted ends. A call is accepted under the lock, and so the door is closed; what was accepted
  before that is drained.
* One that is dropped ends what was submitted, and then itself, as those of the standard library do. Its finalizer only
  says so to the portal.
* Nothing waits for the loop under the lock, for a callback on the loop may want it.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar

import aioparallel

from .._executors.mapoptions import CARRY
from .._futures.smart import wrapped
from .._model.call import plain_function
from .._model.checks import checked_count
from .._model.errors import ExecutorClosedError, PicklingError
from .._model.options import DEFAULT_OPTIONS, CallOptions
from .futures import Future
from .interrupts import is_second
from .portal import Portal, enter
from .results import Reader, Results

if TYPE_CHECKING:
    from .._model.status import PoolStatus

__all__ = ["Executor", "ProcessExecutor", "RemoteExecutor", "ThreadExecutor"]

P = ParamSpec("P")
R = TypeVar("R")


class Left(Enum):
    """What is left to end when an executor is closed."""

    ALL = "everything that was submitted"
    BEGUN = "what has begun"
    NONE = "nothing: what runs is stopped"


class Door:
    """What an executor and its views have in common, apart from the object that the user may drop.

    Args:
        pool: What calls go to.
    """

    def __init__(self, pool: aioparallel.Executor) -> None:
        self.pool = pool
        self.closed = False
        self._portal: Portal | None = None
        self._lock = threading.RLock()  # a signal's handler may submit, too
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Future[Any]:
        """Hand a call over."""
        future: Future[Any] = Future(self.open())
        with self._lock:
            self._check()
            future._smart = self.pool._submit(fn, args, kwargs, options, watcher=future._follow)
        return future

    def map(self, fn: Callable[..., Any], items: Any, keywords: dict[str, Any], options: CallOptions) -> Reader:
        """Begin a map."""
        results = self.pool._map(fn, items, keywords, options)
        reader = Reader(lambda: results, eager=keywords["prefetch"] is None)
        self.open()
        with self._lock:
            self._check()
            self._readers.add(reader)
        reader.start()
        return reader

    def open(self) -> Portal:
        """Open the pool, unless that has been done; does not wait until its workers are there."""
        self._check()
        portal = self._portal
        if portal is None:
            with self._lock:
                self._check()
                portal = self._portal = self._portal or enter(self, self._end)
        if portal.is_foreign:
            raise ExecutorClosedError(
                f"{self.pool.name} was opened before this process was forked from another, and its workers belong to "
                "that one: make an executor here"
            )
        if self.pool._run is None:
            portal.do(self._open)
        return portal

    def width(self) -> int:
        """How many calls run at a time, which some executors know only when they are open."""
        self.open().run(self.pool.start)
        return self.pool._full_capacity()

    def folder(self) -> str | None:
        """Where files may be put that its workers are to map, if there is such a place."""
        self.open().run(self.pool.start)
        folder: str | None = getattr(self.pool, "_shared_folder", None)
        return folder

    def shutdown(self, wait: bool, left: Left, *, by_force: bool = False) -> None:
        """Close; by force without any patience, which comes of a second Ctrl-C, now or meanwhile."""
        portal = self._portal
        if portal is not None and portal.is_foreign:
            return
        if portal is not None and wait:
            portal.check_wait("the end of an executor")
        with self._lock:
            self.closed = True
            portal = self._portal
        if portal is None:
            return
        if not wait:
            portal.post(lambda: wrapped(self._finish_and_leave(left)))
            return
        try:
            portal.run(self._give_up if by_force else partial(self._finish, left))
        except ExecutorClosedError:
            pass  # all has ended, and the portal as well
        except KeyboardInterrupt as error:
            if is_second(error) and not by_force:
                portal.run(self._give_up)
            raise
        finally:
            portal.leave(self)

    def abandon(self) -> None:
        """Nobody can submit any more; this may be any thread, at any moment."""
        self.closed = True
        portal = self._portal
        if portal is not None and not portal.is_foreign:
            portal.post(lambda: wrapped(self._finish_and_leave(Left.ALL)))

    def _check(self) -> None:
        if self.closed:
            raise ExecutorClosedError(f"{self.pool.name} has been shut down, and takes no more calls: make another one")

    # On the loop

    def _open(self) -> None:
        self._check()  # closing goes on here: it sees what was opened before, and nothing is afterwards
        self.pool._ensure_open()

    async def _finish(self, left: Left) -> None:
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            if left is not Left.ALL:
                reader._cancel()
            if reader.eager:
                await reader.until_ended()
        if left is Left.BEGUN:
            self.pool._cancel_waiting()
        await self.pool.aclose(drain=left is not Left.NONE)

    async def _finish_and_leave(self, left: Left) -> None:
        try:
            await self._finish(left)
        finally:
            if self._portal is not None:
                self._portal.leave(self, wait=False)

    async def _give_up(self) -> None:
        """Nobody waits for anything any more."""
        run = self.pool._run
        if run is not None:
            await self.pool._end_by_force(run)

    async def _end(self, finish: bool) -> None:
        """The program ends: take calls as long as there are some, for they may make others; then close. Or stop."""
        if not finish:
            self.closed = True
            await self._finish(Left.NONE)
            return
        run = self.pool._run
        while run is not None and not self.closed:
            await self.pool._until(run, partial(getattr, run, "idle"))
            with self._lock:
                self.closed = run.idle
        await self._finish(Left.ALL)


class Executor(concurrent.futures.Executor):
    """Any executor of aioparallel, for code without an event loop.

    It is a :class:`concurrent.futures.Executor`, so whatever takes one takes it. It may be used from any thread, also
    beside a running event loop. Its workers are started by the first call.

    Args:
        pool: An executor that is not open, and is used by nobody else.

    Cancellation:
        ``future.cancel()`` stops also what runs, where that can be stopped. Leaving ``with`` normally waits for what
        was submitted; leaving it by an exception, which Ctrl-C is, stops everything, and then raises. A second Ctrl-C
        ends at once what does not stop.

    What may still be running:
        Nothing after ``shutdown()`` or ``with``, but for threads whose function does not return. Without either, what
        was submitted runs to its end, also when the executor was dropped or the program ends; but where Ctrl-C ends the
        program, that is stopped.

    Example:
        ::

            with Executor(CoroutineExecutor(10)) as pool:
                pages = list(pool.map(fetch, urls))
    """

    def __init__(self, pool: aioparallel.Executor) -> None:
        if not isinstance(pool, aioparallel.Executor):
            raise TypeError(f"expected an executor of aioparallel, such as CoroutineExecutor(), got {pool!r}")
        self._door = Door(pool)
        self._options = DEFAULT_OPTIONS
        self._origin: Executor | None = None
        finalizer = weakref.finalize(self, self._door.abandon)
        finalizer.atexit = False

    @property
    def _max_workers(self) -> int:
        """How many calls run at a time, under the name that the standard library has for it.

        Dask and joblib ask before they submit something. It waits until the executor is open, for some know it only
        then.
        """
        return self._door.width()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hand over a call; waits for nothing.

        Returns:
            The call's future.

        Raises:
            PicklingError: Something cannot travel to the worker; names what and where.
            PoolFullError: ``max_pending`` calls wait already.
            ExecutorClosedError: The executor has been shut down. It is a :exc:`RuntimeError` as well.
        """
        return self._door.submit(plain_function(fn), args, kwargs, self._options)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Results[R]:
        """Call ``fn`` with an item of each of the iterables, until one of these ends; gives the results in order.

        All calls are submitted at once, and run also if nobody asks for their results, unless ``buffersize`` is given.
        If one fails, the iterator raises that in its place, and cancels what has not ended.

        Args:
            fn: Takes an item of each iterable.
            *iterables: The input. It is read here and now; with ``buffersize``, by a thread of its own.
            timeout: Seconds from now, after which asking for a result that is not there raises :exc:`TimeoutError`.
            chunksize: How many items travel together; with 1 as many as turn out to be good.
            buffersize: At most so many items are submitted whose results have not been taken.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than 1.
            ExecutorClosedError: The executor has been shut down.
        """
        checked_count("chunksize", chunksize)
        if buffersize is not None:
            checked_count("buffersize", buffersize)
        star = len(iterables) != 1
        items: Any = zip(*iterables, strict=False) if star else iterables[0]
        if buffersize is None and type(items) not in {range, tuple}:
            items = list(items)
        keywords = {
            "errors": CARRY,
            "star": star,
            "chunksize": "auto" if chunksize == 1 else chunksize,
            "prefetch": buffersize,
        }
        reader = self._door.map(plain_function(fn), items, keywords, self._options)
        return Results(reader, timeout=timeout)

    def options(self, **options: Any) -> Executor:
        """The same executor, with other options for the calls made through it.

        Args:
            **options: Any of ``timeout`` (seconds from the start of execution), ``retry``, ``idempotent``,
                ``priority`` and ``limit``.

        Raises:
            TypeError, ValueError: There is no such option, or its value makes no sense.
        """
        view = object.__new__(Executor)
        view._door, view._origin = self._door, self._origin or self
        view._options = self._options.changed(**options)
        return view

    def status(self) -> PoolStatus:
        """How the executor stands; only looks."""
        return self._door.pool.status()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and close when those that were submitted have ended.

        Args:
            wait: Return when everything has ended and is closed. Otherwise that goes on without us.
            cancel_futures: Cancel what has not begun.

        Cancellation:
            An interruption, as by Ctrl-C, cancels what is left, and waits until it has stopped. A second Ctrl-C ends
            that at once.
        """
        self._door.shutdown(wait, Left.BEGUN if cancel_futures else Left.ALL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._door.shutdown(True, Left.ALL if error is None else Left.NONE, by_force=is_second(error))

    def __reduce__(self) -> NoReturn:
        raise PicklingError(f"{self!r} cannot be pickled or copied: it belongs to this process. Make one there.")

    def __repr__(self) -> str:
        return f"<blocking {self._door.pool!r}>"


class ThreadExecutor(Executor):
    """:class:`aioparallel.ThreadExecutor` for code without an event loop; see :class:`Executor`.

    Args:
        max_workers: How many threads at most; ``None`` as there.
        **options: The options of that one.

    Example:
        ::

            with ThreadExecutor(8) as pool:
                texts = list(pool.map(Path.read_text, paths))
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        super().__init__(aioparallel.ThreadExecutor(max_workers, **options))


class ProcessExecutor(Executor):
    """:class:`aioparallel.ProcessExecutor` for code without an event loop; see :class:`Executor`.

    Args:
        max_workers: How many processes; ``None`` means the CPUs that this process may use.
        **options: The options of that one.

    Example:
        ::

            with ProcessExecutor(4) as pool:
                future = pool.options(timeout=60).submit(crunch, 3, 4)
                print(future.result())
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        super().__init__(aioparallel.ProcessExecutor(max_workers, **options))


class RemoteExecutor(Executor):
    """:class:`aioparallel.RemoteExecutor` for code without an event loop; see :class:`Executor`.

    Args:
        hosts: Where calls run.
        **options: The options of that one.
    """

    def __init__(self, hosts: Any, **options: Any) -> None:
        super().__init__(aioparallel.RemoteExecutor(hosts, **options))
