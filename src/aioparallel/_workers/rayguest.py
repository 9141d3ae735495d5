"""What runs in Ray's workers: functions that take the child's modules along, for nothing of ours is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import _child

__all__ = ["later_path", "remote_functions"]

PACKAGE = "_aioparallel_child"
"""The name that the child travels under."""


def _texts() -> dict[str, str]:
    """The modules of the child, by the names that they travel under."""
    folder = Path(_child.__file__).parent
    names = {file: PACKAGE if file.stem == "__init__" else f"{PACKAGE}.{file.stem}" for file in folder.glob("*.py")}
    return {name: file.read_text(encoding="utf-8") for file, name in names.items()}


def _functions(texts: dict[str, str], path: list[str]) -> tuple[Any, Any, Any]:
    """What Ray is to run: a function, the same that tells when it begins, and an actor.

    They travel by value and need nothing of ours over there: the child's modules travel inside them, as text.
    """

    def guest() -> Any:
        import sys

        name = "_aioparallel_child.guest"
        if name in sys.modules:
            return sys.modules[name]
        from importlib import import_module
        from importlib.util import find_spec, spec_from_loader

        class Texts:
            def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
                package = name == "_aioparallel_child"
                return spec_from_loader(name, self, is_package=package) if name in texts else None  # type: ignore[arg-type]

            def create_module(self, spec: Any) -> None:
                return None

            def exec_module(self, module: Any) -> None:
                exec(compile(texts[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)

            def get_source(self, name: str) -> str:
                return texts[name]

        sys.meta_path.append(Texts())
        if find_spec("cloudpickle") is None:  # Ray has one of its own
            import ray.cloudpickle

            sys.modules["cloudpickle"] = ray.cloudpickle
            sys.modules["cloudpickle.cloudpickle"] = ray.cloudpickle.cloudpickle
        import_module(name).follow(path)
        return sys.modules[name]

    def answer(envelope: bytes, *buffers: Any) -> Any:
        return guest().answer(envelope, *buffers)

    def tell_and_answer(envelope: bytes, *buffers: Any) -> Iterator[Any]:
        yield None
        yield guest().answer(envelope, *buffers)

    class Resident:
        def answer(self, envelope: bytes, *buffers: Any) -> Any:
            return guest().answer(envelope, *buffers)

        def leave(self) -> None:
            guest().leave()

    for each in (guest, answer, tell_and_answer, Resident):
        each.__module__ = "__main__"  # what is defined there goes by value
    return answer, tell_and_answer, Resident


_made: dict[str, Any] = {}
_path: list[str] = []
"""Where modules were found when these were made."""


def later_path() -> list[str]:
    """Where else modules are found by now."""
    return [entry for entry in _absolute_path() if entry not in _path]


def _absolute_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path]


def remote_functions() -> tuple[Any, Any, Any]:
    """Ray's own objects for these: made once, for Ray exports each of them once to each cluster."""
    import ray

    if not _made:
        _path.extend(_absolute_path())
        answer, telling, resident = _functions(_texts(), _path)
        _made["answer"] = ray.remote(max_retries=0)(answer)
        _made["telling"] = ray.remote(max_retries=0, num_returns="streaming")(telling)
        _made["resident"] = ray.remote(max_restarts=0, max_task_retries=0)(resident)
    return _made["answer"], _made["telling"], _made["resident"]
