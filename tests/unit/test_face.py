"""The face of the package: its names, where they come from, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import aioparallel

ROOT = Path(__file__).parents[2]
NAMES = sorted(aioparallel._HOMES)
LIGHT = """
from aioparallel import Method, Retry, parallelize
@parallelize(method=Method.PROCESS, retry=Retry(3))
def f(): ...
"""


def names_for_type_checkers() -> dict[str, str]:
    """Each name that is imported under ``if TYPE_CHECKING``, and the module it comes from."""
    tree = ast.parse(Path(aioparallel.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: f"aioparallel.{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_one_list_of_names() -> None:
    """The table, `__all__` and what type checkers see agree."""
    assert sorted(aioparallel.__all__) == NAMES
    assert names_for_type_checkers() == aioparallel._HOMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    """Every public name can be had, is documented, is listed, and is the same when it is asked for again."""
    value = getattr(aioparallel, name)
    assert inspect.getdoc(value)
    assert name in dir(aioparallel)
    assert getattr(aioparallel, name) is value


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_signed(name: str) -> None:
    """What is defined under its public name says "aioparallel" for its module; every name can be pickled."""
    value = getattr(aioparallel, name)
    if value.__name__ == name:
        assert value.__module__ == "aioparallel"
    assert pickle.loads(pickle.dumps(value)) is value


def test_errors_are_signed_before_they_are_named() -> None:
    """An error that a program has not named so far is shown under its public name, too."""
    code = (
        "from aioparallel import ProcessExecutor\n"
        "try: ProcessExecutor().submit(print)\n"
        "except Exception as error: print(type(error))"
    )
    assert run(code) == "<class 'aioparallel.ExecutorClosedError'>"


def test_unknown_names() -> None:
    """A name that is not public raises the usual AttributeError."""
    with pytest.raises(AttributeError, match="module 'aioparallel' has no attribute 'paralelize'"):
        aioparallel.paralelize  # type: ignore[attr-defined]  # noqa: B018


SECTIONS = ("Args", "Returns", "Raises", "Cancellation", "What may still be running", "Example")


def callables() -> Iterator[tuple[str, Any]]:
    """What users call: functions, classes that are no errors or records, and their public methods."""
    for name in NAMES:
        value = getattr(aioparallel, name)
        if not inspect.isclass(value):
            yield name, value
        elif not issubclass(value, BaseException | Enum | tuple) and not is_dataclass(value):
            yield name, value
            methods = {each: vars(value)[each] for each in vars(value) if not each.startswith("_")}
            yield from ((f"{name}.{each}", fn) for each, fn in methods.items() if inspect.isfunction(fn))


def wanted(value: Any) -> Iterator[str]:
    """The sections that its documentation must have."""
    if inspect.isclass(value):
        yield from ("Cancellation", "Example")
        return
    signature = inspect.signature(value)
    if set(signature.parameters) - {"self"}:
        yield "Args"
    if signature.return_annotation not in {None, "None"}:
        yield "Returns"
    if inspect.iscoroutinefunction(value):
        yield from ("Cancellation", "What may still be running")


@pytest.mark.parametrize(("name", "value"), [pytest.param(*each, id=each[0]) for each in callables()])
def test_documentation(name: str, value: Any) -> None:
    """Whatever is called says what it takes, gives and raises, what cancelling does, and what may still be running."""
    text = inspect.getdoc(value) or ""
    found = re.findall(f"^({'|'.join(SECTIONS)})::?$", text, re.MULTILINE)
    assert found == sorted(found, key=SECTIONS.index), "the sections have an order"
    assert not set(wanted(value)) - set(found)


def test_version() -> None:
    """`__version__` is the one that the package is published as."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert aioparallel.__version__ == project["version"]


def test_importing_is_cheap() -> None:
    """Importing the package imports nothing of it but the face."""
    assert run("import aioparallel, sys; print(*(m for m in sys.modules if m.startswith('aioparallel.')))") == ""


@pytest.mark.parametrize("heavy", ["asyncio", "anyio", "cloudpickle", "concurrent.futures", "threading"])
def test_decorating_is_cheap(heavy: str) -> None:
    """A module of decorated functions does not import what only calls need."""
    assert run(f"{LIGHT}\nimport sys; print({heavy!r} in sys.modules)") == "False"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
