"""Pickling on both sides of the wire: objects, functions, and who is to blame when it fails."""

from __future__ import annotations

import io
import sys

from .lean import pickle
from .wire import OUT_OF_BAND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FunctionType
    from typing import Any

    Buffers = list[memoryview]

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types whose pickles name no class, so that plain pickle and cloudpickle agree on them."""

MAX_DEPTH = 40


class Unpicklable(Exception):
    """Something cannot travel.

    Attributes:
        path: Where it sits in what was to travel, for instance ``args[0]['lock']``.
        culprit: What it is.
    """

    def __init__(self, message: str, path: str, culprit: str) -> None:
        super().__init__(message, path, culprit)
        self.message, self.path, self.culprit = message, path, culprit

    def __str__(self) -> str:
        return self.message


def dumps_by_value(value: Any, buffers: Buffers | None = None) -> bytes:
    """Pickle, and carry what the other side cannot import by value."""
    return dumps_with(pickler(), value, buffers)


def dumps_with(kind: Any, value: Any, buffers: Buffers | None) -> bytes:
    """Pickle with a class that :func:`pickler` made, or one derived from it."""
    file = io.BytesIO()
    kind(file, protocol=5, buffer_callback=_collector(buffers)).dump(value)
    return file.getvalue()


_pickler: Any = None


def pickler() -> Any:
    """The class of picklers that carry functions and classes by value when they must."""
    global _pickler
    if _pickler is None:
        from enum import EnumMeta
        from types import FunctionType, ModuleType

        from cloudpickle import cloudpickle  # costs 5 ms to import, and most workers never need it

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            def reducer_override(self, obj: Any) -> Any:
                reduced = super().reducer_override(obj)
                return _with_all_members(obj, reduced) if isinstance(obj, EnumMeta) else reduced

            def reduce_by_value(self, obj: Any) -> Any:
                """Reduce a function, class or module as if no module by its name could be imported anywhere."""
                if isinstance(obj, FunctionType):
                    return self._dynamic_function_reduce(obj)
                if isinstance(obj, ModuleType):
                    return ModuleType, (obj.__name__,), {k: v for k, v in vars(obj).items() if k != "__builtins__"}
                reduced = cloudpickle._dynamic_class_reduce(obj)
                return _with_all_members(obj, reduced) if isinstance(obj, EnumMeta) else reduced

        _pickler = Pickler
    return _pickler


def _with_all_members(kind: Any, reduced: Any) -> Any:
    """Complete what cloudpickle makes of an enum: it forgets a flag's zero, and names that share a value."""
    if not isinstance(reduced, tuple) or len(reduced) != 6:
        return reduced  # it goes by reference
    make, (bases, name, qualname, _, *others), (state, slots), *rest = reduced
    members = {name: member.value for name, member in kind.__members__.items()}
    state = {name: value for name, value in state.items() if name not in members}
    return make, (bases, name, qualname, members, *others), (state, slots), *rest


class _Beside:
    """Stands in a pickle for large ``bytes``, which pickle would copy, and is unpickled as them."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (pickle.PickleBuffer(self.data),)


def beside(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, of which large ``bytes`` travel as buffers, beside the pickle."""
    every = (*args, *kwargs.values())
    large = {id(value): _Beside(value) for value in every if type(value) is bytes and len(value) >= OUT_OF_BAND}
    if not large:
        return args, kwargs
    changed = {name: large.get(id(value), value) for name, value in kwargs.items()}
    return tuple([large.get(id(value), value) for value in args]), changed


def dumps_atoms(value: Any, buffers: Buffers) -> bytes:
    """Pickle what is made of :data:`ATOMS`, or came from :func:`beside`."""
    return pickle.dumps(value, 5, buffer_callback=_collector(buffers))


def loads_arguments(payload: bytes | memoryview, buffers: Buffers) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments; no bytes are no arguments."""
    return pickle.loads(payload, buffers=buffers) if payload else ((), {})


def dumps_result(value: Any, buffers: Buffers | None) -> bytes:
    """Pickle in a worker: by reference where the worker itself found it by import."""
    if type(value) in ATOMS:
        if type(value) is bytes and buffers is not None and len(value) >= OUT_OF_BAND:
            return dumps_atoms(_Beside(value), buffers)
        return pickle.dumps(value, 5)
    try:
        return pickle.dumps(value, 5, buffer_callback=_collector(buffers))
    except RecursionError:
        raise
    except Exception:
        if buffers:
            buffers.clear()
        return dumps_by_value(value, buffers)


def _collector(buffers: Buffers | None) -> Callable[[pickle.PickleBuffer], bool] | None:
    """A buffer callback: a true answer keeps the buffer inside the pickle."""
    if buffers is None:
        return None

    def collect(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < OUT_OF_BAND:
            return True
        buffers.append(view)
        return False

    return collect


def explain(value: Any, error: BaseException, name: str, dumps: Callable[[Any], bytes]) -> Unpicklable:
    """Find out which part of *value* cannot be pickled."""
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):  # as cloudpickle has it
        return Unpicklable(f"{name} is nested too deeply to be pickled", name, type(value).__name__)
    path, culprit, reason = _culprit(value, name, error, dumps)
    what = shown(culprit)
    return Unpicklable(f"{path} cannot be pickled: {what} ({described(reason)})", path, what)


def described(error: BaseException) -> str:
    """An exception's class and text, for the end of a sentence."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}, which cannot say its text"


