"""Pickling on both sides, and who is to blame when it fails."""

from __future__ import annotations

import enum
import functools
import math
import pickle
import subprocess
import sys
import threading
import types
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioparallel._child import packing
from aioparallel._child.packing import (
    MAX_DEPTH,
    Unpicklable,
    dumps_by_value,
    dumps_result,
    explain,
    reduced,
    reference,
    resolve,
)
from aioparallel._child.wire import OUT_OF_BAND

LOCK = threading.Lock()
"""What never travels."""

Pair = namedtuple("Pair", "left right")


class Holder:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def method(self) -> None:
        """Needs its object."""


@dataclass(slots=True)
class Slotted:
    part: Any


class OneSlot:
    __slots__ = "part"

    def __init__(self, part: Any) -> None:
        self.part = part


class Reducing:
    """An object whose pickling raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return "Reducing()"

    def __reduce__(self) -> str:
        raise self.error


class Mute(Exception):
    """An exception that cannot say its text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Silent(Reducing):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Grudging(Reducing):
    """An object that does not let itself be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Proxy:
    """An object that has every attribute, as remote proxies do."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__reduce") or name in {"__getstate__", "__deepcopy__"}:
            raise AttributeError(name)
        return Proxy()

    def __repr__(self) -> str:
        return "Proxy()"

    def __reduce__(self) -> Any:
        raise TypeError("stay here")


def closure(value: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return value

    return inner


def uses_global() -> Any:
    return LOCK


uses_global.__module__ = "__main__"  # as if it had been typed at the prompt


def problem_of(value: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        dumps_by_value(value)
    return caught.value


def blamed(value: Any) -> Unpicklable:
    return explain(value, problem_of(value), "args[0]", dumps_by_value)


# Who is to blame


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "args[0]"),
        ({"x": LOCK}, "args[0]['x']"),
        ({1: {"y": [0, LOCK]}}, "args[0][1]['y'][1]"),
        ([1, (2, LOCK)], "args[0][1][1]"),
        (Pair(1, LOCK), "args[0][1]"),
        (Holder(a=1, b=Holder(lock=LOCK)), "args[0].b.lock"),
        ({"x": Holder(lock=LOCK)}, "args[0]['x'].lock"),
        (Slotted(LOCK), "args[0].part"),
        (OneSlot([LOCK]), "args[0].part[0]"),
        (closure(LOCK), "args[0] variable 'value'"),
        (closure(closure(LOCK)), "args[0] variable 'value' variable 'value'"),
        (uses_global, "args[0] global 'LOCK'"),
        (functools.partial(print, LOCK), "args[0].args[0]"),
        (functools.partial(print, end=LOCK), "args[0].keywords['end']"),
        (functools.partial(closure(LOCK)), "args[0].func variable 'value'"),
        (Holder(lock=LOCK).method, "args[0].__self__.lock"),
        ([LOCK].append, "args[0].__self__[0]"),
        (lambda x=LOCK: x, "args[0] default[0]"),
        (lambda *, x=LOCK: x, "args[0] default['x']"),
    ],
)
def test_paths(value: Any, path: str) -> None:
    """The error names the way to the very thing that cannot be pickled."""
    found = blamed(value)
    assert (found.path, found.culprit) == (path, repr(LOCK))
    assert str(found).startswith(f"{path} cannot be pickled: <unlocked _thread.lock object at ")
    assert "cannot pickle '_thread.lock' object" in str(found)


def test_keys_can_be_to_blame() -> None:
    """The error says so when it is a dictionary's key."""
    assert blamed({(1, LOCK): 2}).path.startswith("args[0] key (1, <unlocked")


def test_sets_can_be_to_blame() -> None:
    """The error finds what sits in a set."""
    assert blamed({LOCK}).path == "args[0][0]"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no"), "ValueError: no"),
        (SystemExit(3), "SystemExit: 3"),
        (Mute(), "Mute, which cannot say its text"),
        (GeneratorExit(), "GeneratorExit: "),
    ],
)
def test_reducers_that_raise(error: BaseException, said: str) -> None:
    """Whatever a reducer raises, an exit included, becomes an error that names its object."""
    found = blamed({"x": Reducing(error)})
    assert (found.path, found.culprit) == ("args[0]['x']", "Reducing()")
    assert str(found) == f"args[0]['x'] cannot be pickled: Reducing() ({said})"


def test_objects_that_refuse_are_to_blame_themselves() -> None:
    """An object whose class says that it does not travel is to blame, and nothing inside it."""
    value = Reducing(TypeError("await it first"))
    value.error.__dict__["lock"] = LOCK
    assert blamed([value]).path == "args[0][0]"


