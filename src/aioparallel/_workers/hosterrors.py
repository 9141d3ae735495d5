"""What asyncssh, the operating system and the name service say when a host cannot be used, in words of help.

This is the one boundary: nothing from below gets past :func:`explain`. Each message says what happened, whose fault it
is, and what to type or to change next. Whether it is worth trying again is in ``permanent``: a closed port may open,
but a wrong key does not become right by itself, and servers punish those who keep trying.

Importing this module imports asyncssh.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_REQUEST_SESSION_FAILED

from .._model.errors import HostError
from .._model.hosts import Host
from .routes import Route

__all__ = ["Attempt", "SilentError", "explain", "explain_channel", "explain_loss"]

CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
TOO_MANY = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What OpenSSH says to those who come too often, before it closes."""

_log = logging.getLogger("aioparallel")


class SilentError(Exception):
    """Whoever listens there did not say in time what it is."""


@dataclass
class Attempt:
    """An attempt to log in, and what is known of it.

    Attributes:
        host: Where to.
        route: The way there, once that is known.
        step: How far it came: ``config``, ``dns``, ``connect``, ``greeting``, ``key exchange``, ``login``.
        first_words: What the other side has said first.
        offered: The host key that it showed, if that is not one of those it should have.
    """

    host: Host
    route: Route | None = None
    step: str = "config"
    first_words: bytes = b""
    offered: asyncssh.SSHKey | None = None

    @property
    def name(self) -> str:
        """The host's."""
        return self.host.name

    @property
    def phase(self) -> str:
        """How far it came, as errors have it."""
        return {"dns": "dns", "login": "auth"}.get(self.step, "connect")

    @property
    def where(self) -> str:
        """The machine and port, and the jump host."""
        if self.route is None:
            return self.name
        through = f" (through {self.route.jump.name})" if self.route.jump else ""
        return f"{self.route.machine} port {self.route.port}{through}"

    @property
    def ssh(self) -> str:
        """What a user would type to get there; what ssh's configuration knows need not be said."""
        host = self.host
        words = ["ssh", *(["-p", str(host.port)] if host.port else [])]
        if self.route and self.route.jump and "tunnel" in (host.options or {}):
            words += ["-J", self.route.jump.name]
        return shlex.join([*words, f"{host.username}@{host.machine}" if host.username else host.machine])

    @property
    def known_as(self) -> str:
        """How lists of known hosts call it."""
        assert self.route is not None, "it was connected to"
        return self.route.alias if self.route.port == 22 else f"[{self.route.alias}]:{self.route.port}"


@dataclass(frozen=True)
class Reason:
    """Why a host cannot be used: the phase, whether that will change by itself, and what to tell."""

    phase: str | None
    permanent: bool
    text: str


def explain(error: BaseException, attempt: Attempt) -> HostError:
    """Why somebody could not log in."""
    return error if isinstance(error, HostError) else _error(attempt.name, _why(error, attempt), error)


def _error(name: str, reason: Reason, cause: BaseException | None) -> HostError:
    error = HostError(f"{name}: {reason.text}", host=name, phase=reason.phase, permanent=reason.permanent)
    error.__cause__ = cause
    return error


@singledispatch
def _why(error: BaseException, attempt: Attempt) -> Reason:
    """Anything else: it should not happen, but if it does, it must not get lost."""
    _log.warning("%s: an unexpected error while the connection was made", attempt.name, exc_info=error)
    text = f"unexpected {type(error).__name__} while the connection was made: {error}\nPlease report it."
    return Reason(attempt.phase, False, text)


# Names and networks


@_why.register
def _(error: socket.gaierror, attempt: Attempt) -> Reason:
    machine = _machine(attempt)
    if error.errno == socket.EAI_AGAIN:
        text = f"the name {machine!r} cannot be looked up at the moment: {error.strerror}."
        return Reason("dns", False, text)
    return Reason("dns", True, f"there is no machine by the name {machine!r} ({error.strerror}). Is it spelled right?")


@_why.register
def _(error: UnicodeError, attempt: Attempt) -> Reason:
    return Reason("dns", True, f"{_machine(attempt)!r} is no name that a machine can have: {error}")


