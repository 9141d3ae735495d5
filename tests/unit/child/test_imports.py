"""Imports on a machine that has nothing but Python: real workers there, asking a real agent."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from aioparallel import PicklingError, TaskTimeoutError
from aioparallel._child import failures, imports
from aioparallel._child.archives import LEFT_OUT
from aioparallel._child.imports import Finder, LastFinder
from aioparallel._child.questions import FILES, INSTALLED, SPARE, UNKNOWN
from aioparallel._workers.modules import Modules
from aioparallel._workers.returning import unpack_failure
from aioparallel._workers.shipping import Functions, Reach, pack_arguments
from aioparallel._workers.sources import Limits
from tests.tools import wait_for
from tests.unit.child.outpost import Outpost
from tests.unit.workers.projects import Project

NUMPY = metadata.version("numpy")


@pytest.fixture
def outpost() -> Iterator[Outpost]:
    """A machine that has nothing but Python."""
    with Outpost(Modules()) as outpost:
        yield outpost


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder on the other machine's search path."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def lay(folder: Path, **files: str) -> None:
    """Put packages of one file into a folder."""
    for name, source in files.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(source)


# The user's own code


def test_packages(outpost: Outpost, project: Project) -> None:
    """A package travels whole: relative imports, data next to the code, and whatever reads that."""
    project.write(
        {
            "proj/__init__.py": "from .deep.work import double",
            "proj/deep/__init__.py": "",
            "proj/deep/work.py": "from ..other import factor\ndef double(x): return x * factor",
            "proj/other.py": "factor = 2",
            "proj/data/table.csv": "1,2",
            "proj/__pycache__/junk.pyc": b"junk",
        }
    )
    found = outpost.run("""
        import importlib.resources, os, pathlib, pkgutil
        import proj
        from proj.deep import work
        table = pathlib.Path(proj.__file__).with_name("data") / "table.csv"
        result = (
            proj.double(4),
            table.read_text(),
            pkgutil.get_data("proj", "data/table.csv"),
            importlib.resources.files("proj").joinpath("data/table.csv").read_text(),
            sorted(module.name for module in pkgutil.walk_packages(proj.__path__, "proj.")),
            os.path.relpath(work.__file__, folder).partition("/")[2],
            os.path.exists(os.path.join(proj.__path__[0], "__pycache__", "junk.pyc")),
        )
    """)
    modules = ["proj.deep", "proj.deep.work", "proj.other"]
    assert found == (8, "1,2", b"1,2", "1,2", modules, "proj/deep/work.py", False)
    assert outpost.sent == ["proj"]


def test_tracebacks(outpost: Outpost, project: Project) -> None:
    """A traceback shows the lines of the user's code."""
    project.write({"proj/__init__.py": "def fail():\n    raise ValueError('no')  # this line"})
    with pytest.raises(ValueError, match="no") as caught:
        outpost.run("import proj; proj.fail()")
    assert "raise ValueError('no')  # this line" in str(caught.value.__cause__)
    assert "/proj/__init__.py" in str(caught.value.__cause__)


def test_single_modules(outpost: Outpost, project: Project) -> None:
    """A module that is a single file travels alone."""
    project.write({"helper.py": "import other\ndef one(): return other.ONE", "other.py": "ONE = 1", "third.py": ""})
    assert outpost.run("import helper; result = helper.one()") == 1
    assert outpost.sent == ["helper", "other"]


def test_namespace_packages(project: Project, elsewhere: Path) -> None:
    """Of a package in several places the user's share travels, and the other machine's share is found as well."""
    project.write({"corp/ours.py": "from corp import theirs\nbelow = theirs.WHO"})
    (elsewhere / "corp").mkdir()
    (elsewhere / "corp/theirs.py").write_text("WHO = 'theirs'")
    with Outpost(Modules(), path=str(elsewhere)) as outpost:
        # That namespace packages follow the search path must not lose us.
        source = "import sys, corp.ours; sys.path.append('/nowhere'); import corp.late; result = corp.ours.below"
        project.write({"corp/late.py": ""})
        assert outpost.run(source) == "theirs"


