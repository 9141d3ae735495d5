"""The board: shows how pools stand while they work, in the terminal or in a notebook."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import anyio

from .._futures.supervisor import Supervisor
from .picture import Line, histogram, news, picture, stuck, summary, usage
from .screens import Screen, screen_for
from .tally import Tally

if TYPE_CHECKING:
    from .._executors.pool import Executor
    from .observers import Observation

__all__ = ["Board", "pause", "watch"]

SHARE = 0.01
"""So much of the time may be spent on drawing: where thousands of calls run, it is done less often."""
LONGEST_PAUSE = 5.0


def watch(
    *pools: Executor,
    rows: int = 20,
    interval: float | None = None,
    histogram: bool = False,
    stream: TextIO | None = None,
) -> Board:
    """Show what executors do, while they do it: a board in the terminal, or below a notebook's cell.

    It shows for each executor what waits, runs and has ended, how fast and how well used it is; for each host and
    worker what it runs and since when, what it has done and how long that took, its memory; the last deaths and why;
    the failures that were most frequent. Where there is no terminal it writes a line every few seconds.

    It reads what the executors keep anyway, and is told of what ends; it changes nothing. What the program prints stays
    its own, and appears above the board.

    Args:
        *pools: The executors, opened before or after.
        rows: So many workers are shown at most, those whose call has run longest; of the others only their number.
        interval: Seconds between two drawings; by default 0.25, and 5 where there is no terminal. By default it is more
            where drawing would take over a hundredth of the time.
        histogram: Show in the end how long calls took.
        stream: Where it is drawn; by default standard error, or the notebook.

    Returns:
        The board: an async context manager, which also has ``start()`` and ``aclose()``.

    Raises:
        TypeError, ValueError: There is no executor, or an option makes no sense.

    Cancellation:
        Ends the board; the executors are not touched.

    What may still be running:
        Nothing of it, when the block has been left.

    Example:
        ::

            async with ProcessExecutor() as pool, aioparallel.watch(pool):
                await pool.map(crunch, items)
    """
    if not pools:
        raise TypeError("watch needs an executor: `async with aioparallel.watch(pool):`")
    for pool in pools:
        if not hasattr(pool, "observe"):
            raise TypeError(f"watch takes executors, and {pool!r} is none")
    if rows < 1:
        raise ValueError(f"rows={rows!r}: expected a number from 1 on")
    if interval is not None and not interval > 0:
        raise ValueError(f"interval={interval!r}: expected seconds, more than 0")
    return Board(pools, rows, interval, histogram, stream)


class _Watched:
    """One pool that is watched."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool
        self.tally = Tally()
        self.observation: Observation = pool._observe(self.tally, steps=False)


class Board:
    """A board; :func:`watch` makes it.

    Cancellation:
        Of the body of ``async with``: draws it a last time, and closes it.

    Example:
        ::

            board = await watch(pool).start()  # where `async with` does not fit: notebook cells, fixtures
            ...
            await board.aclose()
    """

    def __init__(
        self,
        pools: tuple[Executor, ...],
        rows: int,
        interval: float | None,
        histogram: bool,
        stream: TextIO | None,
    ) -> None:
        self._pools = pools
        self._rows = rows
        self._interval = interval
        self._histogram = histogram
        self._stream = stream
        self._screen: Screen | None = None
        self._watched: list[_Watched] = []
        self._began = 0.0
        self._supervisor: Supervisor | None = None

    async def start(self) -> Self:
        """Open the board. Opening an open one does nothing.

        Returns:
            The board itself.

        Cancellation:
            Closes it again.

        What may still be running:
            The task that draws it, until :meth:`aclose`, or until the event loop shuts down.
        """
        if self._supervisor is None or self._supervisor.done:
            self._screen = screen_for(self._stream)
            self._watched = [_Watched(pool) for pool in self._pools]
            self._began = time.monotonic()
            self._supervisor = Supervisor(self._draw, "aioparallel board")
        return self

    async def aclose(self) -> None:
        """Draw the board a last time, and close it. Closing a closed one does nothing.

        Cancellation:
            It is closed nevertheless.

        What may still be running:
            Nothing of it.
        """
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        supervisor.cancel()
        with anyio.CancelScope(shield=True):
            await supervisor.wait_done()
        for watched in self._watched:
            watched.observation.close()
        assert self._screen is not None, "it was opened"
        width, _ = self._screen.room()
        self._screen.finish([*self._lines(width, None), *(self._histograms() if self._histogram else ())])

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def lines(self) -> list[Line]:
        """What the board shows now.

        Returns:
            Its lines, each with a ``text`` and a ``style``.
        """
        return self._lines(None, None)

    def _lines(self, width: int | None, height: int | None) -> list[Line]:
        """The same, in so much room."""
        elapsed, now = time.monotonic() - self._began, time.time()
        whole = self._screen is None or self._screen.is_whole
        lines: list[Line] = []
        for place, watched in enumerate(self._watched):
            if whole:
                share = None if height is None else (height - len(lines)) // (len(self._watched) - place)
                lines += picture(
                    watched.pool,
                    watched.tally,
                    elapsed=elapsed,
                    now=now,
                    rows=self._rows,
                    width=width,
                    height=share,
                )
            else:
                status, tally = watched.pool.status(per_worker=True), watched.tally
                busy = usage(status.per_worker, tally, elapsed, now)
                lines.append(Line(summary(status, tally, elapsed, busy)))
                trouble = (*stuck(status.per_worker, tally, now), *news(tally))
                lines += [Line(f"{status.name}: {line.text.lstrip()}") for line in trouble]
        return lines

    def _histograms(self) -> list[Line]:
        lines: list[Line] = []
        for watched in self._watched:
            lines.append(Line(f"how long calls took in {watched.pool.name}:", "head"))
            lines += histogram(watched.tally.total.latencies)
        return lines

    async def _draw(self, supervisor: Supervisor) -> None:
        """Draw, again and again."""
        supervisor.set_ready()
        assert self._screen is not None, "it is there before the task that draws on it"
        took = 0.0
        while True:
            await anyio.sleep(self._interval or pause(self._screen.interval, took))
            began = time.thread_time()
            self._screen.draw(self._lines(*self._screen.room()))
            took = time.thread_time() - began


def pause(usual: float, took: float) -> float:
    """How long to wait until the next drawing, after one that took so much of the CPU."""
    return min(max(usual, took / SHARE), max(usual, LONGEST_PAUSE))