@pytest.mark.parametrize(("kind", "culprit"), [(Silent, "<Silent>"), (Grudging, "Reducing()"), (Proxy, "Proxy()")])
def test_objects_that_hide(kind: Callable[..., Any], culprit: str) -> None:
    """An object that cannot be shown or looked into is named all the same."""
    found = blamed([kind(ValueError()) if kind is not Proxy else kind()])
    assert (found.path, found.culprit) == ("args[0][0]", culprit)


def test_long_culprits_are_cut() -> None:
    """What is shown of a culprit fits into a message."""
    found = blamed(
        Reducing.__new__(type("Long", (Reducing,), {"error": ValueError(), "__repr__": lambda _: "x" * 999}))
    )
    assert found.culprit == "x" * 97 + "..."


@pytest.mark.parametrize("dumps", [dumps_by_value, dumps_result])
def test_deep_nesting(dumps: Callable[..., bytes]) -> None:
    """A value that is nested too deeply is called just that."""
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    with pytest.raises(Exception) as caught:
        dumps(value, [])
    found = explain(value, caught.value, "args[0]", dumps_by_value)
    assert str(found) == "args[0] is nested too deeply to be pickled"
    while value:
        value = value.pop()


def test_paths_have_an_end() -> None:
    """The search ends in a structure that contains itself, and in one that is very deep."""
    loop: list[Any] = [LOCK]
    loop.insert(0, loop)
    assert blamed(loop).path == "args[0][1]"
    deep: Any = LOCK
    for _ in range(2 * MAX_DEPTH):
        deep = [deep]
    assert blamed(deep).path == "args[0]" + "[0]" * MAX_DEPTH


def test_errors_travel() -> None:
    """An unpicklable's error can itself be pickled."""
    found = blamed([LOCK])
    again = pickle.loads(pickle.dumps(found))
    assert (str(again), again.path, again.culprit) == (str(found), found.path, found.culprit)


# Buffers


@pytest.mark.parametrize(
    ("size", "out_of_band"), [(OUT_OF_BAND - 1, False), (OUT_OF_BAND, True), (10 * OUT_OF_BAND, True)]
)
@pytest.mark.parametrize("dumps", [dumps_by_value, dumps_result])
def test_large_buffers_are_not_copied(dumps: Callable[..., bytes], size: int, out_of_band: bool) -> None:
    """Buffers of 64 KiB and more stay where they are; smaller ones go into the pickle."""
    array = np.zeros(size, np.uint8)
    buffers: list[memoryview] = []
    packed = dumps({"a": array}, buffers)
    assert [len(view) for view in buffers] == ([size] if out_of_band else [])
    assert (len(packed) > size) is not out_of_band
    array[5] = 7
    again = pickle.loads(packed, buffers=buffers)["a"]
    assert again[5] == (7 if out_of_band else 0)


@pytest.mark.parametrize(("size", "count"), [(OUT_OF_BAND - 1, 0), (OUT_OF_BAND, 1)])
def test_large_bytes_are_not_copied(size: int, count: int) -> None:
    """Bytes that are a result stay where they are, too, and arrive as bytes."""
    value = bytes(size)
    buffers: list[memoryview] = []
    packed = dumps_result(value, buffers)
    assert [view.obj is value for view in buffers] == [True] * count
    again = pickle.loads(packed, buffers=[bytearray(view) for view in buffers])
    assert (type(again), again) == (bytes, value)


@pytest.mark.parametrize("array", [np.zeros((300, 300))[:, ::2], np.asfortranarray(np.ones((300, 300)))])
def test_arrays_of_any_order(array: Any) -> None:
    """Arrays arrive equal, whether or not their memory is in one piece."""
    buffers: list[memoryview] = []
    packed = dumps_result(array, buffers)
    assert (pickle.loads(packed, buffers=buffers) == array).all()


def test_without_buffers_all_is_in_the_pickle() -> None:
    """Where there is no way for buffers, a pickle holds everything."""
    array = np.ones(10 * OUT_OF_BAND, np.uint8)
    assert (pickle.loads(dumps_by_value(array)) == array).all()


# Results


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()))
def test_plain_results(value: object) -> None:
    """Plain values come back as they are."""
    assert pickle.loads(dumps_result(value, [])) == value


def test_results_by_value() -> None:
    """A result that only its maker can import comes back all the same, with its buffers counted once."""
    array = np.ones(OUT_OF_BAND, np.uint8)
    buffers: list[memoryview] = []
    packed = dumps_result((array, lambda x: x + 1), buffers)
    assert len(buffers) == 1
    again, fn = pickle.loads(packed, buffers=buffers)
    assert (again == array).all()
    assert fn(1) == 2


class Color(enum.Flag):
    NONE = 0
    RED = 1
    CRIMSON = 1
    BLUE = 2


