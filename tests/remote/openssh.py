"""Real OpenSSH servers, for as long as a test takes.

Where the tests run as root, everything happens in a *world*: a mount namespace in which ``/etc/passwd`` lists users of
ours, with shells and homes of their own. Nothing outside changes. Servers run there as root, or as one of these users.
Where they do not run as root there is only the user who runs them, and a server that lets nobody else in.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aioparallel import Host
from tests.tools import PATIENCE, is_alive, wait_for

SSHD = next((path for path in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if os.access(path, os.X_OK)), "")
"""It has to be started by its full path."""

IS_ROOT = os.geteuid() == 0
UID = 64123
"""Of our users, who are all the same to the kernel."""

SHELLS = {
    "bash": "/bin/bash",
    "dash": "/bin/dash",
    "zsh": "/usr/bin/zsh",
    "tcsh": "/usr/bin/tcsh",
    "fish": "/usr/bin/fish",
}
PYENVS = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
WITH_US = ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []
"""Stands before a command that is to end when these tests do, however that comes."""

PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONFIG = """\
ListenAddress {listen}
HostKey {host_key}
PidFile none
AuthorizedKeysFile {authorized_keys}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
LogLevel VERBOSE
SetEnv {marks}
"""


def why_not() -> str | None:
    """Why no server can be started here."""
    if not SSHD:
        return "there is no OpenSSH server here (Debian: apt-get install openssh-server)"
    return (
        None if shutil.which("ssh-keygen") else "there is no ssh-keygen here (Debian: apt-get install openssh-client)"
    )


def marks() -> dict[str, str]:
    """What tells that a process belongs to these tests."""
    return {name: value for name, value in os.environ.items() if name.startswith("AIOPARALLEL_")}


def run(*command: str, **environ: str) -> str:
    """Run a command that has to succeed; returns what it prints."""
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def make_key(path: Path, *options: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair."""
    run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path), *options)
    return path


def public(key: Path | str) -> bytes:
    """The public half of a key."""
    return Path(f"{key}.pub").read_bytes()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """All live processes below one."""
    found, ahead = [], [pid]
    while ahead:
        above = ahead.pop()
        try:
            tasks = os.listdir(f"/proc/{above}/task")
            texts = [Path(f"/proc/{above}/task/{task}/children").read_text() for task in tasks]
        except OSError:
            continue
        below = [int(each) for text in texts for each in text.split()]
        found += [each for each in below if is_alive(each)]
        ahead += below
    return found


def send(number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class World:
    """Where servers run: users, their keys, and Pythons that they can run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aioparallel-remote-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.key = make_key(self.folder / "id")
        self.authorized_keys = self.folder / "authorized_keys"
        self.authorized_keys.write_bytes(public(self.key))
        self.python = functools.cache(self._find_python)
        self._holder: subprocess.Popen[bytes] | None = None
        if IS_ROOT:
            self._make_users()
            self._enter()

    @property
    def user(self) -> str:
        """Somebody without privileges."""
        return "lab" if IS_ROOT else getpass.getuser()

    def home(self, user: str = "lab") -> Path:
        """Where a user of ours is at home."""
        return self.folder / "home" / user

    def inside(self, *more: str, user: str = "root") -> list[str]:
        """What stands before a command that is to run there: as root, or as somebody without privileges."""
        if self._holder is None:
            return []
        switch = [] if user == "root" else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return ["nsenter", f"--target={self._holder.pid}", "--mount", *more, "--", *switch]

    def close(self) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def need_python(self, minor: str = MINOR) -> str:
        """The same as :meth:`python`, for tests that cannot do without."""
        return self.python(minor) or str(pytest.skip(f"there is no Python {minor} here that every user can run"))

    def _find_python(self, minor: str = MINOR) -> str | None:
        """A Python of this version that every user can run, if there is one."""
        pyenvs = [f"{each}/bin/python" for each in sorted(PYENVS.glob(f"{minor}.*"))]
        here = [f"{sys.base_prefix}/bin/python{minor}"]
        for path in (f"/usr/bin/python{minor}", f"/usr/local/bin/python{minor}", *pyenvs, *here):
            command = [*self.inside(user=self.user), path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            with contextlib.suppress(OSError):
                done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
                if done.stdout.strip() == minor:
                    return path
        return None

    def _make_users(self) -> None:
        shells = {"lab": "/bin/bash", "nologin": "/usr/sbin/nologin"} | {
            f"lab{name}": path for name, path in SHELLS.items()
        }
        for name in shells:
            self.home(name).mkdir(parents=True)
            os.chown(self.home(name), UID, UID)
        self.home("root").mkdir()
        others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        ours = [f"{name}:*:{UID}:{UID}::{self.home(name)}:{shell}" for name, shell in shells.items()]
        passwd = [f"root:*:0:0::{self.home('root')}:/bin/bash", *others, *ours]
        (self.folder / "passwd").write_text("\n".join(passwd) + "\n")
        (self.folder / "group").write_text(Path("/etc/group").read_text() + f"lab:x:{UID}:\n")

    def _enter(self) -> None:
        """Make the namespace, where root's home holds nothing but its Pythons, which everybody may run."""
        steps = [f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "group")]
        if PYENVS.is_dir():
            aside, home = self.folder / "pyenvs", Path.home()
            aside.mkdir()
            steps += [
                f"mount --bind {PYENVS} {aside}",
                f"mount -t tmpfs -o mode=755 tmpfs {home}",
                f"mkdir -p {PYENVS}",
                f"mount --bind {aside} {PYENVS}",
            ]
        script = " && ".join([*steps, "echo ready", "exec sleep infinity"])
        command = [*WITH_US, "unshare", "--mount", "--propagation=private", "sh", "-c", script]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        self._holder.stdout.close()
        if said != b"ready\n":
            self.close()
            pytest.skip(f"no mount namespace can be made here: {said!r}")
        Path("/run/sshd").mkdir(exist_ok=True)


