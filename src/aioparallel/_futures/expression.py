"""The work behind a future that is computed from other futures: ``fut_a + fut_b``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._model.errors import CallCancelledError
from .._model.info import CallInfo, CallState
from .joining import Join
from .operators import Operators

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["Expression", "evaluate"]


def evaluate(operation: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """The operation on the operands' values; raises what the first failed operand raises."""
    return operation(*[operand._outcome() if isinstance(operand, Operators) else operand for operand in operands])


class Expression:
    """Awaits the operands, then computes: a :class:`~aioparallel._model.contracts.Source` that is no task."""

    __slots__ = ("_future", "_join", "_operands", "_operation", "grace")

    def __init__(self, operation: Callable[..., Any], operands: tuple[Any, ...]) -> None:
        self._operation = operation
        self._operands = operands
        self._join: Join | None = None
        self._future: SmartFuture[Any] | None = None
        self.grace: float = max(operand._grace for operand in self._futures())

    def start(self, future: SmartFuture[Any]) -> None:
        """Await the operands on the loop of ``future``, which is what this settles."""
        self._future = future
        self._join = Join(self._futures(), self._on_ready, future._loop)

    def cancel(self) -> bool:
        """Leave the operands; those that nobody else awaits are cancelled, and their end is waited for."""
        if self._join is None:
            return False
        self._join.abandon(self._on_left)
        return True

    def info(self) -> CallInfo:
        """An expression waits for its operands, or is computed."""
        return CallInfo(CallState.WAITING, name=self._operation.__name__.strip("_"))

    def _futures(self) -> list[SmartFuture[Any]]:
        return [operand for operand in self._operands if isinstance(operand, Operators)]  # type: ignore[misc]

    def _on_ready(self, error: BaseException | None) -> None:
        future, operands = self._release()
        if error is None:
            future._settle_by(evaluate, self._operation, operands)
        elif isinstance(error, CallCancelledError):
            future._set_cancelled(str(error))
        else:
            future._set_exception(error)

    def _on_left(self) -> None:
        self._release()[0]._set_cancelled()

    def _release(self) -> tuple[SmartFuture[Any], tuple[Any, ...]]:
        # Operands may be large, and the future refers back to us: neither is to be kept until the next GC run.
        future, operands = self._future, self._operands
        self._future, self._operands, self._join = None, (), None
        assert future is not None, "settled once: the join reports once, or is abandoned"
        return future, operands
