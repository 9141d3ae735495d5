"""The examples of maps run, and print what they are there to show."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.examples.blocks import ROOT

SHOWN = {
    "smart_calls": [
        "stored: 2",
        "values: 6 456",
        "expression: 75",
        "dataflow: 9",
        "any: ['000', '111', '222', '333']",
        "all: ['000', '111', '222', '333']",
    ],
    "parmap_recipes": [
        "loop: [0, 1, 2, 3, 4]",
        "lambda: [0, 3, 6, 9, 12]",
        "star: [14, 16]",
        "kwstar: [102, 101]",
        "both: [116, 112]",
        "none: [7, 7, 7]",
        "threads: 4950",
        "error: division by zero at 2",
        "dividing: ",
        "pipeline: ['<1>', '<2>', '<3>', '<4>', '<5>']",
        "array: [1.0, 5.0, 9.0, 13.0, 17.0, 21.0]",
        "calls: 3 9",
    ],
    "stateful_pool": [
        "worker 0 is set up in a process of its own: True",
        "worker 1 is set up in a process of its own: True",
        "items: 100",
        "item 4 failed: no luck with 40",
        "total: ",
        "one call: ",
        "worker 0 has ended",
        "says so at once: True",
    ],
    "distribute_functions": [
        "compute: 1000 [0, 3998, 7992]",
        "io: ['1 bytes to a.bin', '2 bytes to b.bin']",
        "web: ['https://api.example?n=0', 'https://api.example?n=1', 'https://api.example?n=2']",
        "web, async: ['https://api.example?n=0',",
        "batches: True",
        "by hand: [12, 33]",
        "one is constant: True",
        "pairs: [31125,",
        "lengths: pairs: sequences of the lengths [3, 2] cannot be distributed together",
    ],
    "pipeline": ["written: 200 the last one: 199.txt", "never more than 30 pages ahead: True"],
    "polite_crawler": [
        "pages: {'grumpy.example': 10, 'other.example': 10, 'quick.example': 10}",
        "never more than two at a time: True",
        "the other sites did not wait for the grumpy one: True",
    ],
}
NEEDS = {"parmap_recipes": "numpy"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_is_for(name: str) -> None:
    """Each example runs without a warning, and prints what it is there to show."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert [line for line in SHOWN[name] if line not in done.stdout] == [], done.stdout
