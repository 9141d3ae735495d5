"""Files that list hosts: both formats, where they are looked for, and what is said of mistakes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from aioparallel import Host, load_hosts

TOML = """\
# my machines
[[hosts]]
machine = "node1" # the old one

[[hosts]]
machine = "me@node2:2222"
slots = 8
weight = 2
python = ["~/venv/bin/python", "python3"]
setup = '''
. ~/env/bin/activate
ulimit -n 4096
'''
env = { OMP_NUM_THREADS = "1" }
options = { client_keys = "~/.ssh/lab", keepalive_interval = 5 }
"""

RECORDS = """\
# the machines at home; see http://example.org/#here
{
  // user names may hold # and //
  "remote_worker_records": [
    { "username": "me", "machine": "node1", "weight": 24, "count": 5 },   # fast
    // { "username": "me", "machine": "off", "weight": 1, "count": 1 },
    { "username": "a#b//c,]", "machine": "node2", "weight": 1, "count": 2 },
  ],
}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any file."""
    for name in ("AIOPARALLEL_HOSTS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_toml(home: Path) -> None:
    """TOML has a table for each host, with the names of its fields."""
    assert load_hosts(write(home / "hosts.toml", TOML)) == [
        Host("node1"),
        Host(
            "me@node2:2222",
            slots=8,
            weight=2,
            python=["~/venv/bin/python", "python3"],
            setup=". ~/env/bin/activate\nulimit -n 4096\n",
            env={"OMP_NUM_THREADS": "1"},
            options={"client_keys": "~/.ssh/lab", "keepalive_interval": 5},
        ),
    ]


def test_records(home: Path) -> None:
    """The JSON of pyutils is understood, with comments, a last comma, and strings that look like those."""
    assert load_hosts(write(home / "records", RECORDS)) == [
        Host("node1", username="me", weight=24, slots=5),
        Host("node2", username="a#b//c,]", weight=1, slots=2),
    ]


# Where they are


def test_the_users_home_is_expanded(home: Path) -> None:
    """A path may begin with a tilde, and may be text."""
    write(home / "hosts.toml", TOML)
    assert len(load_hosts("~/hosts.toml")) == 2


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {}, ".config/aioparallel/hosts.toml"),
        ("linux", {"XDG_CONFIG_HOME": "xdg"}, "xdg/aioparallel/hosts.toml"),
        ("darwin", {}, "Library/Application Support/aioparallel/hosts.toml"),
        ("darwin", {"XDG_CONFIG_HOME": "xdg"}, "xdg/aioparallel/hosts.toml"),
        ("win32", {"APPDATA": "roaming"}, "roaming/aioparallel/hosts.toml"),
        ("win32", {}, "AppData/Roaming/aioparallel/hosts.toml"),
    ],
)
def test_the_users_configuration(
    home: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], place: str
) -> None:
    """Without a path, the list is looked for in the folder that the platform has for configuration."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("APPDATA", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(home / value))
    write(home / place, TOML)
    assert load_hosts()[0] == Host("node1")


def test_the_order_of_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable comes before the configuration, and that before the file of pyutils."""
    write(home / ".remote_worker_records", RECORDS)
    assert load_hosts()[0].weight == 24
    write(home / ".config/aioparallel/hosts.toml", TOML)
    assert load_hosts()[0].weight == 1
    monkeypatch.setenv("AIOPARALLEL_HOSTS", "~/mine.toml")
    write(home / "mine.toml", '[[hosts]]\nmachine = "mine"')
    assert load_hosts() == [Host("mine")]


def test_there_is_no_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any list, the error says where it was looked for, and what to write; a path that was named is named."""
    with pytest.raises(FileNotFoundError) as caught:
        load_hosts()
    text = str(caught.value)
    assert f"{home}/.config/aioparallel/hosts.toml" in text
    assert f"{home}/.remote_worker_records" in text
    assert load_hosts(write(home / "example.toml", text[text.index("[[hosts]]") :]))
    monkeypatch.setenv("AIOPARALLEL_HOSTS", str(home / "absent"))
    with pytest.raises(FileNotFoundError, match=r"absent, which \$AIOPARALLEL_HOSTS names"):
        load_hosts()
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_hosts(home / "elsewhere")


# Mistakes

NODE = '[[hosts]]\nmachine = "node1"\n'
RECORD = '{"remote_worker_records": [{"machine": "node1", %s}]}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{file}: it lists no hosts. For instance:\n[[hosts]]"),
        ("hosts = []", "{file}: it lists no hosts"),
        ('{"remote_worker_records": []}', "{file}: it lists no hosts"),
        ("[hosts]\nmachine = 'a'", "{file}: hosts: expected a list of tables, got {'machine': 'a'}"),
        ("hosts = ['node1']", "{file}: hosts, entry 1: expected a table of fields, got 'node1'. For instance:\n["),
        ("[[host]]\nmachine = 'a'", "{file}: unknown key 'host'; hosts are listed under 'hosts'"),
        ('{"workers": []}', "{file}: unknown key 'workers'; hosts are listed under 'remote_worker_records'"),
        (NODE + "slot = 3", "{file}: hosts, entry 1 (node1): unknown field 'slot' (there are machine, username, port,"),
        (RECORD % '"slots": 3', "entry 1 (node1): unknown field 'slots' (there are machine, username, weight, count)"),
        ("[[hosts]]\nslots = 3", "{file}: hosts, entry 1: the field 'machine' is missing"),
        (NODE + "slots = 'eight'", "hosts, entry 1 (node1): slots='eight': expected a whole number of at least 1"),
        (RECORD % '"count": 0', "remote_worker_records, entry 1 (node1): count=0: expected a whole number of at least"),
        (RECORD % '"weight": 0', "remote_worker_records, entry 1 (node1): weight=0: expected a number greater than 0"),
        (NODE + "env = { A = 1 }", "hosts, entry 1 (node1): env={'A': 1}: expected text for its value"),
        (NODE + "port = 70000", "hosts, entry 1 (node1): port=70000: expected a whole number from 1 to 65535"),
        (NODE * 2, "hosts, entry 2 (node1): the same host as in hosts, entry 1 (node1); give it more slots instead"),
        ("[[hosts]\n", "{file}: it is neither TOML nor JSON: "),
        ('[{"machine": "a"}]', '{file}: JSON has to be an object, with the hosts in it: {"remote_worker_records": ['),
        ('["node1"]', "{file}: JSON has to be an object"),
        ('{"remote_worker_records": [}', "{file}: it is no valid JSON: "),
        ('{"remote_worker_records": ["a]}', "{file}: it is no valid JSON: "),
    ],
)
def test_mistakes(home: Path, text: str, said: str) -> None:
    """A mistake is an error that names the file, the entry and the field."""
    file = write(home / "hosts", text)
    with pytest.raises(ValueError, match=re.escape(said.replace("{file}", str(file)))):
        load_hosts(file)


def test_json_errors_have_the_right_line(home: Path) -> None:
    """Comments do not change the line that an error names."""
    with pytest.raises(ValueError, match="line 3"):
        load_hosts(write(home / "hosts", '# one\n{ // two\n "remote_worker_records": [!]}'))


def test_other_encodings(home: Path) -> None:
    """The mark that some editors put in front of UTF-8 is skipped; a file that is not UTF-8 is refused by name."""
    file = home / "hosts"
    for text in (NODE, RECORD % '"count": 2'):
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_hosts(file)[0].machine == "node1"
    file.write_bytes(b'[[hosts]]\nmachine = "n\xe9"')
    with pytest.raises(ValueError, match=re.escape(f"{file}: it is not UTF-8 text")):
        load_hosts(file)
