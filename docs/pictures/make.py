"""Makes the pictures of the documentation, from a run that really happens: ``python docs/pictures/make.py``."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import tempfile
import time
from html import escape
from pathlib import Path

from aioparallel import AioParallelError, ProcessExecutor, ThreadExecutor, wait_any, watch
from aioparallel._seeing.figures import by_lane
from aioparallel._seeing.picture import Line
from aioparallel._seeing.runs import Run, read_run
from aioparallel._seeing.words import seconds

HERE = Path(__file__).parent
CHARACTER, ROW = 7.22, 17
COLOURS = {"head": "#ffffff", "bad": "#ff7b72", "warn": "#e3b341", "dim": "#7d8793", "": "#c9d1d9"}
WEIGHTS = {"head": 700}
FILLS = ["#4f9fd9", "#57b894", "#b08bdc", "#d9a44f"]
LANE, LEFT, WIDE = 20, 110, 860


def crunch(n: int) -> int:
    """Some work; one item kills its worker, and one takes far longer than the others."""
    if n == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2.5 if n == 20 else random.Random(n).uniform(0.02, 0.12))
    if n % 70 == 40:
        raise ValueError(f"no result for {n}")
    return n * n


def load(n: int) -> int:
    """Some waiting."""
    time.sleep(random.Random(n).uniform(0.01, 0.05))
    return n


async def main() -> None:
    """Run something, take a picture in the middle, and one of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "run.json"
        async with ProcessExecutor(4, name="cpu") as cpus, ThreadExecutor(2, name="disk") as disk:
            board = await watch(cpus, disk, stream=io.StringIO()).start()
            board._screen.is_whole = True  # type: ignore[union-attr]
            with cpus.trace(trace) as both:
                disk.trace(both)
                work = [cpus.submit(crunch, disk.submit(load, n)) for n in range(160)]
                async for _ in wait_any(work):
                    if cpus.status().done > 100:
                        break
                lines = board.lines()
                for call in work:
                    try:
                        await call
                    except (AioParallelError, ValueError):
                        pass
            await board.aclose()
        run = read_run(trace)
    (HERE / "board.svg").write_text(terminal(lines), encoding="utf-8")
    (HERE / "trace.svg").write_text(timeline(run), encoding="utf-8")


def terminal(lines: list[Line]) -> str:
    """Lines as a terminal shows them."""
    width, height = max(len(line.text) for line in lines) * CHARACTER + 32, len(lines) * ROW + 32
    rows = "".join(
        f'<text x="16" y="{28 + number * ROW}" fill="{COLOURS[line.style]}" xml:space="preserve"'
        f' font-weight="{WEIGHTS.get(line.style, 400)}">{escape(line.text)}</text>\n'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#14181d"/>\n{rows}</svg>\n'
    )


def timeline(run: Run) -> str:
    """Lanes and the calls on them."""
    lanes = by_lane(run)
    place = {lane.lane: number for number, lane in enumerate(lanes)}
    names = sorted({call.name for call in run.calls})
    scale = (WIDE - LEFT - 16) / run.seconds
    height = len(lanes) * LANE + 46
    parts = [
        f'<text x="12" y="{27 + number * LANE}" fill="#c9d1d9">{escape(lane.name)}</text>'
        for number, lane in enumerate(lanes)
    ]
    for call in run.calls:
        fill = "#e5534b" if call.failed else FILLS[names.index(call.name) % len(FILLS)]
        parts.append(
            f'<rect x="{LEFT + call.begun_at * scale:.1f}" y="{14 + place[call.lane] * LANE}" '
            f'width="{max(0.7, call.duration * scale - 0.4):.1f}" height="{LANE - 5}" fill="{fill}"/>'
        )
    for at, lane, what in run.marks:
        if what.startswith("died"):
            x, y = LEFT + at * scale, 14 + place[lane] * LANE
            parts.append(f'<path d="M{x:.1f} {y} v{LANE - 5}" stroke="#ffffff" stroke-width="2"/>')
            parts.append(f'<text x="{x + 5:.1f}" y="{y + 12}" fill="#ffffff">{escape(what)}</text>')
    for part in range(5):
        x, at = LEFT + part * (WIDE - LEFT - 60) / 4, part * (WIDE - LEFT - 60) / 4 / scale
        parts.append(f'<text x="{x:.0f}" y="{height - 12}" fill="#7d8793">{seconds(at)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {height}" '
        'font-family="system-ui, sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#14181d"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    asyncio.run(main())
