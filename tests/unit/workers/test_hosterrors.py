"""What is said when a host cannot be used: a table of everything that can come from below."""

from __future__ import annotations

import errno
import inspect
import pickle
import socket
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from aioparallel import Host, HostError
from aioparallel._workers.hosterrors import Attempt, SilentError, explain, explain_channel, explain_loss
from aioparallel._workers.routes import Route

KEY = asyncssh.generate_private_key("ssh-ed25519")
SHOWN = KEY.get_fingerprint()
OTHER = asyncssh.generate_private_key("ssh-ed25519")
PHASES = {"dns", "connect", "host key", "auth", "python", "handshake"}


def line(key: asyncssh.SSHKey, *marker: str) -> bytes:
    """A line of known_hosts."""
    return b" ".join([*(m.encode() for m in marker), b"[10.0.0.7]:2222", key.export_public_key()])


NODE = Host("me@node1:2222")


def route(**changes: Any) -> Route:
    fields: dict[str, Any] = {
        "machine": "10.0.0.7",
        "port": 2222,
        "username": "me",
        "jump": None,
        "proxied": False,
        "known_hosts": b"",
        "files": (),
        "alias": "10.0.0.7",
        "connect_timeout": 10.0,
        "family": 0,
        "local_addr": None,
        "arguments": {},
    }
    return Route(**{**fields, **changes})


def attempt(
    step: str, words: bytes = b"", offered: asyncssh.SSHKey | None = None, *, host: Host = NODE, **changes: Any
) -> Attempt:
    return Attempt(host, route(**changes), step, words, offered)


SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
LOST = asyncssh.ConnectionLost("Connection lost")
LATE = asyncssh.ConnectionLost("Login timeout expired")
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
UNTRUSTED = asyncssh.HostKeyNotVerifiable("Host key is not trusted for host 10.0.0.7")
BASTION = Host("bastion")


