"""The notebook among the examples runs, in a kernel of its own, and shows what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aioparallel._seeing.runs import read_run
from tests.examples.blocks import ROOT

pytest.importorskip("nbclient", reason="needs the extra `notebook`")
pytest.importorskip("ipykernel", reason="needs the extra `notebook`")

NOTEBOOK = ROOT / "examples" / "watching.ipynb"
CLIENT = """
import json, sys, warnings
warnings.simplefilter("ignore")  # what Jupyter does is not ours
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.get("outputs") for cell in notebook.cells]))
"""


def shown(outputs: list[dict[str, Any]]) -> str:
    """All that a cell displayed, as text."""
    return "\n".join(output["data"]["text/plain"] for output in outputs if "data" in output)


@pytest.mark.timeout(120)
def test_notebook(tmp_path: Path) -> None:
    """Every cell runs; the board is drawn below its cell, with the histogram and the failures, and the trace is complete."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(NOTEBOOK)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)
    board, failures, closed = (shown(outputs[cell]) for cell in (4, 6, 7))
    assert "cpu-0" in board
    assert "how long calls took in cpu:" in board
    assert board.endswith("328350")
    assert any("text/html" in output.get("data", {}) for output in outputs[4])
    assert "ZeroDivisionError: division by zero" in failures
    assert failures.endswith("[False, True, True]")
    assert closed == "0"
    run = read_run(tmp_path / "notebook.json.gz")
    assert run.is_complete
    assert sum(call.args.get("items", 1) for call in run.calls) >= 100


def test_notebook_is_clean() -> None:
    """The notebook is kept without what it put out."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
