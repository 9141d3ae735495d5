"""Routes: how to get to a host, as its fields and the user's ssh configuration say together.

What asyncssh makes of both is asked of asyncssh itself. Two things are decided here:

* **Jump hosts** (``ProxyJump``, or the option ``tunnel``) become hosts of their own, so that all who go through one
  share one login there, under the same checks as everywhere. asyncssh alone would log in there for each target.
* **Known hosts** are checked unless ``options={"known_hosts": None}`` says otherwise. An ``UserKnownHostsFile none`` in
  the configuration does not: ssh still asks its user then, and here nobody is asked.

Importing this module imports asyncssh.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from .._model.hosts import Host, SshSettings

__all__ = ["Route", "SshSettings", "resolve"]

CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""In front of asyncssh's own: they cost the least where the CPU helps, which is nearly everywhere."""

HOST_KEYS = "+ssh-ed25519,ecdsa-sha2-nistp*,rsa-sha2-*"
"""Behind those that are known of a host: asyncssh would leave them out, and a host with a new key could not show it."""

SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

KEYS = (
    "agent_identities",
    "client_certs",
    "client_host_certs",
    "client_host_keys",
    "client_host_keysign",
    "client_keys",
    "passphrase",
    "pkcs11_pin",
    "pkcs11_provider",
)
"""Options that take time to prepare, and do not matter for the way."""

HANDED_ON = (
    "agent_path",
    "client_certs",
    "client_keys",
    "config",
    "connect_timeout",
    "gss_host",
    "keepalive_count_max",
    "keepalive_interval",
    "known_hosts",
    "login_timeout",
    "passphrase",
)
"""Options that hold for a jump host too that is given by its name only: there is no other place to say them."""


@dataclass(frozen=True)
class Route:
    """The way to a host.

    Attributes:
        machine: The name or address to connect to; not always the one that the user wrote.
        port: The port there.
        username: Whom to log in as.
        jump: The host to go through.
        proxied: Whether the user's ``ProxyCommand`` makes the connection.
        known_hosts: Who is believed to be who, in asyncssh's terms; ``None`` when that is not checked.
        files: The files that this was read from.
        alias: The name under which the host is known, if it is not that of the machine.
        connect_timeout: See :class:`SshSettings`.
        family: The address family, 0 for any.
        local_addr: The address to connect from.
        arguments: For ``asyncssh.connect``.
    """

    machine: str
    port: int
    username: str
    jump: Host | None
    proxied: bool
    known_hosts: Any
    files: tuple[str, ...]
    alias: str
    connect_timeout: float
    family: int
    local_addr: Any
    arguments: Mapping[str, Any]


def resolve(host: Host, settings: SshSettings) -> Route:
    """Find the way to a host. It reads files, and may run what the configuration says; so it belongs into a thread.

    Raises:
        OSError: A file that is named cannot be read.
        ValueError: The configuration, or an option, makes no sense to asyncssh.
        TypeError: An option is none that asyncssh knows.
    """
    options = dict(host.options or {})
    tunnel = options.pop("tunnel", ())
    timeout = options.pop("connect_timeout", ())
    options.setdefault("config", ())  # the user's own
    found = asyncssh.SSHClientConnectionOptions(
        **{name: value for name, value in options.items() if name not in KEYS},
        client_keys=None,
        connect_timeout=timeout,
        **_address(host),
    )
    known_hosts, files = _known_hosts(options, found.config)
    jump = _jump(host, found.tunnel if tunnel == () else tunnel)
    return Route(
        machine=found.host,
        port=found.port,
        username=found.username,
        jump=jump,
        proxied=bool(found.proxy_command) and jump is None,
        known_hosts=known_hosts,
        files=files,
        alias=found.host_key_alias or found.host,
        connect_timeout=settings.connect_timeout if found.connect_timeout is None else found.connect_timeout,
        family=found.family,
        local_addr=found.local_addr,
        arguments={
            **_defaults(options, found.config, settings),
            **options,
            **_address(host),
            "known_hosts": known_hosts,
            "connect_timeout": None,
        },
    )


def _address(host: Host) -> dict[str, Any]:
    """What a host says of its address, in asyncssh's terms: an empty tuple leaves it to the configuration."""
    return {"host": host.machine, "port": host.port or (), "username": host.username or ()}


def _defaults(options: Mapping[str, Any], config: Any, settings: SshSettings) -> dict[str, Any]:
    """What we choose where neither the host nor the user's configuration has chosen."""
    chosen = {
        "agent_forwarding": ("", False),
        "login_timeout": ("", settings.login_timeout),
        "encryption_algs": ("Ciphers", CIPHERS),
        "compression_algs": ("Compression", None),
        "server_host_key_algs": ("HostKeyAlgorithms", HOST_KEYS),
        "keepalive_interval": ("ServerAliveInterval", settings.keepalive_interval),
        "keepalive_count_max": ("ServerAliveCountMax", settings.keepalive_count_max),
    }
    return {
        name: value for name, (setting, value) in chosen.items() if name not in options and config.get(setting) is None
    }


def _known_hosts(options: Mapping[str, Any], config: Any) -> tuple[Any, tuple[str, ...]]:
    """Who is believed to be who, and the files that say so."""
    if options.get("known_hosts", ()) != ():
        given = options["known_hosts"]
        named = [given] if isinstance(given, (str, os.PathLike)) else given if isinstance(given, list) else []
        files = tuple(os.fspath(each) for each in named if isinstance(each, (str, os.PathLike)))
        return (list(files) if files else given), files
    users = config.get("UserKnownHostsFile", ["~/.ssh/known_hosts"])
    systems = config.get("GlobalKnownHostsFile", [SYSTEM_KNOWN_HOSTS])
    files = tuple(str(path) for name in [*users, *systems] if os.access(path := Path(name).expanduser(), os.R_OK))
    return (list(files) if files else b""), files


def _jump(host: Host, tunnel: Any) -> Host | None:
    """The jump host as a host; of several, the last, which is reached through the one before it."""
    if tunnel is None or isinstance(tunnel, Host):
        return tunnel
    jump: Host | None = None
    shared = {name: value for name, value in (host.options or {}).items() if name in HANDED_ON}
    if shared.get("known_hosts", ()) is None:
        del shared["known_hosts"]  # that word was for this host alone
    for address in str(tunnel).split(","):
        through = {} if jump is None else {"tunnel": jump}
        jump = Host(address.strip(), options={**shared, **through})
    assert jump is not None, "splitting text gives at least one piece"
    return None if jump.machine == host.machine else jump
