"""The first code on a host: imports from memory, and the hello."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aioparallel._child import boot, messages
from aioparallel._workers import bootstrap
from tests import frames

NONCE = "0123456789abcdef"


def modules(**sources: str) -> boot.Modules:
    """Modules by name; in the names, two underscores stand for a dot."""
    names = {name.replace("__", "."): text for name, text in sources.items()}
    return {
        name: (None, text, f"<sent>/{name}.py", any(other.startswith(f"{name}.") for other in names))
        for name, text in names.items()
    }


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> boot.Finder:
    """A finder that comes first of all, for the length of a test."""
    found = boot.Finder(modules(sent_one="import sent_two.deep\n", sent_two="", sent_two__deep="def fail(): 1 / 0\n"))
    monkeypatch.setattr(sys, "meta_path", [found, *sys.meta_path])
    yield found  # type: ignore[misc]
    for name in [name for name in sys.modules if name.startswith("sent_")]:
        del sys.modules[name]


def load(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


def test_modules_come_from_memory(finder: boot.Finder) -> None:
    """What was sent can be imported, packages and their modules alike, and nothing else is claimed."""
    one = load("sent_one")
    assert vars(one)["sent_two"].deep.fail
    assert one.__spec__ is not None
    assert one.__spec__.origin == "<sent>/sent_one.py"
    assert load("sent_two").__path__ == []
    assert finder.find_spec("json") is None
    assert not hasattr(one, "__file__")


def test_code_that_was_compiled_is_run(finder: boot.Finder) -> None:
    """A module that was sent compiled is not compiled again."""
    code = compile("value = 'compiled'", "<sent>/sent_c.py", "exec")
    finder.modules["sent_c"] = (code, "value = 'source'", "<sent>/sent_c.py", False)
    assert vars(load("sent_c"))["value"] == "compiled"


def test_tracebacks_show_the_source(finder: boot.Finder) -> None:
    """A traceback through what was sent shows its lines."""
    import traceback

    try:
        vars(load("sent_two.deep"))["fail"]()
    except ZeroDivisionError as error:
        text = "".join(traceback.format_exception(error))
    assert 'File "<sent>/sent_two.deep.py", line 1, in fail\n    def fail(): 1 / 0' in text


def test_the_hello() -> None:
    """The hello says which Python this is, on which machine, and what it may use there."""
    found = boot.hello()
    assert found["version"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["tag"], found["executable"], found["pid"]) == (
        sys.implementation.cache_tag,
        sys.executable,
        os.getpid(),
    )
    assert isinstance(found["cpus"], int)
    assert found["cpus"] >= 1
    assert str(found["platform"]).startswith(sys.platform)
    assert found["node"] == os.uname().nodename
    assert found["boot"] == boot.hello()["boot"]


def test_machines_without_a_boot_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the system has no name for the time since it was started, there is none."""
    monkeypatch.setattr(boot, "BOOT_ID", str(tmp_path / "absent"))
    assert boot.hello()["boot"] is None


# All of it, in a fresh interpreter


class Started:
    """Stage 0 in a process of its own, with all that is sent to a host."""

    def __init__(self, folder: Path, *, tag: str | None = None, cut: int = 0, **environ: str) -> None:
        payload = bootstrap._payload()
        variables = {
            "_AIOPARALLEL_BOOT": bootstrap.STAGE_0,
            "_AIOPARALLEL_SEARCH": 'echo "searching $1" >&2; exit 9',
            "_AIOPARALLEL_MARK": f"AIOPARALLEL-{NONCE}",
            "_AIOPARALLEL_WANT": f"{len(payload)} {tag or sys.implementation.cache_tag}",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", 'import os; exec(os.environ["_AIOPARALLEL_BOOT"])', "the-next"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **variables, **environ},
            bufsize=0,
        )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(payload[: len(payload) - cut])
        except BrokenPipeError:
            pass  # it is the wrong one

    def say(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(frames.message(**message))

    def end(self) -> tuple[bytes, bytes, int]:
        out, err = self.process.communicate(timeout=20)
        return out, err, self.process.returncode


def heard(out: bytes) -> tuple[dict[str, Any], bytes]:
    """The hello, and what comes after it."""
    before, mark, rest = out.partition(boot.HELLO + NONCE.encode())
    assert (before, bool(mark)) == (b"", True)
    length = int.from_bytes(rest[:4], "little")
    return messages.loads(rest[4 : 4 + length]), rest[4 + length :]


def test_an_agent_is_there(tmp_path: Path) -> None:
    """What is sent to a host makes a host agent of a bare Python: it says hello, is ready, and ends with its input."""
    started = Started(tmp_path)
    started.say(**frames.OPEN)
    out, err, code = started.end()
    assert (err, code) == (b"", 0)
    hello, rest = heard(out)
    assert hello["pid"] == started.process.pid
    (ready,) = frames.messages_in(rest)
    assert (ready["ev"], ready["pid"]) == ("ready", started.process.pid)


def test_the_current_folder_is_not_imported_from(tmp_path: Path) -> None:
    """Files that happen to lie where a login starts, or are installed, are not taken for what is ours or Python's."""
    for name in ("zlib", "marshal", "select", "ctypes", "cloudpickle", "messages"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    other = tmp_path / "site" / "_aioparallel_child"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the wrong one')")
    out, err, code = Started(tmp_path, PYTHONPATH=str(other.parent)).end()
    assert (err, code) == (b"", 0)
    assert heard(out)


def test_another_version(tmp_path: Path) -> None:
    """A Python of another version reads nothing, says what it is, and lets the search go on."""
    out, err, code = Started(tmp_path, tag="cpython-399").end()
    said, searching = err.decode().splitlines()
    version = ".".join(map(str, sys.version_info[:3]))
    assert said == f"AIOPARALLEL-{NONCE} found {version} {sys.implementation.cache_tag} {sys.executable}"
    assert (out, searching, code) == (b"", "searching the-next", 9)


def test_input_that_is_cut(tmp_path: Path) -> None:
    """Input that ends too early is an error, and nothing runs."""
    out, err, code = Started(tmp_path, cut=1).end()
    assert (out, err.strip(), code) == (b"", f"AIOPARALLEL-{NONCE} cut".encode(), 1)


def test_what_was_sent_comes_first(tmp_path: Path) -> None:
    """Our cloudpickle is used, whatever the host has by that name: pickles name its insides."""
    other = tmp_path / "site" / "cloudpickle"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('the wrong one')")
    code = f"""
import marshal, sys, zlib
modules = marshal.loads(zlib.decompress(open({str(tmp_path / "payload")!r}, "rb").read()))
names = {{"__name__": "_aioparallel_child.boot", "__package__": "_aioparallel_child"}}
exec(modules["_aioparallel_child.boot"][0], names)
sys.meta_path.insert(0, names["Finder"](modules))
from _aioparallel_child import packing
import cloudpickle, inspect
assert "def dumps" in inspect.getsource(cloudpickle.dumps)
print(packing.pickler().__mro__[1].__module__, cloudpickle.__spec__.origin)
"""
    (tmp_path / "payload").write_bytes(bootstrap._payload())
    environ = {**os.environ, "PYTHONPATH": str(other.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cloudpickle.cloudpickle", "<aioparallel>/cloudpickle/__init__.py"]
