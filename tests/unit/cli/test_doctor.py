from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from aioparallel import Host
from aioparallel.cli import doctor, main
from aioparallel.cli.checkup import PHASES, Checkup, check_all
from aioparallel.testing import SshHost, ssh_host, ssh_hosts
from tests.tools import until


@contextmanager
def hosts_in_a_thread(count: int, **fields: Any) -> Iterator[list[SshHost]]:
    """Hosts on a loop of their own: the command has its own as well."""
    made = SimpleQueue[tuple[list[SshHost], Callable[[], object]]]()

    async def serve() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with ssh_hosts(count, **fields) as hosts:
            made.put((hosts, lambda: loop.call_soon_threadsafe(done.set)))
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    hosts, end = made.get(timeout=20)
    try:
        yield hosts
    finally:
        end()
        thread.join()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Host]:
    """The hosts that the file lists which the command reads: keys in memory cannot stand in a file."""
    hosts: list[Host] = []
    monkeypatch.setattr(doctor, "read_hosts", lambda path: (str(path), hosts))
    return hosts


def test_hosts_that_are_well(given: list[Host], capsys: pytest.CaptureFixture[str]) -> None:
    """Hosts that can be used are shown with all that was measured, and the exit code is 0."""
    with hosts_in_a_thread(2) as hosts:
        given.extend(hosts)
        assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].split()[:8] == ["host", "dns", "connect", "key", "login", "python", "handshake", "calls"]
    for line, host in zip(lines[1:3], hosts, strict=True):
        assert line.split()[:8] == [host.name, *["ok"] * 7]
        assert line.count("MB/s") == 2
    assert lines[-1] == "2 of 2 hosts can be used."


def test_a_host_that_is_not(given: list[Host], capsys: pytest.CaptureFixture[str]) -> None:
    """For a host that cannot be used, the phase that failed is marked, the next step is said, and the exit code is 1."""
    with hosts_in_a_thread(1) as hosts:
        fields: dict[str, Any] = {"port": hosts[0].port, "username": "tester", "python": "no-such-python"}
        fields["options"] = {**(hosts[0].options or {}), "known_hosts": None}
        given += [hosts[0], Host("localhost", **fields), Host("no-such-host.invalid", options={"config": None})]
        with pytest.warns(match="NOT checked"):
            assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[2].split()[1:8] == ["ok", "ok", "ok", "ok", "FAILED", "-", "-"]
    assert lines[3].split()[1:8] == ["FAILED", *["-"] * 6]
    assert "cannot be used (python):" in said
    assert "no-such-python: not found" in said
    assert "its identity is not checked" in said
    assert said.endswith("1 of 3 hosts can be used.\n")


def test_json(given: list[Host], capsys: pytest.CaptureFixture[str]) -> None:
    """With --json standard output is one document, with each phase of each host."""
    with hosts_in_a_thread(1, slots=3) as hosts:
        given += [*hosts, Host("no-such-host.invalid", options={"config": None})]
        assert main(["doctor", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    good, bad = record["hosts"]
    assert record["ok"] is False
    assert good["phases"] == dict.fromkeys(PHASES, True)
    assert (good["failed"], good["slots"]) == (None, 3)
    assert min(good[name] for name in ("cpus", "ready", "shell", "trip", "sent", "received")) > 0
    assert bad["phases"] == {"dns": False, **dict.fromkeys(PHASES[1:])}
    assert bad["error"].startswith("no-such-host.invalid: ")


async def test_a_slow_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login shell that takes long to start is no failure, but is told with what to look for."""
    monkeypatch.setattr("aioparallel.cli.checkup.SLOW_SHELL", 0.0)
    async with ssh_host() as host:
        (found,) = await check_all([host], 60)
    assert found.failed is None
    assert "its login shell takes" in found.notes[0]


async def test_a_host_that_hangs() -> None:
    """A host that is not through in time is marked at the phase that it was in, and not as if all before were well."""
    async with ssh_host() as host:
        host.stall()
        (found,) = await check_all([host], 1)
        host.heal()
    assert found.failed == "connect"
    assert (found.phases["dns"], found.phases["auth"], found.phases["calls"]) == (True, None, None)
    assert "not through with this after 1 s" in (found.error or "")


async def test_a_shell_that_hangs() -> None:
    """A login after which nothing happens is marked at the handshake, and nothing is said of Python."""
    async with ssh_host(setup="sleep 60") as host:
        (found,) = await check_all([host], 3)
        await until(lambda: not host.commands, "the host has noticed")
    assert found.failed == "handshake"
    assert (found.phases["auth"], found.phases["python"], found.phases["calls"]) == (True, None, None)


def test_a_login_that_runs_nothing() -> None:
    """Where the handshake failed, nothing is said of Python."""
    found = Checkup("node1", failed="handshake").phases
    assert (found["auth"], found["python"], found["handshake"], found["calls"]) == (True, None, False, None)


def test_hosts_by_name(tmp_path: Path) -> None:
    """The command takes the names of hosts, and files that list them; each host once."""
    assert doctor._hosts(["me@a:22", "b", "b"]) == [Host("me@a:22"), Host("b")]
    file = tmp_path / "some.toml"
    file.write_text('[[hosts]]\nmachine = "node1"\n')
    assert doctor._hosts([str(file)]) == [Host("node1")]
    assert doctor._hosts(["a", str(file), str(file), "node1"]) == [Host("a"), Host("node1")]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["no such host"], "machine"), (["a", "missing.toml"], "missing.toml"), (["a", "-b"], None)],
)
def test_what_makes_no_sense(
    words: list[str], complaint: str | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Names that are none and files that are missing are refused, with 2."""
    if complaint is None:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *words])
        assert ended.value.code == 2
        return
    assert main(["doctor", *words]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "soon"])
def test_a_timeout_that_makes_no_sense(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A timeout has to be a time."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", f"--timeout={seconds}"])
    assert ended.value.code == 2
    assert "expected seconds" in capsys.readouterr().err
