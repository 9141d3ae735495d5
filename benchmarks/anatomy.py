"""Takes calls apart: where the microseconds of one awaited call go, and of one in a burst.

    python -m benchmarks.anatomy [--calls 3000]

Unlike the cases, which see the library from outside, this looks inside: it puts clocks where a call passes from hand to
hand. Monotonic time is the same in all processes of a machine, and a worker notes on its page when it begins a
call; so the way there and the way back can be told apart. Linux and macOS.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import monotonic, process_time
from typing import Any
from unittest.mock import patch

from aioparallel import CoroutineExecutor, ProcessExecutor, ThreadExecutor, wait_all
from aioparallel._child import wire
from aioparallel._child.page import Page
from aioparallel._futures.dataflow import pending_in
from aioparallel._futures.smart import SmartFuture
from aioparallel._model.call import Call, Ending
from aioparallel._model.options import DEFAULT_OPTIONS
from aioparallel._policy.ledger import Ledger
from aioparallel._policy.seats import Seat
from aioparallel._workers.link import Link
from aioparallel._workers.shipping import pack_arguments
from aioparallel._workers.station import Carrier, LocalStation
from benchmarks import machine, work

__all__ = ["main"]

Rows = list[tuple[str, float]]
"""What, and seconds."""

ONE_WAY = (
    ("submit: make the call, pickle it, choose a worker, pack a frame", "submitted", "sending"),
    ("there: write to the socket, the worker wakes up and reads", "sending", "begun"),
    ("in the worker: unpickle the arguments, call the function", "begun", "called"),
    ("in the worker: pickle the result", "called", "packed"),
    ("back: write to the socket, the event loop wakes up and reads", "packed", "arrived"),
    ("settle: unpickle the result, note the end, settle the future", "arrived", "settled"),
    ("the awaiting task is resumed by the event loop", "settled", "awaited"),
)
"""The parts of an awaited call: a text, and the stamps between which it lies."""


class Stamps:
    """Clocks along the way of a call through the resident engine."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._page: Page | None = None

    def send(self, link: Link, kind: int, parts: list[Any], first: int = 0) -> None:
        """Stands in for ``Link.send``."""
        if kind == wire.CALLS:
            self.times["sending"] = monotonic()
        _send(link, kind, parts, first)

    def on_frame(self, station: LocalStation, carrier: Carrier, kind: int, body: memoryview) -> None:
        """Stands in for ``LocalStation._on_frame``."""
        if kind != wire.ANSWERS:
            _on_frame(station, carrier, kind, body)
            return
        self.times["arrived"] = monotonic()
        if self._page is None:
            self._page = Page(f"{station.folder}/p{carrier.serial}")
        _, micros, *_ = wire.ANSWER.unpack_from(body)
        _, begun = self._page.running()
        _on_frame(station, carrier, kind, body)
        self.times.update(settled=monotonic(), begun=begun, packed=begun + micros * 1e-6)


_send = Link.send
_on_frame = LocalStation._on_frame


async def one_awaited_call(calls: int) -> Rows:
    """The parts of ``await pool.submit(fn)``, one call at a time: the median of each."""
    stamps = Stamps()
    taken: list[dict[str, float]] = []
    with (
        patch.object(Link, "send", _as_method(stamps.send)),
        patch.object(LocalStation, "_on_frame", _as_method(stamps.on_frame)),
    ):
        async with ProcessExecutor(1) as pool:
            for _ in range(calls + 100):
                submitted = monotonic()
                called = await pool.submit(monotonic)  # the function says when it was called
                taken.append({**stamps.times, "submitted": submitted, "called": called, "awaited": monotonic()})
    del taken[:100]
    rows = [(text, median(each[end] - each[start] for each in taken)) for text, start, end in ONE_WAY]
    whole = median(each["awaited"] - each["submitted"] for each in taken)
    return [*rows, ("one awaited call (median of the whole)", whole)]


def _as_method(fn: Callable[..., None]) -> Callable[..., None]:
    """A function of it, which binds to the object that it is called on; a bound method does not."""

    def method(*args: Any) -> None:
        fn(*args)

    return method


async def one_submit(calls: int) -> Rows:
    """What the first part is made of: its larger pieces, done again and again by themselves."""
    async with ProcessExecutor(1) as pool:
        await pool.submit(work.increment, 1)
        arguments = (1,)
        pieces: dict[str, Callable[[], object]] = {
            "make the call and its future": lambda: SmartFuture(
                Call(pool, work.increment, arguments, {}, DEFAULT_OPTIONS), None
            ),
            "look for futures among the arguments": lambda: pending_in(arguments, {}),
            "find out how the function travels (remembered)": lambda: pool._functions.get(work.increment),
            "pickle the arguments, (1,)": lambda: pack_arguments(arguments, {}, "increment"),
            "the ledger: queue the call, choose a worker, and later note its end": through_a_ledger(pool),
        }
        return [(text, _each(piece, calls)) for text, piece in pieces.items()]


def through_a_ledger(pool: ProcessExecutor) -> Callable[[], object]:
    """A call's way through a ledger with one idle worker."""
    ledger, seat = Ledger(), Seat(0, spare=None)
    ledger.add(seat)
    ledger.ready(seat)
    call = Call(pool, work.increment, (1,), {}, DEFAULT_OPTIONS)

    def run() -> None:
        ledger.enqueue(call)
        ledger.place()
        ledger.ended(seat, [(call.seq, Ending.OK, 2, 1e-6)], 0.0)

    return run


