from __future__ import annotations

import json
from pathlib import Path

import pytest

from aioparallel.cli import main

HOSTS = """
[[hosts]]
machine = "me@node1:2222"
slots = 8
weight = 2
python = ["~/venv/bin/python", "python3"]
env = { TOKEN = "secret" }
options = { passphrase = "secret" }

[[hosts]]
machine = "node2"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.toml"
    path.write_text(HOSTS)
    return path


def test_a_list_of_hosts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hosts are listed with the file that names them, in columns; those that nobody uses are left out."""
    assert main(["hosts", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file}\n\n"
        "host           slots  weight  python\n"
        "me@node1:2222  8      2       ~/venv/bin/python | python3\n"
        "node2          CPUs   1\n"
    )


def test_the_file_that_is_found(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word the file is that of `load_hosts()`; for programs it is JSON, which holds no secret."""
    monkeypatch.setenv("AIOPARALLEL_HOSTS", str(file))
    assert main(["hosts", "--json"]) == 0
    out = capsys.readouterr().out
    record = json.loads(out)
    assert record["file"] == str(file)
    assert [host["name"] for host in record["hosts"]] == ["me@node1:2222", "node2"]
    assert record["hosts"][0]["options"] == ["passphrase"]
    assert "secret" not in out


def test_a_file_that_is_missing_or_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there or not understood ends with 2, and one line that names it."""
    assert main(["hosts", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[[hosts]]\nmachine = 5\n")
    assert main(["hosts", str(wrong)]) == 2
    assert "wrong.toml" in capsys.readouterr().err