def _machine(attempt: Attempt) -> str:
    return attempt.route.machine if attempt.route else attempt.host.machine


@_why.register
def _(error: TimeoutError, attempt: Attempt) -> Reason:
    if attempt.step == "dns":
        return Reason("dns", False, f"the name service did not answer within {_patience(attempt)}.")
    text = (
        f"{attempt.where} did not answer within {_patience(attempt)}. The machine is off, or cut off, or a firewall "
        "drops what is sent there."
    )
    return Reason("connect", False, text)


@_why.register
def _(error: SilentError, attempt: Attempt) -> Reason:
    text = (
        f"{attempt.where} accepts connections, but said nothing within {_patience(attempt)}. Its ssh server hangs, or "
        "is overloaded, or something else listens there."
    )
    return Reason("connect", False, text)


def _patience(attempt: Attempt) -> str:
    return f"{attempt.route.connect_timeout:g} s" if attempt.route else "the time it had"


@_why.register
def _(error: OSError, attempt: Attempt) -> Reason:
    if error.filename is not None:
        return _no_file(error, attempt)
    if isinstance(error, CLOSED):
        return _closed(attempt)
    return Reason("connect", False, f"{attempt.where} cannot be reached: {error.strerror or error}.")


@_why.register
def _(error: ConnectionRefusedError, attempt: Attempt) -> Reason:
    text = (
        f"{attempt.where} refuses connections: the machine is there, but no ssh server listens on that port. Is the "
        "port right? On the host: `systemctl status ssh`."
    )
    return Reason("connect", False, text)


def _no_file(error: OSError, attempt: Attempt) -> Reason:
    file, route = os.fspath(error.filename), attempt.route
    if route is not None and file in route.files:
        return Reason("host key", True, f"{file}, which lists known hosts, cannot be read: {error.strerror}.")
    if route is not None and route.proxied:
        text = f"the ProxyCommand of your ssh configuration cannot be run: {file}: {error.strerror}."
        return Reason("connect", True, text)
    text = (
        f"{file} cannot be read: {error.strerror}. It is named as a key, a certificate or a configuration by the "
        "host's options, or by your ssh configuration."
    )
    return Reason("auth", True, text)


def _closed(attempt: Attempt) -> Reason:
    """The other side closed, without saying why; how far it had come tells something."""
    words = attempt.first_words
    said = words.split(b"\n")[0].decode("ascii", "backslashreplace").strip()
    if words.startswith(TOO_MANY):
        text = (
            f"the ssh server turned us away: {said!r}. Others log in there at the same time, or it has seen too many "
            "failures from here (its MaxStartups and PerSourcePenalties). It usually passes."
        )
        return Reason("connect", False, text)
    if words and b"SSH-" not in words:
        text = f"what listens on {attempt.where} is no ssh server; it said {said!r}. Is the port right?"
        return Reason("connect", True, text)
    if attempt.step == "login":
        text = (
            f"the server closed the connection while {_user(attempt)} was logging in. Its log says why: the account "
            "may be locked, not among AllowUsers, or have too many keys (MaxAuthTries)."
        )
        return Reason("auth", False, text)
    if words:
        return Reason("connect", False, f"the server closed the connection during the key exchange ({said}).")
    text = (
        f"{attempt.where} closed the connection at once. Too many are logging in (its MaxStartups), a firewall "
        "or /etc/hosts.deny does not like where we come from, or it is just being restarted."
    )
    return Reason("connect", False, text)


def _user(attempt: Attempt) -> str:
    return attempt.route.username if attempt.route else attempt.host.username or "you"


# ssh


@_why.register
def _(error: asyncssh.ConnectionLost, attempt: Attempt) -> Reason:
    if "timeout" not in str(error).lower():
        return _closed(attempt)
    if attempt.step == "greeting":
        return _why(SilentError(), attempt)
    if attempt.step == "login":
        text = (
            f"the login of {_user(attempt)} was not through in time. Does an ssh agent or a security key here wait for "
            "somebody to confirm? Else the server is slow: its name service, its directory of users, or its disks."
        )
        return Reason("auth", False, text)
    return Reason("connect", False, f"the key exchange with {attempt.where} was not through in time.")


