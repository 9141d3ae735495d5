"""The decorator itself: what it takes, what it refuses, and how far the result is like the function."""

from __future__ import annotations

import abc
import copy
import functools
import inspect
import io
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from aioparallel import Limit, Method, Parallel, ProcessExecutor, Retry, parallelize
from aioparallel._executors.coroutine import CoroutineExecutor
from aioparallel._executors.thread import ThreadExecutor
from tests.tools import name_of
from tests.unit.verbs import jobs

above_classmethod = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="there a class method does not have bound what it holds, it only calls it"
)


def f(x: int, y: int = 1) -> int:
    """Subtract."""
    return x - y


async def g(x: int) -> int:
    return x


def generate(n: int) -> Iterator[int]:
    yield n


async def generate_async(n: int) -> AsyncIterator[int]:
    yield n


def kind(parallel: Parallel[..., Any, Any]) -> str | None:
    return parallel._settings.kind


# What it takes


@pytest.mark.parametrize(
    "decorate", [parallelize, parallelize(), parallelize(timeout=3), parallelize(method="process")]
)
def test_bare_with_parentheses_and_with_options(decorate: Callable[..., Any]) -> None:
    """`@parallelize`, `@parallelize()` and `@parallelize(...)` all decorate."""
    assert isinstance(decorate(f), Parallel)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (f, Method.THREAD),
        (g, Method.COROUTINE),
        (generate, Method.THREAD),
        (generate_async, Method.COROUTINE),
        (functools.partial(f, 1), Method.THREAD),
        (functools.partial(functools.partial(g), 1), Method.COROUTINE),
        (jobs.Scaler(), Method.THREAD),
        (jobs.AsyncScaler(), Method.COROUTINE),
        (jobs.AsyncScaler().__call__, Method.COROUTINE),
        (len, Method.THREAD),
        (dict, Method.THREAD),
        (str.upper, Method.THREAD),
        (lambda: 1, Method.THREAD),
    ],
)
def test_default_method(fn: Callable[..., Any], expected: Method) -> None:
    """Without a method, what is `async` becomes a coroutine and everything else a thread."""
    assert kind(parallelize(fn)) == expected


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.COROUTINE])
def test_methods_by_name(method: Method) -> None:
    """A method is given as a member of Method or as its name, in either case."""
    assert [kind(parallelize(f, method=each)) for each in (method, method.value, method.name)] == [method] * 3


def test_coroutine_by_name() -> None:
    """An `async def` may say that it is a coroutine."""
    assert kind(parallelize(g, method="coroutine")) == Method.COROUTINE


def test_method_none_is_the_default() -> None:
    """`method=None` and `on=None` leave the choice open."""
    assert kind(parallelize(f, method=None, on=None)) == Method.THREAD


# What it refuses, when decorating


def test_unknown_method() -> None:
    """An unknown method fails when decorating, and the error names those there are."""
    with pytest.raises(ValueError, match=r"'prozess'.*'thread', 'process', 'remote', 'ray'"):
        parallelize(method="prozess")


def test_unknown_option() -> None:
    """An unknown option fails when decorating, and the error names those there are."""
    with pytest.raises(TypeError, match=r"no such option: mehtod \(there are method, on, timeout"):
        parallelize(mehtod="process")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": "1"},
        {"retry": "twice"},
        {"retry": 0},
        {"priority": "high"},
        {"name": 3},
        {"method": 7},
    ],
    ids=str,
)
def test_wrong_values(options: dict[str, Any]) -> None:
    """A value that makes no sense fails when decorating, before there is a function."""
    with pytest.raises((TypeError, ValueError), match=f"(?i){next(iter(options))}"):
        parallelize(**options)


@pytest.mark.parametrize("fn", [f, generate, functools.partial(f), jobs.Scaler()], ids=name_of)
def test_coroutine_on_a_plain_function(fn: Callable[..., Any]) -> None:
    """COROUTINE on a plain function is refused, with the line to write instead."""
    with pytest.raises(TypeError, match=r"Write `@parallelize` \(it runs in a thread\), or `async def"):
        parallelize(fn, method=Method.COROUTINE)
    with pytest.raises(TypeError, match="Write `@parallelize`"):
        parallelize(on=CoroutineExecutor())(fn)


@pytest.mark.parametrize("fn", [g, generate_async, jobs.AsyncScaler()], ids=name_of)
def test_thread_on_an_async_function(fn: Callable[..., Any]) -> None:
    """THREAD on an `async def` is refused: the future of such a call would hold a coroutine that nobody awaits."""
    with pytest.raises(TypeError, match=r"Write `@parallelize` \(it runs as a coroutine\)"):
        parallelize(method="thread")(fn)
    with pytest.raises(TypeError, match="no event loop"):
        parallelize(fn, on=ThreadExecutor())


