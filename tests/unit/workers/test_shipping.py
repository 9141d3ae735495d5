"""How calls are made ready to travel."""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import math
import os
import pickle
import pickletools
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aioparallel._child import packing
from aioparallel._child.memory import mapped
from aioparallel._child.packing import loads_arguments
from aioparallel._child.worker import load_function
from aioparallel._model.errors import PicklingError
from aioparallel._workers import shipping
from aioparallel._workers.shipping import Functions, Reach, importable, pack_arguments, share

LOCK = threading.Lock()
HERE = __name__


def plain(x: int) -> int:
    return x + 1


def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that holds what does not travel."""
    lock = threading.Lock()

    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        with lock:
            return "wrapped", fn(*args)

    return wrapper


@decorate
def decorated(x: int) -> int:
    return x * 2


def weighed(item: float, weights: Any) -> float:
    return float(item * weights[2])


def of_unpickled(payload: bytes) -> Any:
    (value,), _ = loads_arguments(payload, [])
    return value.get()


@dataclass
class Holder:
    lock: Any


@pytest.fixture
def functions() -> Functions:
    return Functions()


def typed(source: str, **names: Any) -> dict[str, Any]:
    """The names that a program has when it was typed at a prompt."""
    scope = {"__name__": "__main__", **names}
    exec(source, scope)
    return scope


def how(packed: bytes) -> Any:
    return pickle.loads(packed)[0]


# Functions by name


@pytest.mark.parametrize(
    ("fn", "reference"),
    [
        (plain, (HERE, "plain", 0)),
        (decorated, (HERE, "decorated", 0)),
        (decorated.__wrapped__, (HERE, "decorated", 1)),  # type: ignore[attr-defined]
        (math.sqrt, ("math", "sqrt", 0)),
        (Path, (Path.__module__, "Path", 0)),
    ],
)
def test_importable_functions_go_by_name(functions: Functions, fn: Any, reference: tuple[str, str, int]) -> None:
    """A function that workers can import travels as its name, and what to take off it."""
    function = functions.get(fn)
    assert pickle.loads(function.packed) == ("reference", *reference)
    assert load_function(function.packed) is fn
    assert functions.get(fn) is function


def test_functions_have_numbers(functions: Functions) -> None:
    """Each function has a number of its own, and a name for people."""
    found = [functions.get(fn) for fn in (plain, decorated, math.sqrt, lambda: 1)]
    assert len({function.number for function in found}) == 4
    assert [function.name for function in found[:3]] == ["plain", "decorated", "sqrt"]
    assert "<lambda>" in found[3].name


def test_functions_of_maps_have_numbers_of_their_own(functions: Functions) -> None:
    """What a map calls has another number than the function itself, whichever comes first."""
    first = functions.for_map(math.sqrt, False, False, (), {}, None)
    plain = functions.get(math.sqrt)
    second = functions.for_map(math.sqrt, False, False, (), {}, None)
    assert len({first.number, plain.number, second.number}) == 3


def test_decorated_functions_in_arguments() -> None:
    """A function under a decorator travels by name as an argument, too."""
    payload, _ = pack_arguments((decorated.__wrapped__, [decorated]), {}, "f")  # type: ignore[attr-defined]
    args, _ = loads_arguments(payload, [])
    assert args == (decorated.__wrapped__, [decorated])  # type: ignore[attr-defined]
    named = {str(argument) for opcode, argument, _ in pickletools.genops(payload) if isinstance(argument, str)}
    assert not any("aioparallel" in name for name in named), "workers need not have it"


# Functions by value


def closure(value: Any) -> Callable[[], Any]:
    return lambda: value


@pytest.mark.parametrize(
    ("fn", "result"),
    [
        (lambda: 5, 5),
        (closure([1, 2]), [1, 2]),
        (typed("def f(): return 7")["f"], 7),
        (functools.partial(plain, 3), 4),
        (functools.partial(closure(8)), 8),
        ([3, 4].copy, [3, 4]),
    ],
)
def test_other_functions_go_by_value(functions: Functions, fn: Any, result: Any) -> None:
    """Lambdas, closures, partials, methods and what was typed at a prompt travel by value."""
    packed = functions.get(fn).packed
    assert how(packed) == "value"
    assert load_function(packed)() == result


def test_equal_functions_travel_once(functions: Functions) -> None:
    """A function whose pickle is the same is known by the same number, although it is pickled each time."""
    fn = closure([1, 2])
    assert functions.get(fn) is functions.get(fn)


def test_recursive_functions(functions: Functions) -> None:
    """A function may refer to itself."""
    scope = typed("def f(n): return 1 if n < 2 else n * f(n - 1)")
    assert load_function(functions.get(scope["f"]).packed)(5) == 120


# Nothing is stale


def changes() -> Iterator[tuple[str, Callable[[], Any], Callable[[], None]]]:
    """A function, and what changes what it returns."""
    scope = typed("def f(): return K", K=1)
    yield "global", scope["f"], lambda: scope.update(K=2)
    nested = typed("def f(): return (lambda: [K for _ in (1,)][0])()", K=1)
    yield "global of an inner function", nested["f"], lambda: nested.update(K=2)
    helped = typed("def g(): return 1\ndef f(): return g()")
    yield "function in a global", helped["f"], lambda: exec("def g(): return 2", helped)
    missing = typed("def f(): return max(1, 0)")
    yield "global that hides a builtin", missing["f"], lambda: missing.update(max=lambda *_: 2)
    container = [1]
    yield "content of a closure", lambda: container[0], lambda: container.__setitem__(0, 2)
    cell = 1

    def rebind() -> None:
        nonlocal cell
        cell = 2

    yield "closure", lambda: cell, rebind
    default = typed("def f(x=1): return x")["f"]
    yield "default", default, lambda: setattr(default, "__defaults__", (2,))
    keyword = typed("def f(*, x=1): return x")["f"]
    yield "keyword default", keyword, lambda: keyword.__kwdefaults__.update(x=2)
    code = typed("def f(): return 1\ndef g(): return 2")
    yield "code", code["f"], lambda: setattr(code["f"], "__code__", code["g"].__code__)
    attribute = typed("def f(): return f.x")["f"]
    attribute.x = 1
    yield "attribute", attribute, lambda: setattr(attribute, "x", 2)
    klass = typed("class C:\n  x = 1\ndef f(): return C.x")
    yield "attribute of a class", klass["f"], lambda: setattr(klass["C"], "x", 2)


@pytest.mark.parametrize(("fn", "change"), [pytest.param(fn, do, id=name) for name, fn, do in changes()])
def test_changes_are_seen(functions: Functions, fn: Callable[[], Any], change: Callable[[], None]) -> None:
    """What a function captured may change between calls: each call travels with what is true when it is submitted."""
    before = functions.get(fn)
    assert functions.get(fn) is before
    change()
    after = functions.get(fn)
    assert after.packed != before.packed
    assert (fn(), elsewhere(after.packed)) == (2, "2")


def elsewhere(packed: bytes, *args: Any) -> str:
    """Run a function in a process that has nothing of this one."""
    script = (
        "import sys, pickle\n"
        "from aioparallel._child.worker import load_function\n"
        "packed, args = pickle.load(sys.stdin.buffer)\n"
        "print(repr(load_function(packed)(*args)))"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((packed, args)),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(): return K, L, M", {"K": 1, "L": "text", "M": (1, frozenset({b"2"}))}),
        ("import math\ndef f(): return math.pi", {}),
        ("def f(x=1, *, y='2'): return len([x, y])", {}),
        ("def f(): return plain(1)", {"plain": plain}),
        ("def f(): return Path('.')", {"Path": Path}),
    ],
)
def test_constants_are_remembered(
    functions: Functions, source: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of which all is constant is pickled once."""
    fn = typed(source, **names)["f"]
    function = functions.get(fn)
    monkeypatch.setattr(packing, "dumps_with", None)
    assert functions.get(fn) is function