@pytest.mark.parametrize(
    ("error", "at", "phase", "permanent", "said"),
    [
        # The name service
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            attempt("dns"),
            *("dns", True, "there is no machine by the name '10.0.0.7' (Name or service not known)"),
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            attempt("dns"),
            *("dns", False, "cannot be looked up at the moment: Temporary failure"),
        ),
        (UnicodeError("label too long"), attempt("dns"), "dns", True, "is no name that a machine can have"),
        (TimeoutError(), attempt("dns"), "dns", False, "the name service did not answer within 10 s"),
        # The network
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
            attempt("connect"),
            *("connect", False, "10.0.0.7 port 2222 refuses connections: the machine is there, but no ssh server"),
        ),
        (
            OSError(errno.EHOSTUNREACH, "No route to host"),
            attempt("connect"),
            *("connect", False, "cannot be reached: No route to host"),
        ),
        (OSError("odd"), attempt("connect"), "connect", False, "cannot be reached: odd"),
        (TimeoutError(), attempt("connect"), "connect", False, "did not answer within 10 s. The machine is off, or"),
        # Who listens there, and does not speak ssh
        (SilentError(), attempt("greeting"), "connect", False, "accepts connections, but said nothing within 10 s"),
        (LATE, attempt("greeting"), "connect", False, "accepts connections, but said nothing"),
        (
            LOST,
            attempt("greeting"),
            "connect",
            False,
            "closed the connection at once. Too many are logging in (its MaxS",
        ),
        (RESET, attempt("greeting"), "connect", False, "closed the connection at once"),
        (
            LOST,
            attempt("greeting", b"Exceeded MaxStartups\r\n"),
            *("connect", False, "turned us away: 'Exceeded MaxStartups'. Others log in there at the same time"),
        ),
        (LOST, attempt("greeting", b"Not allowed at this time\r\n"), "connect", False, "PerSourcePenalties"),
        (
            LOST,
            attempt("greeting", b"HTTP/1.1 400 Bad Request\r\nServer: x"),
            *("connect", True, "is no ssh server; it said 'HTTP/1.1 400 Bad Request'. Is the port right?"),
        ),
        (asyncssh.ProtocolError("Banner line too long"), attempt("greeting"), "connect", True, "does not speak ssh"),
        (asyncssh.ProtocolNotSupported("Unsupported SSH version"), attempt("greeting"), "connect", True, "Unsupported"),
        (asyncssh.MACError("MAC verification failed"), attempt("key exchange"), "connect", True, "MAC verification"),
        (asyncssh.CompressionError("no"), attempt("key exchange"), "connect", True, "does not speak ssh as it should"),
        # The key exchange
        (
            LOST,
            attempt("key exchange", SSH),
            "connect",
            False,
            "closed the connection during the key exchange (SSH-2.0",
        ),
        (
            LATE,
            attempt("key exchange", SSH),
            "connect",
            False,
            "the key exchange with 10.0.0.7 port 2222 was not throug",
        ),
        (
            asyncssh.KeyExchangeFailed("No matching encryption algorithm found, sent a and received b"),
            attempt("key exchange", SSH),
            *("connect", True, "have no algorithm in common: No matching encryption algorithm found, sent a and"),
        ),
        # The host's key
        (
            UNTRUSTED,
            attempt("key exchange", SSH, KEY),
            *("host key", True, f"not known here (there is no ~/.ssh/known_hosts). It shows ssh-ed25519 {SHOWN}"),
        ),
        (
            UNTRUSTED,
            attempt("key exchange", SSH, KEY, files=("/h/known_hosts",)),
            "host key",
            True,
            "(/h/known_hosts).",
        ),
        (
            UNTRUSTED,
            attempt("key exchange", SSH, KEY, host=Host("node1", options={"known_hosts": b""})),
            *("host key", True, "is not known here (the known hosts that the options give)"),
        ),
        (
            UNTRUSTED,
            attempt("key exchange", SSH, KEY, known_hosts=line(OTHER), files=("/h/known_hosts",)),
            *("host key", True, f"has CHANGED. It shows ssh-ed25519 {SHOWN}, but /h/known_hosts says"),
        ),
        (
            asyncssh.HostKeyNotVerifiable("Host key is revoked for host 10.0.0.7"),
            attempt("key exchange", SSH, files=("/h/known_hosts",)),
            *("host key", True, "is marked as revoked (/h/known_hosts), and is not to be trusted any more"),
        ),
        (
            asyncssh.HostKeyNotVerifiable("Certificate expired for host 10.0.0.7"),
            attempt("key exchange", SSH),
            *("host key", True, "its host key cannot be verified: Certificate expired"),
        ),
        # The login
        (
            asyncssh.PermissionDenied("Permission denied for user me on host 10.0.0.7"),
            attempt("login", SSH),
            *("auth", True, "the login as me was refused: no key that was offered is accepted there, or there is no"),
        ),
        (LOST, attempt("login", SSH), "auth", False, "closed the connection while me was logging in. Its log says why"),
        (LATE, attempt("login", SSH), "auth", False, "the login of me was not through in time. Does an ssh agent"),
        (
            asyncssh.ProtocolError("Too many authentication failures"),
            attempt("login", SSH),
            *("auth", True, "gave up on me after too many keys (its MaxAuthTries)"),
        ),
        (asyncssh.IllegalUserName("no"), attempt("login", SSH), "auth", True, "the login as me was refused: no"),
        (asyncssh.ServiceNotAvailable("no"), attempt("login", SSH), "auth", True, "the login as me was refused: no"),
        (asyncssh.PasswordChangeRequired("New:"), attempt("login"), "auth", True, "Password change required: New:"),
        (asyncssh.DisconnectError(2, "go away"), attempt("login", SSH), "auth", False, "ended the connection: go away"),
        (asyncssh.DisconnectError(12, "full"), attempt("key exchange"), "connect", False, "ended the connection: full"),
        # Keys, files and configuration on this side
        (
            asyncssh.KeyImportError("Passphrase must be specified to import encrypted private keys"),
            attempt("config"),
            *("auth", True, "is encrypted, and its passphrase is not known here"),
        ),
        (
            asyncssh.KeyImportError("Invalid private key"),
            attempt("config"),
            "auth",
            True,
            "a key cannot be read: Inval",
        ),
        (
            asyncssh.KeyEncryptionError("OpenSSH private key encryption requires bcrypt with KDF support"),
            attempt("config"),
            *("auth", True, "pip install bcrypt"),
        ),
        (
            asyncssh.KeyEncryptionError("Incorrect passphrase"),
            attempt("config"),
            "auth",
            True,
            "Is the passphrase right?",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/h/id"),
            attempt("config"),
            *("auth", True, "/h/id cannot be read: No such file or directory. It is named as a key"),
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/h/known_hosts"),
            attempt("config", files=("/h/known_hosts",)),
            *("host key", True, "/h/known_hosts, which lists known hosts, cannot be read: Permission denied"),
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "nc"),
            attempt("config", proxied=True),
            *("connect", True, "the ProxyCommand of your ssh configuration cannot be run: nc: No such file"),
        ),
        (
            asyncssh.ConfigParseError("/h/config line 3: Invalid Port"),
            Attempt(NODE),
            *("connect", True, "your ssh configuration cannot be understood: /h/config line 3"),
        ),
        (TypeError("unexpected keyword argument 'x'"), Attempt(NODE), "connect", True, "does not take the host's opt"),
        (ValueError("no valid algorithms"), attempt("config"), "connect", True, "no valid algorithms"),
        # Jump hosts
        (
            asyncssh.ChannelOpenError(2, "Connection refused"),
            attempt("connect", jump=BASTION),
            *("connect", False, "bastion cannot reach 10.0.0.7 port 2222 (through bastion): Connection refused"),
        ),
        (
            asyncssh.ChannelOpenError(2, "Name or service not known"),
            attempt("connect", jump=BASTION),
            *("dns", False, "bastion cannot reach"),
        ),
        (
            asyncssh.ChannelOpenError(1, "open failed"),
            attempt("connect", jump=BASTION),
            *("connect", True, "bastion does not forward connections (AllowTcpForwarding"),
        ),
        # What should not happen
        (RuntimeError("a bug"), attempt("connect"), "connect", False, "unexpected RuntimeError while"),
        (asyncssh.Error(1, "odd"), attempt("login"), "auth", False, "unexpected Error while"),
    ],
)
def test_explanations(error: Exception, at: Attempt, phase: str, permanent: bool, said: str) -> None:
    """Each failure has a phase, says whether it will last, and what it is, and keeps its cause."""
    explained = explain(error, at)
    assert (explained.phase, explained.permanent) == (phase, permanent), explained
    assert said in str(explained)
    assert str(explained).startswith(f"{at.name}: ")
    assert explained.host == at.name
    assert explained.__cause__ is error
    again = pickle.loads(pickle.dumps(explained))
    assert str(again) == str(explained)
    assert (again.host, again.phase, again.permanent) == (at.name, phase, permanent)


