"""One example runs on this machine, on ssh hosts and on Ray, and prints the same everywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio.from_thread
import pytest

from aioparallel.testing import SshHost, ssh_hosts
from tests.examples.blocks import ROOT

SAYS = """\
pi is about 3.14254
what fails there arrives here: 'str' object cannot be interpreted as an integer
"""


def run(place: str, home: Path, **variables: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "anywhere.py"), place],
        env={**own, "PYTHONPATH": str(ROOT / "src"), "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[SshHost]]:
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(ssh_hosts(2, slots=1)) as hosts,
    ):
        yield hosts


def test_here(tmp_path: Path) -> None:
    """On processes of this machine."""
    assert run("here", tmp_path) == SAYS


@pytest.mark.timeout(120)
@pytest.mark.leak_check(fds=False)  # of the server, which goes on
def test_on_ssh_hosts(hosts: list[SshHost], tmp_path: Path) -> None:
    """On the hosts that a file lists."""
    entries = []
    for number, host in enumerate(hosts):
        key, known = tmp_path / f"key{number}", tmp_path / f"known{number}"
        key.touch(0o600)
        key.write_bytes(host.options["client_keys"])
        known.write_bytes(host.options["known_hosts"])
        options = f"{{ client_keys = {json.dumps(str(key))}, known_hosts = {json.dumps(str(known))} }}"
        machine = json.dumps(f"{host.username}@{host.machine}:{host.port}")
        entries.append(f"[[hosts]]\nmachine = {machine}\npython = {json.dumps(sys.executable)}\noptions = {options}\n")
    file = tmp_path / "hosts.toml"
    file.write_text("\n".join(entries))
    assert run("ssh", tmp_path, AIOPARALLEL_HOSTS=str(file)) == SAYS
    assert all(host.logins for host in hosts)


@pytest.mark.ray(shared=False)
@pytest.mark.timeout(120)
@pytest.mark.leak_check(processes=False, fds=False)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_on_ray(tmp_path: Path) -> None:
    """On a Ray of its own."""
    assert run("ray", tmp_path) == SAYS
