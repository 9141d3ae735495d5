"""One example runs on this machine, on ssh hosts and on Ray, and prints the same everywhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioparallel.testing import SshHost
from tests.examples.blocks import ROOT
from tests.sshhosts import serve, write_hosts

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
    with serve(2, slots=1) as hosts:
        yield hosts


def test_here(tmp_path: Path) -> None:
    """On processes of this machine."""
    assert run("here", tmp_path) == SAYS


@pytest.mark.timeout(120)
@pytest.mark.leak_check(fds=False)  # of the server, which goes on
def test_on_ssh_hosts(hosts: list[SshHost], tmp_path: Path) -> None:
    """On the hosts that a file lists."""
    assert run("ssh", tmp_path, AIOPARALLEL_HOSTS=write_hosts(hosts, tmp_path)) == SAYS
    assert all(host.logins for host in hosts)


@pytest.mark.ray(shared=False)
@pytest.mark.timeout(120)
@pytest.mark.leak_check(processes=False, fds=False)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_on_ray(tmp_path: Path) -> None:
    """On a Ray of its own."""
    assert run("ray", tmp_path) == SAYS
