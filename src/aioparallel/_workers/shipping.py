"""How calls are made ready to travel: functions by name or by value, arguments by pickle.

A function that the worker can import goes as its name; any other by value. What workers can
import is a :class:`Reach`, the one place of that decision. What goes by
value is pickled again for every call unless all that it captures is immutable and still
the same, so a changed global or closure is never stale; equal pickles travel once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .._child import packing, wire
from .._child.packing import ATOMS, Unpicklable
from .._model.call import function_name
from .._model.errors import PicklingError
from .._policy.batching import Costs
from .stateful import StateCall

if TYPE_CHECKING:
    from .._child.packing import Buffers

__all__ = ["HERE", "Function", "Functions", "Reach", "pack_arguments"]

MAX_FUNCTIONS = 4096
"""So many are remembered; a forgotten one is sent again."""
MAX_SIZE = 256 * 2**20
"""Bytes of their pickles that are remembered."""


class Function:
    """A function as workers know it.

    Attributes:
        number: What calls name it by.
        name: For people.
        packed: What is sent, once per worker.
        costs: What its calls take.
        file: Where its constants are shared, until :meth:`close`.
        buffers: Large buffers of its constants, that travel beside it.
        stored: Where an executor has put what is large for workers to fetch it, until :meth:`close`.
        origins: The identities by which :class:`Functions` knows it.
    """

    __slots__ = ("buffers", "costs", "file", "name", "number", "origins", "packed", "stored")

    def __init__(self, number: int, name: str, packed: bytes, file: str | None = None) -> None:
        self.number = number
        self.name = name
        self.packed = packed
        self.file = file
        self.buffers: Buffers = []
        self.stored: list[Any] = []
        self.origins: set[int] = set()
        self.costs = Costs()

    def close(self) -> None:
        """No further worker will need it; those that have mapped its constants keep them."""
        self.buffers, self.stored = [], []
        if self.file is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.file)


class Reach:
    """Which modules workers can import, so that what is in them goes by name.

    Args:
        importable: Says it of a module's full name. It is asked often, and may be asked of any name.
    """

    def __init__(self, importable: Callable[[str], bool]) -> None:
        self.importable = importable

    @functools.cached_property
    def pickler(self) -> Any:
        """A pickler that sends a decorated function by its name, and what workers cannot import by value."""
        importable = self.importable

        class Pickler(packing.pickler()):  # type: ignore[misc]
            def reducer_override(self, obj: Any) -> Any:
                if type(obj) is ModuleType and not importable(obj.__name__):
                    return self.reduce_by_value(obj)
                if isinstance(obj, (FunctionType, type)):
                    found = packing.reference(obj)
                    if found is not None and not importable(found[0]):
                        return self.reduce_by_value(obj)
                    if found is not None and found[2]:
                        return packing.reduced(*found)
                return super().reducer_override(obj)

        return Pickler

    def dumps(self, value: Any, buffers: Buffers | None = None) -> bytes:
        """Pickle a value for a worker."""
        return packing.dumps_with(self.pickler, value, buffers)


class Functions:
    """Every function that a pool has sent.

    Args:
        reach: What its workers can import.
    """

    def __init__(self, reach: Reach | None = None) -> None:
        self._reach = HERE if reach is None else reach
        self._numbers = itertools.count(1)
        self._size = 0
        self._lock = threading.RLock()  # a finalizer may submit, in the middle of anything
        self._by_pickle: dict[bytes, Function] = {}
        self._by_identity: dict[int, tuple[Any, Sequence[Any], Function]] = {}

    def get(self, fn: Callable[..., Any]) -> Function:
        """What to send for this function.

        Raises:
            PicklingError: It cannot travel; names what it holds that cannot.
        """
        known = self._by_identity.get(id(fn))
        if known is not None and known[0] is fn and (not known[1] or _same(known[1], fn)):
            return known[2]
        function, captured = self._pack(fn)
        if captured is not None:
            self._remember(fn, captured, function)
        return function

    def for_map(
        self,
        fn: Callable[..., Any],
        star: bool | None,
        kwstar: bool,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        folder: str | None,
        *,
        beside: bool = False,
    ) -> Function:
        """What to send for a map: the function, and what each of its calls has in common, once per worker.

        Args:
            fn: The function.
            star: How the map calls it, as the others (see ``ItemForm``).
            kwstar: The same.
            args: The same.
            kwargs: The same.
            folder: Where large buffers among the constants may be shared, if there is such a place.
            beside: Leave them beside what is sent, instead.

        Raises:
            PicklingError: The function or a constant cannot travel.
        """
        name = function_name(fn)
        target = self.get(fn).packed  # first, for it may be new, and takes a number then
        number = next(self._numbers)
        apart = beside or folder is not None
        constants, buffers = pack_arguments(args, kwargs, name, out_of_band=apart, reach=self._reach)
        shared = None
        if buffers and folder is not None:
            try:
                shared = share(os.path.join(folder, f"c{number}"), buffers)
            except OSError:  # no room there
                constants, _ = pack_arguments(args, kwargs, name, out_of_band=False, reach=self._reach)
        packed = pickle.dumps(("map", target, star, kwstar, constants, shared))
        function = Function(number, name, packed, None if shared is None else shared[0])
        if beside:
            function.buffers = buffers
        return function

    def _pack(self, fn: Callable[..., Any]) -> tuple[Function, Sequence[Any] | None]:
        """The function, and what it captured if that allows remembering it by identity."""
        if isinstance(fn, StateCall):
            return self._register(fn, self.pack_state(fn, fn.how)), ()
        found = packing.reference(fn)
        if found is not None and self._reach.importable(found[0]):
            return self._register(fn, pickle.dumps(("reference", *found))), ()
        packed = pickle.dumps(("value", self._by_value(fn, f"the function {function_name(fn)}", function_name(fn))))
        captured = _captured(fn)
        constant = captured is not None and all(map(self._is_constant, captured))
        return self._register(fn, packed), captured if constant else None

    def pack_state(self, fn: StateCall, how: str) -> bytes:
        """What makes a worker call its state (``"state"``), build it ahead (``"prepare"``), or close it (``"close"``).

        Raises:
            PicklingError: The factory or an argument of it cannot travel.
        """
        constants = self._by_value(fn.constants, "kwargs, worker_kwargs", function_name(fn))
        return pickle.dumps((how, fn.key, self.get(fn.target).packed, fn.make, constants))

    def _by_value(self, value: Any, what: str, name: str) -> bytes:
        try:
            return self._reach.dumps(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found = packing.explain(value, error, what, self._reach.dumps)
            raise _error(f"{name} cannot be sent to a worker", found) from error

    def _is_constant(self, value: Any) -> bool:
        kind = type(value)
        if kind in ATOMS or kind in (CodeType, BuiltinFunctionType):
            return True
        if kind in (tuple, frozenset):
            return all(map(self._is_constant, value))
        if kind is ModuleType:
            return self._reach.importable(value.__name__)
        found = packing.reference(value) if kind is FunctionType or isinstance(value, type) else None
        return found is not None and self._reach.importable(found[0])

    def _register(self, fn: Callable[..., Any], packed: bytes) -> Function:
        name = function_name(fn)
        with self._lock:  # calls are submitted from any thread, and two functions of one number would be one
            function = self._by_pickle.get(packed)
            if function is None:
                self._make_room(len(packed))
                function = self._by_pickle[packed] = Function(next(self._numbers), name, packed)
            return function

    def _make_room(self, size: int) -> None:
        """Forget the oldest, for closures may hold large things, and differ each time."""
        self._size += size
        while self._by_pickle and (len(self._by_pickle) >= MAX_FUNCTIONS or self._size > MAX_SIZE):
            oldest = next(iter(self._by_pickle))
            self._size -= len(oldest)
            for origin in tuple(self._by_pickle.pop(oldest).origins):
                self._forget(origin)

    def _remember(self, fn: Callable[..., Any], captured: Sequence[Any], function: Function) -> None:
        """So that it need not be pickled again to know it."""
        with self._lock:
            self._forget(id(fn))
            if len(self._by_identity) >= MAX_FUNCTIONS:
                self._forget(next(iter(self._by_identity)))
            self._by_identity[id(fn)] = (fn, captured, function)
            function.origins.add(id(fn))

    def _forget(self, identity: int) -> None:
        """Forget which function this was, if any."""
        known = self._by_identity.pop(identity, None)
        if known is not None:
            known[2].origins.discard(identity)


Shared = tuple[str, list[tuple[int, int]]]
"""A file, and where in it each buffer begins and how long it is."""


def share(path: str, buffers: Buffers) -> Shared:
    """Put buffers where workers can map them, so that one copy serves all."""
    places = []
    try:
        with open(path, "xb") as file:
            for buffer in buffers:
                file.seek(file.tell() + wire.padding(file.tell()))
                places.append((file.tell(), len(buffer)))
                file.write(buffer)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise
    return path, places


def pack_arguments(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    *,
    out_of_band: bool = True,
    reach: Reach | None = None,
) -> tuple[bytes, Buffers]:
    """Pickle the arguments of a call; large buffers and ``bytes`` stay where they are, unless *out_of_band* is false.

    Raises:
        PicklingError: Names the argument, and the path to what cannot travel.
    """
    if not args and not kwargs:
        return b"", []
    atoms = not kwargs and ATOMS.issuperset(map(type, args))
    if atoms and (not out_of_band or bytes not in map(type, args)):
        return pickle.dumps((args, kwargs), 5), []
    buffers: Buffers = []
    parts = packing.beside(args, kwargs) if out_of_band else (args, kwargs)
    if atoms:
        return packing.dumps_atoms(parts, buffers), buffers
    dumps = (HERE if reach is None else reach).dumps
    try:
        return dumps(parts, buffers if out_of_band else None), buffers
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _blame(args, kwargs, error, name, dumps) from error


def _blame(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException, name: str, dumps: Callable[..., bytes]
) -> PicklingError:
    for where, part in (*((f"args[{i}]", arg) for i, arg in enumerate(args)), *kwargs.items()):
        try:
            dumps(part, [])
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            return _error(f"{name} cannot be sent to a worker", packing.explain(part, problem, where, dumps))
    return _error(f"{name} cannot be sent to a worker", packing.explain((args, kwargs), error, "args", dumps))


def _error(what: str, found: Unpicklable) -> PicklingError:
    return PicklingError(f"{what}: {found}", path=found.path, culprit=found.culprit)


_importable: dict[str, bool] = {}


def importable(module: str) -> bool:
    """Whether a worker that has this process's ``sys.path`` can import the module."""
    known = _importable.get(module)
    if known is None:
        known = _importable[module] = _find(module)
    return known


