"""joblib on our executors, beside its own backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks import work
from benchmarks.callers import WORKERS
from benchmarks.measuring import timed, typical
from benchmarks.suite import Goal, Metric, Sample, case

Run = Callable[..., Any]


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[None]:
    """Everything inside runs on this backend, with warm workers."""
    import joblib

    if name == "aioparallel":
        import aioparallel.joblib

        aioparallel.joblib.register()
    with joblib.parallel_config(name, n_jobs=WORKERS):
        joblib.Parallel()(joblib.delayed(work.increment)(n) for n in range(1000))
        yield


def contestants(case: Any, *needs: str) -> None:
    """joblib's own backend, and ours."""
    case.contestant("loky", needs=("joblib", *needs))(partial(backend, "loky"))
    case.contestant("ours", role="ours", needs=("joblib", *needs))(partial(backend, "aioparallel"))


@case(
    "joblib_tiny",
    title="joblib.Parallel over {size} tiny items, 2 processes, batches as joblib chooses them",
    metrics=[Metric("rate", "items/s", "higher")],
    goals=[Goal("rate", "loky")],
    size=100_000,
    quick=5000,
)
async def tiny(_: None, size: int) -> Sample:
    """Items per second."""
    from joblib import Parallel, delayed

    seconds, results = await timed(lambda: Parallel()(delayed(work.increment)(n) for n in range(size)))
    if results != list(range(1, size + 1)):
        raise ValueError("wrong results")
    return {"rate": size / seconds}


@case(
    "joblib_grid",
    title="GridSearchCV of {size} candidates in 5 folds, 2 processes",
    metrics=[Metric("time", "s")],
    goals=[Goal("time", "loky")],
    size=40,
    quick=4,
)
async def grid(_: None, size: int) -> Sample:
    """Seconds for a search whose workers have scikit-learn imported."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV

    data, target = load_digits(return_X_y=True)
    search = GridSearchCV(RidgeClassifier(), {"alpha": [10 ** (n / 10) for n in range(size)]}, cv=5)
    search.fit(data[:200], target[:200])
    seconds, _ = await typical(lambda: search.fit(data, target))
    return {"time": seconds}


contestants(tiny)
contestants(grid, "sklearn")
