"""Starting the host agent on a machine that has nothing but Python and an ssh server.

Nothing is installed there, and nothing is written to its disks. What happens, step by step:

1. The user's login shell, whichever it is, gets a command without any character that some shell finds special. It
   runs ``/bin/sh``, which reads one line from its standard input. So nobody sees in a list of processes what is in that
   line, and there is nothing to quote for the login shell.
2. The line sets the host's variables, runs its ``setup``, and looks for Python: the first command of the list that is
   there is run, with a few lines of Python that any version understands (*stage 0*).
3. Stage 0 compares versions. Functions travel as bytecode, and bytecode of another minor version crashes the
   interpreter, so nothing is unpickled before that. If this is not the one, it lets the shell look further down the
   list.
4. Otherwise it reads what follows on standard input: the child package, compiled, and cloudpickle. Both are imported
   from memory (:mod:`aioparallel._child.boot`), before anything that the host may have under these names: a pickle made
   by one version of cloudpickle needs that version's internals.
5. The agent says hello, behind a mark that nobody can print by chance: what a shell profile prints before is skipped.

Everything is sent in one go, so the hello is there two round trips after the session was asked for. What goes wrong is
told on standard error, in lines that begin with the same mark.

Importing this module imports asyncssh.
"""

from __future__ import annotations

import functools
import marshal
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import fields
from importlib import resources
from typing import Any

import anyio
import anyio.to_thread

from .._child import boot, messages
from .._model.contracts import ChannelListener
from .._model.errors import HostError
from .._model.hosts import Hello, Host
from .channel import SshChannel
from .ssh import Connection

__all__ = ["start_agent"]

CHILD = "_aioparallel_child"
"""What the child package is called on a host."""

COMMAND = """exec /bin/sh -c 'IFS= read -r line && eval "$line"'"""
"""No backslash, exclamation mark or line's end: bash, dash, zsh, tcsh and fish read it alike."""

SEARCH = (
    "while [ $# -gt 0 ]; do p=$1; shift; "
    'case $p in */*) [ -f "$p" ] && [ -x "$p" ];; *) command -v "$p" >/dev/null 2>&1;; esac || continue; '
    'echo "$_AIOPARALLEL_MARK try $# $p" >&2; '
    """exec "$p" -c 'import os; exec(os.environ["_AIOPARALLEL_BOOT"])' "$@"; """
    'done; echo "$_AIOPARALLEL_MARK none" >&2; exit 127'
)
"""Become the first of the arguments that can be run."""

STAGE_0 = """\
import os, sys
sys.path[:] = [p for p in sys.path if p]
mark, (size, tag) = os.environ["_AIOPARALLEL_MARK"], os.environ["_AIOPARALLEL_WANT"].split()
found = str(getattr(getattr(sys, "implementation", None), "cache_tag", None))
if found != tag:
    text = "%s found %d.%d.%d %s %s\\n" % ((mark,) + tuple(sys.version_info[:3]) + (found, sys.executable))
    os.write(2, text if str is bytes else text.encode("utf-8", "replace"))
    os.execv("/bin/sh", ["sh", "-c", 'eval "$_AIOPARALLEL_SEARCH"', "sh"] + sys.argv[1:])
data = b""
while len(data) < int(size):
    more = os.read(0, int(size) - len(data))
    if not more:
        sys.exit(mark + " cut")
    data += more
for name in "BOOT", "MARK", "SEARCH", "WANT":
    del os.environ["_AIOPARALLEL_" + name]
import marshal, zlib
modules = marshal.loads(zlib.decompress(data))
names = {"__name__": "_aioparallel_child.boot", "__package__": "_aioparallel_child"}
exec(modules[names["__name__"]][0], names)
names["main"](modules, mark.split("-")[1])
"""
"""Understood by every Python from 2.7 on, up to the point where it finds that it is the wrong one."""

NOISE = 64 * 1024
"""Bytes that may come before the hello."""
LONGEST_HELLO = 64 * 1024
SHOWN = 400
"""Characters of what was written instead of a hello that an error quotes."""


def default_pythons() -> tuple[str, ...]:
    """What is tried when a host does not say."""
    return f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python"


async def start_agent(connection: Connection, listener: ChannelListener, *, seconds: float = 30.0) -> SshChannel:
    """Start the host agent at the other end of a connection.

    Args:
        connection: To a host; the agent takes one session of it.
        listener: Who is told what happens from then on.
        seconds: How long it may take until the agent says hello, the user's shell profile included.

    Returns:
        The channel: what is written to it is read by the agent.

    Raises:
        HostError: No agent can be started, in the phase ``python`` or ``handshake``.

    Cancellation:
        The session is closed, or will be as soon as it is open.
    """
    payload = await anyio.to_thread.run_sync(_payload)
    rest = list(connection.host.python or default_pythons())
    tried: list[tuple[str, str]] = []
    found: list[str] = []
    while rest:
        greeting = _Greeting(os.urandom(16).hex())
        channel = await _run(connection, greeting, rest, payload, seconds)
        if greeting.hello is not None:
            channel.hello, channel.listener = greeting.hello, listener
            if greeting.rest:
                listener.received(greeting.rest)
            return channel
        search = _Search(rest, greeting.mark, channel)
        if not search.has_begun:
            raise _not_run(connection.host, greeting, channel)
        tried += search.tried
        found += search.versions
        rest = search.rest
    raise _no_python(connection.host, tried, found)


