"""A real OpenSSH server on the loopback interface, which lets in whoever runs the benchmarks, and nobody else."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["Server", "server"]

PROGRAM = "/usr/sbin/sshd"
START_SECONDS = 5.0

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/id.pub
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""

ECHO = "import os\nwhile b := os.read(0, 65536): os.write(1, b)"
SINK = "import os\nn = {size}\nos.write(1, b'.')\nwhile n > 0: n -= len(os.read(0, 1 << 20))\nos.write(1, b'.')"
SOURCE = "import os\nn, z = {size}, bytes(1 << 20)\nos.write(1, b'.')\nos.read(0, 1)\nwhile n: n -= os.write(1, z[:n])"
"""Both say first that they are there."""


@dataclass(frozen=True)
class Server:
    """How to get in.

    Attributes:
        port: Where it listens.
        folder: Where the keys are.
    """

    port: int
    folder: Path

    @property
    def options(self) -> dict[str, Any]:
        """For ``asyncssh.connect``."""
        known = f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}"
        key = str(self.folder / "id")
        return {"client_keys": key, "known_hosts": known.encode(), "config": None, "agent_path": None, "gss_host": None}

    @property
    def ssh(self) -> list[str]:
        """What the ssh program is called with, up to the command."""
        return ["ssh", *self._flags, "-p", str(self.port), "127.0.0.1"]

    def scp(self, source: Path, target: str) -> list[str]:
        """What the scp program is called with, to copy a file of this machine there."""
        return ["scp", "-q", *self._flags, "-P", str(self.port), str(source), f"127.0.0.1:{target}"]

    @property
    def _flags(self) -> list[str]:
        known = self.folder / "known_hosts"
        known.write_bytes(self.options["known_hosts"])
        settings = [f"UserKnownHostsFile={known}", "Ciphers=aes128-gcm@openssh.com", "BatchMode=yes"]
        options = [word for setting in settings for word in ("-o", setting)]
        return ["-F", "none", "-i", str(self.folder / "id"), *options]


def run(source: str, **values: int) -> str:
    """The command that runs a few lines of Python at the other end."""
    return f"exec {sys.executable} -S -c '{source.format(**values).replace(chr(39), chr(34))}'"


@contextmanager
def server() -> Iterator[Server]:
    """Run a server.

    Raises:
        RuntimeError: There is no program for it here.
    """
    if not os.access(PROGRAM, os.X_OK):
        raise RuntimeError("there is no OpenSSH server here (Debian: apt-get install openssh-server)")
    with TemporaryDirectory(prefix="aioparallel-bench-") as name:
        folder = Path(name)
        for key in ("host_key", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = folder / "log"
        command = [PROGRAM, "-D", "-f", str(folder / "config"), "-E", str(log)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + START_SECONDS
                while not log.exists() or "Server listening" not in log.read_text():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"sshd did not start: {log.read_text() if log.exists() else ''}")
                    time.sleep(0.005)
                yield Server(port, folder)
            finally:
                process.terminate()


def username() -> str:
    """Who is let in."""
    return getpass.getuser()