def test_on_must_be_an_executor() -> None:
    """`on` takes an executor: not its name, and not its class."""
    with pytest.raises(TypeError, match="on='process': expected an executor"):
        parallelize(on="process")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"the class itself; make one: `on=ProcessExecutor\(\)`"):
        parallelize(on=ProcessExecutor)  # type: ignore[call-overload]


def test_on_and_method() -> None:
    """`on` and `method` together are refused: an executor is of one kind."""
    with pytest.raises(TypeError, match="say one of them"):
        parallelize(method="thread", on=ThreadExecutor())


@pytest.mark.parametrize(
    ("what", "right"),
    [
        ("process", "@parallelize(method=...)"),
        (Method.RAY, "@parallelize(method=...)"),
        (3, "@parallelize(timeout=...)"),
    ],
)
def test_options_without_their_names(what: Any, right: str) -> None:
    """What is no function is refused, with the line that was meant."""
    with pytest.raises(TypeError, match="options go by name") as caught:
        parallelize(what)
    assert right in str(caught.value)


def test_an_executor_without_its_name() -> None:
    """An executor in place of the function is refused, with the line that was meant."""
    with pytest.raises(TypeError, match=r"@parallelize\(on=...\)"):
        parallelize(ProcessExecutor())  # type: ignore[call-overload]


# How far the result is like the function


def test_it_is_like_the_function() -> None:
    """Name, documentation, module, annotations and signature are the function's, which is in `__wrapped__`."""
    parallel: Any = parallelize(f)
    assert parallel.__wrapped__ is f
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(parallel, name) == getattr(f, name)
    assert inspect.signature(parallel) == inspect.signature(f)


def test_marks_of_other_decorators() -> None:
    """What other decorators noted on the function is on the result, but for names that the result has itself."""

    @parallelize
    @abc.abstractmethod
    def marked() -> None: ...

    def shadowing() -> int:
        return 1

    shadowing.local = shadowing.mark = 7  # type: ignore[attr-defined]
    assert getattr(marked, "__isabstractmethod__", False)
    parallel: Any = parallelize(shadowing)
    assert parallel.mark == 7
    assert parallel.local() == 1


def test_objects_keep_their_attributes() -> None:
    """An object that is called may have attributes of any name."""
    parallel = parallelize(jobs.Scaler())
    assert parallel.local(2) == 6
    assert parallel.options(timeout=3).local(2) == 6


@pytest.mark.parametrize("fn", [functools.partial(f, 3), jobs.Scaler(), len, dict], ids=name_of)
def test_what_has_no_name(fn: Callable[..., Any]) -> None:
    """A partial, an object, a builtin and a class can be decorated, shown, and have the signature they had."""
    parallel = parallelize(fn)
    assert repr(parallel).startswith("<parallelized ")
    try:
        expected = inspect.signature(fn)
    except ValueError:
        return
    assert inspect.signature(parallel) == expected


def test_local() -> None:
    """`local` calls the plain function, here and now."""
    assert parallelize(f).local(3, y=2) == 1
    assert parallelize(method="process")(f).local(3) == 2


def test_options_are_a_new_object() -> None:
    """`options` makes another object of the same kind, and changes nothing but what it is given."""
    first = parallelize(f, timeout=3, retry=2)
    second = first.options(timeout=5, priority=1)
    assert type(second) is type(first)
    assert first._settings.options.timeout == 3
    assert first._settings.options.priority == 0
    assert second._settings.options.timeout == 5
    assert second._settings.options.retry == Retry(2)
    assert second.local(3, 2) == 1


def test_options_may_change_the_method() -> None:
    """`options` may choose another method, or a particular executor, whatever was chosen before."""
    pool = ThreadExecutor()
    on_pool = parallelize(f, method="process").options(on=pool)
    assert on_pool._settings.on is pool
    assert kind(on_pool.options(method="serial")) == Method.SERIAL


def test_options_are_checked() -> None:
    """`options` refuses what the decorator refuses."""
    with pytest.raises(TypeError, match="no such option: x"):
        parallelize(f).options(x=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="is a plain function"):
        parallelize(f).options(method="coroutine")


def test_decorating_again() -> None:
    """To decorate what is decorated changes the options that are given; the function is still called once."""
    again = parallelize(parallelize(f, method="process", timeout=3), timeout=5)
    assert again._settings.options.timeout == 5
    assert kind(again) == Method.PROCESS
    assert kind(parallelize(method="serial")(again)) == Method.SERIAL
    assert again.local(3) == 2


def test_repr() -> None:
    """Its text names the function, and the method or the executor."""
    assert repr(jobs.add) == "<parallelized add method='thread'>"
    assert repr(parallelize(f, on=ThreadExecutor(name="io"))) == "<parallelized f <ThreadExecutor 'io' closed>>"