@_why.register
def _(error: asyncssh.KeyExchangeFailed, attempt: Attempt) -> Reason:
    text = (
        f"this side and the server have no algorithm in common: {error}.\nOne of the two is very old, or strictly "
        "set up. The host's options can name what is to be used, such as options={'encryption_algs': ['aes256-ctr']}."
    )
    return Reason("connect", True, text)


@_why.register
def _(error: asyncssh.HostKeyNotVerifiable, attempt: Attempt) -> Reason:
    if "revoked" in str(error):
        text = f"its host key is marked as revoked ({_files(attempt)}), and is not to be trusted any more: {error}."
    elif attempt.offered is None or attempt.route is None:
        text = f"its host key cannot be verified: {error}."
    elif _known_keys(attempt.route):
        text = (
            f"its host key has CHANGED. It shows {_fingerprint(attempt.offered)}, but {_files(attempt)} says otherwise."
            "\nThe machine has been set up anew or has got a new key - or somebody else answers in its place, and "
            f"would get all that is sent. Find out first. {_if_right(attempt)}"
        )
    else:
        text = (
            f"its host key is not known here ({_files(attempt)}). It shows {_fingerprint(attempt.offered)}.\n"
            f"Log in once, compare that with what the machine's administrator says, and answer yes:\n  {attempt.ssh}"
            f"{_scan(attempt)}"
        )
    return Reason("host key", True, text)


def _known_keys(route: Route, known_hosts: Any = None) -> bool:
    """Whether anything is known of the host's keys, by one list or all."""
    try:
        port = None if route.port == 22 else route.port
        return any(asyncssh.match_known_hosts(known_hosts or route.known_hosts, route.alias, "", port)[:2])
    except (OSError, ValueError, TypeError):
        return False


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def _files(attempt: Attempt) -> str:
    """Where it was looked for."""
    route = attempt.route
    if route is not None and route.files:
        return ", ".join(route.files)
    if (attempt.host.options or {}).get("known_hosts", ()) != ():
        return "the known hosts that the options give"
    return "there is no ~/.ssh/known_hosts"


def _if_right(attempt: Attempt) -> str:
    assert attempt.route is not None, "something is known of it"
    file = next((each for each in attempt.route.files if _known_keys(attempt.route, [each])), None)
    remove = ["ssh-keygen", *(["-f", file] if file else []), "-R", attempt.known_as]
    return f"If all is well:\n  {shlex.join(remove)} && {attempt.ssh}"


def _scan(attempt: Attempt) -> str:
    """Another way to get a host's key, where there is a direct way to the host."""
    route = attempt.route
    if route is None or route.jump or route.proxied:
        return ""
    words = ["ssh-keyscan", *(["-p", str(route.port)] if route.port != 22 else []), route.machine]
    return f"\nor, if you trust the network: {shlex.join(words)} >> ~/.ssh/known_hosts"


@_why.register
def _(error: asyncssh.PermissionDenied, attempt: Attempt) -> Reason:
    text = (
        f"the login as {_user(attempt)} was refused: no key that was offered is accepted there, or there is no such "
        f"user.\nSee what ssh says:  {attempt.ssh} true\nIf that asks for a password, install your key there with "
        "ssh-copy-id. If it works, name the key that it uses: options={'client_keys': '~/.ssh/...'}."
    )
    return Reason("auth", True, text)


@_why.register
def _(error: asyncssh.ProtocolError, attempt: Attempt) -> Reason:
    if "authentication failures" in str(error):
        text = (
            f"the server gave up on {_user(attempt)} after too many keys (its MaxAuthTries). Offer the right one only: "
            "options={'client_keys': '~/.ssh/...', 'agent_path': None}, or IdentitiesOnly in your ssh configuration."
        )
        return Reason("auth", True, text)
    return _not_ssh(error, attempt)


@_why.register(asyncssh.ProtocolNotSupported)
@_why.register(asyncssh.MACError)
@_why.register(asyncssh.CompressionError)
def _not_ssh(error: Exception, attempt: Attempt) -> Reason:
    text = f"what listens on {attempt.where} does not speak ssh as it should: {error}. Is the port right?"
    return Reason("connect", True, text)


