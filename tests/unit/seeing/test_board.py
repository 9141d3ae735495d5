"""The board as a program uses it."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aioparallel import ProcessExecutor, SerialExecutor, ThreadExecutor, wait_all, watch
from aioparallel._seeing.board import pause
from tests.tools import Gate, hold, until
from tests.unit.seeing.test_screens import Glass, Tty


async def test_sparse_lines() -> None:
    """Without a terminal, the board writes a line for each pool, and all of them at the end."""
    stream = io.StringIO()
    async with ThreadExecutor(1, name="io") as one, SerialExecutor(name="here") as other:
        async with watch(one, other, stream=stream, interval=0.01):
            await one.submit(pow, 2, 10)
            await until(lambda: "io: " in stream.getvalue())
        assert "done 1" in stream.getvalue()
        assert "1 workers 0% busy" in stream.getvalue()
    assert "here: " in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


async def test_lines_tell_what_is_stuck(tmp_path: Path) -> None:
    """Also without a terminal it is told which call is slow, and where."""
    gate, stream = Gate(str(tmp_path / "gate")), io.StringIO()
    async with ThreadExecutor(1, name="io") as pool, watch(pool, stream=stream, interval=0.05):
        await wait_all([pool.submit(pow, 2, n) for n in range(20)])
        held = pool.submit(hold, gate)
        await until(lambda: "io: slow: hold on io for " in stream.getvalue())
        gate.open()
        await held


async def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it shows the workers while they work, and its last state stays."""
    monkeypatch.setenv("TERM", "xterm")
    stream, glass = Tty(), Glass()
    async with ProcessExecutor(1, name="cpu") as pool, watch(pool, stream=stream, interval=0.01, histogram=True):
        await pool.submit(pow, 2, 10)
        await until(lambda: "cpu-0" in stream.getvalue())
    glass.feed(stream.getvalue())
    shown = "\n".join(glass.rows)
    assert shown.count("cpu: ") == 1
    assert "done 1" in shown
    assert "how long calls took in cpu:" in shown


@pytest.mark.parametrize(
    ("usual", "took", "expected"),
    [(0.25, 0.0, 0.25), (0.25, 0.002, 0.25), (0.25, 0.02, 2.0), (0.25, 9.0, 5.0), (5, 9, 5)],
)
def test_pauses(usual: float, took: float, expected: float) -> None:
    """Where a drawing takes long, they are as rare as it takes to cost a hundredth of the time; but not rarer than that."""
    assert pause(usual, took) == expected


async def test_watched_before_it_opens_and_after_it_closed() -> None:
    """The pool may be opened and closed under the board."""
    stream = io.StringIO()
    pool = ThreadExecutor(1, name="io")
    async with watch(pool, stream=stream), pool:
        await pool.submit(pow, 2, 10)
    assert "done 1" in stream.getvalue()


async def test_opened_and_closed_in_different_tasks() -> None:
    """`start` and `aclose` may be called in different tasks, and more than once."""
    async with SerialExecutor() as pool:
        board = watch(pool, stream=io.StringIO())
        assert await asyncio.ensure_future(board.start()) is board
        await board.start()
        await asyncio.ensure_future(board.aclose())
        await board.aclose()
        assert not pool._observers


async def test_cancelled_body() -> None:
    """A body that is cancelled ends the board, too."""
    stream = io.StringIO()
    async with SerialExecutor(name="here") as pool:

        async def body() -> None:
            async with watch(pool, stream=stream):
                await asyncio.Event().wait()

        task = asyncio.ensure_future(body())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "here: " in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((), {}, "watch needs an executor"),
        ((42,), {}, "watch takes executors, and 42 is none"),
        ((SerialExecutor(),), {"rows": 0}, "rows=0"),
        ((SerialExecutor(),), {"interval": 0}, "interval=0"),
    ],
)
def test_nonsense(arguments: tuple[object, ...], options: dict[str, int], error: str) -> None:
    """What makes no sense is refused at once."""
    with pytest.raises((TypeError, ValueError), match=error):
        watch(*arguments, **options)  # type: ignore[arg-type]


def test_loop_that_ends_under_it() -> None:
    """A board that nobody closed ends with its loop, without a word."""
    code = """
        import asyncio
        from aioparallel import SerialExecutor, watch

        async def main():
            pool = await SerialExecutor().start()
            await watch(pool).start()
            await pool.submit(pow, 2, 2)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