def _each(fn: Callable[[], object], times: int) -> float:
    began = monotonic()
    for _ in range(times):
        fn()
    return (monotonic() - began) / times


class Burst:
    """Where the parent is while it deals with many calls: seconds by place, and what was sent."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.frames = 0

    def clocked(self, where: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a clock around it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            began = monotonic()
            try:
                return fn(*args, **kwargs)
            finally:
                self.seconds[where] += monotonic() - began

        return run

    def send(self, link: Link, kind: int, parts: list[Any], first: int = 0) -> None:
        """Stands in for ``Link.send``."""
        self.frames += kind == wire.CALLS
        _send(link, kind, parts, first)


async def a_burst(calls: int) -> tuple[Rows, str]:
    """Many calls submitted at once to one worker, and all awaited: seconds for each call."""
    burst = Burst()
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    async with ProcessExecutor(1) as pool:
        await wait_all([pool.submit(work.increment, n) for n in range(calls)])
        busy = -await pool.submit(process_time)
        with (
            patch.object(Link, "send", burst.clocked("send", _as_method(burst.send))),
            patch.object(LocalStation, "_on_frame", burst.clocked("receive", _on_frame)),
            patch.object(selector, "select", burst.clocked("idle", selector.select)),
        ):
            began = monotonic()
            futures = [pool.submit(work.increment, n) for n in range(calls)]
            submitted = monotonic() - began
            await wait_all(futures)
            whole = monotonic() - began
        busy += await pool.submit(process_time)
    # Frames are sent by `submit` and, later, by what receives answers; the clocks overlap there.
    seconds = burst.seconds
    rest = whole - submitted - seconds["receive"] - seconds["idle"]
    rows = [
        ("submit", submitted),
        ("receive: unpickle, note the ends, settle, send what is next", seconds["receive"]),
        ("idle: wait for the worker", seconds["idle"]),
        ("the rest: read the socket, resume who awaits, collect", rest),
        ("one call of the burst", whole),
        ("(of which: write frames to the socket)", seconds["send"]),
        ("(meanwhile, the worker's CPU time)", busy),
    ]
    text = f"{calls} calls travelled in {burst.frames} frames, {calls / burst.frames:.0f} in each"
    return [(what, took / calls) for what, took in rows], text


async def payloads(calls: int) -> Rows:
    """What data adds: a call with one argument, which it returns."""
    async with ProcessExecutor(1) as pool:
        rows = []
        for label, data in {**some_bytes(), **an_array()}.items():
            times = max(5, min(calls, 10**7 // max(1, len(data))))
            rows.append((f"{label}, there and back", await _awaited(lambda data=data: pool.submit(echo, data), times)))
        return rows


def some_bytes() -> dict[str, Any]:
    """What is copied into the pickle."""
    return {"nothing": b"", "1 kB": bytes(1_000), "100 kB": bytes(100_000), "10 MB of bytes": bytes(10_000_000)}


def an_array() -> dict[str, Any]:
    """What is not, if numpy is there."""
    try:
        import numpy as np
    except ImportError:
        return {}
    return {"10 MB in an array": np.ones(10_000_000, dtype=np.uint8)}


def echo(data: Any) -> Any:
    """Give back what came."""
    return data


async def kinds(calls: int) -> Rows:
    """An awaited call that does nothing, on each executor of one worker that does not run it in ``submit``."""
    rows: Rows = []
    async with each_kind() as pools:
        for name, call in pools.items():
            rows.append((name, await _awaited(call, calls)))
    return rows


@asynccontextmanager
async def each_kind() -> AsyncIterator[dict[str, Callable[[], Awaitable[Any]]]]:
    """Something to await for each kind of executor."""
    async with (
        CoroutineExecutor(1) as coroutines,
        ThreadExecutor(1) as threads,
        ProcessExecutor(1) as processes,
        ProcessExecutor(1, engine="anyio") as portable,
    ):
        yield {
            "CoroutineExecutor": lambda: coroutines.submit(nothing),
            "ThreadExecutor": lambda: threads.submit(work.noop),
            "ProcessExecutor": lambda: processes.submit(work.noop),
            "ProcessExecutor, engine='anyio'": lambda: portable.submit(work.noop),
        }


async def nothing() -> None:
    """The shortest coroutine."""


async def _awaited(call: Callable[[], Awaitable[Any]], times: int) -> float:
    """The median seconds of one call, after a few that are not counted."""
    samples: list[float] = []
    for _ in range(times + times // 10 + 1):
        began = monotonic()
        await call()
        samples.append(monotonic() - began)
    return median(samples[times // 10 + 1 :])


def show(title: str, rows: Rows) -> None:
    """Print a table: microseconds, and what takes them."""
    print(f"\n{title}\n")
    for what, seconds in rows:
        print(f"{seconds * 1e6:10.1f} us  {what}")


async def measure(calls: int) -> None:
    """Measure everything, and print it."""
    show("One awaited call that returns the time (medians)", await one_awaited_call(calls))
    show("What `submit` is made of, for a call with one argument", await one_submit(calls))
    rows, frames = await a_burst(3 * calls)
    show("One call in a burst of calls that add one", rows)
    print(f"\n{frames}")
    show("What data adds: a call that returns what it is given", await payloads(calls))
    show("The same awaited call on other executors", await kinds(calls))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anatomy", description="Take calls apart.")
    parser.add_argument("--calls", type=int, default=3000, metavar="N", help="how many are measured (default: 3000)")
    options = parser.parse_args(argv)
    here = machine.describe()
    print(machine.headline(here))
    if warning := machine.load_warning(here):
        print(warning)
    asyncio.run(measure(options.calls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
