"""Progress: one correct count of items, shown by whatever there is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aioparallel import Progress, ThreadExecutor
from aioparallel._executors.progress import LINE_SECONDS, Lines, line, reporter

pytestmark = pytest.mark.timeout(30)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_is_nothing_at_all() -> None:
    """Without progress there is no reporter."""
    assert reporter(False, "f", 10) is None
    assert reporter(None, "f", 10) is None


def test_callable_gets_a_record_of_every_item() -> None:
    """A callable is told of each item, also when several end at once; records are frozen."""
    seen: list[Progress] = []
    told = reporter(seen.append, "f", 5)
    assert told is not None
    told.count(2)
    told.count(3, failed=1)
    told.close()
    assert [(each.done, each.failed, each.total) for each in seen] == [
        (1, 0, 5),
        (2, 0, 5),
        (3, 1, 5),
        (4, 1, 5),
        (5, 1, 5),
    ]
    with pytest.raises(AttributeError):
        seen[0].done = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 0, 100, 0.0), "0/100 items (0 %), 0.0 items/s"),
        (Progress(40, 1, 100, 4.0), "40/100 items (40 %), 10.0 items/s, 6 s left, 1 failed"),
        (Progress(10, 0, 1000, 1.0), "10/1000 items (1 %), 10.0 items/s, 1 min 39 s left"),
        (Progress(1, 0, 10000, 1.0), "1/10000 items (0 %), 1.0 items/s, 2 h 46 min left"),
        (Progress(100, 0, 100, 4.0), "100/100 items (100 %), 25.0 items/s"),
        (Progress(7, 0, None, 2.0), "7 items, 3.5 items/s"),
        (Progress(0, 0, 0, 1.0), "0/0 items (0 %), 0.0 items/s"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_line(progress: Progress, text: str) -> None:
    """A line says how many of how many, how fast, how long still, and how many failed."""
    assert line(progress) == text


def test_lines_are_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line every few seconds and one at the end, on standard error."""
    clock = Clock()
    lines = Lines("f", 1000, clock)
    for _ in range(1000):
        clock.now += LINE_SECONDS / 100
        lines.count(1)
    lines.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    said = captured.err.splitlines()
    assert 10 <= len(said) <= 11
    assert said[-1].startswith("f: 1000/1000 items (100 %)")
    assert all("left" in each for each in said[:-1])


def test_lines_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without standard error is not disturbed."""
    monkeypatch.setattr(sys, "stderr", None)
    lines = reporter(True, "f", 1)
    assert lines is not None
    lines.count(1)
    lines.close()


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_lines_that_cannot_be_written(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard error that is broken or closed is no reason for a map to fail."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise error

        def isatty(self) -> bool:
            if error is ValueError:
                raise ValueError("I/O operation on closed file")
            return False

    monkeypatch.setattr(sys, "stderr", Broken())
    lines = reporter(True, "f", 1)
    assert lines is not None
    lines.count(1)
    lines.close()


def test_label(capsys: pytest.CaptureFixture[str]) -> None:
    """A text is the label; otherwise it is the function's name."""
    for wish, label in ((True, "f"), ("resize", "resize")):
        lines = reporter(wish, "f", 1)
        assert lines is not None
        lines.close()
        assert capsys.readouterr().err.startswith(f"{label}: ")


def test_no_rich_without_a_terminal() -> None:
    """Where nothing can be drawn, rich is not even looked for."""
    assert isinstance(reporter(True, "f", 1), Lines)
    assert "rich" not in sys.modules


def test_nonsense_is_refused() -> None:
    """What is neither a label nor callable nor a bar is refused."""
    with pytest.raises(TypeError, match="tqdm or rich"):
        reporter(5, "f", 1)


class FakeBar:
    """As much of tqdm as matters."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.n = 0
        self.closed = False
        self.postfix: dict[str, Any] = {}

    def update(self, n: int) -> None:
        self.n += n

    def set_postfix(self, values: dict[str, Any], refresh: bool = True) -> None:
        self.postfix = values

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_tqdm_object() -> None:
    """A bar of the user's counts items, learns the total if it has none, shows failures, and stays open."""
    bar = FakeBar()
    told = reporter(bar, "f", 10)
    assert told is not None
    told.count(4)
    told.count(3, failed=2)
    told.close()
    assert (bar.n, bar.total, bar.closed) == (7, 10, False)
    assert bar.postfix == {"failed": 2}
    mine = FakeBar(total=99)
    reporter(mine, "f", 10)
    assert mine.total == 99


def test_tqdm_class() -> None:
    """A class of bars makes one for the map, which is closed with it."""
    made: list[FakeBar] = []

    class Bar(FakeBar):
        def __init__(self, total: int | None = None) -> None:
            super().__init__(total)
            made.append(self)

    told = reporter(Bar, "f", 10)
    assert told is not None
    told.count(1)
    told.close()
    assert (made[0].n, made[0].total, made[0].closed) == (1, 10, True)


async def test_real_tqdm() -> None:
    """tqdm, where it is installed, shows a map of a map correctly: no item is counted twice or forgotten."""
    tqdm = pytest.importorskip("tqdm").tqdm
    tqdm.monitor_interval = 0  # it would leave a thread
    stream = io.StringIO()
    async with ThreadExecutor(2) as pool:
        with tqdm(file=stream) as bar:
            assert await pool.map(abs, range(101), progress=bar, chunksize=7) == list(range(101))
            assert (bar.n, bar.total) == (101, 101)
    assert "101/101" in stream.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Terminal]]:
    """Makes standard error a terminal. To be called in the test itself: pytest sets it before each phase."""
    pytest.importorskip("rich")

    def make() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        return terminal

    yield make
    monkeypatch.undo()


async def test_rich_bar(terminal: Callable[[], Terminal], capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal where rich is installed a bar is drawn; nobody's standard output is captured."""
    screen = terminal()
    async with ThreadExecutor(2) as pool:
        await pool.map(abs, range(50), progress="numbers")
    print("mine")
    assert capsys.readouterr().out == "mine\n"
    assert "numbers" in screen.getvalue()
    assert "50/50" in screen.getvalue()


async def test_rich_bar_shows_failures(terminal: Callable[[], Terminal]) -> None:
    """The bar says how many items failed, and stays when the map fails."""
    screen = terminal()
    async with ThreadExecutor(2) as pool:
        await pool.map(int, ["1", "x", "3"], progress=True, errors="return")
        with pytest.raises(ValueError, match="invalid"):
            await pool.map(int, ["x"], progress="failing")
    assert "(1 failed)" in screen.getvalue()
    assert "failing (1 failed)" in screen.getvalue()


async def test_rich_bars_of_maps_at_once(terminal: Callable[[], Terminal]) -> None:
    """Maps that run at the same time, or inside each other, have a line each on one display."""
    screen = terminal()
    async with ThreadExecutor(2) as pool:
        inner = pool.map(abs, range(20), progress="inner")
        await pool.map(abs, inner, progress="outer")
    assert "inner" in screen.getvalue()
    assert "outer" in screen.getvalue()


async def test_rich_display_of_the_user() -> None:
    """A display that the user opened gets a task, and stays the user's."""
    display_of = pytest.importorskip("rich.progress").Progress
    console = pytest.importorskip("rich.console").Console(file=Terminal())
    with display_of(console=console) as display:
        async with ThreadExecutor(2) as pool:
            await pool.map(abs, range(5), progress=display, name="mine")
        (task,) = display.tasks
        assert (task.completed, task.total, task.description) == (5, 5, "mine")
