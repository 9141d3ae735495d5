"""The reference that Sphinx makes of docstrings: it has an entry for each public name. (`make docs` sees to the rest.)"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.examples.blocks import ROOT

REFERENCE = ROOT / "docs" / "reference" / "api"
SOURCE = ROOT / "src" / "aioparallel"
MODULES = {
    "aioparallel": SOURCE / "__init__.py",
    "aioparallel.blocking": SOURCE / "blocking" / "__init__.py",
    "aioparallel.events": SOURCE / "events.py",
    "aioparallel.joblib": SOURCE / "joblib.py",
    "aioparallel.testing": SOURCE / "testing" / "__init__.py",
    "aioparallel.testing.fixtures": SOURCE / "testing" / "fixtures.py",
}
"""They are read, and not imported: joblib need not be installed."""

DIRECTIVE = re.compile(r"^\.\. (?P<kind>[\w:]+):: +(?P<name>[\w.]+)$", re.MULTILINE)


def public_names(file: Path) -> list[str]:
    """What a module's ``__all__`` says."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(statement.value)
            return names
    raise AssertionError(f"{file} has no __all__")


def entries() -> Counter[str]:
    """The full names that the pages of the reference have entries for."""
    found: Counter[str] = Counter()
    for page in REFERENCE.glob("*.rst"):
        module = ""
        for directive in DIRECTIVE.finditer(page.read_text(encoding="utf-8")):
            if directive["kind"] in {"currentmodule", "module"}:
                module = directive["name"]
            elif directive["kind"] != "automodule":
                found[f"{module}.{directive['name']}"] += 1
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(module: str) -> None:
    """Each public name has one entry in the reference."""
    found = entries()
    assert [name for name in public_names(MODULES[module]) if found[f"{module}.{name}"] != 1] == []


def test_nothing_else_has_one() -> None:
    """The reference tells of nothing that is not public."""
    public = {f"{module}.{name}" for module, file in MODULES.items() for name in public_names(file)}
    assert set(entries()) - public == set()
