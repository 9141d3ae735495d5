"""Every error that aioparallel raises, and whose fault each one is.

The tree::

    AioParallelError
    +-- NotReadyError            you used a value that is not there yet
    +-- CallCancelledError       somebody cancelled the call that you await
    +-- CallExitedError          the function called sys.exit (or was interrupted)
    +-- ExecutorClosedError      the executor was closed, or never opened (a RuntimeError)
    +-- PoolFullError            more was submitted than max_pending allows
    +-- PicklingError            something cannot travel to a worker or back
    +-- WorkerStartError         no worker can be started: its set-up fails each time
    +-- WorkerLostError          the worker that ran the call died
    |   +-- PoisonTaskError      the call killed every worker that ran it
    +-- TaskTimeoutError         the call ran longer than its timeout (a TimeoutError)
    +-- HostError                a remote host, or a cluster, cannot be used
    +-- StoreFullError           the object store of a cluster has no room left
    +-- RemoteError              stands in for an exception that cannot be rebuilt here

    RemoteTraceback              the cause of an exception that a worker raised
    InsecureHostWarning          a host's identity is not checked, because its options say so

An exception that *your function* raises is none of these: it arrives as itself,
with a :exc:`RemoteTraceback` as its cause.
"""

from __future__ import annotations

import pickle
from typing import Any

__all__ = [
    "AioParallelError",
    "CallCancelledError",
    "CallExitedError",
    "ExecutorClosedError",
    "HostError",
    "InsecureHostWarning",
    "NotReadyError",
    "PicklingError",
    "PoisonTaskError",
    "PoolFullError",
    "RemoteError",
    "RemoteTraceback",
    "StoreFullError",
    "TaskTimeoutError",
    "WorkerLostError",
    "WorkerStartError",
]


class AioParallelError(Exception):
    """The root of every error that this library raises on its own account.

    Fields are keyword arguments; they live in ``__dict__``, which is what
    :mod:`pickle` carries, so each error survives the trip between processes.
    """

    def __init__(self, message: str = "", /, **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]!r})"


class NotReadyError(AioParallelError):
    """The value of a future was used before it was there. Your code's fault: await it first."""


class CallCancelledError(AioParallelError):
    """The call that you await was cancelled by somebody else.

    Never :exc:`asyncio.CancelledError`: that would silently end the task that
    awaits, although nobody cancelled *it*.
    """


class CallExitedError(AioParallelError):
    """The function ended by :exc:`SystemExit` or :exc:`KeyboardInterrupt`; its worker lives on.

    Attributes:
        code: What was passed to ``sys.exit``, or ``None``.
    """

    code: Any = None


class ExecutorClosedError(AioParallelError, RuntimeError):
    """The executor is closed or closing, or was never opened: a ``RuntimeError``, as in :mod:`concurrent.futures`."""


class PoolFullError(AioParallelError):
    """``submit`` was called while ``max_pending`` calls were already waiting.

    Use ``await pool.submit_wait(...)`` to wait for room.
    """


class PicklingError(AioParallelError, pickle.PicklingError):
    """Something cannot travel between this process and a worker.

    Attributes:
        path: Where the culprit sits, for instance ``args[0]['lock']``.
        culprit: A description of the object that cannot travel.
    """

    path: str | None = None
    culprit: str | None = None


class WorkerStartError(AioParallelError):
    """No worker could be started; the message holds the reason, once."""


