"""Sources: each gives as many items as it is asked for, at most, and closes what it opened."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aioparallel._executors import sources
from aioparallel._executors.sources import Source, open_source
from tests.tools import until

pytestmark = pytest.mark.timeout(20)


async def read(source: Source, most: int = 3) -> list[Any]:
    """Everything that is left, a few at a time."""
    items: list[Any] = []
    while taken := await source.take(most):
        assert len(taken) <= most
        items += taken
    assert list(await source.take(most)) == [], "it stays at its end"
    return items


async def count_async(n: int) -> AsyncIterator[int]:
    for x in range(n):
        yield x


INPUTS = [
    list(range(10)),
    tuple(range(10)),
    range(10),
    dict.fromkeys(range(10)),
    dict.fromkeys(range(10)).keys(),
    deque(range(10)),
    bytes(range(10)),
]


@pytest.mark.parametrize("items", INPUTS, ids=lambda items: type(items).__name__)
async def test_what_is_in_memory_needs_no_thread(items: Any) -> None:
    """A builtin container is read on the loop, without a thread."""
    threads = threading.active_count()
    source = open_source(items)
    assert await read(source) == list(items)
    assert threading.active_count() == threads
    await source.aclose()


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_every_other_iterable_is_read_by_a_thread(most: int) -> None:
    """A generator, an iterator or an object with ``__getitem__`` is read by one thread, which ends with it."""

    class Old:
        def __getitem__(self, index: int) -> int:
            if index == 10:
                raise IndexError
            return index

    for items in (iter(range(10)), (x for x in range(10)), Old(), map(int, "0123456789")):
        source = open_source(items)
        assert await read(source, most) == list(range(10))
        await source.aclose()


async def test_async_iterable() -> None:
    """An async iterable is pulled item by item."""
    source = open_source(count_async(10))
    assert await read(source) == list(range(10))
    await source.aclose()


async def test_nothing_is_opened_before_the_first_item() -> None:
    """Making a source, and closing one that was never used, does not touch its input."""

    class Untouchable:
        def __iter__(self) -> Iterator[int]:
            raise AssertionError

        def __aiter__(self) -> AsyncIterator[int]:
            raise AssertionError

    class Plain:
        def __iter__(self) -> Iterator[int]:
            raise AssertionError

    for items in (Untouchable(), Plain(), (1 / 0 for _ in [1])):
        await open_source(items).aclose()


async def test_thread_pulls_no_more_than_it_was_asked_for() -> None:
    """Between two demands the thread waits."""
    asked = 0
    hasty: list[int] = []

    def items() -> Iterator[int]:
        for x in range(100):
            if x >= asked:
                hasty.append(x)
            yield x

    source = open_source(items())
    got: list[int] = []
    for asked in (4, 5, 6, 20):
        while len(got) < asked:
            got += await source.take(asked - len(got))
        assert got == list(range(asked))
    await source.aclose()
    assert not hasty


async def test_item_is_there_before_the_next_is_pulled() -> None:
    """An item is given as soon as it is there, although more were asked for and the next is long in coming."""
    gate = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        gate.wait(10)
        yield 2

    source = open_source(items())
    assert list(await source.take(100)) == [1]
    gate.set()
    assert list(await source.take(100)) == [2]
    assert list(await source.take(100)) == []


@pytest.mark.parametrize("make", ["sync", "async"])
async def test_error_comes_after_the_items_before_it(make: str) -> None:
    """What the input raises is raised when the items before it have been taken."""

    def plain() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    async def later() -> AsyncIterator[int]:
        yield 1
        raise LookupError("gone")

    source = open_source(plain() if make == "sync" else later())
    assert list(await source.take(5)) == [1]
    with pytest.raises(LookupError, match="gone"):
        await source.take(5)
    await source.aclose()


class Closable:
    """An iterator that can be closed."""

    def __init__(self) -> None:
        self.closed = 0
        self.items = iter(range(3))

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self.items)

    def close(self) -> None:
        self.closed += 1


async def test_input_is_closed_when_it_is_left_early() -> None:
    """An iterator with ``close`` is closed if it is left before its end; one that has ended needs no closing."""
    early, late = Closable(), Closable()
    source = open_source(early)
    await source.take(1)
    await source.aclose()
    assert early.closed == 1
    source = open_source(late)
    await read(source)
    await source.aclose()
    assert late.closed == 0


async def test_file_is_left_to_its_owner() -> None:
    """A file that is read line by line is not closed: whoever opened it does that."""
    file = io.StringIO("a\nb\nc\n")
    source = open_source(file)
    await source.take(1)
    await source.aclose()
    assert not file.closed


async def test_generator_is_closed_on_its_own_thread() -> None:
    """Opening, pulling and closing happen on one thread, in the contextvars of who began to read."""
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[tuple[int, str]] = []

    def items() -> Iterator[int]:
        try:
            while True:
                seen.append((threading.get_ident(), who.get()))
                yield 1
        finally:
            seen.append((threading.get_ident(), who.get()))

    who.set("me")
    source = open_source(items())
    await source.take(2)
    await source.aclose()
    assert len(set(seen)) == 1
    assert seen[0][1] == "me"
    assert threading.get_ident() != seen[0][0]


async def test_error_while_closing_is_raised() -> None:
    """What closing an input raises is raised to who closes it."""

    def items() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            raise LookupError("cannot close")

    source = open_source(items())
    await source.take(1)
    with pytest.raises(LookupError, match="cannot close"):
        await source.aclose()


async def test_stuck_input_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits a while for an input that hangs; its thread closes it when it comes back."""
    monkeypatch.setattr(sources, "CLOSE_SECONDS", 0.05)
    stuck, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            stuck.set()
            gate.wait(10)
            yield 2
        finally:
            closed.set()

    source = open_source(items())
    await source.take(1)
    taking = asyncio.ensure_future(source.take(1))
    await until(stuck.is_set)
    taking.cancel()
    await source.aclose()
    assert not closed.is_set()
    gate.set()
    await until(closed.is_set)


def test_loop_that_ends_first_leaves_no_thread_waiting() -> None:
    """A source whose event loop was closed under it raises nothing on its thread, which ends."""
    gate = threading.Event()

    def items() -> Iterator[int]:
        gate.wait(10)
        yield 1

    async def main() -> Source:
        source = open_source(items())
        taking = asyncio.ensure_future(source.take(1))
        await asyncio.sleep(0)
        taking.cancel()
        return source

    source: Any = asyncio.run(main())
    source._leaving = True
    gate.set()
