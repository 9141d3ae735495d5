"""Files that list hosts: TOML with the fields of :class:`~aioparallel.Host`, or the JSON of pyutils."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .._model.hosts import Host

__all__ = ["hosts_file", "load_hosts"]

VARIABLE = "AIOPARALLEL_HOSTS"
RECORDS = "remote_worker_records"
"""The one key of pyutils' JSON."""

HOST_FIELDS = {field.name: field.name for field in fields(Host)}
RECORD_FIELDS = {"machine": "machine", "username": "username", "weight": "weight", "count": "slots"}
"""What stands in a file, and the field of a host that it is."""

COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|(?:#|//)[^\n]*')
LAST_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[]}])')
"""Both also match strings, so that what stands inside of them is left alone."""

JSON_LIST = re.compile(r'\s*\[\s*[{"\]]')
"""TOML that begins like that lists no hosts."""

EXAMPLE = """\
[[hosts]]
machine = "node1"

[[hosts]]
machine = "me@node2:2222"
slots = 8"""


def load_hosts(path: str | os.PathLike[str] | None = None) -> list[Host]:
    """Read a list of hosts from a file.

    In TOML each host is a table, whose keys are the fields of :class:`~aioparallel.Host`::

        [[hosts]]
        machine = "me@node2:2222"
        slots = 8
        python = ["~/venv/bin/python", "python3"]
        options = { client_keys = "~/.ssh/lab" }

    The JSON of pyutils is read as well: ``{"remote_worker_records": [{"username": ..., "machine": ...,
    "weight": ..., "count": ...}]}``. Comments (``#`` or ``//``, up to the end of the line) and a comma after the
    last element are allowed there.

    Args:
        path: The file. ``None`` takes the one that ``$AIOPARALLEL_HOSTS`` names, else ``aioparallel/hosts.toml`` in
            your configuration folder (``$XDG_CONFIG_HOME`` or ``~/.config``; on macOS ``~/Library/Application
            Support``, on Windows ``%APPDATA%``), else ``~/.remote_worker_records``.

    Returns:
        The hosts, in the file's order; at least one.

    Raises:
        FileNotFoundError: There is no such file; without *path*, the message lists where it was looked for.
        ValueError: The file is not understood. The message names file, entry and field.
    """
    file = hosts_file() if path is None else Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: it is not UTF-8 text ({error})") from error
    key, names, entries = _read(file, text)
    hosts = {where: _host(where, names, entry) for where, entry in _numbered(f"{file}: {key}", entries)}
    _refuse_duplicates(hosts)
    if not hosts:
        raise ValueError(f"{file}: it lists no hosts. For instance:\n{EXAMPLE}")
    return list(hosts.values())


def hosts_file() -> Path:
    """The file that is read when nobody says which.

    Raises:
        FileNotFoundError: There is none; lists where it was looked for.
    """
    named = os.environ.get(VARIABLE)
    if named:
        file = Path(named).expanduser()
        if not file.exists():
            raise FileNotFoundError(f"there is no file {file}, which ${VARIABLE} names")
        return file
    places = [_configuration() / "aioparallel" / "hosts.toml", Path.home() / ".remote_worker_records"]
    for place in places:
        if place.is_file():
            return place
    looked = "\n".join(f"  {place}" for place in places)
    raise FileNotFoundError(
        f"there is no list of hosts: ${VARIABLE} is not set, and these files are not there:\n{looked}\n"
        f"Write the first, for instance:\n{EXAMPLE}"
    )


def _configuration() -> Path:
    """The folder where users keep their configuration on this platform."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    if sys.platform == "darwin" and not os.environ.get("XDG_CONFIG_HOME"):
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _read(file: Path, text: str) -> tuple[str, Mapping[str, str], list[Any]]:
    """The key under which the entries stand, the names of their fields, and the entries."""
    plain = COMMENT.sub(lambda found: found[1] or "", text)
    if plain.lstrip().startswith("{"):
        return RECORDS, RECORD_FIELDS, _entries(file, RECORDS, _json(file, plain))
    if JSON_LIST.match(plain):
        raise ValueError(f'{file}: JSON has to be an object, with the hosts in it: {{"{RECORDS}": [...]}}')
    try:
        return "hosts", HOST_FIELDS, _entries(file, "hosts", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: it is neither TOML nor JSON: {error}") from error


def _json(file: Path, text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(LAST_COMMA.sub(lambda found: found[1] or "", text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: it is no valid JSON: {error}") from error
    return found


def _entries(file: Path, key: str, found: dict[str, Any]) -> list[Any]:
    unknown = [name for name in found if name != key]
    if unknown:
        raise ValueError(f"{file}: unknown key {unknown[0]!r}; hosts are listed under {key!r}")
    entries = found.get(key, [])
    if not isinstance(entries, list):
        raise ValueError(f"{file}: {key}: expected a list of tables, got {entries!r}. For instance:\n{EXAMPLE}")
    return entries


def _numbered(where: str, entries: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each entry, with words for where it stands."""
    for number, entry in enumerate(entries, start=1):
        machine = entry.get("machine") if isinstance(entry, dict) else None
        yield f"{where}, entry {number}" + (f" ({machine})" if machine else ""), entry


def _host(where: str, names: Mapping[str, str], entry: Any) -> Host:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a table of fields, got {entry!r}. For instance:\n{EXAMPLE}")
    unknown = [name for name in entry if name not in names]
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r} (there are {', '.join(names)})")
    if "machine" not in entry:
        raise ValueError(f"{where}: the field 'machine' is missing")
    try:
        return Host(**{names[name]: value for name, value in entry.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {_as_in_the_file(str(error), names)}") from error


def _as_in_the_file(complaint: str, names: Mapping[str, str]) -> str:
    """What a host complains of, with the name that the field has in the file."""
    said, _, expected = complaint.removeprefix("Host(").partition("): ")
    for name, field in names.items():
        if said.startswith(f"{field}="):
            said = name + said.removeprefix(field)
    return f"{said}: {expected}"


def _refuse_duplicates(hosts: Mapping[str, Host]) -> None:
    seen: dict[str, str] = {}
    for where, host in hosts.items():
        if host.name in seen:
            raise ValueError(f"{where}: the same host as in {seen[host.name]}; give it more slots instead")
        seen[host.name] = where.rpartition(": ")[2]