def _culprit(
    value: Any, path: str, error: BaseException, dumps: Callable[[Any], bytes]
) -> tuple[str, Any, BaseException]:
    seen = {id(value)}
    for _ in range(MAX_DEPTH):
        if _refuses(value):
            break
        for name, part in _parts(value):
            problem = None if id(part) in seen else _problem(part, dumps)
            if problem is not None:
                seen.add(id(part))
                value, path, error = part, path + name, problem
                break
        else:
            break
    return path, value, error


def _refuses(value: Any) -> bool:
    """Whether a class says by itself that its objects do not travel: then nothing inside is to blame."""
    from types import FunctionType

    if type(getattr(type(value), "__reduce__", None)) is not FunctionType:
        return False
    try:
        value.__reduce__()
    except KeyboardInterrupt:
        raise
    except BaseException:  # whatever it is, a worker must not end by it
        return True
    return False


def _problem(value: Any, dumps: Callable[[Any], bytes]) -> BaseException | None:
    if type(value) in ATOMS:
        return None
    try:
        dumps(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The things that an object is made of, and how to write the way to each."""
    try:
        yield from _made_of(value)
    except Exception:
        return  # an object that does not even let itself be looked at


def _made_of(value: Any) -> Iterator[tuple[str, Any]]:
    from functools import partial
    from types import BuiltinMethodType, FunctionType, MethodType

    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"[{shown(key)}]", item
            yield f" key {shown(key)}", key
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(list(value)):
            yield f"[{index}]", item
    elif isinstance(value, FunctionType):
        yield from _captured(value)
    elif isinstance(value, partial):
        yield ".func", value.func
        yield from ((f".args{name}", part) for name, part in _parts(value.args))
        yield from ((f".keywords{name}", part) for name, part in _parts(value.keywords))
    elif isinstance(value, (MethodType, BuiltinMethodType)):
        yield ".__self__", value.__self__
    elif not isinstance(value, type):
        yield from ((f".{name}", part) for name, part in _attributes(value))


def _captured(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield f" variable {name!r}", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for name in fn.__code__.co_names:
        if name in fn.__globals__:
            yield f" global {name!r}", fn.__globals__[name]
    yield from ((f" default{name}", part) for name, part in _parts(fn.__defaults__))
    yield from ((f" default{name}", part) for name, part in _parts(fn.__kwdefaults__))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)


def shown(value: Any) -> str:
    """A value as it is written, cut to what fits into a message."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else text[:97] + "..."


def reference(fn: Any) -> tuple[str, str, int] | None:
    """How to find this very function by import: (module, qualified name, wrappers to take off)."""
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<locals>" in name:
        return None
    try:
        found = _attribute(sys.modules[module], name)
    except Exception:  # not there, or a module that makes its attributes when they are asked for, and cannot
        return None
    for unwrap in range(MAX_DEPTH):
        if found is fn:
            return module, name, unwrap
        found = getattr(found, "__dict__", {}).get("__wrapped__")
        if found is None:
            break
    return None


def resolve(module: str, name: str, unwrap: int) -> Any:
    """The other direction of :func:`reference`."""
    __import__(module)
    found = _attribute(sys.modules[module], name)
    for _ in range(unwrap):
        found = found.__wrapped__
    return found


class _Module:
    """Stands for a module, and is unpickled as it; a module itself cannot be pickled."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, (self._name, None, None, ["__name__"])


def reduced(module: str, name: str, unwrap: int) -> tuple[Any, ...]:
    """What makes pickle do as :func:`resolve` does, wherever it is loaded.

    It names the standard library alone: to look for a function of ours, pickle would import the package
    that it is in by the name that it has here.
    """
    from functools import reduce

    return reduce, (getattr, [*name.split("."), *["__wrapped__"] * unwrap], _Module(module))


def _attribute(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part)
    return found