def test_the_users_code_wins(project: Project, elsewhere: Path) -> None:
    """What the other machine has under the name of the user's own code is not used."""
    project.write({"proj/__init__.py": "WHERE = 'here'"})
    lay(elsewhere, proj="WHERE = 'there'", other="WHERE = 'there'")
    with Outpost(Modules(), path=str(elsewhere)) as outpost:
        assert outpost.run("import proj, other; result = proj.WHERE, other.WHERE") == ("here", "there")


def test_circular_imports(outpost: Outpost, project: Project) -> None:
    """Modules may import each other."""
    project.write(
        {
            "one/__init__.py": "import two\nNAME = 'one'\ndef other(): return two.NAME",
            "two/__init__.py": "import one\nNAME = 'two'\ndef other(): return one.NAME",
        }
    )
    assert outpost.run("import one, two; result = one.other(), two.other()") == ("two", "one")


def test_versions_of_oneself(outpost: Outpost, project: Project) -> None:
    """A module that asks for the version of its distribution is told it."""
    url = f'{{"url": "file://{project.root}", "dir_info": {{"editable": true}}}}'
    project.write(
        {
            "proj/__init__.py": "from importlib.metadata import version\n__version__ = version('My-Proj')",
            "my_proj-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: my-proj\nVersion: 1.5\n",
            "my_proj-1.5.dist-info/direct_url.json": url,
            "my_proj-1.5.dist-info/RECORD": "",
        }
    )
    assert outpost.run("import proj; result = proj.__version__") == "1.5"


# What imports aioparallel


def test_decorated_functions(outpost: Outpost, project: Project) -> None:
    """Modules that import aioparallel work where it is not installed; calls that they make run in place."""
    project.write(
        {
            "proj.py": """
            import asyncio
            from aioparallel import TaskTimeoutError, check_cancelled, parallelize, parmap

            @parallelize
            def double(x):
                check_cancelled()
                return 2 * x

            @parallelize(method="process", timeout=5, retry=2)
            def sum_of_doubles(items):
                return sum(double(item).result() for item in items)

            async def mapped(items):
                return await parmap(double.local, items), await double(21)

            def fail():
                raise TaskTimeoutError("late", call="fail", timeout=3)
        """
        }
    )
    source = "import asyncio, proj; result = proj.sum_of_doubles([1, 2]).result(), asyncio.run(proj.mapped([1, 2]))"
    assert outpost.run(source) == (6, ([2, 4], 42))
    assert set(outpost.sent) >= {"proj", "aioparallel", "anyio"}
    assert not {"asyncssh", "cryptography"} & {name for name, _ in outpost.asked}
    with pytest.raises(TaskTimeoutError, match="late") as caught:
        outpost.run("import proj; proj.fail()")
    assert caught.value.timeout == 3


def test_the_current_call(outpost: Outpost, project: Project) -> None:
    """The aioparallel that a module imports knows the call that the worker runs."""
    project.write({"proj.py": "from aioparallel import current_call\ndef who(): return current_call()"})
    call = outpost.run("""
        from _aioparallel_child.current import Current, current
        current.set(Current(7, "who", 2, 3, "h1", lambda: False))
        import proj
        result = proj.who()
    """)
    assert (call.id, call.name, call.attempt, call.worker_index, call.host) == (7, "who", 2, 3, "h1")


def test_spares_of_the_other_machine(elsewhere: Path) -> None:
    """Of what else aioparallel needs, the other machine's own is used if it has it."""
    lay(elsewhere, anyio="WHOSE = 'theirs'")
    with Outpost(Modules(), path=str(elsewhere)) as outpost:
        assert outpost.run("import anyio; result = anyio.WHOSE") == "theirs"
        assert outpost.sent == []
    with Outpost(Modules()) as outpost:
        assert outpost.run("import anyio; result = anyio.__name__") == "anyio"
        assert outpost.sent[0] == "anyio"


# Functions


def packer() -> tuple[Functions, Reach]:
    reach = Reach(Modules().reaches)
    return Functions(reach), reach


def test_functions_by_name(outpost: Outpost, project: Project) -> None:
    """A function of a module that travels goes by its name, and its class comes back as this very class."""
    project.write({"proj.py": "class Point:\n  def __init__(self, x): self.x = x\ndef make(x): return Point(x)"})
    proj = importlib.import_module("proj")
    functions, _ = packer()
    function = functions.get(proj.make)
    assert pickle.loads(function.packed) == ("reference", "proj", "make", 0)
    assert type(outpost.call(function.packed, pickle.dumps(((1,), {})))) is proj.Point


