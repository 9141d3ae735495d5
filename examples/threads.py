"""Count the lines of many files in threads, with one call that fails and one that gives up by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aioparallel import CallCancelledError, check_cancelled, parallelize, wait_any

HERE = Path(__file__).parent


@parallelize
def count_lines(path: Path) -> tuple[str, int]:
    return path.name, len(path.read_text(encoding="utf-8").splitlines())


@parallelize
def wait_for_a_file(path: Path) -> None:
    while not path.exists():
        check_cancelled()  # a thread cannot be stopped from outside, but it can ask
        time.sleep(0.01)


async def main() -> None:
    calls = [count_lines(path) for path in [*sorted(HERE.glob("*.py")), HERE / "missing.py"]]
    async for call in wait_any(calls):
        try:
            name, lines = await call
            print(f"{name}: {'some' if lines else 'no'} lines")
        except FileNotFoundError as error:
            print(f"not there: {Path(error.filename).name}")

    never = wait_for_a_file(HERE / "missing.py")
    await asyncio.sleep(0.05)
    never.cancel()
    try:
        await never
    except CallCancelledError as error:
        print(error)


asyncio.run(main())
