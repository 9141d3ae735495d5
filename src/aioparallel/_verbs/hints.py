"""What type hints say of a function's parameters: whether one takes a container of elements, or an element."""

from __future__ import annotations

import ast
import builtins
import collections
import inspect
import sys
import types
import typing
from array import array
from collections import abc, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Hint", "depth_of_value", "hint_of", "resolved_hints"]

_ABSTRACT = (abc.Iterable, abc.Iterator, abc.Reversible, abc.Generator, abc.Collection)
_NO_CONTAINERS = (str, bytes, bytearray, memoryview, Mapping)
_BUILDERS: dict[Any, Callable[[Any], Any]] = {list: list, tuple: tuple, set: set, frozenset: frozenset, deque: deque}
_KNOWN: dict[str, Any] = {
    **{name: value for name, value in vars(typing).items() if not name.startswith("_")},
    **{name: value for name, value in vars(abc).items() if isinstance(value, type)},
    **{name: value for name, value in vars(builtins).items() if isinstance(value, type)},
    "array": array,
    "deque": collections.deque,
    "ndarray": list,
    "NDArray": list,
    "DataFrame": list,
    "Series": list,
}
"""What a name most likely means in a hint that cannot be evaluated."""


class Hint(NamedTuple):
    """A parameter as its hint describes it.

    Attributes:
        depth: How many containers are around an element: 0 for ``int``, 1 for ``list[int]``, 2 for ``list[list[int]]``.
        build: Makes the container that the hint names; ``None`` if any will do.
    """

    depth: int
    build: Callable[[Any], Any] | None = None

    @property
    def is_container(self) -> bool:
        """Whether the parameter takes several elements."""
        return self.depth > 0


NO_HINT = Hint(0)


def resolved_hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """The hints of a function's parameters and of its result; those that cannot be evaluated stay strings."""
    plain = inspect.unwrap(getattr(fn, "func", fn))
    plain = plain if inspect.isroutine(plain) or isinstance(plain, type) else type(plain).__call__
    try:
        return typing.get_type_hints(plain)
    except Exception:  # a name that only type checkers can see, for instance
        scope = vars(sys.modules.get(getattr(plain, "__module__", ""), builtins))
        return {name: _evaluated(hint, scope) for name, hint in getattr(plain, "__annotations__", {}).items()}


def _evaluated(hint: Any, scope: Mapping[str, Any]) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, dict(scope))
    except Exception:
        return hint


def hint_of(annotation: Any) -> Hint:
    """What an annotation says; anything legal is understood, or taken for "one element"."""
    if isinstance(annotation, str):
        annotation = _guess(annotation)
    if isinstance(annotation, typing.ForwardRef):
        annotation = _guess(annotation.__forward_arg__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return hint_of(arguments[0])
    if origin in {typing.Union, types.UnionType}:
        return _of_union(arguments)
    if isinstance(annotation, typing.TypeVar):
        return hint_of(annotation.__bound__)
    inner = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    if inner is not None:  # a NewType, or a `type` statement
        return hint_of(inner)
    return _of_class(origin or annotation, arguments)


def _of_union(members: tuple[Any, ...]) -> Hint:
    """A union takes containers if every member does, apart from ``None``."""
    hints = [hint_of(member) for member in members if member is not type(None)]
    return min(hints, key=lambda hint: hint.depth, default=NO_HINT)


def _of_class(kind: Any, arguments: tuple[Any, ...]) -> Hint:
    if not _is_container_class(kind) or (kind is tuple and arguments and arguments[-1] is not ...):
        return NO_HINT  # tuple[int, str] is a record
    return Hint(1 + (hint_of(arguments[0]).depth if arguments else 0), _BUILDERS.get(kind))


def _is_container_class(kind: Any) -> bool:
    if not isinstance(kind, type) or issubclass(kind, _NO_CONTAINERS) or hasattr(kind, "_fields"):
        return False  # named tuples are records, too
    return kind in _ABSTRACT or issubclass(kind, abc.Collection)


def _guess(text: str) -> Any:
    """The meaning of a hint that cannot be evaluated, as far as its outermost names tell."""
    try:
        return _guess_node(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return Any


def _guess_node(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return _guess(node.value) if isinstance(node.value, str) else node.value
    if isinstance(node, ast.Attribute):
        return _KNOWN.get(node.attr, Any)
    if isinstance(node, ast.Name):
        return _KNOWN.get(node.id, Any)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[(_guess_node(node.left), _guess_node(node.right))]  # noqa: UP007
    if isinstance(node, ast.Tuple):
        return tuple(map(_guess_node, node.elts))
    if isinstance(node, ast.Subscript):
        return _subscripted(_guess_node(node.value), _guess_node(node.slice))
    return Any


def _subscripted(kind: Any, arguments: Any) -> Any:
    try:
        return kind[arguments]
    except TypeError:
        return kind


def depth_of_value(value: Any) -> int:
    """How many containers are around the elements of a value, going by the first of each; an array counts as one."""
    depth = 0
    while _is_container_class(type(value)) and not isinstance(value, abc.Iterator):
        depth += 1
        if hasattr(value, "ndim"):
            break
        value = next(iter(value), None)
    return depth
