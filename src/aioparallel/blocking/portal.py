"""The portal: an event loop in a thread of its own, for programs that have none.

One portal serves all blocking executors and maps of a process. Whoever needs it *enters*, and *leaves* when it is
done; the first to enter starts the thread, the last to leave ends it. Its life::

    (none) --enter--> OPEN --the last leaves, or the program ends--> CLOSING --the thread ends--> (gone)

* Who enters while a portal is CLOSING gets a new one; the old one owes nothing to anybody.
* The thread is no daemon, so Python waits for it. At the end of the program it is told so by Python (see below). It
  then has everybody who is inside finish (an executor ends what was submitted to it, as those of the standard library
  do), and ends. Nobody has to close anything for a program to end, and nothing that was submitted is lost; but if it
  is Ctrl-C that has ended the program, what is left is stopped.
* A process that was forked from this one has no portal: threads are not forked along. What it inherited says so when
  it is used; what it makes anew gets a portal of its own, and a lock of its own, for another thread of the parent may
  have held the parent's.

Guarantees:

* ``run`` and ``do`` return or raise, whatever happens: also if the loop ends before it came to what they posted.
* On the portal's own thread ``run`` raises, for it would wait for itself.
* When the thread has ended, its loop is closed, and no task of it is left.

How it learns of the program's end. ``atexit`` is too late: its functions run when Python has waited for all threads,
and a pool can neither start a thread nor drain after that. To poll whether the main thread lives is to wake an idle
program ten times a second, and to end it a tenth of a second late. ``threading._register_atexit`` is what
``concurrent.futures`` itself hangs on: it runs when the main thread has ended and before Python waits for the others.
What we register there cleans nothing up and waits for nothing; it tells the portal, whose thread does the rest.

From that moment on the standard library's thread pools refuse work, also those that event loops have for names of hosts
and for files. A connection to a host may have to be made after that, so the loop gets a pool that goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

import anyio

from .._futures.loops import running_loop
from .._futures.patience import lose_patience
from .._futures.smart import SmartFuture, wrapped
from .._model.errors import ExecutorClosedError, NotReadyError
from .interrupts import interruption_of_program, is_second

__all__ = ["Closer", "Portal", "enter", "shared"]

T = TypeVar("T")
Closer = Callable[[bool], Awaitable[object]]
"""What somebody inside does, on the loop, when the program ends: finish what was submitted, or else stop it."""

_log = logging.getLogger("aioparallel")


class Portal:
    """An event loop in a thread of its own. :func:`enter` makes it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.is_foreign = False
        """Whether it belongs to a process that this one was forked from."""
        self.inside: dict[object, Closer] = {}
        """Whoever has entered and not left."""
        self.closing = False
        self._asked: set[Future[Any]] = set()
        """What ``run`` and ``do`` wait for."""
        self._news = asyncio.Event()
        self._ending = False
        self._interruption: KeyboardInterrupt | None = None
        """What has ended the program."""
        self.loop.set_default_executor(_Helpers(thread_name_prefix="aioparallel helper"))
        self._thread = threading.Thread(target=self._serve, name="aioparallel portal", daemon=False)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise

    @property
    def is_here(self) -> bool:
        """Whether the current thread is the portal's own."""
        return running_loop() is self.loop

    def leave(self, guest: object, *, wait: bool = True) -> None:
        """Say that ``guest`` needs the portal no more; the last one ends it.

        Not to be called by finalizers, which may come while somebody enters.

        Args:
            guest: Who had entered. Leaving twice does nothing.
            wait: If this ends the portal, return when its thread has ended, unless we are on that.
        """
        with _process.lock:
            self.inside.pop(guest, None)
            if self.inside:
                return
            self.closing = True
        self.post(self._news.set)
        if wait and not self.is_here:
            self._thread.join()

    def check_wait(self, what: str = "the result") -> None:
        """Raise where waiting for something would be for ever.

        Raises:
            NotReadyError: This is the portal's own thread, or that is not in this process.
        """
        if self.is_foreign:
            raise NotReadyError(f"{what} was asked for before this process was forked, and comes in the other one")
        if self.is_here:
            raise NotReadyError(
                f"{what} is not there yet, and to wait for it on the thread that it comes from would be for ever: in a "
                "coroutine use aioparallel itself and `await`; in a callback look at the future that it was given, and "
                "leave waiting to other threads"
            )

    def end(self, interruption: KeyboardInterrupt | None = None) -> None:
        """The program ends: have everybody finish and leave; or stop, if it was interrupted."""
        self._interruption = interruption
        self._ending = True
        self.post(self._news.set)

    # From any thread

    def post(self, fn: Callable[..., object], *args: Any, context: Context | None = None) -> bool:
        """Have ``fn`` called on the loop, soon; ``False`` when the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(fn, *args, context=context)
        except RuntimeError:
            return False
        return True

    def do(self, fn: Callable[..., T], *args: Any) -> T:
        """What a plain function returns or raises when it is called on the loop."""
        if self.is_here:
            return fn(*args)
        answer: Future[T] = Future()

        def call() -> None:
            try:
                answer.set_result(fn(*args))
            except Exception as error:
                answer.set_exception(error)

        self._ask(answer, call)
        return answer.result()

    def run(self, fn: Callable[[], Awaitable[T]], timeout: float | None = None, *, context: Context | None = None) -> T:
        """What an awaitable gives that is made and awaited on the loop.

        Args:
            fn: Makes it.
            timeout: Seconds after which :exc:`TimeoutError` is raised. Then, and when something else interrupts the
                waiting, as Ctrl-C does, what is awaited is cancelled, and its end waited for; a second Ctrl-C ends
                that as well.
            context: The contextvars that it sees; those of the caller by default.
        """
        self.check_wait()
        answer: Future[T] = Future()
        jobs: list[SmartFuture[T]] = []
        self._ask(answer, partial(_begin, fn, answer, jobs), context or copy_context())
        try:
            return answer.result(timeout)
        except BaseException as error:
            if not answer.done():
                self.post(_cancel, jobs)
                if not is_second(error):
                    answer.exception()
            raise
        finally:
            del answer, jobs  # a traceback refers to this frame

    def _ask(self, answer: Future[Any], fn: Callable[[], object], context: Context | None = None) -> None:
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        if not self.post(fn, context=context):
            _give_up(answer)

    # On the portal's thread

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._until_left())
        finally:
            self.closing = True
            for answer in list(self._asked):
                _give_up(answer)

    async def _until_left(self) -> None:
        while not self.closing and not self._ending:
            self._news.clear()
            await self._news.wait()
        while self.inside:  # the program ends
            guests = dict(self.inside)
            if is_second(self._interruption):
                lose_patience()  # the loop's own shutdown, which comes now, ends all by force
            else:
                async with anyio.create_task_group() as group:
                    for closer in guests.values():
                        group.start_soon(_close, closer, self._interruption is None)
            for guest in guests:
                self.leave(guest)

    def __repr__(self) -> str:
        return f"<portal, {'closing' if self.closing else 'open'}, {len(self.inside)} inside>"


class _Helpers(ThreadPoolExecutor):
    """A thread pool that takes work also when the main thread has ended: each call then gets a thread of its own."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Hand over a call."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:  # so says the standard library
            future: Future[T] = Future()
            threading.Thread(target=_help, args=(future, partial(fn, *args, **kwargs)), daemon=True).start()
            return future


