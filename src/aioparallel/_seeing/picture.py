"""What a board shows of one pool: lines of text, made of its books and a tally. Nothing here draws, or has a clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._model.status import PoolStatus, RunningCall, WorkerStatus
from .._policy.latency import Latencies
from .tally import Record, Tally
from .words import count, seconds, size

if TYPE_CHECKING:
    from .._executors.pool import Executor

__all__ = ["Line", "histogram", "picture", "summary"]

SLOW = 4
"""A call is slow that runs so many times as long as 95 of 100 did ..."""
SLOW_SECONDS = 1.0
"""... and at least so long."""
FAILURES = 3
BARS = "▏▎▍▌▋▊▉█"
BAR_WIDTH = 40

HEAD = ("worker", "pid", "state", "call", "age", "done", "failed", "p50", "p95", "memory", "busy")
WIDTHS = (22, 8, 9, 24, 11, 8, 7, 9, 9, 8, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a board.

    Attributes:
        text: What it says.
        style: ``"head"``, ``"bad"``, ``"warn"``, ``"dim"``, or nothing.
    """

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    worker: WorkerStatus
    call: RunningCall | None
    age: float


def summary(status: PoolStatus, tally: Tally, elapsed: float, busy: float | None) -> str:
    """How the pool stands, in one line."""
    total = tally.total
    rate = (max(total.done, total.items)) / elapsed if elapsed > 0 else 0.0
    what = "items" if total.items > total.done else "calls"
    parts = [
        f"{status.name}: {seconds(elapsed)}",
        f"{count(status.workers)} workers" + ("" if busy is None else f" {busy:.0%} busy"),
        f"queued {count(status.queued)}",
        f"running {count(status.running)}",
        f"done {count(total.done)}" + (f" ({count(total.items)} items)" if total.items > total.done else ""),
        f"{rate:,.1f} {what}/s",
        f"failed {count(total.failed)}",
        *(f"{name} {count(n)}" for name, n in (("cancelled", total.cancelled), ("retried", total.retried)) if n),
        f"p50 {seconds(total.latencies.quantile(0.5))} p95 {seconds(total.latencies.quantile(0.95))}",
    ]
    if status.backups:
        parts.append(f"backups {status.backups} won {status.backups_won} lost {status.backups - status.backups_won}")
    if total.deaths:
        parts.append(f"deaths {total.deaths}")
    return " · ".join(parts)


def picture(pool: Executor, tally: Tally, *, elapsed: float, now: float, rows: int) -> list[Line]:
    """All that is to be seen of a pool.

    Args:
        pool: Looked at only.
        tally: What happened in it.
        elapsed: Seconds since the tally began.
        now: ``time.time()``.
        rows: So many rows of workers at most.
    """
    status = pool.status(per_worker=True)
    workers = status.per_worker
    lines = [Line(summary(status, tally, elapsed, _busy(workers, tally, elapsed, now)), "head")]
    hosts: Iterable[Any] = getattr(pool, "hosts", ())
    lines += [_host_line(host) for host in hosts]
    if status.queued and not status.workers:
        lines.append(Line(f"  nothing runs: {count(status.queued)} calls wait for a worker to start", "warn"))
    if workers:
        lines.append(Line(_columns(HEAD), "dim"))
        slow = _slow(tally.total.latencies)
        lines += _worker_lines(workers, tally, elapsed, now, rows, slow)
    lines += [Line(f"  {time.strftime('%H:%M:%S', time.localtime(at))}  {text}", "bad") for at, text in tally.news]
    for what, times in tally.failures.most_common(FAILURES):
        lines.append(Line(f"  failed {count(times)} x  {what}", "bad"))
    return lines


def _host_line(host: Any) -> Line:
    text = f"  {host.name}: {host.state} · {host.running} of {host.slots} slots busy · {host.held} sent there"
    if host.trip is not None:
        text += f" · {seconds(host.trip)} away"
    if host.losses:
        text += f" · lost {host.losses} x"
    if host.error is not None:
        text += f" · {str(host.error).partition(chr(10))[0]}"
    return Line(text, {"up": "", "connecting": "warn", "draining": "warn", "closed": "dim"}.get(host.state, "bad"))


