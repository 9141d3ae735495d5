"""What the import costs, as whole processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from benchmarks.measuring import run_script
from benchmarks.stats import median
from benchmarks.suite import Goal, Metric, Sample, case

BARE = "import asyncio, anyio"


@case(
    "import",
    title="`python -c 'import ...'`, the whole process (median of {size} runs a round)",
    metrics=[Metric("whole", "ms")],
    goals=[Goal("whole", BARE, plus=20)],
    size=7,
    quick=2,
    rounds=7,
)
async def importing(statement: str, size: int) -> Sample:
    """From the start of the interpreter to its end."""
    source = f"{statement}\nprint('done')"
    run_script(source)
    return {"whole": median([run_script(source)[1] for _ in range(size)]) * 1e3}


def statement(text: str) -> Callable[[], AbstractAsyncContextManager[str]]:
    """A contestant that is an import statement."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        yield text

    return opened


importing.contestant(BARE, role="floor", needs="anyio")(statement(BARE))
importing.contestant("bare interpreter", role="reference")(statement(""))
for library in ("concurrent.futures.process", "loky", "joblib", "mpire", "pebble", "aiomultiprocess", "trio_parallel"):
    importing.contestant(f"import asyncio, {library}", needs=library.partition(".")[0])(
        statement(f"import asyncio, {library}")
    )
importing.contestant("import aioparallel", role="ours", needs="aioparallel.__all__")(statement("import aioparallel"))