def test_functions_by_value(outpost: Outpost, project: Project) -> None:
    """A function of a program's own takes with it the names of modules that travel."""
    project.write({"proj.py": "FACTOR = 3"})
    scope = {"__name__": "__main__", "proj": importlib.import_module("proj")}
    exec("def triple(x): return x * proj.FACTOR", scope)
    functions, reach = packer()
    packed = functions.get(scope["triple"]).packed
    assert outpost.call(packed, pack_arguments((5,), {}, "triple", reach=reach)[0]) == 15


def test_decorated_functions_by_value(outpost: Outpost) -> None:
    """A decorated function of a program's own, as another uses it, needs aioparallel there, and gets it."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "from aioparallel import parallelize\n@parallelize\ndef double(x): return 2 * x\n"
        "def quadruple(x): return double(double(x)).result()",
        scope,
    )
    functions, reach = packer()
    packed = functions.get(scope["quadruple"]).packed
    assert outpost.call(packed, pack_arguments((3,), {}, "quadruple", reach=reach)[0]) == 12
    assert {"aioparallel", "anyio", "cloudpickle"} <= set(outpost.sent)


def test_functions_under_decorators(outpost: Outpost, project: Project) -> None:
    """A function under somebody's decorator, as an argument, needs no aioparallel on the other machine."""
    project.write(
        {
            "proj.py": """
            import functools, sys
            def loud(fn): return functools.wraps(fn)(lambda x: str(fn(x)) + "!")
            @loud
            def double(x): return x * 2
            def apply(fn, x): return fn(x), sys.modules.get("aioparallel")
        """
        }
    )
    proj = importlib.import_module("proj")
    functions, reach = packer()
    payload, _ = pack_arguments((proj.double.__wrapped__, 4), {}, "apply", reach=reach)
    assert outpost.call(functions.get(proj.apply).packed, payload) == (8, None)


def test_functions_that_cannot_be_loaded(outpost: Outpost, project: Project) -> None:
    """If the module of a function lacks something on the other machine, the error of the call says what."""
    project.write({"proj.py": "def norm(x):\n  import numpy"})
    functions, _ = packer()
    packed = functions.get(importlib.import_module("proj").norm).packed
    project.write({"proj.py": "import numpy"})
    failure = outpost.run(f"""
        from _aioparallel_child import failures, worker
        try:
            worker.load_function({packed!r})
        except ImportError as error:
            result = failures.pack_unloadable(error, "the function norm")
    """)
    error = unpack_failure(failure, "norm", "h1")
    assert isinstance(error, PicklingError)
    assert "the function norm cannot be rebuilt in the worker: ModuleNotFoundError: No module named 'numpy'" in str(
        error
    )
    assert f"numpy=={NUMPY}" in str(error)


# Edits


def test_edits(outpost: Outpost, project: Project) -> None:
    """A fresh worker imports what was edited; one that runs goes on with what it has, to the last submodule."""
    project.write({"proj/__init__.py": "VERSION = 1", "proj/late.py": "VERSION = 1"})
    modules = outpost.modules
    assert modules is not None
    old = outpost.start("""
        import os, proj, time
        open(folder + "/ready", "w").close()
        while not os.path.exists(folder + "/go"): time.sleep(0.002)
        import proj.late
        result = proj.VERSION, proj.late.VERSION, os.path.dirname(os.path.dirname(proj.__file__))
    """)
    while not Path(outpost.folder, "ready").exists():
        outpost.say(op="forget", names="nothing")
        outpost.event("forgotten")
    assert modules.changed() == set()
    project.write({"proj/__init__.py": "VERSION = 2", "proj/late.py": "VERSION = 2"})
    assert modules.changed() == {"proj"}
    assert outpost.forget("proj") == [old]
    assert outpost.run("import proj.late; result = proj.VERSION, proj.late.VERSION") == (2, 2)
    Path(outpost.folder, "go").touch()
    *versions, folder = outpost.finish(old)
    assert versions == [1, 1]
    assert not os.path.exists(folder), "the last worker that needed it has ended"
    project.remove("proj/late.py")
    assert modules.changed() == {"proj"}
    outpost.forget("proj")
    with pytest.raises(ModuleNotFoundError, match=r"proj\.late"):
        outpost.run("import proj.late")


