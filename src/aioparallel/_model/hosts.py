"""Hosts: where a remote pool's workers run, how to log in there, and which Python to take."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from types import MappingProxyType
from typing import Any

__all__ = ["Hello", "Host", "SshSettings"]

NOTHING: Mapping[str, Any] = MappingProxyType({})

ADDRESS = re.compile(
    r"""(?: ssh:// )?
        (?: (?P<username> .+ ) @ )?
        (?: \[ (?P<bracketed> [^][]+ ) \] | (?P<plain> [^][:@/]+ ) )
        (?: : (?P<port> [^:]* ) )?
        /?""",
    re.VERBOSE,
)
NOT_IN_A_NAME = re.compile(r"\A-|[\s\x00-\x1f\x7f]")
"""Blanks, and the dash that would make an option of it where a name is typed after ``ssh``."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = {
    "host": "the machine is Host's first argument",
    "port": "write Host(..., port=...)",
    "username": "write Host(..., username=...)",
    "client_factory": "what happens on a connection is watched by the pool",
    "sock": "a connection is made anew whenever it is lost",
}
"""Arguments of ``asyncssh.connect`` that are not options, and what to do instead."""


@dataclass(frozen=True, repr=False)
class Host:
    """A machine that is reached by ssh, and runs workers of a :class:`~aioparallel.RemoteExecutor`.

    Nothing is connected to, and no file is read, when a host is made. What is left out, ``~/.ssh/config`` may
    say, as it does for ``ssh``.

    Args:
        machine: A name or an address, also as ``"me@node2:2222"`` or ``"ssh://me@[fe80::1]:2222"``.
        username: Whom to log in as.
        port: Where its ssh server listens.
        slots: How many calls it runs at a time. ``None`` asks the host for its CPUs.
        weight: How much it is preferred to others, in proportion.
        python: The command or path of its Python, or several that are tried in turn; ``~`` is the home over there.
            It must have the same minor version as the Python here. ``None`` tries ``python3.X``, ``python3`` and
            ``python``.
        setup: A piece of POSIX shell that runs before Python is looked for, such as ``. ~/env/bin/activate``.
        env: Environment variables for everything that we run there.
        options: Keyword arguments for ``asyncssh.connect``, such as ``client_keys`` or ``known_hosts``. ``tunnel``
            may also be a Host: the jump host to go through.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A field has a value that makes no sense. The message names field and value.

    Example:
        ::

            hosts = [
                Host("node1", slots=8, weight=2),
                Host("me@node2:2222", python="~/venv/bin/python"),
                Host("node3", setup="module load python/3.12", env={"OMP_NUM_THREADS": "4"}),
            ]
    """

    machine: str
    _: KW_ONLY
    username: str | None = None
    port: int | None = None
    slots: int | None = None
    weight: float = 1
    python: str | Sequence[str] | None = None
    setup: str | None = None
    env: Mapping[str, str] | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self._take_address()
        _check_name("username", self.username)
        _check_number("port", self.port, 1, 65535)
        _check_number("slots", self.slots, 1, math.inf)
        _check_weight(self.weight)
        _check_setup(self.setup)
        self._set(python=_pythons(self.python), env=_environment(self.env), options=_options(self.options))

    @property
    def name(self) -> str:
        """How errors, logs and tables call it: ``me@node2:2222``."""
        machine = f"[{self.machine}]" if ":" in self.machine else self.machine
        user = f"{self.username}@" if self.username else ""
        return f"{user}{machine}:{self.port}" if self.port else f"{user}{machine}"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        """What differs from the defaults. Of variables and options only the names: values may be secrets."""
        shown = [repr(self.machine)]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                shown += [f"{field.name}=<{', '.join(value)}>"] if value else []
            elif value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"Host({', '.join(shown)})"

    def __hash__(self) -> int:
        return hash((self.machine, self.username, self.port))  # options may hold what cannot be hashed

    def __reduce__(self) -> Any:
        values = [getattr(self, field.name) for field in fields(self)]
        return _revive, (*(dict(value) if isinstance(value, Mapping) else value for value in values),)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _take_address(self) -> None:
        """Take apart what stands for the machine."""
        if not isinstance(self.machine, str):
            raise TypeError(f"Host(machine={self.machine!r}): expected a name or an address, such as 'me@node2:2222'")
        username, machine, port = _split(self.machine)
        for name, said in (("username", username), ("port", port)):
            given = getattr(self, name)
            if said is not None and given is not None and given != said:
                raise ValueError(f"Host({self.machine!r}, {name}={given!r}): which of the two is the {name}?")
            if said is not None:
                self._set(**{name: said})
        self._set(machine=machine)


@dataclass(frozen=True)
class SshSettings:
    """How patient connections are, in seconds, and how many are made at a time.

    Attributes:
        connect_timeout: From the lookup of the name until the server has said what it is. ``ConnectTimeout`` in the
            user's configuration, and the option ``connect_timeout`` of a host, come first.
        login_timeout: From then on until the login. The host's option ``login_timeout`` comes first.
        channel_timeout: For opening a channel on a connection.
        start_timeout: From there until the host agent says hello; the user's shell profile runs meanwhile.
        keepalive_interval: After so long without a word the server is asked whether it is there (0: never).
            ``ServerAliveInterval`` and ``ServerAliveCountMax``, and the options of a host, come first.
        keepalive_count_max: So many questions may be open. A silent partition is noticed after
            ``keepalive_interval * (keepalive_count_max + 1)``.
        handshakes: So many logins are under way at a time, at one server or through one jump host.
    """

    connect_timeout: float = 10.0
    login_timeout: float = 30.0
    channel_timeout: float = 15.0
    start_timeout: float = 30.0
    keepalive_interval: float = 15.0
    keepalive_count_max: int = 3
    handshakes: int = 4


