"""What the demo computes: it measures Python sources. Pure functions and small records, to run in any process."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import TypeAlias

from .files import Failure, Source

__all__ = [
    "FileMeasure",
    "FunctionMeasure",
    "by_complexity",
    "by_length",
    "by_nesting",
    "measure_source",
    "measure_sources",
]


@dataclass(frozen=True, slots=True)
class FunctionMeasure:
    """One function.

    Attributes:
        path: Its file, below the folder that is measured.
        line: Where its ``def`` stands.
        name: Its name, with those of the classes and functions around it.
        lines: How many lines it has, from its ``def`` to its end.
        complexity: Its cyclomatic complexity: 1, and 1 for each place where the way may fork. Those are
            ``if``, ``elif``, conditional expressions, loops, ``except``, each ``and`` and ``or``, each ``for``
            and ``if`` of a comprehension, and each ``case`` that does not match everything.
        nesting: How deep its blocks are nested; 0 without any. ``elif`` is as deep as its ``if``.
    """

    path: str
    line: int
    name: str
    lines: int
    complexity: int
    nesting: int


@dataclass(frozen=True, slots=True)
class FileMeasure:
    """One file.

    Attributes:
        path: Its place below the folder that is measured.
        size: In bytes.
        lines: How many lines it has.
        functions: How many functions and methods.
        complexity: The sum of theirs.
        foremost: Those of them that can be among the most complex, the longest or the most deeply nested of all.
    """

    path: str
    size: int
    lines: int
    functions: int
    complexity: int
    foremost: tuple[FunctionMeasure, ...]


def measure_sources(sources: Iterable[Source | Failure], top: int) -> list[FileMeasure | Failure]:
    """Measure some files; those that could not be read are passed on."""
    return [measure_source(source, top) if isinstance(source, Source) else source for source in sources]


def measure_source(source: Source, top: int) -> FileMeasure | Failure:
    """Measure one file.

    Args:
        source: Its text, as bytes: the parser looks for the encoding itself.
        top: How many functions will be shown in each ranking. More of one file cannot be among them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old code is full of what Python warns of by now
            tree = ast.parse(source.text)
        functions = list(_functions(tree, source.path))
    except SyntaxError as error:
        return Failure(source.path, f"line {error.lineno}: {error.msg}" if error.lineno else str(error.msg))
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply for this Python
        return Failure(source.path, str(error) or type(error).__name__)
    return FileMeasure(
        path=source.path,
        size=len(source.text),
        lines=len(source.text.splitlines()),
        functions=len(functions),
        complexity=sum(function.complexity for function in functions),
        foremost=_foremost(functions, top),
    )


def by_complexity(function: FunctionMeasure) -> tuple[int, str, int]:
    """Sorts the most complex function first; the others likewise. Equals stay in the order of the files."""
    return -function.complexity, function.path, function.line


def by_length(function: FunctionMeasure) -> tuple[int, str, int]:
    """Sorts the longest function first."""
    return -function.lines, function.path, function.line


def by_nesting(function: FunctionMeasure) -> tuple[int, str, int]:
    """Sorts the most deeply nested function first."""
    return -function.nesting, function.path, function.line


def _foremost(functions: list[FunctionMeasure], top: int) -> tuple[FunctionMeasure, ...]:
    found = {one: None for key in (by_complexity, by_length, by_nesting) for one in nsmallest(top, functions, key=key)}
    return tuple(found)


FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Found: TypeAlias = list[tuple[str, FunctionNode]]

BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
FORKS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.alias)


def _functions(tree: ast.Module, path: str) -> Iterator[FunctionMeasure]:
    """Every function of a file. Each counts for itself: a function that is defined inside is no part of it."""
    waiting: Found = []
    _walk(tree.body, "", waiting)
    while waiting:
        name, node = waiting.pop()
        forks, nesting = _walk(node.body, f"{name}.", waiting)
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        yield FunctionMeasure(path, node.lineno, name, lines, 1 + forks, nesting)


def _walk(body: list[ast.stmt], prefix: str, functions: Found) -> tuple[int, int]:
    """Count the forks of some statements and find how deep their blocks go; put the functions they define into a list.

    The stack is a list, because sources may be nested more deeply than Python calls may.
    """
    forks = deepest = 0
    stack: list[tuple[ast.AST, int, str]] = [(statement, 0, prefix) for statement in body]
    while stack:
        node, depth, names = stack.pop()
        if isinstance(node, FunctionNode):
            functions.append((names + node.name, node))
            continue
        forks += _forks(node)
        if isinstance(node, BLOCKS):
            depth += 1
            deepest = max(deepest, depth)
        elif isinstance(node, ast.ClassDef):
            names += f"{node.name}."
        elif_branch = _elif(node)
        inner = (child for child in ast.iter_child_nodes(node) if not isinstance(child, LEAVES))
        stack += [(child, depth - (child is elif_branch), names) for child in inner]
    return forks, deepest


def _forks(node: ast.AST) -> int:
    """How many ways more there are because of this node alone."""
    if isinstance(node, FORKS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return 0 if _matches_everything(node) else 1
    return 0


def _matches_everything(case: ast.match_case) -> bool:
    return case.guard is None and isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def _elif(node: ast.AST) -> ast.If | None:
    """The ``elif`` of an ``if``: to the parser that is an ``else`` with an ``if``, but it stands in the same column."""
    match node:
        case ast.If(orelse=[ast.If() as branch]) if branch.col_offset == node.col_offset:
            return branch
        case _:
            return None
