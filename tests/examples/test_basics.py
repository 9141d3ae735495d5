"""The examples run, and print what they are there to show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.examples.blocks import ROOT

SHOWN = {
    "processes": ["found 'lime'", "searches were stopped: True"],
    "threads": ["threads.py: some lines", "not there: missing.py", "wait_for_a_file was cancelled"],
    "coroutines": [
        "10 pages, the first: page a.example/0",
        "asked twice: ['a.example/0', 'b.example/0']",
        "at once: {'a.example': 2, 'b.example': 2}",
    ],
    "dataflow": [
        "there yet: False False",
        "[19, 16] 194.0",
        "what fails in one place arrives where it is awaited: object of type 'NoneType' has no len()",
    ],
    "cancellation": [
        "work was cancelled; running: False",
        "timed out after 0.2 s; running: False",
        "one of two awaiters is gone; running: True",
        "both are gone; running: False",
    ],
    "documentation_crawler": [
        "pages: 9 all modules: True",
        "each once: True",
        "links that lead nowhere: True",
        "refused and asked again: True",
        "the word 'decoder' was found: True",
    ],
    "word_squares": [
        "found: True searches that were stopped: True",
        "it reads the same down: True",
        "squares in all: 542",
    ],
    "remote_sweep": [
        "all parameters: True",
        "as computed here: True",
        "the host that vanished is in the trace: True",
        "hosts in the trace: 3",
    ],
    "streams": [
        "the first prime number above 30 is 31",
        "] the generator was closed",
        "this file has some lines: True",
        "[3, 2, 1]",
    ],
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_is_for(name: str) -> None:
    """Each example runs without a warning, and prints what it is there to show."""
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