def test_late_hosts(outpost: Outpost, project: Project) -> None:
    """A host that comes later gets what the others have."""
    project.write({"proj.py": "VERSION = 1"})
    assert outpost.run("import proj; result = proj.VERSION") == 1
    project.write({"proj.py": "VERSION = 2"})
    with Outpost(outpost.modules, "h2") as late:
        assert late.run("import proj; result = proj.VERSION") == 1
    assert outpost.modules is not None
    outpost.modules.changed()
    with Outpost(outpost.modules, "h2") as late:
        assert late.run("import proj; result = proj.VERSION") == 2


def test_new_modules(outpost: Outpost, project: Project) -> None:
    """A module that was not there when it was first asked for is found when it is."""
    source = "import proj; result = proj.VERSION"
    with pytest.raises(ModuleNotFoundError):
        outpost.run(source)
    project.write({"proj.py": "VERSION = 1"})
    assert outpost.modules is not None
    assert outpost.modules.changed() == {"proj"}
    outpost.forget("proj")
    assert outpost.run(source) == 1


def test_files_travel_once(outpost: Outpost, project: Project) -> None:
    """However many workers import a module, it travels to a host once."""
    project.write({"proj.py": ""})
    for _ in range(3):
        outpost.run("import proj")
    assert (outpost.asked, outpost.sent) == ([("proj", False)], ["proj"])


# What the other machine lacks


def raises(outpost: Outpost, source: str, kind: type[ImportError] = ModuleNotFoundError) -> str:
    """What an import says that fails."""
    with pytest.raises(ImportError) as caught:
        outpost.run(source)
    assert type(caught.value) is kind
    return str(caught.value)


def test_missing_distributions(outpost: Outpost) -> None:
    """A module of others that the host lacks is named with its distribution, version, and how to install it."""
    assert raises(outpost, "import numpy.linalg") == (
        f"No module named 'numpy' on host 'h1': the executor's machine has it from numpy=={NUMPY}; "
        f"install it: {sys.executable} -m pip install 'numpy=={NUMPY}'"
    )
    with pytest.raises(ModuleNotFoundError) as caught:
        outpost.run("import numpy")
    assert caught.value.name == "numpy"


def test_other_versions(elsewhere: Path) -> None:
    """Another version than the executor's is no error; where it lacks a part, the error says that there may be one."""
    lay(elsewhere, numpy="__version__ = '1.0'")
    with Outpost(Modules(), path=str(elsewhere)) as outpost:
        assert outpost.run("import numpy; result = numpy.__version__") == "1.0"
        assert raises(outpost, "import numpy.linalg") == (
            f"No module named 'numpy.linalg' on host 'h1': the executor's machine has numpy=={NUMPY}, "
            "and the host's may be of another version"
        )
        assert outpost.modules is not None
        assert outpost.modules.installed() == {"numpy": [f"numpy=={NUMPY}"]}


def test_unknown_modules(outpost: Outpost) -> None:
    """Of a module that nobody has, the error says so."""
    assert raises(outpost, "import no_such_thing") == (
        "No module named 'no_such_thing' on host 'h1', and the executor's machine has none either"
    )
    assert raises(outpost, "import os.no_such_thing") == ("No module named 'os.no_such_thing'; 'os' is not a package")


def test_missing_names(outpost: Outpost, project: Project) -> None:
    """A name that is missing in a module is that, and not a missing module."""
    project.write({"proj/__init__.py": ""})
    assert raises(outpost, "from proj import missing", ImportError).startswith(
        "cannot import name 'missing' from 'proj'"
    )
    assert raises(outpost, "from xml import missing", ImportError).startswith("cannot import name 'missing' from 'xml'")


def test_probing(outpost: Outpost) -> None:
    """Whoever asks whether something could be imported is told, and gets no error."""
    source = "from importlib.util import find_spec; result = [find_spec(name) for name in ('numpy', 'no_such_thing')]"
    assert outpost.run(source) == [None, None]
    assert outpost.run("try:\n  import numpy\nexcept ModuleNotFoundError:\n  result = 'without'") == "without"


