"""What a board shows of one pool: lines of text, made of its books and a tally. Nothing here draws, or has a clock."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._model.status import PoolStatus, RunningCall, WorkerStatus
from .._policy.latency import Latencies
from .tally import Record, Tally, first_line
from .words import count, seconds, size
from .workers import doing_of, held_back

if TYPE_CHECKING:
    from .._executors.pool import Executor

__all__ = ["Line", "histogram", "news", "picture", "stuck", "summary", "usage"]

SLOW = 4
"""A call is slow that runs so many times as long as 95 of 100 did ..."""
SLOW_SECONDS = 1.0
"""... and at least so long."""
FAILURES = 3
STUCK = 3
BARS = "▏▎▍▌▋▊▉█"
BAR_WIDTH = 40

COLUMNS = {
    "worker": 6,
    "pid": 8,
    "state": 8,
    "call": 24,
    "age": 11,
    "done": 8,
    "failed": 7,
    "p50": 8,
    "p95": 8,
    "memory": 7,
    "busy": 5,
}
"""From left to right, and how wide; that of the workers is as wide as their names, and that of the calls gives way."""
KEPT = ("worker", "state", "call", "age", "busy", "failed", "done", "p95", "p50", "memory", "pid")
"""In the order in which they get room: the last go first where a terminal is narrow."""
NEEDED = {"worker", "state", "call", "age"}
"""Without these a row says nothing."""
ON_THE_LEFT = {"worker", "state", "call"}
NARROW_CALL = 12
LONGEST_NAME = 40
MOST_LINES = 2
"""A text that is wider than the terminal goes on in so many lines."""
TIED = "\xa0"
"""A space where no line is broken."""


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


def picture(
    pool: Executor,
    tally: Tally,
    *,
    elapsed: float,
    now: float,
    rows: int,
    width: int | None = None,
    height: int | None = None,
) -> list[Line]:
    """All that is to be seen of a pool.

    Args:
        pool: Looked at only.
        tally: What happened in it.
        elapsed: Seconds since the tally began.
        now: ``time.time()``.
        rows: So many rows of workers at most, and of hosts.
        width: So many characters fit into a line; ``None`` for any number.
        height: So many lines there may be: what failed is worth more than the last rows.
    """
    status = pool.status(per_worker=True)
    workers = status.per_worker
    above = list(_fit(Line(summary(status, tally, elapsed, usage(workers, tally, elapsed, now)), "head"), width, 4))
    waiting = held_back(pool)
    if waiting:
        above.append(Line(f"  {count(waiting)} of the queued wait for their arguments, or for a limit", "dim"))
    idle = status.queued > waiting and not status.workers
    below = [each for line in (*stuck(workers, tally, now), *news(tally)) for each in _fit(line, width)]
    hosts: Sequence[Any] = getattr(pool, "hosts", ())
    for_hosts = for_workers = rows
    if height is not None:
        room = height - len(above) - len(below) - bool(workers) - bool(idle)
        for_hosts = max(1, min(rows, room // 2))
        for_workers = max(1, min(rows, room - min(len(hosts), for_hosts)))
    lines = above + [each for line in _host_lines(hosts, for_hosts) for each in _fit(line, width, 1)]
    if idle:
        lines.append(Line(f"  nothing runs: {count(status.queued)} calls wait for a worker to start", "warn"))
    if workers:
        table = _Table(workers, width)
        lines.append(Line(table.line(dict(zip(COLUMNS, COLUMNS, strict=True))), "dim"))
        slow = _slow(tally.total.latencies)
        lines += _worker_lines(workers, tally, elapsed, now, for_workers, slow, table)
    return lines + below


def stuck(workers: Sequence[WorkerStatus], tally: Tally, now: float) -> Iterator[Line]:
    """The calls that have been slow for longest: why they are called so, and what their processes do."""
    usual, slow = tally.total.latencies.quantile(0.95), _slow(tally.total.latencies)
    found = [_Row(worker, call, age) for worker in workers for call, age in _calls(worker, now) if age > slow]
    for row in sorted(found, key=lambda row: -row.age)[:STUCK]:
        assert row.call is not None, "it has an age"
        text = f"  slow: {row.call.name} on {row.worker.name} for {seconds(row.age)}, while 95 in 100 calls took "
        text += f"{seconds(usual)} at most"
        doing = doing_of(row.worker.pid) if row.worker.host is None and row.worker.pid is not None else None
        yield Line(text if doing is None else f"{text}; its process {doing}", "warn")


def news(tally: Tally) -> Iterator[Line]:
    """The last deaths and losses, and what failed most often."""
    for at, text in tally.news:
        yield Line(f"  {time.strftime('%H:%M:%S', time.localtime(at))}  {text}", "bad")
    for what, times in tally.failures.most_common(FAILURES):
        yield Line(f"  failed {count(times)} x  {what}", "bad")


def _fit(line: Line, width: int | None, most: int = MOST_LINES) -> Iterator[Line]:
    """A line, in several if it is too long."""
    if width is None or len(line.text) <= width or width < 20:
        yield line
        return
    text, indent = line.text, " " * (4 + len(line.text) - len(line.text.lstrip()))
    if line.style == "head":  # it goes on behind a dot only
        text = text.replace(" ", TIED).replace(f"{TIED}·{TIED}", f"{TIED}· ")
    found = textwrap.wrap(
        text, width, subsequent_indent=indent, max_lines=most, placeholder="…", break_on_hyphens=False
    )
    for each in found:
        yield Line(each.replace(TIED, " "), line.style)


def _host_lines(hosts: Sequence[Any], rows: int) -> Iterator[Line]:
    """Each host; of many, those that are in trouble first, and how the others are."""
    shown, rest = hosts, []
    if len(hosts) > rows:
        order = sorted(hosts, key=lambda host: (host.state == "up", -host.running))
        shown, rest = order[: rows - 1], order[rows - 1 :]
    for host in shown:
        yield _host_line(host)
    if rest:
        states = ", ".join(f"{count(number)} {state}" for state, number in Counter(host.state for host in rest).items())
        running, slots = sum(host.running for host in rest), sum(host.slots or 0 for host in rest)
        which = "more hosts" if shown else "hosts"
        yield Line(f"  and {len(rest)} {which}: {states} · {running} of {slots} slots busy", "dim")


def _host_line(host: Any) -> Line:
    why = "" if host.error is None else first_line(host.error).removeprefix(f"{host.name}: ")
    text = f"  {host.name}: {host.state}"
    if host.state == "up" or host.running:
        text += f" · {host.running} of {host.slots} slots busy · {host.held} sent there"
        if host.trip is not None:
            text += f" · {seconds(host.trip)} away"
    if host.losses:
        text += f" · lost {host.losses} x"
    if why:
        text += f" · {why}"
    return Line(text, {"up": "", "connecting": "warn", "draining": "warn", "closed": "dim"}.get(host.state, "bad"))


def _worker_lines(
    workers: tuple[WorkerStatus, ...],
    tally: Tally,
    elapsed: float,
    now: float,
    rows: int,
    slow: float,
    table: _Table,
) -> Iterator[Line]:
    found = [_Row(worker, call, age) for worker in workers for call, age in _calls(worker, now)]
    shown, rest = found, []
    if len(found) > rows:  # what runs longest is what one wants to see
        order = sorted(found, key=lambda row: -row.age)
        shown, rest = order[: max(1, rows - 1)], order[max(1, rows - 1) :]
    for row in shown:
        is_slow = row.age > slow
        text = table.line(_cells(row, tally.by_worker.get(row.worker.name) or Record(), elapsed, now, is_slow))
        style = "warn" if is_slow or row.worker.state == "starting" else "" if row.call is not None else "dim"
        yield Line(text, style)
    if rest:
        running = [row.age for row in rest if row.call is not None]
        text = f"  and {len(rest)} more: {len(running)} running"
        yield Line(text + (f", none for longer than {seconds(max(running))}" if running else ""), "dim")


def _calls(worker: WorkerStatus, now: float) -> list[tuple[RunningCall | None, float]]:
    return [(call, max(0.0, now - call.begun_at)) for call in worker.running] or [(None, -1.0)]


def _cells(row: _Row, record: Record, elapsed: float, now: float, is_slow: bool) -> dict[str, str]:
    worker, call = row.worker, row.call
    state = worker.state if worker.state != "ready" else "idle" if call is None else "slow" if is_slow else "running"
    if call is not None and call.stopping:
        state = "stopping"
    age = None if call is None else row.age
    if worker.starting_since is not None:
        age = max(0.0, now - worker.starting_since)
    busy = record.busy + max(0.0, row.age)
    return {
        "worker": worker.name,
        "pid": "" if worker.pid is None else str(worker.pid),
        "state": state,
        "call": "" if call is None else call.name + (f" (attempt {call.attempt})" if call.attempt > 1 else ""),
        "age": "" if age is None else seconds(age),
        "done": count(record.done),
        "failed": count(record.failed),
        "p50": seconds(record.latencies.quantile(0.5)),
        "p95": seconds(record.latencies.quantile(0.95)),
        "memory": size(worker.memory),
        "busy": f"{min(1.0, busy / (elapsed * worker.width)):.0%}" if elapsed > 0 and worker.width < 1000 else "-",
    }


class _Table:
    """The columns that there is room for, and how wide they are."""

    def __init__(self, workers: Sequence[WorkerStatus], width: int | None) -> None:
        longest = max(len(worker.name) for worker in workers)
        widths = {**COLUMNS, "worker": max(COLUMNS["worker"], min(longest, LONGEST_NAME))}
        if width is not None:
            widths["worker"] = min(widths["worker"], max(COLUMNS["worker"], width * 2 // 5))
            widths["call"] = NARROW_CALL
            shown: list[str] = []
            left = width - 1
            for name in KEPT:
                if left < 1 + widths[name] and name not in NEEDED:
                    break
                left -= 1 + widths[name]
                shown.append(name)
            widths["call"] = max(1, min(COLUMNS["call"], NARROW_CALL + left))
            widths = {name: wide for name, wide in widths.items() if name in shown}
        self._widths = widths

    def line(self, cells: dict[str, str]) -> str:
        """One row."""
        fitted = []
        for name, width in self._widths.items():
            cell = cells[name]
            text = cell if len(cell) <= width else cell[: width - 1] + "…"
            fitted.append(text.ljust(width) if name in ON_THE_LEFT else text.rjust(width))
        return "  " + " ".join(fitted).rstrip()


def usage(workers: tuple[WorkerStatus, ...], tally: Tally, elapsed: float, now: float) -> float | None:
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