def test_a_new_function_in_an_old_place(functions: Functions) -> None:
    """A function that takes the place of a forgotten one in memory is not mistaken for it."""
    seen = set()
    for number in range(50):
        fn = typed(f"def f(): return {number}")["f"]
        seen.add(load_function(functions.get(fn).packed)())
    assert seen == set(range(50))


# Memory


def test_functions_are_forgotten(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of functions is remembered, and a forgotten one is known by a new number."""
    monkeypatch.setattr(shipping, "MAX_FUNCTIONS", 10)
    fns = [typed(f"def f(): return {number}")["f"] for number in range(30)]
    first = functions.get(fns[0])
    for fn in fns:
        functions.get(fn)
    assert len(functions._by_pickle) <= 10
    assert len(functions._by_identity) <= 10
    again = functions.get(fns[0])
    assert (again.number > first.number, again.packed) == (True, first.packed)


def test_large_closures_are_forgotten(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded amount of what closures hold is remembered."""
    monkeypatch.setattr(shipping, "MAX_SIZE", 100_000)
    for number in range(50):
        functions.get(closure([number, "x" * 10_000]))
        assert sum(map(len, functions._by_pickle)) <= 100_000
    assert len(functions._by_pickle) == 9
    assert functions.get(closure(["x" * 200_000])).packed


def test_large_constants_are_forgotten(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """What functions are known by is forgotten with them, so that nothing large is kept in secret."""
    monkeypatch.setattr(shipping, "MAX_SIZE", 100_000)
    for number in range(50):
        for _ in range(2):
            functions.get(closure(f"{number}" + "x" * 10_000))
    kept = {id(function) for function in functions._by_pickle.values()}
    assert {id(function) for _, _, function in functions._by_identity.values()} <= kept
    assert functions._by_identity


def test_numbers_are_given_once(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that come from several threads at the same time have numbers of their own."""
    make_room, both = functions._make_room, threading.Barrier(2)

    def meet(size: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # they meet if nothing keeps them apart
        make_room(size)

    monkeypatch.setattr(functions, "_make_room", meet)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(functions.get, [closure(1), closure(2)]))
    assert len({function.number for function in found}) == 2


# What workers can import


def test_importable() -> None:
    """What is found on the path, built in or part of the standard library can be imported; ``__main__`` cannot."""
    assert all(map(importable, ["math", "os.path", "posixpath", "numpy", "numpy.linalg", HERE, "aioparallel"]))
    assert not importable("__main__")
    assert not importable("no_such_module_anywhere")


def forget(name: str) -> None:
    shipping._importable.pop(name, None)


@pytest.fixture
def dynamic() -> Iterator[types.ModuleType]:
    """A module that only this process has."""
    module = types.ModuleType("made_here")
    exec(
        "import enum, functools\n"
        "K = 5\n"
        "class C:\n  def __init__(self, x): self.x = x\n  def get(self): return self.x + K\n"
        "class E(enum.Enum):\n  A = 1\n  B = 1\n"
        "def f(x): return C(x).get(), E['B'].name\n"
        "def d(fn): return functools.wraps(fn)(lambda *a: fn(*a))\n"
        "@d\ndef g(x): return x * 2\n",
        module.__dict__,
    )
    sys.modules["made_here"] = module
    forget("made_here")
    yield module
    del sys.modules["made_here"]
    forget("made_here")


def test_modules_of_this_process_only(functions: Functions, dynamic: types.ModuleType) -> None:
    """Functions, classes, enums and methods of a module that workers cannot import travel by value."""
    assert not importable("made_here")
    assert elsewhere(functions.get(dynamic.f).packed, 1) == "(6, 'A')"
    assert elsewhere(functions.get(dynamic.g).packed, 4) == "8"
    assert elsewhere(functions.get(dynamic.g.__wrapped__).packed, 4) == "8"
    assert elsewhere(functions.get(dynamic.C(2).get).packed) == "7"


def test_references_to_modules_of_this_process_only(functions: Functions, dynamic: types.ModuleType) -> None:
    """A module that workers cannot import travels by value with the function that uses it."""
    fn = typed("def f(): return made_here.K", made_here=dynamic)["f"]
    before = functions.get(fn)
    assert elsewhere(before.packed) == "5"
    dynamic.K = 6
    assert elsewhere(functions.get(fn).packed) == "6"


def test_objects_of_classes_of_this_process_only(dynamic: types.ModuleType) -> None:
    """An argument of a class that workers cannot import travels with its class, and comes back as one of this class."""
    payload, _ = pack_arguments((dynamic.C(2),), {}, "f")
    function = pickle.dumps(("reference", HERE, "of_unpickled", 0))
    assert elsewhere(function, payload) == "7"
    (again,), _ = loads_arguments(payload, [])
    assert type(again) is dynamic.C


def test_hidden_modules() -> None:
    """A module that hides another one of its name is not what workers would import."""
    hidden = types.ModuleType("colorsys_double")
    hidden.__spec__ = importlib.machinery.ModuleSpec("numpy", None, origin="/elsewhere/numpy.py")
    real = sys.modules["numpy"]
    forget("numpy")
    sys.modules["numpy"] = hidden
    try:
        assert not importable("numpy")
    finally:
        sys.modules["numpy"] = real
        forget("numpy")


def test_editable_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an editable install's finder finds can be imported, for every interpreter here has that finder."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object) -> object:
            spec = importlib.machinery.ModuleSpec(name, None, origin="/src/edited/__init__.py")
            return spec if name == "edited" else None

    Finder.__module__ = "__editable___edited_0_1_finder"
    forget("edited")
    assert not importable("edited")
    forget("edited")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert importable("edited.part")
    forget("edited.part")


def test_reach(dynamic: types.ModuleType) -> None:
    """What workers can import is for each pool to say: functions, classes, modules, constants and arguments follow it."""
    everything, nothing = Reach(lambda module: True), Reach(lambda module: module != HERE)
    assert how(Functions(everything).get(dynamic.f).packed) == "reference"
    assert how(Functions(nothing).get(plain).packed) == "value"
    fn = typed("def f(): return plain(1)", plain=plain)["f"]
    assert HERE.encode() in Functions(everything).get(fn).packed
    assert elsewhere(Functions(nothing).get(fn).packed) == "2"
    by_name, _ = pack_arguments((plain,), {}, "f", reach=everything)
    by_value, _ = pack_arguments((plain,), {}, "f", reach=nothing)
    assert len(by_value) > len(by_name)
    constants = Functions(nothing).for_map(math.sqrt, False, False, (plain,), {}, None)
    assert len(constants.packed) > len(by_value)


def test_reach_of_remembered_functions(functions: Functions) -> None:
    """A function is remembered by identity where what it names goes by name, and pickled anew where it does not."""
    fn = typed("def f(): return plain(1)", plain=plain)["f"]
    for known, reach in ((True, Reach(lambda module: True)), (False, Reach(lambda module: module != HERE))):
        functions = Functions(reach)
        functions.get(fn)
        assert (id(fn) in functions._by_identity) is known


# Arguments


def test_no_arguments() -> None:
    """A call without arguments has no payload."""
    assert pack_arguments((), {}, "f") == (b"", [])


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, "two", b"3", 4.0, None, True, 5j), {}), ((), {"k": 1}), (([1, {"x": (2,)}],), {"k": {3}})],
)
def test_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Arguments arrive as they are."""
    payload, buffers = pack_arguments(args, kwargs, "f")
    assert loads_arguments(payload, buffers) == (args, kwargs)
    assert buffers == []


def test_large_arrays_are_not_copied() -> None:
    """A large array is sent from where it lies."""
    array = np.zeros(1_000_000, np.uint8)
    payload, buffers = pack_arguments(({"a": array}, "x"), {"again": array}, "f")
    assert len(payload) < 1000
    array[0] = 7
    (first, _), kwargs = loads_arguments(payload, buffers)
    assert first["a"][0] == kwargs["again"][0] == 7
    assert first["a"] is kwargs["again"], "one array stays one"
    assert len(buffers) == 1


@pytest.mark.parametrize(("args", "kwargs"), [((1,), {}), ((), {}), (([1],), {"size": 2})])
def test_large_bytes_are_not_copied(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Large bytes among the arguments are sent from where they lie, and once, and are the bytes that they were."""
    data = bytes(1_000_000)
    payload, buffers = pack_arguments((*args, data, data), kwargs, "f")
    assert len(payload) < 1000
    assert [view.obj is data for view in buffers] == [True]
    *rest, first, second = loads_arguments(payload, buffers)[0]
    assert (tuple(rest), type(first), first) == (args, bytes, data)
    assert first is second, "one object stays one"


def test_large_bytes_by_name() -> None:
    """So are those that are given by name."""
    data = bytes(1_000_000)
    payload, buffers = pack_arguments((), {"data": data}, "f")
    assert (len(payload) < 1000, buffers[0].obj is data) == (True, True)
    assert loads_arguments(payload, buffers)[1] == {"data": data}


def test_arrays_in_the_pickle() -> None:
    """Where nothing can travel beside the pickle, arrays travel inside."""
    payload, buffers = pack_arguments((np.ones(1_000_000, np.uint8),), {}, "f", out_of_band=False)
    assert buffers == []
    assert len(payload) > 1_000_000


# Errors


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((LOCK,), {}, "args[0]"),
        ((1, {"x": Holder(LOCK)}), {}, "args[1]['x'].lock"),
        ((), {"conf": [Holder(LOCK)]}, "conf[0].lock"),
        ((closure(LOCK),), {}, "args[0] variable 'value'"),
        ((functools.partial(plain, LOCK),), {}, "args[0].args[0]"),
    ],
)
def test_arguments_that_cannot_travel(args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> None:
    """The error names the argument, and the way to what cannot travel."""
    with pytest.raises(PicklingError) as caught:
        pack_arguments(args, kwargs, "work")
    assert (caught.value.path, caught.value.culprit) == (path, repr(LOCK))
    assert str(caught.value) == (
        f"work cannot be sent to a worker: {path} cannot be pickled: {LOCK!r} "
        "(TypeError: cannot pickle '_thread.lock' object)"
    )
    assert isinstance(caught.value, pickle.PicklingError)


@pytest.mark.parametrize(
    ("fn", "path"),
    [
        (closure(LOCK), " variable 'value'"),
        (typed("def f(): return LOCK", LOCK=LOCK)["f"], " global 'LOCK'"),
        (Holder(LOCK).__eq__, ".__self__.lock"),
    ],
)
def test_functions_that_cannot_travel(functions: Functions, fn: Any, path: str) -> None:
    """The error names the function, and what it holds that cannot travel."""
    with pytest.raises(PicklingError) as caught:
        functions.get(fn)
    assert (caught.value.path, caught.value.culprit) == (f"the function {fn.__qualname__}{path}", repr(LOCK))
    assert str(caught.value).startswith(f"{fn.__qualname__} cannot be sent to a worker: the function ")


class Refuses:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> str:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), ValueError("no")])
def test_reducers_that_raise(functions: Functions, error: BaseException) -> None:
    """Whatever pickling raises, an exit included, is an error of the call."""
    with pytest.raises(PicklingError, match=type(error).__name__):
        pack_arguments((Refuses(error),), {}, "work")
    with pytest.raises(PicklingError, match=type(error).__name__):
        functions.get(closure(Refuses(error)))


def test_interrupts_are_for_the_program(functions: Functions) -> None:
    """A Ctrl-C while something is pickled is the program's."""
    with pytest.raises(KeyboardInterrupt):
        pack_arguments((Refuses(KeyboardInterrupt()),), {}, "work")
    with pytest.raises(KeyboardInterrupt):
        functions.get(closure(Refuses(KeyboardInterrupt())))


def test_deep_arguments() -> None:
    """An argument that is nested too deeply is called just that."""
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    with pytest.raises(PicklingError, match=r"args\[0\] is nested too deeply to be pickled"):
        pack_arguments((deep,), {}, "work")
    while deep:
        deep = deep.pop()


# Constants of maps


def test_shared_constants(functions: Functions, tmp_path: Path) -> None:
    """What all calls of a map have in common travels once, and large arrays lie in a file that workers map."""
    array = np.arange(100_000, dtype=np.float64)
    inside = functions.for_map(weighed, False, False, (), {"weights": array}, None)
    fn = functions.for_map(weighed, False, False, (), {"weights": array}, str(tmp_path))
    assert inside.file is None
    assert fn.file is not None
    assert len(inside.packed) > array.nbytes
    assert len(fn.packed) < 5000
    assert load_function(inside.packed)(3) == load_function(fn.packed)(3) == 6
    _, places = share(str(tmp_path / "more"), [memoryview(b"abc"), memoryview(b"d" * 100)])
    assert [start % 64 for start, _ in places] == [0, 0]
    assert [bytes(view) for view in mapped(str(tmp_path / "more"), places)] == [b"abc", b"d" * 100]
    fn.close()
    fn.close()
    assert os.listdir(tmp_path) == ["more"]


def test_constants_without_room(functions: Functions, tmp_path: Path) -> None:
    """Where a file cannot be made, a map's constants travel inside the pickle."""
    array = np.arange(100_000, dtype=np.float64)
    fn = functions.for_map(plain, False, False, (array,), {}, str(tmp_path / "missing"))
    assert fn.file is None
    assert len(fn.packed) > array.nbytes


def test_shares_that_fail_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for which there is no room is removed."""
    broken: Any = [memoryview(b"abc"), None]
    with pytest.raises(TypeError):
        share(str(tmp_path / "a"), broken)
    real = open

    def full(path: str, mode: str) -> Any:
        file = real(path, mode)
        monkeypatch.setattr(shipping, "open", real, raising=False)

        class Full:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: object) -> int:
                raise OSError(28, "No space left on device")

        return Full()

    monkeypatch.setattr(shipping, "open", full, raising=False)
    with pytest.raises(OSError, match="No space"):
        share(str(tmp_path / "b"), [memoryview(b"abc")])
    assert not (tmp_path / "b").exists()