def _worker_lines(
    workers: tuple[WorkerStatus, ...], tally: Tally, elapsed: float, now: float, rows: int, slow: float
) -> Iterator[Line]:
    found = [_Row(worker, call, age) for worker in workers for call, age in _calls(worker, now)]
    shown = found
    if len(found) > rows:  # what runs longest is what one wants to see
        shown = sorted(found, key=lambda row: -row.age)[:rows]
    for row in shown:
        is_slow = row.age > slow
        text = _row(row, tally.by_worker.get(row.worker.name) or Record(), elapsed, is_slow, now)
        style = "warn" if is_slow or row.worker.state == "starting" else "" if row.call is not None else "dim"
        yield Line(text, style)
    rest = [row for row in found if row not in shown] if len(found) > rows else []
    if rest:
        running = sum(row.call is not None for row in rest)
        oldest = max(row.age for row in rest)
        text = f"  and {len(rest)} more: {running} running, none for longer than {seconds(max(0.0, oldest))}"
        yield Line(text, "dim")


def _calls(worker: WorkerStatus, now: float) -> list[tuple[RunningCall | None, float]]:
    return [(call, max(0.0, now - call.begun_at)) for call in worker.running] or [(None, -1.0)]


def _row(row: _Row, record: Record, elapsed: float, is_slow: bool, now: float) -> str:
    worker, call = row.worker, row.call
    state = worker.state if worker.state != "ready" else "idle" if call is None else "running"
    if call is not None and call.stopping:
        state = "stopping"
    name = "" if call is None else call.name + (f" (attempt {call.attempt})" if call.attempt > 1 else "")
    age = "" if call is None else seconds(row.age) + (" slow" if is_slow else "")
    if worker.starting_since is not None:
        age = seconds(max(0.0, now - worker.starting_since))
    busy = record.busy + max(0.0, row.age)
    return _columns(
        (
            worker.name,
            "" if worker.pid is None else str(worker.pid),
            state,
            name,
            age,
            count(record.done),
            count(record.failed),
            seconds(record.latencies.quantile(0.5)),
            seconds(record.latencies.quantile(0.95)),
            size(worker.memory),
            f"{min(1.0, busy / (elapsed * worker.width)):.0%}" if elapsed > 0 and worker.width < 1000 else "-",
        )
    )


def _columns(cells: Iterable[str]) -> str:
    fitted = []
    for place, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True)):
        text = cell if len(cell) <= width else cell[: width - 1] + "…"
        fitted.append(text.ljust(width) if place in {0, 2, 3} else text.rjust(width))
    return "  " + " ".join(fitted).rstrip()


def _busy(workers: tuple[WorkerStatus, ...], tally: Tally, elapsed: float, now: float) -> float | None:
    """Which share of the time the workers spent in calls."""
    width = sum(worker.width for worker in workers)
    if elapsed <= 0 or not 0 < width < 1000:
        return None
    running = sum(min(elapsed, now - call.begun_at) for worker in workers for call in worker.running)
    return min(1.0, max(0.0, (tally.total.busy + running) / (elapsed * width)))


def _slow(latencies: Latencies) -> float:
    """From which age on a call is called slow."""
    usual = latencies.quantile(0.95)
    return float("inf") if usual is None else max(SLOW_SECONDS, SLOW * usual)


def histogram(latencies: Latencies, lines: int = 12) -> list[Line]:
    """How long calls took: one line for each range of durations, as wide as its share."""
    buckets = list(latencies.buckets())
    if not buckets:
        return [Line("no call has ended", "dim")]
    low, high = buckets[0][0], buckets[-1][0]
    step = max(1.05, (high / low) ** (1 / lines) * 1.0001)
    counts: list[int] = []
    for middle, number in buckets:
        place = 0
        while low * step ** (place + 1) < middle:
            place += 1
        counts += [0] * (place + 1 - len(counts))
        counts[place] += number
    most = max(counts)
    return [
        Line(f"  up to {seconds(low * step ** (place + 1)):>10} {_bar(number / most)} {count(number)}")
        for place, number in enumerate(counts)
    ]


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR_WIDTH * 8), 8)
    return ("█" * whole + (BARS[rest - 1] if rest else "")).ljust(BAR_WIDTH)
