"""What calling something gives, told without calling it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from aioparallel._model.shapes import Shape, shape_of
from tests.tools import name_of


def plain(x: int = 0) -> int:
    return x


async def coroutine(x: int = 0) -> int:
    return x


def generator(x: int = 0) -> Iterator[int]:
    yield x


async def async_generator(x: int = 0) -> AsyncIterator[int]:
    yield x


KINDS: dict[Any, Shape] = {
    plain: Shape.PLAIN,
    coroutine: Shape.COROUTINE,
    generator: Shape.GENERATOR,
    async_generator: Shape.ASYNC_GENERATOR,
}


@pytest.mark.parametrize("fn", KINDS)
def test_shapes(fn: Any) -> None:
    """A function's shape is seen through partials, methods of all kinds, and the `__call__` of an object's class."""

    class Holder:
        method = fn
        of_class = classmethod(fn)
        static = staticmethod(fn)
        __call__ = fn

    ways = [
        fn,
        functools.partial(fn, 1),
        functools.partial(functools.partial(fn), 1),
        Holder().method,
        Holder.of_class,
        Holder.static,
        Holder.__dict__["of_class"],
        Holder.__dict__["static"],
        Holder(),
        functools.partial(Holder()),
    ]
    assert [shape_of(way) for way in ways] == [KINDS[fn]] * len(ways)


def test_what_wrappers_hide() -> None:
    """What a function returns counts, not what it wraps."""

    @functools.wraps(coroutine)
    def wrapper() -> int:
        return 1

    assert shape_of(wrapper) is Shape.PLAIN


@pytest.mark.parametrize("fn", [len, str.upper, dict, int, MagicMock(), lambda: 1], ids=name_of)
def test_everything_else_is_plain(fn: Any) -> None:
    """Builtins, classes and mocks are plain."""
    assert shape_of(fn) is Shape.PLAIN


def test_async_mocks() -> None:
    """A mock of an `async def` is one."""
    assert shape_of(AsyncMock()) is Shape.COROUTINE


def test_properties() -> None:
    """Two shapes need an event loop, and two make items one by one."""
    assert {shape for shape in Shape if shape.is_async} == {Shape.COROUTINE, Shape.ASYNC_GENERATOR}
    assert {shape for shape in Shape if shape.is_stream} == {Shape.GENERATOR, Shape.ASYNC_GENERATOR}