@dataclass
class Sshd:
    """A server.

    Args:
        world: Where it runs.
        lines: More lines of its configuration, which come first and so win.
        user: Who runs it: ``root`` lets everybody in, others only themselves.
        before: Shell commands that are run before it, in a mount namespace of its own.
        address: Where it listens.
        net: The network namespace that it runs in.
    """

    world: World
    lines: tuple[str, ...] = ()
    user: str = ""
    before: str = ""
    address: str = "127.0.0.1"
    net: str = ""
    port: int = field(default_factory=free_port)
    folder: Path = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.user = self.user or ("root" if IS_ROOT else self.world.user)
        self.folder = Path(tempfile.mkdtemp(prefix="sshd-", dir=self.world.folder))
        self.folder.chmod(0o755)
        self.host_key = make_key(self.folder / "host_key")
        if self.user != "root" and IS_ROOT:
            for path in (self.folder, self.host_key):
                os.chown(path, UID, UID)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        config = self.folder / "sshd_config"
        listen = f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
        settings = CONFIG.format(
            listen=listen,
            host_key=self.host_key,
            authorized_keys=self.world.authorized_keys,
            marks=" ".join(f"{name}={value}" for name, value in marks().items()),
        )
        config.write_text("\n".join([*self.lines, settings]))
        command = [SSHD, "-D", "-f", str(config), "-E", str(self.folder / "log")]
        if self.before:
            unshared = ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{self.before}\nexec "$@"', "sh"]
            command = [*unshared, *command]
        net = [f"--net=/run/netns/{self.net}"] if self.net else []
        heard = self.log.count("Server listening")
        self.process = subprocess.Popen(
            [*self.world.inside(*net, user=self.user), *WITH_US, *command],
            env={"PATH": PATHS, **marks()},  # as the machine's own server has it: nothing of whoever runs the tests
            stdin=subprocess.DEVNULL,
        )
        wait_for(lambda: self._listens(heard), "sshd listens")

    def _listens(self, heard: int) -> bool:
        if self.process.poll() is not None:
            raise OSError(f"sshd ended:\n{self.log}")
        return self.log.count("Server listening") > heard

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def logins(self) -> int:
        """How many were let in so far."""
        return self.log.count("Accepted publickey for")

    @property
    def processes(self) -> list[int]:
        """Of all its connections, and of what runs in them."""
        return descendants(self.process.pid)

    @property
    def known_hosts(self) -> bytes:
        """The line by which clients know it."""
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{name} ".encode() + public(self.host_key)

    def options(self, **others: Any) -> dict[str, Any]:
        """What lets a client in, and leaves out what the user of these tests may have."""
        own = {"client_keys": str(self.world.key), "known_hosts": self.known_hosts}
        return {**own, "config": None, "agent_path": None, "gss_host": None, **others}

    def host(self, user: str = "", *, options: dict[str, Any] | None = None, **fields: Any) -> Host:
        """The host that this server makes, for one of its users."""
        fields = {"python": self.world.python(), "port": self.port, **fields}
        return Host(self.address, username=user or self.world.user, options=self.options(**(options or {})), **fields)

    def stop(self) -> None:
        """Kill it, with all its connections and whatever runs in them."""
        send(signal.SIGKILL, *self.processes, self.process.pid)
        self.process.wait(PATIENCE)
