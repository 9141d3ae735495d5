"""Type checkers agree with what ``api.py`` says of the public API, and would not agree with just anything."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = str(Path(__file__).with_name("api.py"))
WRONG = "from aioparallel import parallelize\n@parallelize\ndef f(x: int) -> str: return ''\nf('1')\n"


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return check("mypy", "--config-file", str(ROOT / "pyproject.toml"), *arguments)


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("node") is None:
        pytest.skip("pyright needs node")
    return check("pyright", "--pythonpath", sys.executable, *arguments)


def check(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    return subprocess.run(
        [sys.executable, "-m", checker, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


Checker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.timeout(300)
def test_types_survive(checker: Checker, tmp_path: Path) -> None:
    """Every type in the examples is what it says, every wrong use in them is refused, and one elsewhere is found."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    done = checker(API, str(wrong))  # together, for it is the start that takes time
    found = [line for line in done.stdout.splitlines() if ": error:" in line or " - error:" in line]
    assert found, done.stdout + done.stderr
    assert all("wrong.py" in line for line in found), done.stdout
    assert any('"int"' in line for line in found), done.stdout
