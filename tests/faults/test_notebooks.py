"""The cells of a real notebook: each is run on a loop that goes on, and what they define travels to workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.programs import run

pytest.importorskip("nbclient", reason="needs the extra `notebook`")
pytest.importorskip("ipykernel", reason="needs the extra `notebook`")

CLIENT = """
import json, sys, warnings
warnings.simplefilter("ignore")  # what Jupyter does is not ours
import nbclient, nbformat
sources = json.load(open(sys.argv[1]))
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


DEFINITIONS = """
import enum, os
from aioparallel import ProcessExecutor, aclose, parallelize, parmap

class Colour(enum.IntFlag):
    NONE = 0
    RED = 1

factor = 2

@parallelize(method="process")
def times(x):
    return x * factor
"""


def run_cells(folder: Path, *cells: str) -> list[list[dict[str, Any]]]:
    """Run the cells in a kernel of their own, until one fails; returns what each put out."""
    (folder / "cells.json").write_text(json.dumps(cells))
    (folder / "client.py").write_text(CLIENT)
    outputs: list[list[dict[str, Any]]] = json.loads(run("client.py", "cells.json", cwd=folder, seconds=90))
    return outputs


def result_of(outputs: list[dict[str, Any]]) -> str:
    """What the cell's last expression gave."""
    (shown,) = (output["data"]["text/plain"] for output in outputs if output["output_type"] == "execute_result")
    return str(shown)


@pytest.mark.timeout(120)
def test_cells(tmp_path: Path) -> None:
    """Functions and classes of cells travel, in their newest form; an executor is opened in one and closed in another."""
    outputs = run_cells(
        tmp_path,
        DEFINITIONS,
        "await (times(4) + times(times(1)))",
        "factor = 3",
        "await parmap(times, range(3))",
        "pool = await ProcessExecutor(1).start()",
        "[pool.task_count, await pool.submit(lambda colour: (colour, factor), Colour.NONE)]",
        "future = times(5)",
        "await future, future.result()",
        "await pool.submit(print, 'from a worker')\nawait pool.aclose()",  # which waits for all output
        "await aclose()",
        "os.popen(f'ps -ww -o args= --ppid {os.getpid()}').read().count('aioparallel')",
    )
    shown = {cell: result_of(outputs[cell]) for cell in (1, 3, 5, 7, 10)}
    assert shown == {1: "12", 3: "[0, 3, 6]", 5: "[0, (<Colour.NONE: 0>, 3)]", 7: "(15, 15)", 10: "0"}
    assert "from a worker" in json.dumps(outputs[8])


@pytest.mark.timeout(120)
def test_progress(tmp_path: Path) -> None:
    """In a notebook progress is a bar among the cell's output, drawn anew in its place; it needs no other package."""
    outputs = run_cells(
        tmp_path,
        "from aioparallel import parmap",
        "await parmap(abs, range(20), progress='a < b', method='thread'); None",
        "async def endless():\n    for n in range(5):\n        yield n",
        "await parmap(lambda x: 1 / (x - 3), endless(), progress='odd', method='thread', errors='return'); None",
    )
    (known,), (unknown,) = outputs[1], outputs[3]
    assert known["output_type"] == unknown["output_type"] == "display_data"
    assert known["data"]["text/plain"].startswith("a < b: 20/20 items (100 %)")
    assert known["data"]["text/html"].startswith('<progress value="20" max="20"></progress> a &lt; b: 20/20')
    assert unknown["data"]["text/html"].startswith('<progress value="5" max="5"></progress> odd: 5 items')
    assert unknown["data"]["text/plain"].endswith("1 failed")


BLOCKING_DEFINITIONS = """
import asyncio, os
from concurrent.futures import as_completed
from aioparallel.blocking import ProcessExecutor, parallelize, parmap

factor = 2

class Point:
    def __init__(self, x):
        self.x = x

def times(x):
    return x * factor

def workers():
    return os.popen(f'ps -ww -o args= --ppid {os.getpid()}').read().count('aioparallel')
"""


@pytest.mark.timeout(120)
def test_blocking_executors(tmp_path: Path) -> None:
    """Blocking executors run functions and classes of cells, in their newest form, and end with their `with`."""
    outputs = run_cells(
        tmp_path,
        BLOCKING_DEFINITIONS,
        "with ProcessExecutor(2) as pool:\n    found = pool.submit(times, 4).result(), list(pool.map(times, range(4)))\nfound",
        "factor = 3",
        "with ProcessExecutor(2) as pool:\n    futures = [pool.submit(times, n) for n in range(3)]\n"
        "    found = sorted(future.result() for future in as_completed(futures))\nfound",
        "with ProcessExecutor(1) as pool:\n    point = pool.submit(Point, 5).result()\ntype(point) is Point, point.x",
        "with ProcessExecutor(1) as pool:\n    pool.submit(print, 'from a worker').result()",
        "workers()",
    )
    shown = {cell: result_of(outputs[cell]) for cell in (1, 3, 4, 6)}
    assert shown == {1: "(8, [0, 2, 4, 6])", 3: "[0, 3, 6]", 4: "(True, 5)", 6: "0"}
    assert "from a worker" in json.dumps(outputs[5])


@pytest.mark.timeout(120)
def test_blocking_beside_the_kernels_loop(tmp_path: Path) -> None:
    """A cell may block although the kernel's loop runs it, and also await the same futures; what stays open ends with the kernel."""
    outputs = run_cells(
        tmp_path,
        BLOCKING_DEFINITIONS,
        "pool = ProcessExecutor(1)\nasyncio.get_running_loop().is_running(), pool.submit(times, 4).result()",
        "waiting = asyncio.ensure_future(asyncio.wrap_future(pool.submit(times, 5)))",
        "await waiting, await asyncio.to_thread(lambda: pool.submit(times, 6).result())",
        "@parallelize(method='process')\ndef cube(x):\n    return x ** factor\n"
        "cube(3).result(), list(parmap(times, range(3), workers=1))",
        "workers() > 0",
    )
    shown = {cell: result_of(outputs[cell]) for cell in (1, 3, 4, 5)}
    assert shown == {1: "(True, 8)", 3: "(10, 12)", 4: "(9, [0, 2, 4])", 5: "True"}
