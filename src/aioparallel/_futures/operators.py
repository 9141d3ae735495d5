"""The one table of what Python's operators mean on a future.

Each line of :class:`Operators` is one operator. ``both`` also defines its reflection,
with the operands in the order in which they stand in the source: ``"a" + fut`` adds
the value to ``"a"``, not ``"a"`` to the value.

``==``, ``!=`` and ``hash`` are absent: they are identity, as for any future.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from .smart import SmartFuture

__all__ = ["Operators"]

R = TypeVar("R")
_Binary = Callable[["Operators", Any], "SmartFuture[Any]"]


def both(operation: Callable[[Any, Any], Any]) -> tuple[_Binary, _Binary]:
    """A binary operator and its reflection."""

    def reflected(self: Operators, other: Any) -> SmartFuture[Any]:
        return self._compute(operation, (other, self))

    return first(operation), reflected


def first(operation: Callable[[Any, Any], Any]) -> _Binary:
    """A binary operator whose reflection is another line of the table, or that has none."""

    def direct(self: Operators, other: Any) -> SmartFuture[Any]:
        return self._compute(operation, (self, other))

    return direct


def alone(operation: Callable[[Any], Any]) -> Callable[[Operators], SmartFuture[Any]]:
    """A unary operator."""

    def unary(self: Operators) -> SmartFuture[Any]:
        return self._compute(operation, (self,))

    return unary


def with_option(operation: Callable[..., Any]) -> Callable[..., SmartFuture[Any]]:
    """An operator that takes optional operands: ``round(x, ndigits)``, ``pow(x, y, modulus)``."""

    def direct(self: Operators, *others: Any) -> SmartFuture[Any]:
        return self._compute(operation, (self, *others))

    return direct


def of_value(convert: Callable[..., R]) -> Callable[..., R]:
    """What Python wants an answer for at once: the finished value's, else ``NotReadyError``."""

    def answer(self: Operators, *args: Any) -> R:
        return convert(self._outcome(), *args)

    return answer


class Operators:
    """An expression over futures is a future; a question about the value is answered once it is there."""

    __slots__ = ()

    if TYPE_CHECKING:  # what the future itself brings

        def _compute(self, operation: Callable[..., Any], operands: tuple[Any, ...]) -> SmartFuture[Any]: ...

        def _outcome(self) -> Any: ...

    __add__, __radd__ = both(operator.add)
    __sub__, __rsub__ = both(operator.sub)
    __mul__, __rmul__ = both(operator.mul)
    __matmul__, __rmatmul__ = both(operator.matmul)
    __truediv__, __rtruediv__ = both(operator.truediv)
    __floordiv__, __rfloordiv__ = both(operator.floordiv)
    __mod__, __rmod__ = both(operator.mod)
    __divmod__, __rdivmod__ = both(divmod)
    __lshift__, __rlshift__ = both(operator.lshift)
    __rshift__, __rrshift__ = both(operator.rshift)
    __and__, __rand__ = both(operator.and_)
    __or__, __ror__ = both(operator.or_)
    __xor__, __rxor__ = both(operator.xor)
    __pow__, __rpow__ = with_option(pow), both(pow)[1]

    # Python reflects these by itself: 3 < fut asks fut > 3.
    __lt__ = first(operator.lt)
    __le__ = first(operator.le)
    __gt__ = first(operator.gt)
    __ge__ = first(operator.ge)

    __neg__ = alone(operator.neg)
    __pos__ = alone(operator.pos)
    __abs__ = alone(operator.abs)
    __invert__ = alone(operator.invert)
    __round__ = with_option(round)
    __getitem__ = first(operator.getitem)

    __bool__: Callable[..., bool] = of_value(bool)
    __int__: Callable[..., int] = of_value(int)
    __float__: Callable[..., float] = of_value(float)
    __complex__: Callable[..., complex] = of_value(complex)
    __index__: Callable[..., int] = of_value(operator.index)
    __len__: Callable[..., int] = of_value(len)
    __iter__: Callable[..., Iterator[Any]] = of_value(iter)
    __reversed__: Callable[..., Iterator[Any]] = of_value(reversed)
    __contains__: Callable[..., bool] = of_value(operator.contains)
    __str__ = of_value(str)
    __bytes__: Callable[..., builtins.bytes] = of_value(bytes)
    __format__ = of_value(format)

    # Without this, ndarray + fut would be an array of futures.
    __array_ufunc__: ClassVar[None] = None
