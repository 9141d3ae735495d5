"""A crew of threads that stay: they take calls from one queue, and wake the loop once for many ends."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from time import time
from types import FrameType
from typing import Any

import anyio

from .._child.current import Current, current
from .._futures.supervisor import Group
from .._model.call import Call
from .._model.errors import WorkerStartError
from .crew import Crew, Job, Report, job_of

__all__ = ["Threads"]

LOOK_SECONDS = 0.5
"""How often an idle thread looks whether the program ended without closing its executor."""
LONG = 0.01
"""A thread that was in a call so long looks, too."""
LEAVING_SECONDS = 1.0
"""What idle threads are given to come to their end, however small the grace."""
JOIN_SECONDS = 0.1
"""More than a thread takes from its last word to its end."""

_log = logging.getLogger("aioparallel")


class Threads(Crew):
    """Threads of ``anyio.to_thread`` that stay until the crew is closed.

    Args:
        kind: The kind of executor it works for.
        name: Its executor's name.
        size: How many threads there may be.
        group: The task group that threads belong to.
        report: Takes ends, on the loop.
        broken: Told when no thread can be started.
        initializer: Called in each thread before its first call.
        finalizer: Called in each thread after its last one.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        size: int,
        group: Group,
        report: Report,
        broken: Callable[[WorkerStartError], None],
        initializer: Callable[[], object] | None = None,
        finalizer: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(kind, name, size, group, report)
        self._broken = broken
        self._initializer = initializer
        self._finalizer = finalizer
        self._limiter = anyio.CapacityLimiter(size)
        self._inbox: SimpleQueue[int | None] = SimpleQueue()
        self._waiting: dict[int, Job] = {}
        self._running: dict[int, tuple[Call, int]] = {}
        """Each call that has begun, and its thread."""
        self._pile: list[int] = []
        """Numbers that go to the inbox in the loop's next turn."""
        self._expected: set[int] = set()
        """Indexes of threads that have not begun. Who takes one out, the thread or its task, answers for it."""
        self._set_up = initializer is None
        self._failure: WorkerStartError | None = None

    async def open(self) -> None:
        """Return when calls can be put: with an initializer, when it has run in the first thread.

        Raises:
            WorkerStartError: The initializer failed there.
        """
        if self._initializer is not None:
            self._hire()
            await self._until(lambda: self._set_up or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    def put(self, calls: list[Call]) -> None:
        """Run these calls, in this order, each as soon as a thread is free."""
        for call in calls:
            self._waiting[call.seq] = job_of(call)
        self._unfinished += len(calls)
        if self._members < self.size:
            self._staff()
        numbers = [call.seq for call in calls]
        if self._unfinished <= self._members and not self._pile:
            self._deal(numbers)
        else:
            # All threads are busy, and one that is woken now would only take the interpreter away from the loop.
            if not self._pile:
                self.loop.call_soon(self._deal_pile)
            self._pile += numbers

    def waiting(self) -> Iterable[Call]:
        """The calls that have not begun."""
        return [job[0] for job in list(self._waiting.values())]

    def take_back(self, number: int) -> bool:
        """Take a call away from the crew; ``False`` if it has begun."""
        taken = self._waiting.pop(number, None) is not None
        self._unfinished -= taken
        return taken

    def is_in(self, number: int) -> bool:
        """Whether a call has begun, and not ended."""
        return number in self._running

    def stop(self, number: int, *, once: bool = False) -> bool:
        """Nothing can stop a thread; the call may ask whether it was cancelled."""
        return False

    def stack(self, number: int) -> str:
        """Where a call that has begun is just now, as a traceback shows it."""
        _, thread = self._running.get(number, (None, 0))
        frame: FrameType | None = sys._current_frames().get(thread)
        frames: list[tuple[FrameType, int]] = []
        while frame is not None and frame.f_code is not _RUN:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        return "".join(traceback.StackSummary.extract(reversed(frames)).format()) if frame is not None else ""

    async def close(self, grace: float) -> None:
        """Let all threads end; leave behind those whose function has not returned after ``grace`` seconds."""
        self._dismiss_all()
        with anyio.move_on_after(grace):
            await self._until(lambda: not self._members)
        with anyio.move_on_after(LEAVING_SECONDS):
            await self._until(lambda: self._members <= len(self._running))
        self._name_abandoned("Python does not exit before.")

    def give_up(self) -> None:
        """Leave behind the threads that are in a call; where that can be had, Python does not wait for them either."""
        if not self._closing:
            self._dismiss_all()
        self._name_abandoned(
            "Python exits without it." if _CAN_LET_GO else "Python does not exit before, but after one more Ctrl-C."
        )
        for _, thread in list(self._running.values()):
            _let_go(thread)

    def _dismiss_all(self) -> None:
        self._closing = True
        for _ in range(self._members):
            self._inbox.put(None)

    def _name_abandoned(self, consequence: str) -> None:
        now = time()
        for number, (call, ident) in list(self._running.items()):
            thread = _thread_of(ident)
            _log.warning(
                "%s was closed, but its thread %r is still in %s, which began %.1f s ago, and ends when that returns. "
                "%s A thread cannot be stopped; a function that takes long should call aioparallel.check_cancelled() "
                "now and then. It is here:\n%s",
                self.name,
                ident if thread is None else thread.name,
                call.name,
                now - (call.begun_at or now),
                consequence,
                self.stack(number),
            )

    # On the loop: threads come and go

    def _staff(self) -> None:
        """Have a thread for each call, as far as there may be so many."""
        while self._members < min(self.size, self._unfinished):
            self._hire()

    async def _join(self, index: int) -> None:
        self._expected.add(index)
        failure: BaseException | None = None
        try:
            failure = await anyio.to_thread.run_sync(self._serve, index, abandon_on_cancel=True, limiter=self._limiter)
        except RuntimeError as error:  # the system has no thread for us
            failure = error
        finally:
            if index in self._expected:
                self._expected.discard(index)
                self._dismiss(index)
        if failure is not None:
            self._cannot_start(failure)
        elif self._waiting and not self._closing:
            self._staff()

    def _deal(self, numbers: list[int]) -> None:
        for number in numbers:
            self._inbox.put(number)

    def _deal_pile(self) -> None:
        pile, self._pile = self._pile, []
        self._deal(pile)

    def _arrived(self) -> None:
        self._set_up = True
        self._changed.set()

    def _left(self, index: int, thread: threading.Thread) -> None:
        _forget(thread)
        self._dismiss(index)

    def _cannot_start(self, error: BaseException) -> None:
        """Go on with the threads there are; without any, nothing that waits can ever run."""
        text = "".join(traceback.format_exception(error))
        self._failure = WorkerStartError(f"{self.name}: a thread could not be started:\n{text}")
        self._failure.__cause__ = error
        self.size = self._members
        self._changed.set()
        if self._members:
            _log.warning("%s goes on with %d threads: %s", self.name, self._members, self._failure)
        else:
            self._broken(self._failure)

    # On a thread

    def _serve(self, index: int) -> BaseException | None:
        """The life of a thread with the crew. Returns why it could not be set up, if it could not."""
        try:
            self._expected.remove(index)
        except KeyError:
            return None  # its task was cancelled before we came
        thread = threading.current_thread()
        old_name, thread.name = thread.name, f"aioparallel {self.name} {index}"
        current.set(Current(0, "the initializer", 1, index, None, lambda: False))
        try:
            if self._initializer is not None:
                self._initializer()
                self._post(self._arrived)
        except BaseException as error:
            return error
        else:
            self._work(index, threading.get_ident())
            self._finalize()
            return None
        finally:
            thread.name = old_name
            _quit(thread)
            self._post(self._left, index, thread)

    def _finalize(self) -> None:
        if self._finalizer is not None:
            try:
                self._finalizer()
            except Exception:
                _log.exception("%s: the finalizer of a thread failed", self.name)

    def _work(self, index: int, thread: int) -> None:
        main = threading.main_thread()
        while True:
            try:
                number = self._inbox.get(True, LOOK_SECONDS)
            except Empty:
                if main.is_alive() or self.loop.is_running():
                    continue
                return  # or the interpreter would wait for us for ever
            if number is None:
                return
            job = self._waiting.pop(number, None)
            if job is None:
                continue
            took = self._run(number, job, index, thread)
            job = None  # an idle thread keeps nothing alive
            if took > LONG and not main.is_alive() and not self.loop.is_running():
                return

    def _run(self, number: int, job: Job, index: int, thread: int) -> float:
        self._running[number] = job[0], thread
        ending, value, took = self._call(job, index)
        self._ends.append((number, ending, value, took))
        del self._running[number]
        if not self._told:
            self._told = True
            self._post(self.collect)
        return took

    def _post(self, fn: Callable[..., None], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            if not self.loop.is_closed():  # if it is, nobody is left to be told
                raise


_RUN = Threads._call.__code__
_CAN_LET_GO = hasattr(threading, "_shutdown_locks")


def _thread_of(number: int) -> threading.Thread | None:
    return next((thread for thread in threading.enumerate() if thread.ident == number), None)


def _let_go(number: int) -> None:
    """Have Python not wait for a thread when the program ends, as if it were a daemon.

    There is no public way to do that to a thread that runs, nor to have AnyIO start daemons; and none at all from
    Python 3.13 on, where these locks are gone.
    """
    if _CAN_LET_GO:
        vars(threading)["_shutdown_locks"].discard(getattr(_thread_of(number), "_tstate_lock", None))


def _quit(thread: threading.Thread) -> None:
    """Have AnyIO's thread end with us; it would wait for other work until the loop's first task ends, or for ever."""
    stop = getattr(thread, "stop", None)
    if stop is not None:
        stop()


def _forget(thread: threading.Thread) -> None:
    """Wait the moment that a thread takes from its last word to its end, and have nothing of AnyIO's refer to it."""
    stop, task = getattr(thread, "stop", None), getattr(thread, "root_task", None)
    if stop is not None and task is not None:
        task.remove_done_callback(stop)
        thread.join(JOIN_SECONDS)
