"""Showing how far a map is: a bar, plain lines, or whatever the user brings. Nothing is imported when it is off.

What is shown counts items, in the order in which they end. It goes to standard error; nobody's standard output
is captured.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "Reporter", "reporter"]

LINE_SECONDS = 5.0
"""Without a terminal there is at most one line in so many seconds, and one at the end."""
DRAW_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a map is.

    Attributes:
        done: Items that have ended, the failed ones included.
        failed: Items that failed.
        total: How many there are in all; ``None`` when nobody knows.
        elapsed: Seconds since the map began.
    """

    done: int
    failed: int
    total: int | None
    elapsed: float


class Reporter(ABC):
    """Is told of every item that ends.

    Args:
        total: How many items there are, if that is known.
        clock: Seconds, as :func:`time.monotonic` gives them.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self._clock = clock
        self._began = clock()

    def count(self, ended: int, failed: int = 0) -> None:
        """So many items more have ended, of which so many failed."""
        self.done += ended
        self.failed += failed
        self.show(ended)

    def progress(self) -> Progress:
        """How far it is now."""
        return Progress(self.done, self.failed, self.total, self._clock() - self._began)

    @abstractmethod
    def show(self, ended: int) -> None:
        """Show that so many more have ended."""

    def close(self) -> None:
        """Show how it ended."""


def reporter(wish: Any, name: str, total: int | None) -> Reporter | None:
    """What ``progress=`` asks for.

    Args:
        wish: ``False``, ``True``, a label, a callable, or an object of tqdm or rich.
        name: What is shown in front of the bar, if ``wish`` is no label.
        total: How many items there are, if that is known.

    Raises:
        TypeError: It is none of these.
    """
    if wish is False or wish is None:
        return None
    if wish is True or isinstance(wish, str):
        return _bar(name if wish is True else wish, total)
    if hasattr(wish, "add_task") and hasattr(wish, "advance"):
        return _RichBar(_Borrowed(wish), name, total)
    if hasattr(wish, "update") and hasattr(wish, "n" if not isinstance(wish, type) else "set_postfix"):
        return _Tqdm(wish, total)
    if callable(wish):
        return _Told(wish, total)
    raise TypeError(f"progress={wish!r}: expected True, a label, a callable, or an object of tqdm or rich")


def _bar(label: str, total: int | None) -> Reporter:
    """The best that can be drawn here."""
    if _is_notebook():
        return _CellBar(label, total)
    if _is_terminal() and importlib.util.find_spec("rich") is not None:
        return _RichBar(_board, label, total)
    return Lines(label, total)


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook: only there IPython's shell has one."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it was closed
        return False


class _Told(Reporter):
    """A callable gets a record of every item."""

    def __init__(self, tell: Callable[[Progress], object], total: int | None) -> None:
        super().__init__(total)
        self._tell = tell

    def count(self, ended: int, failed: int = 0) -> None:
        for place in range(ended):
            self.done += 1
            self.failed += place < failed
            self.show(1)

    def show(self, ended: int) -> None:
        self._tell(self.progress())


class _Tqdm(Reporter):
    """A tqdm bar; a class of them makes one that is ours to close."""

    def __init__(self, bar: Any, total: int | None) -> None:
        super().__init__(total)
        self._ours = isinstance(bar, type)
        self._bar = bar(total=total) if self._ours else bar
        if not self._ours and self._bar.total is None and total is not None:
            self._bar.total = total

    def show(self, ended: int) -> None:
        if self.failed:
            self._bar.set_postfix({"failed": self.failed}, refresh=False)
        self._bar.update(ended)

    def close(self) -> None:
        self._bar.refresh()
        if self._ours:
            self._bar.close()


class _Paced(Reporter):
    """Draws now and then, and at the end.

    Args:
        label: What stands in front.
        total: How many items there are, if that is known.
        seconds: Draw at most once in so many.
        clock: Seconds, as :func:`time.monotonic` gives them.
    """

    def __init__(
        self, label: str, total: int | None, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(total, clock)
        self._label = label
        self._seconds = seconds
        self._next = self._began + seconds

    def show(self, ended: int) -> None:
        now = self._clock()
        if now >= self._next and self.done != self.total:
            self._next = now + self._seconds
            self._draw()

    def close(self) -> None:
        self._draw()

    @abstractmethod
    def _draw(self) -> None:
        """Show how far it is now."""


class Lines(_Paced):
    """Plain lines, few of them: where there is no terminal they end up in a log."""

    def __init__(self, label: str, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(label, total, LINE_SECONDS, clock)

    def _draw(self) -> None:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # it is full, broken or closed: no reason for a map to fail
                sys.stderr.write(f"{self._label}: {line(self.progress())}\n")
                sys.stderr.flush()


def line(progress: Progress) -> str:
    """The progress in words: ``40/100 items (40 %), 12.5 items/s, 5 s left, 1 failed``."""
    done, total = progress.done, progress.total
    rate = done / progress.elapsed if progress.elapsed > 0 else 0.0
    parts = [f"{done} items" if total is None else f"{done}/{total} items ({100 * done // max(total, 1)} %)"]
    parts.append(f"{rate:,.1f} items/s")
    if total is not None and 0 < done < total and rate:
        parts.append(f"{_duration((total - done) / rate)} left")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _CellBar(_Paced):
    """A bar among the output of a notebook's cell. It needs no widgets."""

    def __init__(self, label: str, total: int | None) -> None:
        super().__init__(label, total, DRAW_SECONDS)
        self._closed = False
        display: Any = importlib.import_module("IPython.display")
        self._handle = display.display(self._picture(), raw=True, display_id=True)

    def close(self) -> None:
        self._closed = True
        super().close()

    def _draw(self) -> None:
        self._handle.update(self._picture(), raw=True)

    def _picture(self) -> dict[str, str]:
        text = f"{self._label}: {line(self.progress())}"
        most = self.total or (max(1, self.done) if self._closed else None)
        bar = "<progress></progress>" if most is None else f'<progress value="{self.done}" max="{most}"></progress>'
        return {"text/plain": text, "text/html": f"{bar} {html.escape(text)}"}


class _RichBar(_Paced):
    """A line of a rich progress display."""

    def __init__(self, board: _Board | _Borrowed, label: str, total: int | None) -> None:
        super().__init__(label, total, DRAW_SECONDS)
        self._board = board
        self._display = board.open()
        self._task = self._display.add_task(label, total=total, rate="")

    def close(self) -> None:
        super().close()
        self._board.close()

    def _draw(self) -> None:
        failed = f" ({self.failed} failed)" if self.failed else ""
        rate = self.done / max(self.progress().elapsed, 1e-9)
        self._display.update(
            self._task, completed=self.done, description=self._label + failed, rate=f"{rate:,.1f} items/s"
        )


class _Borrowed:
    """A display that the user opened, and closes."""

    def __init__(self, display: Any) -> None:
        self._display = display

    def open(self) -> Any:
        return self._display

    def close(self) -> None:
        """Not ours."""


class _Board:
    """The one display of this process: a terminal has room for one, with a line for each map that runs."""

    def __init__(self) -> None:
        self._users = 0
        self._display: Any = None

    def open(self) -> Any:
        """The display; the first user starts it."""
        if not self._users:
            self._display = _new_display()
            self._display.start()
        self._users += 1
        return self._display

    def close(self) -> None:
        """The last user stops it; the lines stay."""
        self._users -= 1
        if not self._users:
            display, self._display = self._display, None
            display.stop()


_board = _Board()


def _new_display() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