def test_enums_by_value_are_complete() -> None:
    """An enum that travels by value keeps the members that cloudpickle forgets."""
    script = (
        "import sys, pickle; print([(name, m.value) for name, m in pickle.load(sys.stdin.buffer).__members__.items()])"
    )
    packed = packing.dumps_with(_always_by_value(), Color, None)
    members = subprocess.run([sys.executable, "-c", script], input=packed, capture_output=True, check=True).stdout
    assert members.decode().strip() == "[('NONE', 0), ('RED', 1), ('CRIMSON', 1), ('BLUE', 2)]"


def _always_by_value() -> Any:
    class Pickler(packing.pickler()):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            return self.reduce_by_value(obj) if obj is Color else super().reducer_override(obj)

    return Pickler


def test_no_arguments() -> None:
    """No bytes stand for no arguments."""
    assert packing.loads_arguments(b"", []) == ((), {})
    assert packing.loads_arguments(pickle.dumps(((1,), {"k": 2})), []) == ((1,), {"k": 2})


def test_cloudpickle_is_imported_when_it_is_needed() -> None:
    """A worker whose results are importable never pays for importing cloudpickle."""
    script = (
        "import sys, pathlib; from aioparallel._child import packing; packing.dumps_result([pathlib.Path('a'), 1], []);"
        "assert 'cloudpickle' not in sys.modules; packing.dumps_result(lambda: 1, []);"
        "assert 'cloudpickle' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Functions by name


def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@decorate
@decorate
def twice_decorated() -> str:
    return "inner"


class Outer:
    class Inner:
        def method(self) -> None:
            """Is found by its qualified name."""

        @staticmethod
        def static() -> None:
            """So is this."""

        @classmethod
        def of_class(cls) -> None:
            """This one is made anew each time."""


shadowed = test_no_arguments  # the name leads here, not to ...


def shadow() -> None:
    """A function whose name leads elsewhere."""


shadow.__qualname__ = "shadowed"
HERE = __name__
inner = twice_decorated.__wrapped__.__wrapped__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fn", "found"),
    [
        (decorate, (HERE, "decorate", 0)),
        (twice_decorated, (HERE, "twice_decorated", 0)),
        (twice_decorated.__wrapped__, (HERE, "twice_decorated", 1)),  # type: ignore[attr-defined]
        (inner, (HERE, "twice_decorated", 2)),
        (Outer.Inner, (HERE, "Outer.Inner", 0)),
        (Outer.Inner.method, (HERE, "Outer.Inner.method", 0)),
        (Outer.Inner.static, (HERE, "Outer.Inner.static", 0)),
        (len, ("builtins", "len", 0)),
        (math.sqrt, ("math", "sqrt", 0)),
    ],
)
def test_references(fn: Any, found: tuple[str, str, int]) -> None:
    """What can be imported is found by its name, and under so many decorators."""
    assert reference(fn) == found
    assert resolve(*found) is fn
    assert pickle.loads(pickle.dumps(Reduced(found))) is fn


class Reduced:
    """Pickled as what a name stands for."""

    def __init__(self, found: tuple[str, str, int]) -> None:
        self.found = found

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(*self.found)


def test_names_need_nothing_of_ours() -> None:
    """A pickle of what a name stands for is loaded where only Python is."""
    packed = pickle.dumps(Reduced(("os.path", "join", 0)))
    script = f"import pickle, sys; pickle.loads({packed!r})('a'); print('aioparallel' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "fn",
    [
        lambda: 1,
        closure(1),
        uses_global,
        shadow,
        Outer.Inner().method,
        Outer.Inner.of_class,
        functools.partial(print),
        3,
    ],
)
def test_what_has_no_name(fn: Any) -> None:
    """What an import would not give, or not exactly, has no reference."""
    assert reference(fn) is None


def test_proxies_have_no_name() -> None:
    """An object that answers to any name is not mistaken for a function."""
    assert reference(Proxy()) is None


def test_modules_that_make_attributes() -> None:
    """A module that fails to make an attribute has no such function, and that is all."""
    module = types.ModuleType("lazy_module")

    def getattr_(name: str) -> Any:
        raise ImportError(name)

    module.__getattr__ = getattr_  # type: ignore[method-assign]
    fn = closure(1)
    fn.__module__, fn.__qualname__ = "lazy_module", "missing"
    sys.modules["lazy_module"] = module
    try:
        assert reference(fn) is None
    finally:
        del sys.modules["lazy_module"]


def test_wrappers_that_wrap_each_other() -> None:
    """Decorators that refer to each other in a circle do not make the search endless."""
    fn = closure(1)
    fn.__module__, fn.__qualname__ = HERE, "circular"
    assert reference(fn) is None


def circular() -> None:
    """Is wrapped by itself."""


circular.__wrapped__ = circular  # type: ignore[attr-defined]
