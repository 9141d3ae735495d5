"""What a module is on this machine, for workers on other machines that import it.

The user's own code is what lies outside of ``site-packages``, and what was installed from a folder of this machine. It
travels: all files of a top-level module or package as one archive, named by their content. Everything else must be on
the host, but for the few pure Python packages that aioparallel itself needs there.

What counts is the disk, from which every fresh interpreter would import, and not what this process has in memory, which
may be older. A module is described when a host first asks for it, and stays as it was then for all hosts, early or
late, until :meth:`Modules.changed` notices that its content is another. Workers are never made to reload: those that
have imported what is out of date are replaced, and their successors ask anew. If all of a module is gone from the disk,
what was last known of it goes on travelling.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import anyio

from .._child.questions import FAILED, FILES, INSTALLED, MAX_NAME, REFUSED, SPARE, UNKNOWN
from .distributions import US, Distributions, metadata_files, requirement
from .shipping import find_on_path
from .sources import Archive, Limits, Place, Source, gather

if TYPE_CHECKING:
    from .._child.messages import Value

    Details = tuple[tuple[str, Value], ...]

__all__ = ["Module", "Modules", "undescribed"]

LOCAL = {"__main__", "__mp_main__"}
INSTALLED_FOLDERS = {"site-packages", "dist-packages"}
MAX_TEXT = 4000
MAX_LINES = 20
LOOKING = 1
"""So many threads describe modules at a time."""


@dataclass(frozen=True)
class Module:
    """What a top-level module is.

    Attributes:
        name: Its name.
        kind: One of those in ``_child.questions``.
        send: Whether it was asked to travel, although the host might have it.
        details: What more there is to say.
        archive: What travels, if it does.
        left_out: Files that do not travel with it, and why.
    """

    name: str
    kind: str
    send: bool = False
    details: Details = ()
    archive: Archive | None = None
    left_out: tuple[tuple[str, str], ...] = ()

    def answer(self) -> dict[str, Value]:
        """The message for a host agent that asked; then come the :meth:`pieces`."""
        answer: dict[str, Value] = {"name": self.name, "send": int(self.send), "kind": self.kind, **dict(self.details)}
        archive = self.archive
        if archive is not None:
            answer |= {"digest": archive.digest, "packed": len(archive.packed), "size": archive.size}
        return answer

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """Offsets and bytes of what travels."""
        return iter(()) if self.archive is None else self.archive.pieces()


@dataclass
class _Known:
    """A description, and what it was made of."""

    module: Module
    place: Place | None = None
    source: Source | None = None


class Modules:
    """The modules of this process, for the hosts of one pool. All methods may be called in any thread.

    Args:
        limits: How much of a module travels.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._known: dict[tuple[str, bool], _Known] = {}
        self._reached: dict[str, bool] = {}
        self._named: set[str] = set()
        """All that it was ever asked whether workers find them."""
        self.has_grown = False
        """Whether, since it was looked, a part was named of a module that travels, and may not be in what travels."""
        self._unreported: set[str] = set()
        """What has changed, and nobody was told."""
        self._distributions = Distributions()
        self._lock = threading.Lock()

    @cached_property
    def _limiter(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(LOOKING)

    def reaches(self, module: str) -> bool:
        """Whether workers on hosts find a module by its name, so that what is in it need not travel by value.

        Costs little: says so of what is installed here, although a host may lack it, and of code that may turn out to
        be too large, for then an error that says what to do is better than to send copies of it.
        """
        known = self._reached.get(module)
        if known is None:
            known = self._reached[module] = _reaches(module)
            if module not in self._named:
                self._named.add(module)
                self.has_grown = self.has_grown or (module.partition(".")[0], False) in self._known
        return known

    def describe(self, top: str, *, send: bool = False) -> Module:
        """Describe a module. Takes long when it is large, and is asked for the first time.

        Args:
            top: The name of a top-level module, or anything that a host has asked for.
            send: Whether it must travel, if it is one of those that aioparallel needs itself.
        """
        known = self._known.get((top, send))
        if known is None:
            with self._lock:
                known = self._known.get((top, send))
                if known is None:
                    known = self._known[top, send] = self._look(top, send)
        return known.module

    def changed(self) -> set[str]:
        """The modules that are not what they were when they were described.

        They are described anew from now on: agents must be told to forget them, and the workers that have imported
        them must be replaced. Takes as long as it takes to look at each file of the user's own modules, and where one
        of them was touched, to read that module.
        """
        self._look_again()
        return self._report()

    async def describe_in_thread(self, top: str, *, send: bool = False) -> Module:
        """The same as :meth:`describe`, and up to date in the moment in which it returns.

        Cancellation:
            The thread goes on by itself, and what it finds is kept.
        """
        while True:
            module = await anyio.to_thread.run_sync(
                lambda: self.describe(top, send=send), abandon_on_cancel=True, limiter=self._limiter
            )
            known = self._known.get((top, send))
            if known is not None and known.module is module:
                return module

    async def changed_in_thread(self) -> set[str]:
        """The same as :meth:`changed`.

        Cancellation:
            What has changed is reported the next time.
        """
        await anyio.to_thread.run_sync(self._look_again, abandon_on_cancel=True, limiter=self._limiter)
        return self._report()

    def installed(self) -> dict[str, list[str]]:
        """What hosts have asked for and should have themselves: modules, and their distributions as pip names them."""
        asked = [known.module for known in list(self._known.values())]
        found = {each.name: dict(each.details).get("requirement") for each in asked if each.kind in {INSTALLED, SPARE}}
        return {name: str(lines).split("\n") for name, lines in found.items() if lines is not None}

    # Looking

    def _look_again(self) -> None:
        with self._lock:
            self._reached.clear()
            self.has_grown = False
            news = {key: fresh for key, known in self._known.items() if (fresh := self._renewed(*key, known))}
            self._known |= news
            self._unreported |= {top for top, _ in news}

    def _report(self) -> set[str]:
        names, self._unreported = self._unreported, set()
        return names

    def _look(self, top: str, send: bool) -> _Known:
        place = _locate(top)
        if place is None:
            return _Known(Module(top, UNKNOWN, send))
        own = _own(place)
        if own is None and self._distributions.is_from_folder(top):
            own = place
        is_spare = top in self._distributions.spares
        if own is not None or (is_spare and send):
            return self._travelling(top, send, place, own or place)
        if is_spare:
            # We talk to ourselves on the other side, so that must be the same; others keep to what they promise.
            version = self._distributions.of(US)[0].version if top == US else None
            return _Known(Module(top, SPARE, send, (("version", version), *self._requirement(top))), place)
        return _Known(Module(top, INSTALLED, send, self._where(top, place)), place)

    def _travelling(self, top: str, send: bool, place: Place, part: Place) -> _Known:
        source = gather(top, part, self._limits)
        if source.refusal is None:
            archive = source.pack(self._metadata(top, part))
            return _Known(Module(top, FILES, send, (), archive, tuple(sorted(source.left_out.items()))), place, source)
        text = f"{source.refusal}. It does not travel, so install it on the host, where it will be found"
        return _Known(Module(top, REFUSED, send, (("text", text[:MAX_TEXT]),)), place, source)

    def _where(self, top: str, place: Place) -> Details:
        if not self._distributions.of(top):  # it may be newer than what we know
            self._distributions = Distributions()
        return (*self._requirement(top), ("place", str(place.file or place.folders[0])[:MAX_TEXT]))

    def _requirement(self, top: str) -> Details:
        lines = {line for found in self._distributions.of(top) if (line := requirement(found)) is not None}
        return (("requirement", "\n".join(sorted(lines)[:MAX_LINES]) or None),)

    def _metadata(self, top: str, place: Place) -> dict[str, bytes]:
        """So that a module that asks for its own version is told it."""
        paths = [place.file] if place.file is not None else list(place.folders)
        around = [found for path in paths for found in self._distributions.around(path)]
        files: dict[str, bytes] = {}
        for found in self._distributions.of(top) or around:
            files |= metadata_files(found)
        return files

    def _renewed(self, top: str, send: bool, known: _Known) -> _Known | None:
        """What is known now, if it is another than it was."""
        if known.module.kind in {INSTALLED, SPARE} or (place := _locate(top)) is None:
            return None
        if known.source is not None and known.source.is_untouched() and place == known.place:
            return None
        fresh = self._look(top, send)
        if fresh.module.answer() != known.module.answer():
            return fresh
        known.place, known.source = fresh.place, fresh.source
        return None


def undescribed(top: str, send: bool, error: Exception) -> Module:
    """A module that could not be described. The host's own must not stand in for it: it may be another."""
    text = f"it cannot be described where the calls come from: {type(error).__name__}: {error}"
    return Module(top, FAILED, send, (("text", text[:MAX_TEXT]),))


def _reaches(module: str) -> bool:
    top = module.partition(".")[0]
    if top in LOCAL:
        return False
    if top in sys.stdlib_module_names:
        return True
    place = _locate(top)
    if place is None:
        return False
    loaded: Any = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None)
    if module == top or _own(place) is None or loaded is None:
        return True
    paths = [getattr(spec, "origin", None) or "", *(getattr(spec, "submodule_search_locations", None) or ())]
    return any(os.path.abspath(path).startswith(folder + os.sep) for path in paths for folder in place.folders)


