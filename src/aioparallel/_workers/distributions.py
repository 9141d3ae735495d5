"""What is installed on this machine, by the names that it is imported by."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from inspect import getmodulename
from typing import Any
from urllib.parse import unquote, urlparse

__all__ = ["US", "Distributions", "metadata_files", "requirement"]

US = "aioparallel"
NEEDED = ("anyio", "cloudpickle")
"""What of our requirements runs in workers that import us. (Nothing there connects to hosts.)"""
METADATA = ("METADATA", "entry_points.txt")
"""What of a distribution's metadata travels with its modules."""


class Distributions:
    """The distributions of this environment. Looking for them takes time, so it is done once, when first asked.

    Nothing here raises because some distribution is broken.
    """

    def of(self, top: str) -> list[metadata.Distribution]:
        """Those that bring a top-level module."""
        return self._by_top.get(top, [])

    def around(self, path: str) -> list[metadata.Distribution]:
        """Those that were installed from a folder that a file is in, as editable ones are."""
        return [found for root, found in self._from_folders if path.startswith(root + os.sep)]

    def is_from_folder(self, top: str) -> bool:
        """Whether a module was installed from a folder of this machine, and not from an index."""
        return any(found is each for _, found in self._from_folders for each in self.of(top))

    @cached_property
    def spares(self) -> set[str]:
        """The pure Python modules that aioparallel itself needs in workers, and itself."""
        names = {US} | _closure(NEEDED)
        return {top for name in names if (found := _find(name)) and is_pure(found) for top in _tops(found)}

    @cached_property
    def _all(self) -> list[metadata.Distribution]:
        return list(metadata.distributions())

    @cached_property
    def _by_top(self) -> dict[str, list[metadata.Distribution]]:
        by_top: dict[str, list[metadata.Distribution]] = {}
        for found in self._all:
            for top in _tops(found):
                by_top.setdefault(top, []).append(found)
        return by_top

    @cached_property
    def _from_folders(self) -> list[tuple[str, metadata.Distribution]]:
        folders = ((_folder(_direct_url(found)), found) for found in self._all)
        return [(folder, found) for folder, found in folders if folder is not None]


def requirement(found: metadata.Distribution) -> str | None:
    """What to tell pip to get this distribution elsewhere."""
    name, version = _header(found, "Name"), _header(found, "Version")
    if name is None or version is None:
        return None
    direct = _direct_url(found)
    source = direct.get("vcs_info")
    if isinstance(source, dict):
        return f"{name} @ {source.get('vcs')}+{direct.get('url')}@{source.get('commit_id')}"
    return f"{name}=={version}"


def metadata_files(found: metadata.Distribution) -> dict[str, bytes]:
    """What of a distribution's metadata travels, as files."""
    name, version = _header(found, "Name"), _header(found, "Version")
    if name is None or version is None:
        return {}
    folder = f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
    texts = {file: _read(found, file) for file in METADATA}
    texts["METADATA"] = texts["METADATA"] or _read(found, "PKG-INFO")
    return {f"{folder}/{file}": text.encode("utf-8", "surrogateescape") for file, text in texts.items() if text}


def is_pure(found: metadata.Distribution) -> bool:
    """Whether a distribution has nothing compiled."""
    return not any(str(file).endswith(tuple(EXTENSION_SUFFIXES)) for file in found.files or ())


def _closure(names: tuple[str, ...]) -> set[str]:
    """These distributions, and what they require in turn."""
    known: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        found = None if name in known else _find(name)
        known.add(name)
        ahead += _required(found) if found is not None else []
    return known


def _required(found: metadata.Distribution) -> list[str]:
    lines = [line for line in found.requires or () if "extra" not in line.partition(";")[2]]
    return [match[0] for line in lines if (match := re.match(r"[\w.-]+", line))]


def _find(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _tops(found: metadata.Distribution) -> set[str]:
    """The top-level modules that a distribution brings."""
    declared = _read(found, "top_level.txt")
    return set(declared.split()) if declared else set(_tops_of_files(found))


def _tops_of_files(found: metadata.Distribution) -> Iterator[str]:
    try:
        files = found.files or ()
    except Exception:  # a record that cannot be read
        return
    for file in files:
        top = file.parts[0] if len(file.parts) > 1 else getmodulename(file.name)
        if top and top.isidentifier() and not top.startswith("__"):
            yield top


def _read(found: metadata.Distribution, name: str) -> str:
    try:
        return found.read_text(name) or ""
    except Exception:
        return ""


def _header(found: metadata.Distribution, name: str) -> str | None:
    try:
        return found.metadata[name]
    except Exception:  # there is no metadata, or none that can be read
        return None


def _direct_url(found: metadata.Distribution) -> dict[str, Any]:
    text = _read(found, "direct_url.json")
    try:
        direct = json.loads(text) if text else {}
    except ValueError:
        return {}
    return direct if isinstance(direct, dict) else {}


def _folder(direct: dict[str, Any]) -> str | None:
    url = urlparse(str(direct.get("url", "")))
    return unquote(url.path).rstrip("/") if "dir_info" in direct and url.scheme == "file" else None
