"""Hosts: what is taken apart, what is refused, and what is shown."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
from typing import Any

import pytest

from aioparallel import Host

FULL = Host(
    "me@node2:2222",
    slots=8,
    weight=2.5,
    python=["~/venv/bin/python", "python3"],
    setup=". ~/env/bin/activate",
    env={"TOKEN": "secret"},
    options={"client_keys": "~/.ssh/lab", "passphrase": "secret"},
)


@pytest.mark.parametrize(
    ("address", "username", "machine", "port"),
    [
        ("node1", None, "node1", None),
        ("node1.example.org", None, "node1.example.org", None),
        ("10.0.0.7", None, "10.0.0.7", None),
        ("me@node2", "me", "node2", None),
        ("node2:2222", None, "node2", 2222),
        ("me@node2:2222", "me", "node2", 2222),
        ("me@domain@node2:22", "me@domain", "node2", 22),
        ("ssh://me@node2:2222", "me", "node2", 2222),
        ("ssh://node2/", None, "node2", None),
        ("::1", None, "::1", None),
        ("me@fe80::1%eth0", "me", "fe80::1%eth0", None),
        ("[::1]", None, "::1", None),
        ("ssh://me@[fe80::1%eth0]:2222", "me", "fe80::1%eth0", 2222),
    ],
)
def test_addresses(address: str, username: str | None, machine: str, port: int | None) -> None:
    """A host's first argument may hold user, machine and port in the ways that are usual."""
    host = Host(address)
    assert (host.username, host.machine, host.port) == (username, machine, port)


@pytest.mark.parametrize("address", ["node1", "me@node2:2222", "[fe80::1]:22", "me@[::1]:2", "me@[::1]"])
def test_names(address: str) -> None:
    """A host's name reads as one would type it, and makes the same host again."""
    host = Host(address)
    assert host.name == str(host) == address
    assert Host(host.name) == host


def test_defaults() -> None:
    """What is left out is left to ssh's configuration, and to the host."""
    host = Host("node1")
    assert (host.username, host.port, host.slots, host.weight) == (None, None, None, 1)
    assert (host.python, host.setup, dict(host.env or {}), dict(host.options or {})) == (None, None, {}, {})


def test_one_python_or_several() -> None:
    """One Python is a list of one."""
    assert Host("node1", python="python3.12").python == ("python3.12",)
    assert FULL.python == ("~/venv/bin/python", "python3")
    assert Host("node1", python="/opt/my python/bin/python3").python == ("/opt/my python/bin/python3",)