async def _run(
    connection: Connection, greeting: _Greeting, candidates: list[str], payload: bytes, seconds: float
) -> SshChannel:
    """Send it all; return when the agent has said hello, or has ended without."""
    host = connection.host
    channel = SshChannel(host.name, connection.line, greeting)
    channel.write([_line(host, candidates, greeting.mark, len(payload)), payload])
    try:
        with anyio.fail_after(seconds):
            await connection.open_session(COMMAND, lambda: channel)
            await greeting.over.wait()
        if greeting.hello is None and (channel.error is None or not channel.end):
            raise _no_hello(host, greeting, channel)
    except BaseException as error:
        channel.abort()
        if isinstance(error, TimeoutError):
            raise _too_slow(host, greeting, channel, seconds) from None
        raise
    return channel


@functools.cache
def _payload() -> bytes:
    """What is sent to every host: the same for the life of this process."""
    modules: boot.Modules = {}
    for package, folder in ((CHILD, "aioparallel._child"), ("cloudpickle", "cloudpickle")):
        for file in resources.files(folder).iterdir():
            if file.name.endswith(".py"):
                stem = file.name.removesuffix(".py")
                name = package if stem == "__init__" else f"{package}.{stem}"
                source, shown = file.read_text(encoding="utf-8"), f"<aioparallel>/{package}/{file.name}"
                # Compiling takes the host longer than receiving; but cloudpickle is not always needed.
                code = compile(source, shown, "exec", dont_inherit=True) if package == CHILD else None
                modules[name] = (code, source, shown, stem == "__init__")
    return zlib.compress(marshal.dumps(modules), 6)


def _line(host: Host, candidates: Sequence[str], mark: str, size: int) -> bytes:
    """What the shell over there is to do, in one line."""
    ours = {"BOOT": STAGE_0, "SEARCH": SEARCH, "MARK": mark, "WANT": f"{size} {sys.implementation.cache_tag}"}
    variables = {**{f"_AIOPARALLEL_{name}": value for name, value in ours.items()}, **(host.env or {})}
    steps = ["_n=${IFS#??}", *(f"export {name}={_quoted(value)}" for name, value in variables.items())]
    if host.setup is not None:
        steps += [f'echo "{mark} setup" >&2', f"eval {_quoted(host.setup)} </dev/null >&2"]
    steps += [f"set -- {' '.join(map(_path, candidates))}", 'eval "$_AIOPARALLEL_SEARCH"']
    return "; ".join(steps).encode("utf-8", "surrogateescape") + b"\n"


def _quoted(text: str) -> str:
    """A word for a POSIX shell, on one line: the variable ``_n`` holds a line's end."""
    return "'" + text.replace("'", "'\\''").replace("\n", "'\"$_n\"'") + "'"


def _path(candidate: str) -> str:
    """The same for a path, whose first part may be somebody's home."""
    home, slash, rest = candidate.partition("/")
    if (home.startswith("~") and home[1:].replace("-", "").replace("_", "").replace(".", "").isalnum()) or home == "~":
        return f"{home}{slash}{_quoted(rest) if rest else ''}"
    return _quoted(candidate)


class _Greeting:
    """Listens until the agent has said hello, and skips what a shell profile prints before.

    Attributes:
        mark: What lines on standard error begin with that are ours.
        hello: What the agent has said.
        rest: What came after that.
        over: Set when it has said hello, or will not.
        noise: What came before.
    """

    def __init__(self, nonce: str) -> None:
        self.mark = f"AIOPARALLEL-{nonce}"
        self.hello: Hello | None = None
        self.rest = b""
        self.over = anyio.Event()
        self.noise = bytearray()
        self._begin = boot.HELLO + nonce.encode()

    def received(self, data: bytes) -> None:
        self.noise += data
        if self.over.is_set():
            return
        start = self.noise.find(self._begin)
        if start >= 0:
            self._read(start + len(self._begin))
        elif len(self.noise) > NOISE:
            self.over.set()

    def writable(self) -> None:
        """Nothing waits for that yet."""

    def lost(self, error: HostError) -> None:
        self.over.set()

    def _read(self, start: int) -> None:
        size = int.from_bytes(self.noise[start : start + 4], "little")
        text = bytes(self.noise[start + 4 : start + 4 + size])
        if size > LONGEST_HELLO:
            self.over.set()
        elif len(self.noise) >= start + 4 and len(text) == size:
            try:
                self.hello = _hello(messages.loads(text))
            except (messages.MessageError, KeyError, TypeError, ValueError):
                pass  # no agent of ours says that
            self.rest = bytes(self.noise[start + 4 + size :])
            self.over.set()


