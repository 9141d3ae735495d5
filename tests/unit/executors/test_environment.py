"""What worker processes are started with."""

from __future__ import annotations

from typing import Any

import pytest

from aioparallel._executors.environment import BLAS_VARIABLES, blas_limits, checked_modules, variables_of
from aioparallel._executors.environment import checked_environment as checked


@pytest.mark.parametrize(("cpus", "workers", "share"), [(8, 2, "4"), (8, 3, "2"), (2, 8, "1")])
def test_numeric_libraries_share_the_cpus(cpus: int, workers: int, share: str) -> None:
    """Each worker's numeric libraries may use its share of the CPUs, and one at least."""
    assert blas_limits(cpus, workers) == dict.fromkeys(BLAS_VARIABLES, share)


def test_variables_of_a_worker() -> None:
    """A dict is for all workers, a function says what each gets; numbers become text."""
    assert variables_of({"A": "x", "B": 2}, 0) == {"A": "x", "B": "2"}
    assert variables_of(lambda index: {"CUDA_VISIBLE_DEVICES": index}, 3) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert variables_of(None, 0) == variables_of(lambda _: {}, 0) == {}


@pytest.mark.parametrize(
    ("env", "error", "says"),
    [
        ("PATH=/bin", TypeError, "env='PATH=/bin': expected a dict, or a function"),
        ({"": "x"}, ValueError, "env: ='x' cannot be an environment variable"),
        ({"A=B": "x"}, ValueError, "env: A=B='x' cannot be"),
        ({"A": "x\0y"}, ValueError, "cannot be an environment variable"),
        ({1: "x"}, ValueError, "cannot be an environment variable"),
    ],
)
def test_what_cannot_be_an_environment(env: Any, error: type[Exception], says: str) -> None:
    """Nonsense is refused when the pool is made, and named."""
    with pytest.raises(error, match=says):
        checked(env)


def test_a_function_that_returns_no_environment() -> None:
    """What a function returns is looked at when a worker is started, and refused with what was expected."""
    with pytest.raises(TypeError, match=r"env: expected a dict of environment variables, got \['A'\]"):
        variables_of(lambda _: ["A"], 0)  # type: ignore[arg-type,return-value]


def test_modules() -> None:
    """Modules are given by their names, in a list."""
    assert checked_modules(["json", "os.path"]) == ("json", "os.path")
    with pytest.raises(TypeError, match="preload='json': expected names of modules"):
        checked_modules("json")
