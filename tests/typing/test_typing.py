"""Type checkers agree with what ``api.py`` says of the public API."""

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
both = pytest.mark.parametrize("checker", [mypy, pyright])


@both
@pytest.mark.timeout(300)
def test_types_survive(checker: Checker) -> None:
    """Every type in the examples is what it says, and every wrong use is refused."""
    done = checker(API)
    assert done.returncode == 0, done.stdout


@both
@pytest.mark.timeout(300)
def test_a_wrong_use_fails(checker: Checker, tmp_path: Path) -> None:
    """Both checkers can tell: what they accept above is not just anything."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    done = checker(str(wrong))
    assert done.returncode == 1
    assert '"int"' in done.stdout