def _locate(top: str) -> Place | None:
    """Where a module is: where this process has it from, or else where it would find it."""
    if not top.isidentifier() or len(top) > MAX_NAME or top in LOCAL or top in sys.stdlib_module_names:
        return None
    loaded = _place(getattr(sys.modules.get(top), "__spec__", None))
    return loaded if loaded is not None else _place(find_on_path(top))


def _place(spec: ModuleSpec | None) -> Place | None:
    """Where a module is that has not been removed; one that lies in an archive has a file that cannot be opened."""
    if spec is None:
        return None
    folders = tuple(os.path.abspath(folder) for folder in spec.submodule_search_locations or ())
    if spec.origin is None:
        return Place(None, folders) if folders else None
    exists = os.path.exists(getattr(spec.loader, "archive", spec.origin))
    return Place(spec.origin, folders) if exists else None


def _own(place: Place) -> Place | None:
    """What of a module is the user's own."""
    if place.file is not None:
        return None if _is_installed(place.file) else place
    folders = tuple(folder for folder in place.folders if not _is_installed(folder))
    return Place(None, folders) if folders else None


def _is_installed(path: str) -> bool:
    standard = sysconfig.get_path("stdlib")
    return not INSTALLED_FOLDERS.isdisjoint(path.split(os.sep)) or path.startswith(standard + os.sep)
