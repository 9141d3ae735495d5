"""Imports in a worker on another machine: what that lacks comes from where the calls come from.

A finder before all others asks (see :mod:`.questions`) what a top-level module is on the
executor's machine, and finds the user's own code in the folder that it was sent to. What is
not the user's is left to the finders after it, for the host's own must do; if those find
nothing either, one more finder, behind all others, says what to do about it.

Submodules are not asked for: they lie where their package is.
"""

from __future__ import annotations

import os
import sys

from . import failures
from .archives import LEFT_OUT
from .lean import ModuleSpec, PathFinder
from .questions import FAILED, FILES, INSTALLED, REFUSED, SPARE, UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType
    from typing import Any

    from .questions import Answer

    Ask = Callable[..., Answer]

NEVER_ASKED = sys.stdlib_module_names | {"__main__", "__mp_main__"}
LASTING = {FILES, SPARE, INSTALLED}
"""Answers that a worker need not ask for again; the others may turn out better the next time."""
DEEPEST = 20
"""So many exceptions behind an exception are looked at."""


class Finder:
    """Finds the user's own code, before anybody else finds something by its name.

    Args:
        ask: What a module is: takes its name, and whether to have it sent.
        host: What people call this machine.
    """

    def __init__(self, ask: Ask, host: str | None) -> None:
        self.where = f"on host {host!r}" if host else "on this host"
        self._ask = ask
        self._answers: dict[str, Answer] = {}
        self._folders: list[str] = []
        """Of the archives that modules were found in."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the user's own code, or what we need ourselves and this machine has not.

        Raises:
            ImportError: It should have been sent, but could not.
        """
        if path is not None or name in NEVER_ASKED or "." in name:
            return None
        answer = self.answer(name)
        if answer["kind"] == SPARE:
            if _suits(name, answer.get("version")):
                return None
            answer = self.answer(name, send=True)
        if answer["kind"] == FAILED:
            raise ImportError(f"{name} cannot be imported {self.where}: {answer.get('text')}", name=name)
        return self._found(name, str(answer["path"])) if answer["kind"] == FILES else None

    def find_distributions(self, context: Any) -> Iterable[Any]:
        """Let ``importlib.metadata`` find the distributions that were sent along with modules."""
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        inside = DistributionFinder.Context(name=context.name, path=self._folders)
        return MetadataPathFinder.find_distributions(inside)

    def answer(self, name: str, send: bool = False) -> Answer:
        """What a module is where the calls come from.

        Raises:
            ImportError: Nobody can be asked.
        """
        answer = self._answers.get(name)
        if answer is None or (send and answer["kind"] == SPARE):
            try:
                answer = self._ask(name, send)
            except OSError as error:
                raise ImportError(
                    f"{name} cannot be imported {self.where}: the host agent cannot be asked for it ({error})",
                    name=name,
                ) from None
            kind = answer.get("kind")
            if kind not in {FILES, SPARE, INSTALLED, REFUSED, UNKNOWN, FAILED} or (kind == FILES) is not (
                isinstance(answer.get("path"), str)
            ):
                raise ImportError(f"{name} cannot be imported {self.where}: the host agent says {answer!r:.200}")
            if kind in LASTING:
                self._answers[name] = answer
        return answer

    def _found(self, name: str, folder: str) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, [folder])
        if folder not in self._folders:
            self._folders.append(folder)
        if spec is None or spec.loader is not None:
            return spec
        # A namespace package: others may have a share in it. As a plain list, for the usual one is looked for anew
        # whenever the search path changes, and we are not on that.
        portions = [*(spec.submodule_search_locations or ()), *_portions_here(name)]
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = portions
        return spec

    # What there is to say

    def why_missing(self, name: str) -> str | None:
        """What to say when nobody has found a module, if there is more to say than that."""
        top, _, below = name.partition(".")
        if top in NEVER_ASKED:
            return None
        answer = self.answer(top)
        missing = f"No module named {name!r} {self.where}"
        if answer["kind"] == UNKNOWN:
            return f"{missing}, and the executor's machine has none either"
        if answer["kind"] == REFUSED:
            return f"{missing}: {answer.get('text')}"
        if answer["kind"] == INSTALLED:
            return f"{missing}: the executor's machine has {_advice(answer, below)}"
        if answer["kind"] == FILES:
            reason = self._left_out(os.path.join(str(answer["path"]), *name.split(".")))
            return reason and f"{missing}: {reason}"
        return None

    def advise(self, error: BaseException) -> None:
        """Add to an error, where it is about a file that was not sent, that it was not."""
        for each in _chain(error):
            name = getattr(each, "filename", None)
            if isinstance(each, FileNotFoundError) and isinstance(name, (str, os.PathLike)):
                reason = self._left_out(os.path.abspath(os.fspath(name)))
                if reason and reason not in getattr(each, "__notes__", ()):
                    each.add_note(reason)

    def _left_out(self, path: str) -> str | None:
        """Why a file, or a module by its file's name, is not there."""
        for folder in self._folders:
            if path.startswith(folder + os.sep):
                wanted = path[len(folder) + 1 :]
                for name, reason in _read_left_out(folder):
                    if wanted == name or name in {f"{wanted}.py", f"{wanted}/__init__.py"}:
                        return f"{name} was not sent to the host: {reason}"
        return None


class LastFinder:
    """Says more about a module that no finder has found than that there is none."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Find nothing.

        Raises:
            ModuleNotFoundError: It was to be imported. Whoever only asks whether it could be is told so.
        """
        if sys._getframe(2).f_code.co_name != "_find_and_load_unlocked":
            return
        text = self._finder.why_missing(name)
        if text is not None:
            raise ModuleNotFoundError(text, name=name)


def install(ask: Ask, host: str | None) -> Finder:
    """From now on, import what the executor's machine has."""
    finder = Finder(ask, host)
    sys.meta_path.insert(0, finder)
    sys.meta_path.append(LastFinder(finder))
    failures.advisers.append(finder.advise)
    return finder


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """Which versions of these distributions this machine has, to be compared with the executor's."""
    from importlib.metadata import PackageNotFoundError, version

    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: found(name) for name in distributions}


def _suits(name: str, version: object) -> bool:
    """Whether this machine has a module, in the version that is asked for, if one is."""
    spec = PathFinder.find_spec(name)
    if spec is None or spec.loader is None:
        return False
    if version is None or spec.origin is None:
        return True
    # Reading metadata takes longer than importing most modules; the folder's name says the same.
    place = os.path.dirname(os.path.dirname(spec.origin))
    return os.path.isdir(os.path.join(place, f"{name}-{version}.dist-info"))


def _portions_here(name: str) -> list[str]:
    """This machine's share of a namespace package."""
    spec = PathFinder.find_spec(name)
    return list(spec.submodule_search_locations or ()) if spec is not None and spec.loader is None else []


def _advice(answer: Answer, below: str) -> str:
    requirements = str(answer.get("requirement") or "").split("\n")
    named = ", ".join(requirements)
    if not named:
        return f"it in {answer.get('place')}"
    if below:
        return f"{named}, and the host's may be of another version"
    quoted = " ".join(f"'{each}'" for each in requirements)
    return f"it from {named}; install it: {sys.executable or 'python'} -m pip install {quoted}"


def _read_left_out(folder: str) -> Iterator[tuple[str, str]]:
    try:
        with open(os.path.join(folder, LEFT_OUT), encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                name, _, reason = line.rstrip("\n").partition("\t")
                yield name, reason
    except FileNotFoundError:
        return


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(DEEPEST):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