@pytest.fixture
def compiled(project: Project) -> Project:
    """A package with a part in machine code."""
    project.write(
        {
            "proj/__init__.py": "WHERE = 'here'",
            "proj/_fast.c": """
            #include <Python.h>
            static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast", NULL, -1, NULL};
            PyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&module); }
        """,
        }
    )
    source, library = (
        project.root / "proj/_fast.c",
        project.root / f"proj/_fast{sysconfig.get_config_var('EXT_SUFFIX')}",
    )
    command = ["gcc", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", str(source), "-o", str(library)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler, or no headers of Python")
    return project


@pytest.mark.usefixtures("compiled")
def test_compiled_extensions(outpost: Outpost, elsewhere: Path) -> None:
    """A package with a compiled part does not travel: the error says so, unless the host has it installed."""
    importlib.import_module("proj._fast")
    assert raises(outpost, "import proj") == (
        f"No module named 'proj' on host 'h1': it has a compiled part, proj/_fast{sysconfig.get_config_var('EXT_SUFFIX')}, "
        "which may not fit another machine. It does not travel, so install it on the host, where it will be found"
    )
    lay(elsewhere, proj="WHERE = 'there'")
    with Outpost(Modules(), path=str(elsewhere)) as installed:
        assert installed.run("import proj; result = proj.WHERE") == "there"


def test_data_that_is_left_out(project: Project) -> None:
    """Data that is too large stays at home, and who looks for it is told so, in the error of the call."""
    project.write(
        {
            "proj/__init__.py": "import pkgutil\ndef load(): return open(__file__.replace('__init__.py', 'big.bin'), 'rb').read()",
            "proj/big.bin": os.urandom(3000),
            "proj/small.bin": os.urandom(10),
            "proj/.env": "SECRET=1",
        }
    )
    said = "proj/big.bin was not sent to the host: it has 0.0 MiB, and of what is no code, at most"
    with Outpost(Modules(Limits(data_file=1000))) as outpost:
        assert outpost.run("import os, proj; result = sorted(os.listdir(os.path.dirname(proj.__file__)))[:1]") != [
            ".env"
        ]
        with pytest.raises(FileNotFoundError) as caught:
            outpost.run("import proj; proj.load()")
        assert caught.value.__notes__[0].startswith(said)
        assert said in str(caught.value.__cause__)
        with pytest.raises(RuntimeError) as wrapped:
            outpost.run("import proj\ntry:\n  proj.load()\nexcept OSError as error:\n  raise RuntimeError from error")
        assert said in str(wrapped.value.__cause__)
        with pytest.raises(FileNotFoundError) as other:
            outpost.run("import proj; open(proj.__file__ + 'x')")
        assert other.value.__notes__ == ["raised by the program on h1"]


