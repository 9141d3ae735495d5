"""The documentation: its code runs, its links lead somewhere, and its reference names what there is."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import aioparallel
from aioparallel import (
    CallInfo,
    CoroutineExecutor,
    CurrentCall,
    Outcome,
    PoolStatus,
    ProcessExecutor,
    RayExecutor,
    Retry,
    SerialExecutor,
    SmartFuture,
    ThreadExecutor,
    WorkerLostError,
    parallelize,
    wait_any,
)
from tests.examples.blocks import ROOT, Block, anchors_of, blocks_of, check, links_of

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXECUTORS = (ProcessExecutor, ThreadExecutor, CoroutineExecutor, SerialExecutor, RayExecutor)


def public(kind: type) -> list[str]:
    """What a class lets others use, operators left out."""
    return [name for name in dir(kind) if not name.startswith("_")]


def parameters(fn: Any) -> list[str]:
    return [name for name in inspect.signature(fn).parameters if name != "self"]


def options_of_a_call() -> list[str]:
    settings = vars(parallelize(len))["_settings"]
    return [field.name for field in dataclasses.fields(settings.options)]


REFERENCE = {
    "errors": [
        *(name for name in aioparallel.__all__ if name.endswith("Error")),
        *(name for name in inspect.get_annotations(WorkerLostError) if name != "ended"),
    ],
    "executors": [
        *(name for kind in EXECUTORS for name in parameters(kind)),
        *(
            name
            for name in public(ThreadExecutor)
            if name not in {"kind", "batch", "shape", *parameters(ThreadExecutor)}
        ),
        *(field.name for field in dataclasses.fields(PoolStatus)),
    ],
    "futures": [
        *public(SmartFuture),
        *parameters(wait_any),
        *CallInfo._fields,
        *(field.name for field in dataclasses.fields(Outcome)),
    ],
    "options": [*options_of_a_call(), *parameters(Retry), *CurrentCall._fields],
}
"""For each page of the reference, what must be on it."""


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks_of(page) if not block.needs], ids=str)
def test_code_runs(block: Block, tmp_path: Path) -> None:
    """Every piece of code in the documentation runs as it stands, and prints what the page says.

    What needs other engines is run by tests/engines/test_docs.py.
    """
    check(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    """Every link between pages leads to a file and a heading that are there."""
    for file, anchor in links_of(page):
        assert file.exists(), file
        assert not anchor or anchor in anchors_of(file), f"{file}#{anchor}"


def test_every_page_can_be_found() -> None:
    """The index of the documentation links to every page."""
    index = DOCS / "index.md"
    assert {page.resolve() for page in PAGES} - {index} <= {file for file, _ in links_of(index)}


@pytest.mark.parametrize("page", REFERENCE)
def test_the_reference_is_complete(page: str) -> None:
    """The reference names every error, option, method and field."""
    text = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert [name for name in REFERENCE[page] if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)] == []


@pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.__name__)
def test_the_reference_gives_the_defaults(kind: type) -> None:
    """What the reference says to be the default of an executor's option is the default."""
    text = (DOCS / "reference" / "executors.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    found = {name: repr(each.default) for name, each in inspect.signature(kind).parameters.items()}
    assert {name: said[name].replace("math.", "") for name in found if name in said} == {
        name: default for name, default in found.items() if name in said
    }