@_why.register(asyncssh.IllegalUserName)
@_why.register(asyncssh.ServiceNotAvailable)
@_why.register(asyncssh.PasswordChangeRequired)
def _(error: Exception, attempt: Attempt) -> Reason:
    text = f"the login as {_user(attempt)} was refused: {error}. See what ssh says:  {attempt.ssh} true"
    return Reason("auth", True, text)


@_why.register
def _(error: asyncssh.DisconnectError, attempt: Attempt) -> Reason:
    return Reason(attempt.phase, False, f"the server ended the connection: {error}")


@_why.register
def _(error: asyncssh.KeyImportError, attempt: Attempt) -> Reason:
    if "passphrase" in str(error).lower():
        text = (
            f"a private key is encrypted, and its passphrase is not known here: {error}\nGive the key to an agent "
            "(`ssh-add`), or the passphrase by options={'passphrase': ...}."
        )
        return Reason("auth", True, text)
    return Reason("auth", True, f"a key cannot be read: {error}")


@_why.register
def _(error: asyncssh.KeyEncryptionError, attempt: Attempt) -> Reason:
    if "bcrypt" in str(error):
        help_yourself = "Install bcrypt (pip install bcrypt), or give the key to an agent (ssh-add)."
        return Reason("auth", True, f"an encrypted private key cannot be opened: {error}.\n{help_yourself}")
    return Reason("auth", True, f"an encrypted private key cannot be opened: {error}. Is the passphrase right?")


@_why.register
def _(error: asyncssh.ConfigParseError, attempt: Attempt) -> Reason:
    return Reason("connect", True, f"your ssh configuration cannot be understood: {error}")


@_why.register(ValueError)
@_why.register(TypeError)
def _(error: Exception, attempt: Attempt) -> Reason:
    text = f"asyncssh does not take the host's options, or your ssh configuration: {error}"
    return Reason("connect" if attempt.step != "login" else "auth", True, text)


@_why.register
def _(error: asyncssh.ChannelOpenError, attempt: Attempt) -> Reason:
    """A jump host could not make the connection."""
    jump = attempt.route.jump.name if attempt.route and attempt.route.jump else "the jump host"
    if error.code == OPEN_ADMINISTRATIVELY_PROHIBITED:
        text = f"{jump} does not forward connections (AllowTcpForwarding or PermitOpen in its sshd_config): {error}"
        return Reason("connect", True, text)
    unknown = "name" in str(error).lower() and "known" in str(error).lower()
    return Reason("dns" if unknown else "connect", False, f"{jump} cannot reach {attempt.where}: {error}")


# Later on


def explain_loss(error: BaseException | None, name: str) -> HostError:
    """Why a connection that there was is no more."""
    if error is None:
        text = "the connection was closed."
    elif "keepalive" in str(error):
        text = "the connection was lost: the server does not answer any more. It hangs, or is off, or cut off."
    elif isinstance(error, (asyncssh.ConnectionLost, *CLOSED)):
        text = "the connection was lost: it was reset. The ssh server was ended, or the machine restarted."
    else:
        text = f"the connection was lost: {str(error) or type(error).__name__}"
    return _error(name, Reason(None, False, text), error)


def explain_channel(error: BaseException, name: str) -> HostError:
    """Why a session could not be opened on a connection."""
    if isinstance(error, HostError):
        return error
    if isinstance(error, TimeoutError):
        text, permanent = "the server did not open a session in time. It is overloaded, or the network is cut.", False
    elif not isinstance(error, asyncssh.ChannelOpenError):
        _log.warning("%s: an unexpected error while a session was opened", name, exc_info=error)
        text, permanent = f"unexpected {type(error).__name__} while a session was opened: {error}", False
    elif error.code == OPEN_REQUEST_SESSION_FAILED:
        text, permanent = f"the server does not run commands for this login: {error}.", True
    elif error.code == OPEN_ADMINISTRATIVELY_PROHIBITED:
        text, permanent = f"the server does not open sessions for this login: {error}.", True
    else:
        text = f"the server opens no further session on this connection (MaxSessions in its sshd_config): {error}."
        permanent = False
    return _error(name, Reason("handshake", permanent, text), error)