def _hello(said: dict[str, Any]) -> Hello:
    return Hello(**{field.name: said[field.name] for field in fields(Hello)})


class _Search:
    """How the search for a Python went, by what is on standard error.

    Attributes:
        has_begun: Whether it came to that at all.
        tried: Each command, and what was found.
        versions: Of the Pythons of other versions.
        rest: The commands that come after one that failed without a word, and so were not tried.
    """

    def __init__(self, candidates: list[str], mark: str, channel: SshChannel) -> None:
        outcomes: dict[int, str] = {}
        self.versions: list[str] = []
        self.has_begun = False
        last, ended = -1, False
        others: list[str] = []
        for line in channel.last_words.splitlines():
            if not line.startswith(mark):
                others += [line.strip()] if line.strip() else []
                continue
            what, _, details = line.removeprefix(mark).strip().partition(" ")
            if what == "try":
                last = len(candidates) - int(details.split()[0]) - 1
            elif what == "found":
                version, tag, where = details.split(" ", 2)
                outcomes[last] = f"{version} ({tag}), {where}"
                self.versions.append(version)
            self.has_begun = self.has_begun or what in {"try", "none"}
            ended = ended or what == "none"
        if not ended and self.has_begun:
            outcomes.setdefault(last, f"{channel.end}: {others[-1]}" if others else channel.end)
        known = candidates if ended else candidates[: last + 1]
        self.tried = [(each, outcomes.get(place, "not found")) for place, each in enumerate(known)]
        self.rest = candidates[len(known) :]


def _no_python(host: Host, tried: list[tuple[str, str]], versions: list[str]) -> HostError:
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    ours = f"{minor}.{sys.version_info[2]} ({sys.implementation.cache_tag})"
    list_of_them = "\n".join(f"  {command}: {what}" for command, what in tried)
    text = (
        f"{host.name}: there is no Python {minor} that we can find. The Python here is {ours}, and both sides must "
        f"have the same minor version, because functions travel as bytecode. Tried there:\n{list_of_them}\n"
        f"Install Python {minor} there, or say where it is: Host({host.name!r}, python='/path/to/python{minor}')."
    )
    return HostError(
        text,
        host=host.name,
        phase="python",
        permanent=True,
        tried=tuple(tried),
        mismatch=versions[0] if versions else None,
    )


def _not_run(host: Host, greeting: _Greeting, channel: SshChannel) -> HostError:
    """The shell ended before it looked for Python."""
    if host.setup is not None and f"{greeting.mark} setup" in channel.last_words:
        what = f"its setup={host.setup!r} ended the shell ({channel.end}). It has to be for a POSIX shell, /bin/sh."
    else:
        what = (
            f"the login does not run our commands ({channel.end}): the account has no real shell, its key is bound to "
            "another command, or it is no Unix."
        )
    return _handshake(f"{host.name}: {what}{_wrote(greeting, channel)}", host, permanent=True)


def _no_hello(host: Host, greeting: _Greeting, channel: SshChannel) -> HostError:
    """The session was lost; or it goes on, but what it says is no hello."""
    if channel.error is not None:
        return _handshake(str(channel.error), host, permanent=False)
    what = f"what runs there is no agent of ours, or a shell profile wrote more than {NOISE // 1024} KiB before it."
    return _handshake(f"{host.name}: {what}{_wrote(greeting, channel)}", host, permanent=True)


def _too_slow(host: Host, greeting: _Greeting, channel: SshChannel, seconds: float) -> HostError:
    what = (
        f"the agent did not say hello within {seconds:g} s. Does a shell profile over there take so long, or wait for "
        "somebody to type?"
    )
    return _handshake(f"{host.name}: {what}{_wrote(greeting, channel)}", host, permanent=False)


def _handshake(text: str, host: Host, *, permanent: bool) -> HostError:
    return HostError(text, host=host.name, phase="handshake", permanent=permanent)


def _wrote(greeting: _Greeting, channel: SshChannel) -> str:
    """What was written instead of a hello."""
    errors = [line for line in channel.last_words.splitlines() if not line.startswith(greeting.mark)]
    written = greeting.noise.decode("utf-8", "backslashreplace")[:SHOWN].strip()
    said = "\n".join([written, *errors])[-2 * SHOWN :].strip()
    return f" It wrote:\n{said}" if said else ""
