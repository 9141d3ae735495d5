"""Wherever a function comes from, it runs in workers, and nothing of the program runs twice."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.faults.programs import run

SCRIPT = dedent(
    """
    print("top level")
    import asyncio, enum
    from dataclasses import dataclass
    from aioparallel import ProcessExecutor

    class Colour(enum.IntFlag):
        NONE = 0
        RED = 1
        BLUE = 2

    @dataclass
    class Point:
        x: int

    OFFSET = 10

    def shift(point, colour):
        assert isinstance(colour, Colour) and colour in (Colour.NONE, Colour.RED | Colour.BLUE)
        return Point(point.x + OFFSET), Colour(colour)

    def closure(n):
        return lambda x: x * n

    async def main():
        async with ProcessExecutor(1) as pool:
            point, colour = await pool.submit(shift, Point(1), Colour.NONE)
            assert type(point) is Point and point == Point(11), point
            assert colour is Colour.NONE, colour
            _, both = await pool.submit(shift, Point(1), Colour.RED | Colour.BLUE)
            assert both is Colour.RED | Colour.BLUE
            assert await pool.submit(closure(3), 4) == 12
            assert await pool.submit(lambda: Point) is Point
        print("done")

    asyncio.run(main())
    """
)


def test_script_needs_no_guard(tmp_path: Path) -> None:
    """A script without a ``__main__`` guard runs once; its classes, closures and lambdas travel there and back."""
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run("script.py", cwd=tmp_path) == "top level\ndone\n"


def test_script_without_a_guard_on_anyio(tmp_path: Path) -> None:
    """With the anyio engine a script needs a guard, for AnyIO runs it again in each process: the error says so."""
    (tmp_path / "script.py").write_text(
        dedent(
            """
            import asyncio
            from aioparallel import ProcessExecutor, WorkerLostError

            async def main():
                async with ProcessExecutor(1, engine="anyio") as pool:
                    try:
                        await pool.submit(abs, -1)
                    except WorkerLostError as error:
                        print(error)

            if __name__ != "__main__":
                raise RuntimeError("once is enough")
            asyncio.run(main())
            """
        )
    )
    said = run("script.py", cwd=tmp_path)
    assert "RuntimeError('once is enough')" in said
    assert "if __name__ == '__main__':" in said


def test_python_dash_c() -> None:
    """``python -c`` works like a script."""
    assert run("-c", SCRIPT) == "top level\ndone\n"


def test_python_dash_m_with_relative_imports(tmp_path: Path) -> None:
    """``python -m package`` works, also with relative imports in ``__main__`` and inside its functions."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def double(x): return 2 * x\n")
    (package / "__main__.py").write_text(
        dedent(
            """
            import asyncio
            from aioparallel import ProcessExecutor
            from .helper import double

            def work(x):
                from . import helper
                return double(x) + helper.double(x)

            async def main():
                async with ProcessExecutor(1) as pool:
                    print(await pool.submit(work, 1), await pool.submit(double, 4))

            asyncio.run(main())
            """
        )
    )
    assert run("-m", "package", cwd=tmp_path) == "4 8\n"


def test_console_script(tmp_path: Path) -> None:
    """An installed console script works: its ``__main__`` is a stub that no worker can import."""
    (tmp_path / "tool.py").write_text(
        dedent(
            """
            import asyncio
            from aioparallel import ProcessExecutor

            def work(x):
                return x + 1

            async def amain():
                async with ProcessExecutor(1) as pool:
                    print(await pool.submit(work, 1))

            def main():
                asyncio.run(amain())
            """
        )
    )
    script = tmp_path / "tool-script"  # what an installer makes of [project.scripts]
    script.write_text("import sys\nfrom tool import main\nsys.exit(main())\n")
    assert run(str(script), cwd=tmp_path) == "2\n"


def test_module_that_shadows_the_standard_library(tmp_path: Path) -> None:
    """A file called ``signal.py`` beside the script does not break the workers' own imports."""
    (tmp_path / "select.py").write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "tree.py").write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "script.py").write_text(
        "import sys; here = sys.path.pop(0)\n"
        + SCRIPT.replace("async def main", "sys.path.insert(0, here)\nasync def main")
    )
    assert run("script.py", cwd=tmp_path) == "top level\ndone\n"


def test_prompt_and_notebook_cells() -> None:
    """Code typed at a prompt, whose functions are redefined between calls, always runs in its newest form."""
    code = pytest.importorskip("code")
    said: list[str] = []
    console = code.InteractiveConsole({"__name__": "__main__", "said": said})
    cells = [
        "import asyncio\nfrom aioparallel import ProcessExecutor\nrunner = asyncio.Runner()\n",
        "pool = ProcessExecutor(1)\nrunner.run(pool.start())\n",
        "factor = 2\n",
        "def f(x): return x * factor\n",
        "async def call():\n    said.append(await pool.submit(f, 10))\n",
        "runner.run(call())\n",
        "factor = 3\n",
        "runner.run(call())\n",
        "def f(x): return -x\n",
        "runner.run(call())\n",
        "runner.run(pool.aclose())\nrunner.close()\n",
    ]
    for cell in cells:
        exec(compile(cell, "<cell>", "exec"), console.locals)
    assert said == [20, 30, -10]


def test_workers_have_the_flags_of_their_program(tmp_path: Path) -> None:
    """``-O`` holds in workers too."""
    code = (
        "import asyncio\nfrom aioparallel import ProcessExecutor\n"
        "async def main():\n"
        "    async with ProcessExecutor(1) as pool:\n"
        "        print(await pool.submit(eval, '__debug__'))\n"
        "asyncio.run(main())\n"
    )
    assert run("-O", "-c", code, cwd=tmp_path) == "False\n"
    assert run("-c", code, cwd=tmp_path) == "True\n"
    assert sys.flags.optimize == 0
