"""Chunks: many short items of a map as one call, each with an end of its own.

What an item returned is noted on the page before the next one begins, so when the worker
dies, every earlier item keeps its result, exactly one is to blame, and the rest has not
begun. Numbers and ``None`` are noted as they are, which takes a tenth of a microsecond;
anything else is noted as its pickle. A chunk ends early when it is asked back (what has
not begun runs elsewhere) or when what it noted fills the page.
"""

from __future__ import annotations

from . import failures, packing
from .lean import pickle
from .page import Notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .page import Page

    Chunk = tuple[list[Any], dict[int, bytes]]
    """What the items returned (as many as have ended), and the packed failures of some of them."""

INT, FLOAT, NONE = Notes.INT, Notes.FLOAT, Notes.NONE


def run(fn: Callable[[Any], Any], items: Sequence[Any], page: Page, number: int, stop_at_failure: bool) -> Chunk:
    """Call ``fn`` for each item."""
    values: list[Any] = []
    append = values.append
    failed: dict[int, bytes] = {}
    notes = page.notes
    notes.clear()
    flags, flag = page.flags, number % len(page.flags)
    ints, floats, tags = notes.ints, notes.floats, notes.tags
    for index, item in enumerate(items):
        if flags[flag] and index:
            break
        try:
            value = fn(item)
        except BaseException as error:
            failed[index] = failures.pack(error)
            values.append(None)
            if not notes.keep(index, failed[index], failed=True) or stop_at_failure:
                break
            continue
        kind: Any = type(value)
        if kind is int:
            try:
                ints[index] = value
                tags[index] = INT
            except ValueError:  # it has more than 64 bits
                kind = None
        elif kind is float:
            floats[index] = value
            tags[index] = FLOAT
        elif value is None:
            tags[index] = NONE
        else:
            kind = None
        if kind is not None:
            append(value)
        elif not _keep(index, value, values, failed, page):
            break
    return values, failed


def _keep(index: int, value: Any, values: list[Any], failed: dict[int, bytes], page: Page) -> bool:
    """Note a value as its pickle; returns whether there is room for further ones."""
    try:
        pickled = packing.dumps_result(value, None)
    except BaseException as error:
        problem = packing.explain(value, error, "the result", packing.dumps_by_value)
        failed[index] = failures.pack(problem)
        values.append(None)
        return page.notes.keep(index, failed[index], failed=True)
    values.append(value)
    return page.notes.keep(index, pickled, failed=False)


def recover(notes: Notes) -> Chunk:
    """In the executor: what the items of a chunk returned before the worker died in the next one."""
    values: list[Any] = []
    failed: dict[int, bytes] = {}
    for index, (kept, value) in enumerate(notes.read()):
        if kept == notes.FAILED and isinstance(value, bytes):
            failed[index] = value
            values.append(None)
        else:
            values.append(pickle.loads(value) if isinstance(value, bytes) else value)
    return values, failed


def bind(
    fn: Callable[..., Any], star: bool | None, kwstar: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[Any], Any]:
    """A function of one item, from a function and how a map calls it."""
    if kwstar:
        if star is None:
            return lambda item: fn(*args, **{**kwargs, **item})
        if star:
            return lambda item: fn(*item[0], *args, **{**kwargs, **item[1]})
        return lambda item: fn(item[0], *args, **{**kwargs, **item[1]})
    if star is None:
        return lambda item: fn(*args, **kwargs)
    if star:
        return lambda item: fn(*item, *args, **kwargs)
    return (lambda item: fn(item, *args, **kwargs)) if args or kwargs else fn
