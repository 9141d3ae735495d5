from __future__ import annotations

import pickle
import sys
import warnings
from textwrap import dedent

import pytest

from aioparallel.cli.analysis import FileMeasure, FunctionMeasure, measure_source, measure_sources
from aioparallel.cli.files import Failure, Source


def measure(text: str, top: int = 10) -> FileMeasure:
    measured = measure_source(Source("a.py", dedent(text).encode()), top)
    assert isinstance(measured, FileMeasure), measured
    return measured


def only_function(body: str) -> FunctionMeasure:
    (function,) = measure("def f(a, b, c):\n" + "".join(f"    {line}\n" for line in body.splitlines())).foremost
    return function


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("pass", 1),
        ("return a + b", 1),
        ("if a: pass", 2),
        ("if a: pass\nelse: pass", 2),
        ("if a: pass\nelif b: pass\nelif c: pass\nelse: pass", 4),
        ("return a if b else c", 2),
        ("for x in a: pass", 2),
        ("while a: pass", 2),
        ("try: pass\nexcept ValueError: pass\nexcept OSError: pass\nfinally: pass", 3),
        ("try: pass\nexcept* ValueError: pass", 2),
        ("with a: pass", 1),
        ("return a and b", 2),
        ("return a and b and c or a", 4),
        ("return [x for x in a]", 2),
        ("return {x: y for x in a if x if b for y in c}", 5),
        ("match a:\n    case 1: pass\n    case [2]: pass\n    case _: pass", 3),
        ("match a:\n    case x if b: pass\n    case x: pass", 2),
        ("return lambda x: x if a else b", 2),
        ("class A:\n    if a: x = 1", 2),
        ("assert a, b", 1),
    ],
)
def test_complexity_counts_the_forks(body: str, complexity: int) -> None:
    """A function's complexity is 1, and 1 for each place where the way may fork."""
    assert only_function(body).complexity == complexity


@pytest.mark.parametrize(
    ("body", "nesting"),
    [
        ("pass", 0),
        ("return [x for x in a if b]", 0),
        ("if a: pass", 1),
        ("if a: pass\nelif b: pass\nelif c: pass", 1),
        ("if a: pass\nelse:\n    if b: pass", 2),
        ("if a: pass\nelif b:\n    while c: pass", 2),
        ("for x in a:\n    with b:\n        try: pass\n        finally:\n            if c: pass", 4),
        ("if a: pass\nif b: pass", 1),
        ("match a:\n    case 1:\n        if b: pass", 2),
        ("class A:\n    if a: x = 1", 1),
    ],
)
def test_nesting_counts_blocks_in_blocks(body: str, nesting: int) -> None:
    """A function's nesting is that of its deepest block, and an elif is as deep as its if."""
    assert only_function(body).nesting == nesting


def test_async_code_counts_like_other_code() -> None:
    """Async functions, loops and blocks count as their plain forms do."""
    measured = measure(
        """
        async def f(a):
            async for x in a:
                async with x:
                    pass
        """
    )
    assert measured.foremost == (FunctionMeasure("a.py", 2, "f", 4, complexity=2, nesting=2),)


def test_functions_count_for_themselves() -> None:
    """Methods and inner functions are named after what is around them, and are no part of it."""
    measured = measure(
        """
        def outer(a):
            if a:
                def inner(b):
                    return b or a
            return inner

        class Class:
            class Inner:
                @property
                def method(self):
                    return 1
        """
    )
    assert {one.name: (one.line, one.lines, one.complexity, one.nesting) for one in measured.foremost} == {
        "outer": (2, 5, 2, 1),
        "outer.inner": (4, 2, 2, 0),
        "Class.Inner.method": (11, 2, 1, 0),
    }


def test_totals_of_a_file() -> None:
    """A file's totals are its bytes, lines, functions and the sum of their complexity."""
    text = "x = 1 if True else 2\ndef f(): pass\ndef g(a): return a or 1\n"
    measured = measure(text)
    assert (measured.path, measured.size, measured.lines) == ("a.py", len(text), 3)
    assert (measured.functions, measured.complexity) == (2, 3)


def test_an_empty_file_is_measured() -> None:
    """A file without anything in it is no failure."""
    assert measure("") == FileMeasure("a.py", 0, 0, 0, 0, ())


def test_only_what_can_be_shown_is_kept() -> None:
    """A file keeps as many functions of each ranking as will be shown: others cannot be among the first of all."""
    measured = measure(
        """
        def short(): pass
        def long():
            pass
            pass
        def complex(a): return a or a or a
        def nested(a):
            for x in a: pass
        """,
        top=1,
    )
    assert {one.name for one in measured.foremost} == {"long", "complex", "nested"}
    assert measured.functions == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"def f(:\n", "line 1: invalid syntax"),
        (b"x = 1\n  y = 2\n", "line 2: unexpected indent"),
        (b"# coding: nonsense\n", "unknown encoding: nonsense"),
        (b"x = '\xff'\n", "utf-8"),
        (b"x = 1\0\n", "null bytes"),
        (b"(" * 10_000, "too many nested parentheses"),
        (b"x = " + b"-" * 100_000 + b"1\n", ""),
    ],
)
def test_a_file_that_is_not_python_is_a_failure(text: bytes, reason: str) -> None:
    """Whatever the parser cannot take becomes a failure that says why, and where if that is known."""
    measured = measure_source(Source("bad.py", text), 10)
    assert isinstance(measured, Failure)
    assert measured.path == "bad.py"
    assert reason in measured.reason
    assert measured.reason


def test_deep_expressions_are_measured() -> None:
    """An expression that is nested more deeply than Python calls may be is counted like any other."""
    depth = sys.getrecursionlimit() * 2
    function = only_function("return " + " + ".join(["a"] * depth))
    assert function.complexity == 1


def test_the_encoding_of_a_file_is_honoured() -> None:
    """A file may be written in the encoding that its first lines name."""
    text = "# -*- coding: latin-1 -*-\ndef f(): return 'ä'\n".encode("latin-1")
    assert isinstance(measure_source(Source("a.py", text), 1), FileMeasure)


def test_warnings_of_the_parser_stay_quiet() -> None:
    """What Python warns of in a source is not told to whoever measures it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(r"x = '\d' is 1")


def test_failures_are_passed_on() -> None:
    """A file that could not be read stays a failure, beside those that are measured."""
    unread = Failure("gone.py", "No such file or directory")
    measured = measure_sources([unread, Source("a.py", b"")], 10)
    assert measured == [unread, FileMeasure("a.py", 0, 0, 0, 0, ())]


def test_records_travel() -> None:
    """The records are the same after they went from one process to another."""
    measured = measure("def f(): pass")
    assert pickle.loads(pickle.dumps(measured)) == measured