def test_modules_that_are_left_out(outpost: Outpost, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose file could not be read here is missing there, and the error says why."""
    project.write({"proj/__init__.py": "", "proj/secret.py": "", "top_secret.py": ""})
    real = open

    def forbidden(path: Any, *args: Any) -> Any:
        if str(path).endswith("secret.py"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args)

    monkeypatch.setattr("aioparallel._workers.sources.open", forbidden, raising=False)
    assert raises(outpost, "import proj.secret") == (
        "No module named 'proj.secret' on host 'h1': proj/secret.py was not sent to the host: "
        "it cannot be read (Permission denied)"
    )
    assert "top_secret.py was not sent to the host: it cannot be read" in raises(outpost, "import top_secret")
    assert raises(outpost, "import proj.other") == "No module named 'proj.other'"


# Under fire


def test_threads(outpost: Outpost, project: Project) -> None:
    """Threads may import at once, the same and different modules."""
    names = [f"part{number}" for number in range(8)]
    project.write({f"{name}/__init__.py": f"from common import VALUE\nNAME = {name!r}" for name in names})
    project.write({"common.py": "VALUE = 1"})
    found = outpost.run(f"""
        import importlib, threading
        found, gate = [], threading.Barrier(16)
        def load(name):
            gate.wait()
            module = importlib.import_module(name)
            found.append((module.NAME, module.VALUE))
        threads = [threading.Thread(target=load, args=(name,)) for name in {names!r} * 2]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        result = sorted(found)
    """)
    assert found == sorted([(name, 1) for name in names] * 2)
    assert sorted(outpost.asked) == [("common", False), *((name, False) for name in names)]


def test_workers_at_once(outpost: Outpost, project: Project) -> None:
    """Workers may import at once; what they import travels once."""
    project.write({"proj.py": "VALUE = 1"})
    serials = [outpost.start("import proj; result = proj.VALUE") for _ in range(6)]
    assert [outpost.finish(serial) for serial in serials] == [1] * 6
    assert outpost.asked == [("proj", False)]


def test_children_of_workers(outpost: Outpost, project: Project) -> None:
    """A process that a worker has forked imports as the worker does."""
    project.write({"proj.py": "VALUE = 1"})
    source = "import os\nif (pid := os.fork()):\n  result = os.waitpid(pid, 0)[1]\nelse:\n  import proj\n  os._exit(0)"
    assert outpost.run(source) == 0
    assert outpost.sent == ["proj"]


def test_two_hosts(project: Project) -> None:
    """Each host is sent what its workers import, described once."""
    project.write({"proj.py": "VALUE = 1"})
    modules = Modules()
    with Outpost(modules, "h1") as one, Outpost(modules, "h2") as two:
        source = "import os, proj; result = os.path.basename(os.path.dirname(proj.__file__))"
        assert one.run(source) == two.run(source)
        assert (one.sent, two.sent) == (["proj"], ["proj"])
        assert "on host 'h2'" in raises(two, "import no_such_thing")


def test_an_agent_that_is_killed() -> None:
    """A worker that waits for an answer when its agent is killed gets an error, and does not hang."""
    with Outpost(None) as outpost:
        serial = outpost.start("import proj")
        outpost.event("ask", name="proj")
        outpost.process.kill()
        outpost.process.wait()
        path = Path(outpost.folder, f"r{serial}")
        wait_for(lambda: path.exists() and path.stat().st_size, "the worker goes on")
        ok, packed = pickle.loads(path.read_bytes())
    assert not ok
    assert b"the host agent is gone" in packed


@pytest.fixture
def tiny(folder: str) -> Iterator[str]:
    """A disk with next to no room."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tiny: str, project: Project) -> None:
    """If the host has no room for a module, its import says so; the agent lives, and other modules travel."""
    project.write({"proj/__init__.py": "", "proj/data.bin": os.urandom(500_000), "small.py": "VALUE = 1"})
    with Outpost(Modules(), folder=tiny) as outpost:
        said = raises(outpost, "import proj", ImportError)
        assert said == (
            f"proj cannot be imported on host 'h1': its files cannot be kept in {tiny}: [Errno 28] No space left on device"
        )
        assert outpost.run("import small; result = small.VALUE") == 1
        assert not [name for name in os.listdir(tiny) if name.endswith(".part")]


# The finder alone


class Answers:
    """Stands for the agent: says what it is told to, and counts."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, name: str, send: bool = False) -> Any:
        self.asked.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "answer",
    [{}, {"kind": "else"}, {"kind": FILES}, {"kind": FILES, "path": 3}, {"kind": UNKNOWN, "path": "/x"}],
    ids=str,
)
def test_answers_that_are_not_believed(answer: dict[str, Any]) -> None:
    """An answer that no agent of ours gives is an error of the import."""
    with pytest.raises(ImportError, match="the host agent says"):
        Finder(Answers(m=answer), None).find_spec("m")


def test_nobody_answers() -> None:
    """If the agent cannot be asked, the import says so, and why."""
    with pytest.raises(ImportError, match=r"m cannot be imported on this host: .* cannot be asked for it \(gone\)"):
        Finder(Answers(m=ConnectionError("gone")), None).find_spec("m")


def test_what_is_never_asked() -> None:
    """The standard library, submodules and ``__main__`` are the worker's own."""
    finder = Finder(Answers(), None)
    for name, path in [("json", None), ("__main__", None), ("a.b", ["/x"]), ("a.b", None)]:
        assert finder.find_spec(name, path) is None


def test_answers_that_last() -> None:
    """A worker asks again for what it did not get, and not for what it did."""
    answers = Answers(numpy={"kind": INSTALLED}, other={"kind": UNKNOWN}, spare={"kind": SPARE})
    finder = Finder(answers, None)
    for name in ("numpy", "other") * 2:
        finder.find_spec(name)
    assert answers.asked == ["numpy", "other", "other"]


@pytest.mark.parametrize(
    ("version", "there", "sent"), [(None, "2.0", False), ("1.0", "1.0", False), ("1.0", "2.0", True), (None, "", True)]
)
def test_versions_of_spares(
    version: str | None, there: str, sent: bool, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What might be there is used if it is, in the version that it must have; if not, it is asked to be sent."""
    if there:
        lay(elsewhere, spare="")
        (elsewhere / f"spare-{there}.dist-info").mkdir()
    lay(tmp_path / "sent", spare="")
    monkeypatch.syspath_prepend(str(elsewhere))
    asked: list[bool] = []

    def ask(name: str, send: bool) -> Any:
        asked.append(send)
        return {"kind": FILES, "path": str(tmp_path / "sent")} if send else {"kind": SPARE, "version": version}

    finder = Finder(ask, None)
    for _ in range(2):
        spec = finder.find_spec("spare")
        assert (spec and spec.origin) == (str(tmp_path / "sent/spare/__init__.py") if sent else None)
    assert asked == [False, True][: 1 + sent]


def test_distributions_without_a_name() -> None:
    """Without a distribution to name, the error says where the executor's machine has the module."""
    finder = Finder(Answers(numpy={"kind": INSTALLED, "requirement": None, "place": "/lib/numpy.py"}), "h1")
    assert finder.why_missing("numpy") == (
        "No module named 'numpy' on host 'h1': the executor's machine has it in /lib/numpy.py"
    )


def test_several_distributions() -> None:
    """If several distributions bring a module, all are named."""
    finder = Finder(Answers(google={"kind": INSTALLED, "requirement": "a==1\nb==2"}), "h1")
    said = finder.why_missing("google")
    assert said is not None
    assert said.endswith(f"has it from a==1, b==2; install it: {sys.executable} -m pip install 'a==1' 'b==2'")


def test_only_imports_fail() -> None:
    """The last finder keeps silent to everybody but an import."""
    last = LastFinder(Finder(Answers(m={"kind": UNKNOWN}), None))
    assert last.find_spec("m") is None  # type: ignore[func-returns-value]


def test_errors_without_a_file(tmp_path: Path) -> None:
    """Errors about other files, or none, are left alone, also those that refer to themselves."""
    finder = Finder(Answers(), None)
    finder._folders.append(str(tmp_path))
    (tmp_path / LEFT_OUT).write_text("m/big.bin\ttoo large\n")
    circle = ValueError()
    circle.__context__ = other = KeyError()
    other.__context__ = circle
    errors = [
        circle,
        FileNotFoundError(2, "no"),
        FileNotFoundError(2, "no", 7),
        FileNotFoundError(2, "no", "m/big.bin"),
    ]
    for error in errors:
        finder.advise(error)
        assert not hasattr(error, "__notes__")
    found = FileNotFoundError(2, "no", str(tmp_path / "m/big.bin"))
    finder.advise(found)
    finder.advise(found)
    assert found.__notes__ == ["m/big.bin was not sent to the host: too large"]


def test_installed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finder is the first of all, and what explains its silence the last."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(failures, "advisers", [])
    finder = imports.install(Answers(), "h1")
    assert sys.meta_path[0] is finder
    assert type(sys.meta_path[-1]) is LastFinder
    assert failures.advisers == [finder.advise]


def test_versions() -> None:
    """A host can say which versions it has."""
    assert imports.versions(["numpy", "no-such-thing"]) == {"numpy": NUMPY, "no-such-thing": None}


def test_importing_it_costs_little() -> None:
    """The finder needs no module that the agent does not have anyway."""
    script = (
        "import sys; from aioparallel._child import agent; before = set(sys.modules); "
        "from aioparallel._child import imports, questions; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {f"aioparallel._child.{name}" for name in ("archives", "imports", "questions")}