@dataclass(frozen=True)
class Hello:
    """What a host agent says first, of itself and of the machine that it runs on.

    Attributes:
        version: Of its Python, for instance ``3.11.2``.
        tag: What that Python calls its bytecode, for instance ``cpython-311``: the same as here.
        executable: Where that Python is.
        pid: The agent's process.
        cpus: How many this login may use.
        platform: The system and the kind of processor, for instance ``linux x86_64``.
        node: What the machine calls itself.
        boot: What only this machine, since it was started, has; ``None`` where there is no such thing. Two hosts with
            the same are one machine.
    """

    version: str
    tag: str
    executable: str
    pid: int
    cpus: int
    platform: str
    node: str
    boot: str | None


def _split(address: str) -> tuple[str | None, str, int | None]:
    """User name, machine and port of ``me@node2:2222``; an IPv6 address without a port needs no brackets."""
    user, at, bare = address.removeprefix("ssh://").rpartition("@")
    if _is_ipv6(bare):
        return user if at else None, bare, None
    found = ADDRESS.fullmatch(address)
    if found is None or NOT_IN_A_NAME.search(address) or NOT_IN_A_NAME.match(found["plain"] or ""):
        brackets = "; an IPv6 address with a port stands in brackets: '[fe80::1]:22'" if bare.count(":") > 1 else ""
        raise _wrong("machine", address, f"a name or an address, such as 'me@node2:2222'{brackets}")
    if found["bracketed"] and not _is_ipv6(found["bracketed"]):
        raise _wrong("machine", address, "an IPv6 address in the brackets")
    return found["username"], found["bracketed"] or found["plain"], _port(address, found["port"])


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _port(address: str, digits: str | None) -> int | None:
    if digits is None:
        return None
    if not (digits.isascii() and digits.isdecimal() and 1 <= int(digits) <= 65535):
        raise _wrong("machine", address, "a port from 1 to 65535 after the colon")
    return int(digits)


def _check_name(field: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise _wrong(field, value, "text, or None", TypeError)
    if not value or NOT_IN_A_NAME.search(value):
        raise _wrong(field, value, "a name without blanks or a dash in front, or None")


def _check_number(field: str, value: object, least: int, most: float) -> None:
    if value is None:
        return
    bounds = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(field, value, f"a whole number {bounds}, or None", TypeError)
    if not least <= value <= most:
        raise _wrong(field, value, f"a whole number {bounds}, or None")


def _check_weight(value: object) -> None:
    expected = "a number greater than 0 (to leave a host out, leave it out of the list)"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong("weight", value, expected, TypeError)
    if not 0 < value < math.inf:
        raise _wrong("weight", value, expected)


def _check_setup(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise _wrong("setup", value, "shell commands, or None", TypeError)
    if not value.strip() or "\0" in value:
        raise _wrong("setup", value, "shell commands, or None")


def _pythons(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    expected = "a command or path such as 'python3.12' or '~/venv/bin/python', or a list of them"
    candidates = (given,) if isinstance(given, str) else given
    if not isinstance(candidates, Sequence) or not all(isinstance(each, str) for each in candidates):
        raise _wrong("python", given, expected, TypeError)
    for each in candidates:
        if not each.strip() or any(character in each for character in "\0\r\n"):
            raise _wrong("python", given, expected)
        if " " in each and "/" not in each.split(" ")[0]:
            raise _wrong("python", given, "one command without arguments; what else has to run first goes into setup=")
    if not candidates:
        raise _wrong("python", given, expected)
    return tuple(candidates)


def _environment(given: object) -> Mapping[str, str]:
    if given is None:
        return NOTHING
    if not isinstance(given, Mapping):
        raise _wrong("env", given, "a mapping of names to texts", TypeError)
    for name, value in given.items():
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            raise ValueError(f"Host(env={{{name!r}: ...}}): expected the name of an environment variable")
        if not isinstance(value, str):
            raise TypeError(f"Host(env={{{name!r}: {value!r}}}): expected text for its value")
        if "\0" in value:
            raise ValueError(f"Host(env={{{name!r}: {value!r}}}): expected text without NUL characters")
    return MappingProxyType(dict(given))


def _options(given: object) -> Mapping[str, Any]:
    if given is None:
        return NOTHING
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise _wrong("options", given, "a mapping of keyword arguments for asyncssh.connect", TypeError)
    for name, instead in OURS.items():
        if name in given:
            raise ValueError(f"Host(options={{{name!r}: ...}}): that is no option; {instead}")
    tunnel = given.get("tunnel")
    if tunnel is not None and not isinstance(tunnel, (str, Host)):
        raise TypeError(f"Host(options={{'tunnel': {tunnel!r}}}): expected a jump host, as a Host or 'me@bastion:22'")
    return MappingProxyType(dict(given))


def _wrong(field: str, value: object, expected: str, kind: type[Exception] = ValueError) -> Exception:
    return kind(f"Host({field}={value!r}): expected {expected}")


def _revive(*values: Any) -> Host:
    return Host(**{field.name: value for field, value in zip(fields(Host), values, strict=True)})