class WorkerLostError(AioParallelError):
    """The worker that was running the call went away before it answered.

    The call may or may not have had its effects. Calls that were waiting behind
    it run elsewhere and do not see this error.

    Attributes:
        call: The name of the call that was running.
        worker: The worker's name.
        pid: Its process id.
        host: The machine it ran on, ``None`` for this one.
        exitcode: Its exit code, when it exited by itself.
        signal: The name of the signal that killed it, for instance ``"SIGKILL"``.
        crashed: Its process alone ended, not its machine, although nobody says how; Ray knows no more than that.
        killed_for: The name of another call, which ran too long in another thread of the worker, so that we killed it.
        running_for: Seconds since the call began.
        max_rss: The worker's peak memory, in bytes.
        out_of_memory: Evidence of the out-of-memory killer; ``None`` when there is none.
        last_output: The last lines that the worker wrote.
        stack: Where the call was in Python, if it was stopped by us.
        ended: For a chunk of a map: how its items before the one that ran have ended.
    """

    call: str | None = None
    worker: str | None = None
    pid: int | None = None
    host: str | None = None
    exitcode: int | None = None
    signal: str | None = None
    crashed: bool = False
    killed_for: str | None = None
    running_for: float | None = None
    max_rss: int | None = None
    out_of_memory: str | None = None
    last_output: str = ""
    stack: str = ""
    ended: Any = None

    def __str__(self) -> str:
        said = super().__str__()
        return "\n".join([said or self._headline(), *self._evidence()])

    def _headline(self) -> str:
        where = f" on {self.host}" if self.host else ""
        running = f" while running {self.call}" if self.call else ""
        since = f", {self.running_for:.1f} s in" if self.running_for is not None else ""
        return f"{self.worker or 'a worker'} (pid {self.pid}){where} {self._death()}{running}{since}"

    def _death(self) -> str:
        if self.signal:
            return f"was killed by {self.signal}"
        if self.exitcode is not None:
            return f"exited with code {self.exitcode}"
        return "was lost"

    def _evidence(self) -> list[str]:
        lines = []
        if self.call and not (self.signal or self.exitcode is not None):
            lines.append("It may have run, or not, or in part. Calls that are `idempotent` are begun again.")
        if self.killed_for:
            lines.append(
                f"It was killed for {self.killed_for}, which ran longer than its timeout in another thread of it: "
                "a thread cannot be stopped alone. Calls that are `idempotent` are begun again."
            )
        elif self.out_of_memory:
            lines.append(f"Out of memory: {self.out_of_memory}")
        elif self.signal == "SIGKILL":
            lines.append(
                "Nothing in aioparallel sent that signal. On Linux it is usually the out-of-memory killer: "
                "look for the pid in `dmesg`, and use fewer workers or less memory per call."
            )
        if self.max_rss:
            lines.append(f"Its peak memory was {self.max_rss / 2**20:.0f} MiB.")
        if self.last_output:
            lines.append("Its last output:\n" + self.last_output.rstrip("\n"))
        return lines


class PoisonTaskError(WorkerLostError):
    """The call killed every worker that ran it, and is set aside.

    Attributes:
        history: One line for each worker it killed.
    """

    history: tuple[str, ...] = ()

    def _evidence(self) -> list[str]:
        return [*super()._evidence(), *self.history]


class TaskTimeoutError(AioParallelError, TimeoutError):
    """The call ran longer than its ``timeout``, and was stopped.

    Attributes:
        call: The name of the call.
        timeout: The limit, in seconds from the start of execution.
        stack: The Python stack of the stuck call, where it could be taken.
    """

    call: str | None = None
    timeout: float | None = None
    stack: str = ""

    def __str__(self) -> str:
        head = AioParallelError.__str__(self) or f"{self.call} ran longer than its timeout of {self.timeout} s"
        return f"{head}\nIt was here:\n{self.stack}" if self.stack else head


class StoreFullError(AioParallelError):
    """The object store of a Ray cluster has no room for an argument, a constant or a result, nor has its disk.

    Make fewer or smaller ones at a time, give the cluster more of both, or leave large results where they are made.

    Attributes:
        call: The name of the call.
    """

    call: str | None = None


class HostError(AioParallelError):
    """A remote host, or a cluster, cannot be used, or is no longer there.

    The message says what happened, whose fault it is, and what to do next.

    Attributes:
        host: Its name or address.
        phase: What failed: ``dns``, ``connect``, ``host key``, ``auth``, ``python`` or ``handshake``. ``None`` when it
            worked, and was lost later.
        permanent: Whether it will fail again until somebody changes something: trying again does not help.
        tried: In the phase ``python``: each command that was tried, and what was found.
        mismatch: The version of the Python over there, when that is why it was refused.
    """

    host: str | None = None
    phase: str | None = None
    permanent: bool = False
    tried: tuple[tuple[str, str], ...] = ()
    mismatch: str | None = None


class InsecureHostWarning(UserWarning):
    """A host's identity is not checked, because ``options={"known_hosts": None}`` says so.

    Whoever stands between can then pose as the host, read what is sent, and run code *here*: results are unpickled.
    """


class RemoteError(AioParallelError):
    """Stands in for an exception that a worker raised and that cannot be rebuilt here.

    What is raised is a subclass that also inherits the nearest built-in class of
    the original, so ``except ValueError`` still catches what was a ``ValueError``.

    Attributes:
        type_name: The full name of the original exception's class.
        reason: Why the original could not travel.
    """

    type_name: str = ""
    reason: str = ""


class RemoteTraceback(Exception):
    """The traceback of an exception that was raised in a worker: its ``__cause__`` here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"
