"""The first of our code on a host: it makes the rest importable from memory, and says hello.

It is not imported, because there is nothing yet to import it from: a few lines that were
sent before it (see ``aioparallel._workers.bootstrap``) have checked that this Python is of
the right version, read from standard input what was sent along, and call :func:`main`.

The hello is a mark that no shell profile prints by chance, the length of a message, and the
message (see :mod:`.messages`). Whatever stands before the mark is not ours.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

    Modules = dict[str, tuple[CodeType | None, str, str, bool]]
    """By full name: code (if it was compiled already), source, name of the file, and whether it is a package."""

HELLO = b"\0aioparallel "
"""Followed by the nonce; only then is it for whoever asked."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Finder:
    """Imports from what was sent.

    It comes first of all: what is sent belongs together. Pickles name functions inside of
    cloudpickle, which differ from version to version, so the host's own would not do.
    """

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """The specification of a module of ours."""
        if name not in self.modules:
            return None
        _, _, file, is_package = self.modules[name]
        kind: Any = type(sys.__spec__)  # of importlib.machinery, whose import takes longer than all of this
        return kind(name, self, origin=file, is_package=is_package)

    def create_module(self, spec: object) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module."""
        code, source, file, _ = self.modules[module.__name__]
        exec(code or compile(source, file, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, name: str) -> str:
        """The source, for tracebacks."""
        return self.modules[name][1]


def hello() -> dict[str, str | int | None]:
    """Who this is, and what it has to offer."""
    from .cpus import available_cpus

    system = os.uname()
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "tag": sys.implementation.cache_tag,
        "executable": sys.executable,
        "pid": os.getpid(),
        "cpus": available_cpus(),
        "platform": f"{sys.platform} {system.machine}",
        "node": system.nodename,
        "boot": boot_id(),
    }


def boot_id() -> str | None:
    """What only this machine, since it was started, has."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def main(modules: Modules, nonce: str) -> NoReturn:
    """Say hello on standard output, and be the host agent."""
    sys.meta_path.insert(0, Finder(modules))  # type: ignore[arg-type]
    from . import messages

    text = messages.dumps(hello())
    os.write(1, HELLO + nonce.encode("ascii") + len(text).to_bytes(4, "little") + text)
    from . import agent

    agent.main()
