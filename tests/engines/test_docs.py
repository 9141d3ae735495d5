"""The code in the documentation that needs Ray, joblib, scikit-learn, Dask or FastAPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.examples.blocks import ROOT, Block, blocks_of, check


def param(block: Block) -> Any:
    missing = [name for name in block.needs if importlib.util.find_spec(name) is None]
    marks = [pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"), pytest.mark.timeout(120)]
    if "ray" in block.needs:
        marks += [pytest.mark.ray(shared=False), pytest.mark.leak_check(processes=False, fds=False)]
    return pytest.param(block, id=str(block), marks=marks)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("block", [param(block) for page in PAGES for block in blocks_of(page) if block.needs])
def test_code_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands, and prints what the page says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    check(block, tmp_path)
