"""Futures among a call's arguments: finding them, awaiting them, putting their values in place.

Looked into, at any depth, are exactly ``list``, ``tuple``, named tuples, ``dict`` (keys and values), ``set`` and
``frozenset``: what can be rebuilt without running anybody's code. Nothing here recurses, so neither
deep nesting nor a container that contains itself does harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

from .joining import Join
from .smart import SmartFuture

__all__ = ["Join", "pending_in", "substitute"]

_ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex, bytearray, range})
_FLAT = _ATOMS | {SmartFuture}
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def pending_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[SmartFuture[Any]]:
    """The futures among a call's arguments, settled ones included, each once."""
    # Nearly every call ends here. As in the loop below, what there is a lot of is looked at by C code.
    if _ATOMS.issuperset(map(type, args)) and (not kwargs or _ATOMS.issuperset(map(type, kwargs.values()))):
        return []
    found: dict[SmartFuture[Any], None] = {}
    seen: set[int] = set()
    level: list[Iterable[Any]] = [args, kwargs.values()]
    while level:  # all containers of one depth at a time
        kinds = set(map(type, chain.from_iterable(level)))
        if SmartFuture in kinds:
            found.update((item, None) for item in chain.from_iterable(level) if type(item) is SmartFuture)
        nested = {kind for kind in kinds - _ATOMS if _is_container(kind)}
        below = {id(item): item for item in chain.from_iterable(level) if type(item) in nested} if nested else {}
        level = [item for key, item in below.items() if key not in seen]
        seen.update(below)
        level += [item.values() for item in level if type(item) is dict]
    return list(found)


def substitute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with each future replaced by its value.

    Containers without futures are passed on as they are; those with futures are built anew, once, however
    often they occur, and also if they contain themselves. The caller's own containers are not changed.

    Raises:
        NotReadyError: A future has not ended.
        Exception: What a failed future raises; ``TypeError`` for a value that a set or a dict key cannot hold.
    """
    if _FLAT.issuperset(map(type, args)) and _FLAT.issuperset(map(type, kwargs.values())):
        return tuple(map(_value_of, args)), {name: _value_of(value) for name, value in kwargs.items()}
    rebuilt = _rebuild(_Survey(args, kwargs).affected())
    return rebuilt.get(id(args), args), rebuilt.get(id(kwargs), kwargs)


class _Survey:
    """All containers that can be reached from some arguments, who contains whom, and which have futures."""

    def __init__(self, *roots: Collection[Any]) -> None:
        self.seen: dict[int, Collection[Any]] = {id(root): root for root in roots}
        self.parents: dict[int, list[int]] = {}
        self.with_futures: list[int] = []
        todo = list(roots)
        while todo:
            todo.extend(self._look_into(todo.pop()))

    def _look_into(self, container: Collection[Any]) -> Iterator[Collection[Any]]:
        items = _items(container)
        kinds = set(map(type, items))
        if SmartFuture in kinds:
            self.with_futures.append(id(container))
        nested = {kind for kind in kinds - _ATOMS if _is_container(kind)}
        for item in items if nested else ():
            if type(item) in nested:
                self.parents.setdefault(id(item), []).append(id(container))
                if id(item) not in self.seen:
                    self.seen[id(item)] = item
                    yield item

    def affected(self) -> dict[int, Collection[Any]]:
        """The containers in which, at some depth, a future sits."""
        found: dict[int, Collection[Any]] = {}
        todo = list(self.with_futures)
        while todo:
            key = todo.pop()
            if key not in found:
                found[key] = self.seen[key]
                todo.extend(self.parents.get(key, ()))
        return found


def _rebuild(affected: dict[int, Collection[Any]]) -> dict[int, Any]:
    # Lists and dicts first, empty: whatever contains them can be built before they are filled, even they themselves.
    new: dict[int, Any] = {key: type(old)() for key, old in affected.items() if type(old) in {list, dict}}

    def value_of(item: Any) -> Any:
        return new[id(item)] if id(item) in new else _value_of(item)

    for old in _innermost_first(affected, new):
        values = map(value_of, old)
        new[id(old)] = old._make(values) if hasattr(old, "_make") else type(old)(values)  # type: ignore[call-arg]
    for key, old in affected.items():
        if isinstance(old, list):
            new[key].extend(map(value_of, old))
        elif isinstance(old, dict):
            new[key].update((value_of(k), value_of(v)) for k, v in old.items())
    return new


def _innermost_first(affected: dict[int, Collection[Any]], built: dict[int, Any]) -> Iterator[Collection[Any]]:
    """The affected containers that must be built from their finished contents: tuples and sets.

    They cannot contain themselves but through a list or dict, and those are ``built`` already.
    """
    for root in affected.values():
        todo = [root]
        while todo:
            container = todo[-1]
            if id(container) in built:
                todo.pop()
                continue
            missing = [item for item in container if id(item) in affected and id(item) not in built]
            todo.extend(missing)
            if not missing:
                yield todo.pop()


def _value_of(item: Any) -> Any:
    return item._outcome() if type(item) is SmartFuture else item


def _items(container: Collection[Any]) -> Iterable[Any]:
    return [*container, *container.values()] if type(container) is dict else container


def _is_container(kind: type) -> bool:
    return kind in _CONTAINERS or (tuple in kind.__bases__ and hasattr(kind, "_make"))
