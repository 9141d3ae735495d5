"""The code in Markdown pages: found, told apart, and run as readers would run it.

There are three kinds of ``python`` blocks:

* A block that calls ``asyncio.run`` is a **program**: it runs as it stands.
* A block that defines ``test_...`` functions is a **test file**: pytest runs it.
* Any other block is a **piece**. It runs as in a notebook cell, where ``await`` may stand anywhere, after the page's
  prelude: the block after ``<!-- prelude -->``, which readers see too; a page without one has that of
  ``docs/index.md``.

Three comments, on the line before a block, say more of it:

* ``<!-- not run: REASON -->``: it is only compiled, because it needs what a test does not have.
* ``<!-- needs: ray, sklearn -->``: it runs only where these modules are, so in ``make test-engines``.
* ``<!-- prints -->``, before a ``text`` block: what the ``python`` block above it prints, on both streams; as in
  doctests, ``...`` stands for anything, and blanks may differ.
"""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Block", "anchors_of", "blocks_of", "check", "links_of"]

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "index.md"
SECONDS = 40.0
"""So long a block may run, on a slow machine."""
SECONDS_OF_ENGINES = 100.0
"""The same if it starts Ray, or imports scikit-learn."""

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (?P<text>[^\n]*?) -->\n+\Z")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<text>.*)$", re.MULTILINE)

RUN_A_PIECE = """
import ast, asyncio, inspect, pathlib, sys

async def _run():
    source = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    waiting = eval(compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), globals())
    if inspect.iscoroutine(waiting):
        await waiting

asyncio.run(_run())
"""
"""What a notebook does with a cell; its functions are those of ``__main__``."""

ASYNC_TESTS = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
HOW = {"program": [], "piece": ["-c", RUN_A_PIECE], "tests": ["-m", "pytest", "-p", "no:cacheprovider", *ASYNC_TESTS]}
"""What stands between Python and the name of a block's file."""


@dataclass
class Block:
    """A ``python`` block.

    Attributes:
        page: The page it stands on.
        line: Where it begins.
        source: What is run, the prelude included.
        not_run: Why it is only compiled, if it is.
        prints: What the page says that it prints, if it does.
        needs: Modules without which it cannot run.
    """

    page: Path
    line: int
    source: str
    not_run: str = ""
    prints: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``program``, ``tests`` or ``piece``."""
        if "asyncio.run(" in self.source:
            return "program"
        return "tests" if re.search(r"^(async )?def test_", self.source, re.MULTILINE) else "piece"

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"


@dataclass
class Page:
    """A Markdown page, with what the checks need of it."""

    path: Path
    prelude: str = ""
    blocks: list[Block] = field(default_factory=list)


def blocks_of(path: Path) -> list[Block]:
    """The ``python`` blocks of a page, pieces with their prelude in front."""
    page = _read(path)
    prelude = page.prelude or _read(INDEX).prelude
    for block in page.blocks:
        if block.kind == "piece":
            block.source = f"{prelude}\n\n{block.source}"
    return page.blocks


def _read(path: Path) -> Page:
    page = Page(path)
    text = path.read_text(encoding="utf-8")
    for comment, language, inside, line in _fences(text):
        if language == "text" and comment == "prints":
            page.blocks[-1].prints = inside
        elif language == "python" and comment == "prelude":
            page.prelude = inside
        elif language == "python":
            page.blocks.append(_block(path, line, inside, comment))
    return page


def _block(path: Path, line: int, source: str, comment: str) -> Block:
    kind, _, said = comment.partition(": ")
    needs = tuple(said.split(", ")) if kind == "needs" else ()
    return Block(path, line, source, said if kind == "not run" else "", needs=needs)


def _fences(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Every fenced block: the comment before it, its language, its text, and its line."""
    for found in FENCE.finditer(text):
        comment = COMMENT.search(text, 0, found.start())
        indent = found["indent"]
        inside = re.sub(f"^{indent}", "", found["text"], flags=re.MULTILINE)
        yield comment["text"] if comment else "", found["language"], inside, text.count("\n", 0, found.start()) + 1


def check(block: Block, folder: Path) -> None:
    """Run a block in a process of its own; it must end well, and print what the page says."""
    if block.not_run:
        compile(block.source, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    file = folder / ("test_block.py" if block.kind == "tests" else "block.py")
    file.write_text(block.source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", *HOW[block.kind], file.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_OF_ENGINES if block.needs else SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block.page.name}, line {block.line}:\n{done.stdout}"
    if block.prints is not None:
        _compare(block.prints, done.stdout)


def _compare(wanted: str, got: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(_untimed(wanted), _untimed(got), flags)
    assert same, f"the page says:\n{wanted}\nit printed:\n{got}"


def _untimed(text: str) -> str:
    """How long something took says how busy the machine was, and nothing about what the page says."""
    return re.sub(r"\b\d+\.\d+ s\b", "... s", text)


def links_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Where the links of a page to other pages of this checkout lead: file, and heading (or nothing)."""
    for found in LINK.finditer(FENCE.sub("", path.read_text(encoding="utf-8"))):
        file, _, anchor = found["target"].partition("#")
        if "://" not in file:
            yield (path.parent / file).resolve() if file else path, anchor


def anchors_of(path: Path) -> set[str]:
    """The names by which links reach a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
