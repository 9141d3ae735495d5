"""SerialExecutor: calls run inside ``submit``, by the same rules as everywhere else."""

from __future__ import annotations

import math
import sys
from typing import Any

from .._model.call import Call
from .._policy.ledger import Ledger
from .._workers.courier import Courier
from .._workers.inline import Inline
from .local import Foreman, LocalExecutor, check_callable, group_of
from .pool import Run

__all__ = ["SerialExecutor"]


class SerialExecutor(LocalExecutor):
    """Runs each call inside ``submit``, for debugging and tests: same rules, same errors, no concurrency.

    The future that ``submit`` returns has ended, unless the call is to be retried, waits for futures among
    its arguments, or is of an ``async def``, which runs as a task on the loop. What is submitted from another
    thread runs on the loop's thread.

    Args:
        pickle: Have function, arguments and result (or exception) make the same trip through pickle as to a worker
            process, so that a test notices what would not survive it.
        name: Seen in errors, logs and :meth:`~Executor.status`.
        max_pending: How many calls may wait until the executor is open.
        grace: Seconds that a cancelled coroutine has to stop before whoever awaits it goes on.

    Cancellation:
        A plain function cannot be cancelled, except by itself. Its ``timeout`` is looked at when it has returned.

    What may still be running:
        Nothing.

    Example:
        ::

            async with SerialExecutor() as pool:
                assert pool.submit(pow, 2, 10).result() == 1024
    """

    kind = "serial"

    def __init__(
        self,
        pickle: bool = False,
        *,
        name: str | None = None,
        max_pending: float = math.inf,
        grace: float = 5.0,
    ) -> None:
        super().__init__(sys.maxsize, name=name, max_pending=max_pending, grace=grace)
        self.pickle = pickle
        self._courier = Courier(self.name)

    def _check(self, fn: Any) -> None:
        check_callable(fn)

    def _prepare(self, call: Call) -> None:
        super()._prepare(call)
        if self.pickle:
            call.fn, call.args, call.kwargs = self._courier.pack(call), (), {}

    def _crew(self, run: Run, foreman: Foreman) -> Inline:
        return Inline(self.kind, self.name, group_of(run), foreman.ended)

    def _capacity(self) -> int:
        return 1

    def _worker_count(self, ledger: Ledger) -> int:
        return int(ledger.any_ready)
