"""The rules that hold for every module of the package, read from its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "aioparallel"
ROOT = Path(__file__).parents[2] / "src" / PACKAGE

LAYERS = [
    {"_child"},
    {"_model"},
    {"_futures", "_policy"},
    {"_workers", "_seeing"},
    {"_executors"},
    {"_verbs"},
    {PACKAGE},  # the face: it re-exports the layers below it
    {"blocking", "events", "testing"},
    {"cli", "joblib"},  # on the hosts of `testing`, and on the executors of `blocking`
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

HEAVY = ["asyncssh", "ray", "rich", "numpy", "multiprocessing", "concurrent.futures.process"]
"""What `import aioparallel` leaves to those who use it."""

TOLD_OF_THE_END = f"{PACKAGE}.blocking.portal"

NOT_FOR_DECISIONS = {"anyio", "asyncio", "socket", "ssl", "subprocess", "threading", "time"}
"""Modules of clocks, waiting and the outside world: a policy gets all that as arguments."""


def name_of(path: Path) -> str:
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


class Module:
    """One module: its name, and the nodes of its source that run (those under ``if TYPE_CHECKING`` do not)."""

    def __init__(self, name: str, source: str, *, is_package: bool = False) -> None:
        self.name = name
        self.package = name if is_package else name.rpartition(".")[0]
        self.nodes = list(running(ast.parse(source)))

    @property
    def part(self) -> str:
        """The unit that has a place in the table of layers: a top-level folder or module."""
        return part_of(self.name)

    def of_type(self, *types: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in self.nodes if isinstance(node, types))


def running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from running(child)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def part_of(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, with the imported name itself where it is a module of ours."""
    for node in module.of_type(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        else:
            source = resolve_name("." * node.level + (node.module or ""), module.package) if node.level else node.module
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield node.lineno, full if full in MODULES else source


def upward_imports(module: Module) -> Iterator[str]:
    """Imports point down the table, or stay within one part of it."""
    for line, name in imports(module):
        ours = name.split(".")[0] == PACKAGE and part_of(name) != module.part
        if ours and LEVEL[part_of(name)] >= LEVEL[module.part]:
            yield f"line {line}: {module.part} may not import {name}"


def foreign_imports_in_the_child(module: Module) -> Iterator[str]:
    """The child runs where nothing but Python is installed, with cloudpickle sent along."""
    allowed = {*sys.stdlib_module_names, "cloudpickle", PACKAGE}
    for line, name in imports(module):
        if module.part == "_child" and name.split(".")[0] not in allowed:
            yield f"line {line}: the child may not import {name}"


def effects_in_policies(module: Module) -> Iterator[str]:
    """Policies decide: they await nothing, and have no clock and no way out."""
    if module.part != "_policy":
        return
    for line, name in imports(module):
        if name.split(".")[0] in NOT_FOR_DECISIONS:
            yield f"line {line}: a policy may not import {name}"
    for node in module.of_type(ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith):
        yield f"line {node.lineno}: a policy may not await"


def stray_tasks(module: Module) -> Iterator[str]:
    """Only the supervisor creates tasks that no task group owns."""
    if module.name == f"{PACKAGE}._futures.supervisor":
        return
    for node in module.of_type(ast.Attribute, ast.Name, ast.alias):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else node.name
        if name in {"create_task", "ensure_future"}:
            yield f"line {node.lineno}: {name} is for the supervisor alone"


def exit_hooks(module: Module) -> Iterator[str]:
    """Nothing is left for the end of the interpreter. (An agent that ends a worker runs what its user left.)

    One module is told of it, so that its thread, for which Python waits, ends: its docstring says why.
    """
    for node in module.of_type(ast.ImportFrom, ast.Attribute):
        if isinstance(node, ast.ImportFrom) and node.module == "atexit":
            yield f"line {node.lineno}: from atexit import"
        elif isinstance(node, ast.Attribute) and node.attr == "_register_atexit" and module.name != TOLD_OF_THE_END:
            yield f"line {node.lineno}: {ast.unparse(node)} is for {TOLD_OF_THE_END} alone"
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("atexit.") and "run" not in node.attr:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def finalizers(module: Module) -> Iterator[str]:
    """No object cleans up when it is collected; the one exception only says that a failure went unseen."""
    for node in module.of_type(ast.ClassDef):
        names = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        if "__del__" in names and (module.name, node.name) != (f"{PACKAGE}._futures.smart", "_Failure"):
            yield f"line {node.lineno}: {node.name}.__del__"


def task_groups_in_generators(module: Module) -> Iterator[str]:
    """A task group must be left by the task that entered it, which an async generator cannot promise."""
    for function in module.of_type(ast.AsyncFunctionDef):
        own = list(own_nodes(function))
        if any(isinstance(node, ast.Yield) for node in own):
            for node in own:
                if isinstance(node, ast.AsyncWith) and any(is_task_group(item.context_expr) for item in node.items):
                    yield f"line {node.lineno}: a task group in the async generator {function.name}"


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What a function consists of, without the functions that it defines."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from own_nodes(child)


def is_task_group(node: ast.AST) -> bool:
    name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    return name in {"create_task_group", "TaskGroup"}


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    upward_imports,
    foreign_imports_in_the_child,
    effects_in_policies,
    stray_tasks,
    exit_hooks,
    finalizers,
    task_groups_in_generators,
]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_the_rules(name: str) -> None:
    """Every module has a place in the layers and keeps all rules."""
    path = MODULES[name]
    module = Module(name, path.read_text(), is_package=path.stem == "__init__")
    assert module.part in LEVEL
    assert [broken for rule in RULES for broken in rule(module)] == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (upward_imports, "_model.call", "from .._verbs import parmap"),
        (upward_imports, "_model.call", "from .. import _verbs"),
        (upward_imports, "_model.call", "import aioparallel._verbs.maps"),
        (upward_imports, "_verbs.maps", "from aioparallel import parmap"),
        (upward_imports, "_policy.ledger", "from .._futures import supervisor"),
        (upward_imports, "_workers.links", "def f():\n    from .._executors.pool import Pool"),
        (upward_imports, "_workers.links", "if TYPE_CHECKING:\n    pass\nelse:\n    from .._executors import pool"),
        (upward_imports, "_child.loop", "from .._model import errors"),
        (foreign_imports_in_the_child, "_child.loop", "import anyio"),
        (foreign_imports_in_the_child, "_child.loop", "def f():\n    from numpy.linalg import norm"),
        (effects_in_policies, "_policy.ledger", "from time import monotonic"),
        (effects_in_policies, "_policy.ledger", "async def f(): ..."),
        (stray_tasks, "_verbs.maps", "asyncio.create_task(f())"),
        (stray_tasks, "_verbs.maps", "start = loop.create_task"),
        (stray_tasks, "_verbs.maps", "from asyncio import ensure_future as go"),
        (exit_hooks, "_verbs.maps", "from atexit import register"),
        (exit_hooks, "_verbs.maps", "import atexit\natexit.register(f)"),
        (exit_hooks, "_verbs.maps", "threading._register_atexit(f)"),
        (finalizers, "_verbs.maps", "class A:\n    def __del__(self): ..."),
        (
            task_groups_in_generators,
            "_verbs.maps",
            "async def f():\n  async with create_task_group() as g:\n    yield 1",
        ),
        (
            task_groups_in_generators,
            "_verbs.maps",
            "async def f():\n  async with a, anyio.create_task_group():\n    yield",
        ),
        (
            task_groups_in_generators,
            "_verbs.maps",
            "async def f():\n  async with asyncio.TaskGroup():\n    x = yield 1",
        ),
    ],
)
def test_a_broken_rule_is_noticed(rule: Rule, name: str, source: str) -> None:
    """Each rule finds the ways to break it that come to mind."""
    assert list(rule(Module(f"{PACKAGE}.{name}", source)))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("_verbs.maps", "from .._executors import process\nfrom . import streams\nimport aioparallel._child.loop"),
        ("_model.call", "if TYPE_CHECKING:\n    from .._verbs import parmap"),
        ("_model.call", "import typing\nif typing.TYPE_CHECKING:\n    from .._verbs import parmap"),
        ("_child.loop", "import pickle, cloudpickle\nfrom .wire import read"),
        ("_policy.ledger", "import heapq\nfrom .._model.call import Call"),
        ("_futures.supervisor", "loop.create_task(f())"),
        ("cli.demo", "from aioparallel import ProcessExecutor"),
        ("joblib", "from .blocking import Executor"),
        ("_verbs.maps", "async def f():\n  async with create_task_group() as g:\n    async def g(): yield 1"),
        ("_child.agent", "import atexit\natexit._run_exitfuncs()"),
        ("_verbs.maps", "async def f():\n  async with closing(x):\n    yield 1"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    """No rule complains of what the layers allow."""
    assert [broken for rule in RULES for broken in rule(Module(f"{PACKAGE}.{name}", source))] == []


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The modules that are there when a fresh interpreter has imported the package."""
    code = f"import {PACKAGE}, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("heavy", HEAVY)
def test_importing_the_package_imports_little(imported: set[str], heavy: str) -> None:
    """Importing aioparallel leaves what is slow to import, or needed by few, to its first use."""
    assert PACKAGE in imported
    assert heavy not in imported