HERE = Reach(importable)
"""What workers on this machine can import."""


def _find(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    found = find_on_path(top)
    loaded = getattr(sys.modules.get(top), "__spec__", None)
    return found is not None and (loaded is None or loaded.origin is None or found.origin == loaded.origin)


def find_on_path(name: str) -> ModuleSpec | None:
    """Where any interpreter of this environment would find a top-level module, with this process's ``sys.path``."""
    found = PathFinder.find_spec(name)
    if found is not None:
        return found
    # Editable installs come in by finders that every interpreter of this environment has.
    finders: list[Any] = [each for each in sys.meta_path if "editable" in getattr(each, "__module__", "").lower()]
    return next((spec for finder in finders if (spec := finder.find_spec(name, None)) is not None), None)


def _captured(fn: Any) -> list[Any] | None:
    """What a function's pickle depends on, or ``None`` if that cannot be told."""
    if type(fn) is not FunctionType or fn.__dict__:
        return None
    captured = [fn.__code__, fn.__defaults__]
    if fn.__kwdefaults__:
        captured += fn.__kwdefaults__.values()
    if fn.__closure__:
        try:
            captured += [cell.cell_contents for cell in fn.__closure__]
        except ValueError:
            return None
    scope = fn.__globals__
    captured += [scope[name] for name in _names(fn.__code__) if name in scope]
    return captured


def _names(code: CodeType) -> Sequence[str]:
    """The names that a function looks up, those within it included; it is asked for each call."""
    inner = [const for const in code.co_consts if type(const) is CodeType]
    return [*code.co_names, *(name for each in inner for name in _names(each))] if inner else code.co_names


def _same(before: Sequence[Any], fn: Any) -> bool:
    now = _captured(fn)
    return now is not None and len(now) == len(before) and all(map(is_, before, now))