EVERYTHING = sorted(
    {
        kind
        for _, kind in inspect.getmembers(asyncssh)
        if inspect.isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, asyncssh.SFTPError)
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", EVERYTHING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("step", ["config", "dns", "connect", "greeting", "key exchange", "login"])
def test_nothing_is_left_out(kind: type[Exception], step: str) -> None:
    """Whatever asyncssh raises, at whatever step, becomes a HostError with a phase."""
    error = kind.__new__(kind)
    Exception.__init__(error, "text")
    for name, value in (("code", 1), ("reason", "text"), ("lang", "")):
        setattr(error, name, value)
    for at in (attempt(step), Attempt(NODE, step=step)):
        assert explain(error, at).phase in PHASES


def test_host_errors_pass() -> None:
    """What has been explained already stays as it is."""
    error = HostError("node1: x", host="node1", phase="python")
    assert explain(error, attempt("login")) is error
    assert explain_channel(error, "node1") is error


# What to type


def text(error: Exception, at: Attempt) -> str:
    return str(explain(error, at))


@pytest.mark.parametrize(
    ("host", "command"),
    [
        (Host("node1"), "ssh node1"),
        (Host("me@node1:2222"), "ssh -p 2222 me@node1"),
        (Host("me@node1", options={"tunnel": "you@bastion"}), "ssh -J you@bastion me@node1"),
    ],
)
def test_the_way_to_type(host: Host, command: str) -> None:
    """Messages name the very command that leads to the host, without what the configuration knows."""
    jump = Host("you@bastion") if host.options else None
    assert f"\n  {command}" in text(UNTRUSTED, attempt("key exchange", SSH, KEY, host=host, jump=jump))
    denied = attempt("login", SSH, host=host, jump=jump)
    assert f"See what ssh says:  {command} true\n" in text(asyncssh.PermissionDenied("no"), denied)


def test_the_keys_to_scan() -> None:
    """A host that is reached directly can be asked for its key, others not."""
    assert "ssh-keyscan -p 2222 10.0.0.7 >> ~/.ssh/known_hosts" in text(UNTRUSTED, attempt("key exchange", SSH, KEY))
    assert "keyscan" not in text(UNTRUSTED, attempt("key exchange", SSH, KEY, jump=BASTION))
    assert "keyscan" not in text(UNTRUSTED, attempt("key exchange", SSH, KEY, proxied=True))
    assert "ssh-keyscan 10.0.0.7 >>" in text(UNTRUSTED, attempt("key exchange", SSH, KEY, port=22))


def test_the_key_to_remove(tmp_path: Path) -> None:
    """A key that has changed can be removed under the name that the list has for it, from the list that has it."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.write_bytes(line(OTHER))
    files = (str(one), str(two))
    at = attempt("key exchange", SSH, KEY, known_hosts=list(files), files=files)
    assert f"ssh-keygen -f {two} -R '[10.0.0.7]:2222' && ssh -p 2222 me@node1" in text(UNTRUSTED, at)
    at = attempt("key exchange", SSH, KEY, known_hosts=line(OTHER))
    assert "ssh-keygen -R '[10.0.0.7]:2222' && ssh -p 2222 me@node1" in text(UNTRUSTED, at)
    plain = line(OTHER).replace(b"[10.0.0.7]:2222", b"10.0.0.7")
    at = attempt("key exchange", SSH, KEY, known_hosts=plain, port=22)
    assert "ssh-keygen -R 10.0.0.7 && " in text(UNTRUSTED, at)


def test_lists_that_cannot_be_read_know_nobody() -> None:
    """A list of known hosts that makes no sense does not hide that the key is not known."""
    at = attempt("key exchange", SSH, KEY, known_hosts=["/no/such/file"])
    assert "is not known here" in text(UNTRUSTED, at)


# Later on


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "the connection was closed."),
        (asyncssh.ConnectionLost("Server not responding to keepalive"), "the server does not answer any more"),
        (LOST, "it was reset. The ssh server was ended, or the machine restarted."),
        (RESET, "it was reset"),
        (asyncssh.ProtocolError("nonsense"), "the connection was lost: nonsense"),
        (ValueError(), "the connection was lost: ValueError"),
    ],
)
def test_losses(error: Exception | None, said: str) -> None:
    """A connection that was there and is no more has no phase, and is worth trying again."""
    explained = explain_loss(error, "node1")
    assert said in str(explained)
    assert (explained.host, explained.phase, explained.permanent) == ("node1", None, False)
    assert explained.__cause__ is error


@pytest.mark.parametrize(
    ("error", "permanent", "said"),
    [
        (
            asyncssh.ChannelOpenError(2, "open failed"),
            False,
            "opens no further session on this connection (MaxSessions",
        ),
        (asyncssh.ChannelOpenError(1, "no"), True, "does not open sessions for this login: no"),
        (asyncssh.ChannelOpenError(0xFFFFFFFF, "Session request failed"), True, "does not run commands for this login"),
        (TimeoutError(), False, "did not open a session in time"),
        (RuntimeError("a bug"), False, "unexpected RuntimeError while a session was opened: a bug"),
    ],
)
def test_sessions(error: Exception, permanent: bool, said: str) -> None:
    """A session that cannot be opened is a failure of the handshake."""
    explained = explain_channel(error, "node1")
    assert said in str(explained)
    assert (explained.host, explained.phase, explained.permanent) == ("node1", "handshake", permanent)
