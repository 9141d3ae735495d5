"""A user's own modules on real hosts that have nothing but a bare Python."""

from __future__ import annotations

import asyncio
import importlib
import re
import signal
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioparallel import PicklingError, StatefulPool
from tests.remote.openssh import Sshd, World, send
from tests.remote.pools import Open, is_up, open_pool, parent_of, status_of
from tests.tools import until
from tests.unit.workers.projects import Project, project_at

__all__ = ["open_pool"]

pytestmark = pytest.mark.sshd

Start = Callable[..., Sshd]

FILES: dict[str, str | bytes] = {
    "bakery/__init__.py": "",
    "bakery/oven.py": """
        from importlib import resources
        from os import getpid
        from . import dough

        def bake(x):
            return dough.KIND, x, resources.files(__package__).joinpath("salt.txt").read_text(), getpid()
    """,
    "bakery/dough.py": "KIND = 'rye'\n",
    "bakery/salt.txt": "a pinch",
    "bakery/help.py": """
        import aioparallel

        @aioparallel.parallelize(method="process")
        def knead(x):
            return x + 1

        async def knead_twice(x):
            return await knead(await knead(x)), await aioparallel.parmap(abs, [-x]), aioparallel.current_call().host
    """,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Somebody's project, which no host has."""
    for found in project_at(tmp_path / "project", monkeypatch):
        found.write(FILES)
        yield found


async def test_modules_travel_and_edits_are_picked_up(sshd: Start, open_pool: Open, project: Project) -> None:
    """A module travels with the data next to it; what is saved in the editor runs on hosts a moment later."""
    pool = await open_pool(sshd().host(slots=1))
    oven = importlib.import_module("bakery.oven")
    kind, x, salt, worker = await pool.submit(oven.bake, 1)
    assert (kind, x, salt) == ("rye", 1, "a pinch")
    project.write({"bakery/dough.py": "KIND = 'wheat'\n"})

    async def kind_now() -> str:
        return str((await pool.submit(oven.bake, 1))[0])

    deadline = asyncio.get_running_loop().time() + 20
    while await kind_now() != "wheat":
        assert asyncio.get_running_loop().time() < deadline
    assert (await pool.submit(oven.bake, 1))[3] != worker, "in a fresh process: nothing is reloaded in place"


async def test_late_and_reconnected_hosts_get_modules(sshd: Start, open_pool: Open, project: Project) -> None:
    """A host that is added later, or was lost and found again, gets the modules as the first one did."""
    first, late = (sshd().host(slots=1) for _ in range(2))
    pool = await open_pool(first)
    oven = importlib.import_module("bakery.oven")
    worker = (await pool.submit(oven.bake, 1))[3]
    pool.add_host(late)
    await until(lambda: is_up(pool, late))
    await pool.remove_host(first)
    assert (await pool.submit(oven.bake, 2))[:3] == ("rye", 2, "a pinch")
    pool.add_host(first)
    await until(lambda: is_up(pool, first))
    await pool.remove_host(late)
    worker = (await pool.submit(oven.bake, 1))[3]
    send(signal.SIGKILL, parent_of(worker))
    await until(lambda: status_of(pool, first).losses == 1)
    assert (await pool.submit(oven.bake, 3))[:3] == ("rye", 3, "a pinch")


async def test_modules_that_import_aioparallel(sshd: Start, open_pool: Open, project: Project, world: World) -> None:
    """A module that uses aioparallel works on a host that lacks it: calls of decorated functions run in place there."""
    host = sshd().host(slots=1)
    pool = await open_pool(host)
    help_ = importlib.import_module("bakery.help")
    assert await pool.submit(help_.knead_twice, 5) == (7, [5], host.name)


async def test_what_a_host_lacks_is_named(sshd: Start, open_pool: Open, project: Project) -> None:
    """A library that is installed here and not on the host is named, with the host and what to type."""
    host = sshd().host(slots=1)
    pool = await open_pool(host)

    def count() -> int:
        import pytest_timeout

        return len(dir(pytest_timeout))

    with pytest.raises(ModuleNotFoundError) as caught:
        await pool.submit(count)
    said = str(caught.value)
    assert f"No module named 'pytest_timeout' on host '{host.name}'" in said
    assert "pip install 'pytest-timeout==" in said


async def test_a_compiled_module_is_named(sshd: Start, open_pool: Open, project: Project) -> None:
    """A package of the user's with a compiled part does not travel: the part is named, with what to do."""
    part = f"whisk/_beat{sysconfig.get_config_var('EXT_SUFFIX')}"
    project.write({"whisk/__init__.py": "def stir():\n    return 1\n", part: b"\x7fELF..PyInit__beat.."})
    pool = await open_pool(sshd().host(slots=1))
    with pytest.raises(PicklingError, match=f"compiled part, {re.escape(part)}.* so install it on the host"):
        await pool.submit(importlib.import_module("whisk").stir)


async def test_states_whose_class_travels(sshd: Start, open_pool: Open, project: Project) -> None:
    """The class of a state comes with its module as well."""
    project.write(
        {
            "bakery/shop.py": "class Till:\n    sum = 0\n\n    def __call__(self, x):\n        self.sum += x\n        return self.sum\n"
        }
    )
    pool = await open_pool(sshd().host(slots=1))
    shop = importlib.import_module("bakery.shop")
    async with StatefulPool(shop.Till, on=pool) as tills:
        assert await tills.map([1, 2, 3]) == [1, 3, 6]
