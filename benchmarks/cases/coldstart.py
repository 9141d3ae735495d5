"""From nothing to the first result, as whole processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from textwrap import dedent, indent

from benchmarks.measuring import run_script
from benchmarks.suite import Goal, Metric, Sample, case

SCRIPT = """
import asyncio
from benchmarks.work import noop
{imports}
async def main():
{body}
if __name__ == "__main__":
    {run}
"""

DONE = "print('done', flush=True)"
SPAWN, FORKSERVER = "ProcessPoolExecutor, spawn", "ProcessPoolExecutor, forkserver"


@case(
    "coldstart",
    title="`python -c` to the first result of a pool of 2 workers, with an event loop (median of {size} runs a round)",
    metrics=[Metric("first", "ms"), Metric("whole", "ms")],
    goals=[Goal(metric, rival) for metric in ("first", "whole") for rival in (SPAWN, FORKSERVER)],
    size=3,
    quick=1,
    rounds=5,
)
async def coldstart(source: str, size: int) -> Sample:
    """Until the first result was printed, and until the process had ended."""
    run_script(source)
    runs = sorted(run_script(source) for _ in range(size))
    first, whole = runs[len(runs) // 2]
    return {"first": first * 1e3, "whole": whole * 1e3}


def script(
    imports: str, body: str, *, run: str = "asyncio.run(main())"
) -> Callable[[], AbstractAsyncContextManager[str]]:
    """A contestant that is a program; ``body`` prints when it has the first result."""
    steps = indent(dedent(body).strip().replace("DONE", DONE), "    ")
    source = SCRIPT.format(imports=imports, body=steps, run=run)

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        yield source

    return opened


def executor(method: str) -> Callable[[], AbstractAsyncContextManager[str]]:
    """The standard library's pool, with one of its ways to start workers."""
    imports = "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor"
    return script(
        imports,
        f"""
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, noop)
            DONE
        """,
    )


coldstart.contestant("an event loop, no worker", role="floor")(script("", "DONE"))
coldstart.contestant("ProcessPoolExecutor, fork")(executor("fork"))
coldstart.contestant(SPAWN)(executor("spawn"))
coldstart.contestant(FORKSERVER)(executor("forkserver"))
coldstart.contestant("anyio.to_process", needs="anyio")(
    script("from anyio import to_process", "await to_process.run_sync(noop)\nDONE")
)
coldstart.contestant("pebble", needs="pebble")(
    script(
        "from pebble import ProcessPool",
        """
        with ProcessPool(2) as pool:
            await asyncio.wrap_future(pool.schedule(noop))
            DONE
        """,
    )
)
coldstart.contestant("loky", needs="loky")(
    script(
        "from loky import get_reusable_executor",
        """
        with get_reusable_executor(2) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, noop)
            DONE
        """,
    )
)
coldstart.contestant("aiomultiprocess", needs="aiomultiprocess")(
    script(
        "from aiomultiprocess import Pool\nfrom benchmarks.work import run_async",
        """
        async with Pool(2) as pool:
            await pool.apply(run_async, (noop,))
            DONE
        """,
    )
)
coldstart.contestant("mpire", needs="mpire")(
    script(
        "from mpire import WorkerPool",
        """
        with WorkerPool(2) as pool:
            pool.apply(noop)
            DONE
        """,
    )
)
coldstart.contestant("joblib", needs="joblib")(
    script(
        "from joblib import Parallel, delayed",
        """
        with Parallel(2) as parallel:
            parallel([delayed(noop)()])
            DONE
        """,
    )
)
coldstart.contestant("trio-parallel (trio loop)", needs=("trio", "trio_parallel"))(
    script(
        "import trio, trio_parallel",
        "await trio_parallel.run_sync(noop)\nDONE",
        run="trio.run(main)",
    )
)
coldstart.contestant("ours", role="ours", needs="aioparallel.ProcessExecutor")(
    script(
        "from aioparallel import ProcessExecutor",
        """
        async with ProcessExecutor(2) as pool:
            await pool.submit(noop)
            DONE
        """,
    )
)
