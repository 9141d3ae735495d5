"""Sweep parameters over ssh hosts, one of which is slow and another of which vanishes; watch it, and keep a trace.

The hosts run in this very program (`aioparallel.testing`), so that nothing has to be set up; with real ones, write
`load_hosts()` in their place.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import math
import os
import tempfile
import time
from pathlib import Path

from aioparallel import RemoteExecutor, Retry, watch
from aioparallel.testing import drop_host, ssh_host, ssh_hosts


def simulate(rate: float, steps: int) -> float:
    """Stands for a simulation: logistic growth, by small steps."""
    if "SLOW" in os.environ:
        time.sleep(0.05)
    size = 0.01
    for _ in range(steps):
        size += rate * size * (1 - size) / 100
    time.sleep(0.01)
    return size


async def main() -> None:
    parameters = list(itertools.product([0.5, 1.0, 2.0], range(100, 2100, 100)))
    trace = Path(tempfile.mkdtemp()) / "sweep.json.gz"
    async with (
        ssh_hosts(2, slots=1) as hosts,
        ssh_host(slots=1, env={"SLOW": "1"}) as straggler,
        RemoteExecutor([*hosts, straggler], name="sweep") as pool,
        watch(pool),
    ):
        pool.trace(trace)
        results: dict[tuple[float, int], float] = {}
        sweep = pool.map(
            simulate,
            parameters,
            star=True,
            ordered=False,
            errors="return",
            idempotent=True,
            retry=Retry(5, backoff=0.01),
        )
        async for outcome in sweep:
            assert outcome.ok, outcome.error
            results[outcome.item] = outcome.value
            if len(results) == 10:
                drop_host(hosts[1])  # what it runs is run again elsewhere
    expected = {item: simulate(*item) for item in parameters[::7]}
    events = json.loads(gzip.decompress(trace.read_bytes()))  # or look at it: `aioparallel report sweep.json.gz`
    machines = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    print("all parameters:", len(results) == len(parameters))
    print("as computed here:", all(math.isclose(results[item], value) for item, value in expected.items()))
    print("the host that vanished is in the trace:", any(event["name"].endswith(": lost") for event in events))
    print("hosts in the trace:", sum(" on " in name for name in machines))


if __name__ == "__main__":
    asyncio.run(main())
