"""What worker processes are started with: environment variables, and modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Environment", "blas_limits", "checked_environment", "checked_modules", "variables_of"]

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

Environment = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]
"""Environment variables for all workers, or a function of a worker's index that returns them."""


def blas_limits(cpus: int, workers: int) -> dict[str, str]:
    """Variables that keep numeric libraries from using all CPUs in each of several workers."""
    return dict.fromkeys(BLAS_VARIABLES, str(max(1, cpus // workers)))


def checked_environment(env: Environment | None) -> Environment | None:
    """What the user gave, if it can be an environment.

    Raises:
        TypeError, ValueError: It cannot.
    """
    if isinstance(env, Mapping):
        _checked_variables(env)
    elif env is not None and not callable(env):
        raise TypeError(f"env={env!r}: expected a dict, or a function of the worker's index that returns one")
    return env


def variables_of(env: Environment | None, index: int) -> dict[str, str]:
    """The variables for one worker."""
    return _checked_variables((env(index) if callable(env) else env) or {})


def checked_modules(preload: Sequence[str]) -> tuple[str, ...]:
    """The names of modules, as a tuple; ``TypeError`` if they are none."""
    if isinstance(preload, str) or not all(isinstance(name, str) for name in preload):
        raise TypeError(f"preload={preload!r}: expected names of modules, for instance ['numpy']")
    return tuple(preload)


def _checked_variables(env: Any) -> dict[str, str]:
    if not isinstance(env, Mapping):
        raise TypeError(f"env: expected a dict of environment variables, got {env!r}")
    for name, value in env.items():
        if not isinstance(name, str) or not name or set(name) & {"=", "\0"} or "\0" in str(value):
            raise ValueError(f"env: {name}={value!r} cannot be an environment variable")
    return {name: str(value) for name, value in env.items()}
