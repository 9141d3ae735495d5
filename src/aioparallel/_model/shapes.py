"""What calling a function gives: a value, a coroutine, or something to iterate over."""

from __future__ import annotations

import functools
import inspect
from enum import Enum
from types import FunctionType
from typing import Any

__all__ = ["Shape", "shape_of"]


class Shape(Enum):
    """What calling a function gives."""

    PLAIN = "def"
    COROUTINE = "async def"
    GENERATOR = "def with yield"
    ASYNC_GENERATOR = "async def with yield"

    @property
    def is_async(self) -> bool:
        """Whether it can only run on an event loop."""
        return self in {Shape.COROUTINE, Shape.ASYNC_GENERATOR}

    @property
    def is_stream(self) -> bool:
        """Whether it makes its items one by one."""
        return self in {Shape.GENERATOR, Shape.ASYNC_GENERATOR}


_BY_FLAG = {
    0: Shape.PLAIN,
    inspect.CO_COROUTINE: Shape.COROUTINE,
    inspect.CO_ASYNC_GENERATOR: Shape.ASYNC_GENERATOR,
    inspect.CO_GENERATOR: Shape.GENERATOR,
}
_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


def shape_of(fn: Any) -> Shape:
    """The shape of a function, method, partial, builtin, class or callable object."""
    if type(fn) is FunctionType and not fn.__dict__:  # nobody has marked it; it is asked for each call
        return _BY_FLAG[fn.__code__.co_flags & _FLAGS]
    fn = _definition(fn)
    if inspect.iscoroutinefunction(fn):
        return Shape.COROUTINE
    if inspect.isasyncgenfunction(fn):
        return Shape.ASYNC_GENERATOR
    return Shape.GENERATOR if inspect.isgeneratorfunction(fn) else Shape.PLAIN


def _definition(fn: Any) -> Any:
    """What holds the code: under partials and method wrappers, or the ``__call__`` of an object's class."""
    while isinstance(fn, (functools.partial, classmethod, staticmethod)):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    has_code = inspect.isroutine(fn) or isinstance(fn, type) or inspect.iscoroutinefunction(fn)  # some are marked so
    return fn if has_code else getattr(type(fn), "__call__", fn)  # noqa: B004