# Methods


def test_methods_bind() -> None:
    """Looked up on an object, it is bound as a function would be; on the class it is itself."""
    base = jobs.Base(5)
    assert jobs.Base.times is jobs.Base.__dict__["times"]
    assert base.times.local(2) == jobs.Base.times.local(base, 2) == 10
    assert jobs.Derived(5).times.local(2) == 11
    assert base.times.options(timeout=2).local(2) == 10


@pytest.mark.parametrize("name", ["named", pytest.param("named_too", marks=above_classmethod)])
def test_class_methods_bind(name: str) -> None:
    """Class methods bind to the class they are looked up on, in either order of decorators."""
    assert getattr(jobs.Derived, name).local(1) == getattr(jobs.Derived(), name).local(1) == ("Derived", 1)


@pytest.mark.parametrize("name", ["alone", "alone_too"])
def test_static_methods_bind_to_nothing(name: str) -> None:
    """Static methods bind to nothing, in either order of decorators."""
    assert getattr(jobs.Base, name).local(1) == getattr(jobs.Derived(), name).local(1) == 1


def test_signatures_of_methods() -> None:
    """A bound method's signature has no `self`."""
    assert list(inspect.signature(jobs.Base.times).parameters) == ["self", "x"]
    for parallel in (jobs.Base().times, jobs.Base.named, jobs.Base.named_too, jobs.Base.alone, jobs.Base().alone_too):
        assert list(inspect.signature(parallel).parameters) == ["x"]
    assert jobs.Base().times.__doc__ == "Multiply."


def test_what_does_not_bind_stays() -> None:
    """A builtin or an object as attribute of a class binds as little as it does undecorated."""

    class Holder:
        size = parallelize(len)
        scale = parallelize(jobs.Scaler())
        method = jobs.Base(2).times

    assert Holder().size.local([1, 2]) == 2
    assert Holder().scale.local(2) == 6
    assert Holder().method.local(2) == 4


# Travelling


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_pickled_by_name(dumps: Callable[[object], bytes]) -> None:
    """What an import finds is pickled as its name."""
    for parallel in (jobs.add, jobs.Base.times):
        assert pickle.loads(dumps(parallel)) is parallel


def test_pickled_by_value() -> None:
    """With other options, bound, or local to a function, it is pickled by value, with its options."""
    k = 10

    @parallelize(timeout=7)
    def local(x: int) -> int:
        return x + k

    for parallel, expected in ((local, 11), (jobs.add.options(timeout=7), 3), (jobs.Base(9).times, 9)):
        again = pickle.loads(cloudpickle.dumps(parallel))
        assert again is not parallel
        assert again.local(1) == expected
        assert again.__name__ == parallel.__name__  # type: ignore[attr-defined]
        assert again._settings == parallel._settings


def test_a_pickle_by_value_needs_little() -> None:
    """A pickle by value names only the class of this package: a host that lacks the package can have a stand-in."""
    local = parallelize(lambda x: x, method="process", timeout=7, name="double")
    named = {f"{module} {name}" for module, name in globals_of(cloudpickle.dumps(local))}
    assert {name for name in named if name.startswith("aioparallel")} == {"aioparallel Parallel"}


def globals_of(pickled: bytes) -> set[tuple[str, str]]:
    """The module and name of each class and function that unpickling looks up."""
    found: set[tuple[str, str]] = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.add((module, name))
            return super().find_class(module, name)

    Unpickler(io.BytesIO(pickled)).load()
    return found


def test_pickled_although_it_refers_to_itself() -> None:
    """A local function that calls itself by its decorated name can be pickled."""

    @parallelize(method="process")
    def down(x: int) -> Any:
        return down.local(x - 1) if x else down

    again = pickle.loads(cloudpickle.dumps(down))
    assert again.local(3) is again


def test_executors_and_limits_stay_here() -> None:
    """Pickled by value, a function leaves its executor and its limit behind, and keeps the kind."""
    local = parallelize(lambda x: x, on=ThreadExecutor(), limit=Limit(1), retry=3)
    again = pickle.loads(cloudpickle.dumps(local))
    assert kind(again) == Method.THREAD
    assert again._settings.on is again._settings.options.limit is None
    assert again._settings.options.retry == Retry(3)


def test_wrapped_once_more() -> None:
    """Under the decorator of somebody else it is still pickled as its name."""
    inner = covered.__wrapped__
    assert isinstance(inner, Parallel)
    assert pickle.loads(pickle.dumps(inner)) is inner


def test_copies() -> None:
    """Like a function, it is its own copy."""
    local = parallelize(lambda x: x, on=ThreadExecutor())
    assert copy.copy(local) is copy.deepcopy(local) is local


def _other(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@_other
@parallelize
def covered(x: int) -> int:
    return x