def test_fields_may_repeat_the_address() -> None:
    """A field may say what the address says already."""
    assert Host("me@node2:2222", username="me", port=2222) == Host("node2", username="me", port=2222)


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (TypeError, {"machine": 5}, "Host(machine=5): expected a name or an address, such as 'me@node2:2222'"),
        (ValueError, {"machine": ""}, "Host(machine=''): expected a name or an address"),
        (ValueError, {"machine": "node 1"}, "Host(machine='node 1'): expected a name or an address"),
        (ValueError, {"machine": "-oProxyCommand=x"}, "Host(machine='-oProxyCommand=x'): expected a name"),
        (ValueError, {"machine": "me@-node"}, "Host(machine='me@-node'): expected a name"),
        (ValueError, {"machine": "@node"}, "Host(machine='@node'): expected a name"),
        (ValueError, {"machine": "node/1"}, "Host(machine='node/1'): expected a name"),
        (ValueError, {"machine": "node:0"}, "Host(machine='node:0'): expected a port from 1 to 65535 after the colon"),
        (ValueError, {"machine": "node:"}, "Host(machine='node:'): expected a port"),
        (ValueError, {"machine": "node:²"}, "Host(machine='node:²'): expected a port"),
        (ValueError, {"machine": "[node]:2"}, "Host(machine='[node]:2'): expected an IPv6 address in the brackets"),
        (ValueError, {"machine": "1:2:3"}, "an IPv6 address with a port stands in brackets: '[fe80::1]:22'"),
        (ValueError, {"username": "you", "machine": "me@a"}, "Host('me@a', username='you'): which of the two is"),
        (ValueError, {"port": 1, "machine": "a:2"}, "Host('a:2', port=1): which of the two is the port?"),
        (TypeError, {"username": 1}, "Host(username=1): expected text, or None"),
        (ValueError, {"username": "my self"}, "Host(username='my self'): expected a name without blanks"),
        (ValueError, {"username": ""}, "Host(username=''): expected a name"),
        (TypeError, {"port": "22"}, "Host(port='22'): expected a whole number from 1 to 65535, or None"),
        (ValueError, {"port": 70000}, "Host(port=70000): expected a whole number from 1 to 65535, or None"),
        (TypeError, {"slots": True}, "Host(slots=True): expected a whole number of at least 1, or None"),
        (TypeError, {"slots": "eight"}, "Host(slots='eight'): expected a whole number of at least 1, or None"),
        (ValueError, {"slots": 0}, "Host(slots=0): expected a whole number of at least 1, or None"),
        (ValueError, {"weight": 0}, "Host(weight=0): expected a number greater than 0 (to leave a host out"),
        (ValueError, {"weight": math.nan}, "Host(weight=nan): expected a number greater than 0"),
        (TypeError, {"weight": "1"}, "Host(weight='1'): expected a number greater than 0"),
        (TypeError, {"python": 3.11}, "Host(python=3.11): expected a command or path such as 'python3.12'"),
        (TypeError, {"python": ["python3", None]}, "Host(python=['python3', None]): expected a command or path"),
        (ValueError, {"python": []}, "Host(python=[]): expected a command or path"),
        (ValueError, {"python": " "}, "Host(python=' '): expected a command or path"),
        (ValueError, {"python": "a\nb"}, "Host(python='a\\nb'): expected a command or path"),
        (ValueError, {"python": "nice python3"}, "expected one command without arguments; what else has to run"),
        (TypeError, {"setup": ["a"]}, "Host(setup=['a']): expected shell commands, or None"),
        (ValueError, {"setup": " "}, "Host(setup=' '): expected shell commands, or None"),
        (ValueError, {"setup": "a\0"}, "Host(setup='a\\x00'): expected shell commands, or None"),
        (TypeError, {"env": "A=1"}, "Host(env='A=1'): expected a mapping of names to texts"),
        (ValueError, {"env": {"A-B": "1"}}, "Host(env={'A-B': ...}): expected the name of an environment variable"),
        (TypeError, {"env": {"A": 1}}, "Host(env={'A': 1}): expected text for its value"),
        (ValueError, {"env": {"A": "\0"}}, "Host(env={'A': '\\x00'}): expected text without NUL characters"),
        (TypeError, {"options": []}, "Host(options=[]): expected a mapping of keyword arguments for asyncssh.connect"),
        (TypeError, {"options": {1: 2}}, "Host(options={1: 2}): expected a mapping of keyword arguments"),
        (ValueError, {"options": {"port": 2}}, "Host(options={'port': ...}): that is no option; write Host(..., port="),
        (ValueError, {"options": {"sock": 2}}, "that is no option; a connection is made anew whenever it is lost"),
    ],
)
def test_nonsense(kind: type[Exception], fields: dict[str, Any], text: str) -> None:
    """A host refuses nonsense when it is made, and says which field has which value."""
    with pytest.raises(kind, match=re.escape(text)):
        Host(**{"machine": "node1", **fields})


def test_secrets_are_not_shown() -> None:
    """The repr of a host shows what differs from the defaults, and of variables and options only their names."""
    assert repr(Host("node1")) == "Host('node1')"
    assert repr(FULL) == (
        "Host('node2', username='me', port=2222, slots=8, weight=2.5, python=('~/venv/bin/python', 'python3'), "
        "setup='. ~/env/bin/activate', env=<TOKEN>, options=<client_keys, passphrase>)"
    )


@pytest.mark.parametrize("again", [lambda host: pickle.loads(pickle.dumps(host)), copy.copy, copy.deepcopy])
def test_hosts_travel(again: Any) -> None:
    """A host can be pickled and copied, and stays equal to itself."""
    assert again(FULL) == FULL
    assert hash(again(FULL)) == hash(FULL)


def test_hosts_are_records() -> None:
    """Hosts are equal when all their fields are; they can be keys, whatever their options are; nothing changes them."""
    options = {"client_keys": ["a"]}
    host = Host("node1", options=options)
    assert host == Host("node1", options={"client_keys": ["a"]})
    assert host != Host("node1")
    assert len({host, Host("node1"), Host("node1", options=options)}) == 2
    options["passphrase"] = "later"
    assert host != Host("node1", options=options)
    with pytest.raises(TypeError):
        host.options["x"] = 1  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        host.slots = 3  # type: ignore[misc]
    assert dataclasses.replace(host, slots=3).slots == 3


def test_a_host_may_be_a_jump_host() -> None:
    """Another host may stand among the options, as the one to go through."""
    host = Host("node1", options={"tunnel": Host("bastion")})
    assert pickle.loads(pickle.dumps(host)) == host