def _help(future: Future[T], fn: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(fn())
        except BaseException as error:
            future.set_exception(error)


class _Process:
    """What this process knows of its portals."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shared: Portal | None = None
        self.portals: set[Portal] = set()
        """Those that are open, perhaps with some that have ended."""
        self.ended = False
        """Whether the main thread has ended."""
        self._told = False
        """Whether Python tells us of that, and of forks; forked processes inherit it."""
        self._left_behind: list[Portal] = []
        """Those of the process that this one was forked from: nothing may be closed that is still in use there."""

    def open(self) -> Portal:
        """A new portal."""
        self._ask_to_be_told()
        if self.ended:
            raise ExecutorClosedError("the main thread has ended, and the program with it: nothing is started any more")
        portal = Portal()
        self.portals = {portal, *(other for other in self.portals if not other.closing)}
        return portal

    def _ask_to_be_told(self) -> None:
        if self._told:
            return
        try:
            threading._register_atexit(self._end)  # type: ignore[attr-defined]
        except RuntimeError:  # it has ended already
            self.ended = True
            return
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        self._told = True

    def _end(self) -> None:
        with self.lock:
            self.ended = True
            for portal in self.portals:
                portal.end(interruption_of_program())

    def _forked(self) -> None:
        self.lock = threading.Lock()
        self.shared = None
        for portal in self.portals:
            portal.is_foreign = True
        self._left_behind += self.portals
        self.portals = set()


_process = _Process()


def enter(guest: object, closer: Closer, *, alone: bool = False) -> Portal:
    """The portal of this process, which stays until ``guest`` leaves.

    Args:
        guest: Who enters. Entering twice counts as once.
        closer: Awaited on the loop if the program ends before the guest has left.
        alone: Open another one, for this guest: to run there what runs in the place of whoever blocks for it.

    Raises:
        ExecutorClosedError: The program has ended.
    """
    with _process.lock:
        if alone:
            portal = _process.open()
        elif _process.shared is None or _process.shared.closing:
            portal = _process.shared = _process.open()
        else:
            portal = _process.shared
        portal.inside[guest] = closer
        return portal


def shared() -> Portal | None:
    """The portal that whoever enters shares, if there is one now."""
    portal = _process.shared
    return None if portal is None or portal.closing else portal


async def _close(closer: Closer, finish: bool) -> None:
    try:
        await closer(finish)
    except Exception:
        _log.exception("something could not be closed at the end of the program")


def _begin(fn: Callable[[], Awaitable[T]], answer: Future[T], jobs: list[SmartFuture[T]]) -> None:
    async def job() -> T:
        return await fn()

    jobs.append(wrapped(job()))
    jobs[0]._watch(lambda ended: _settle(answer, ended))


def _cancel(jobs: list[SmartFuture[T]]) -> None:
    for job in jobs:
        job.cancel()


def _settle(answer: Future[T], job: SmartFuture[T]) -> None:
    error = job.exception()
    if error is None:
        answer.set_result(job.result())
    else:
        answer.set_exception(error)


def _give_up(answer: Future[Any]) -> None:
    with suppress(InvalidStateError):
        answer.set_exception(ExecutorClosedError("the program ends, and the loop that blocking calls need has ended"))
