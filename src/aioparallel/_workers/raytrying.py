"""Before Ray is asked to connect to an address, the address is tried, so that a mistake is told soon.

``ray.init`` hangs for minutes on a port that refuses, so a plain connection is tried first; and a cluster that wants a
token answers it after 20 seconds, and does not say so, so a client of the control store is tried as well.
"""

from __future__ import annotations

import socket

from .._model.errors import HostError
from .rayerrors import cannot_connect, wants_token

__all__ = ["try_address", "try_what_is_found"]

TCP_SECONDS = 3.0
"""So long an address may take to accept a connection."""
DEFAULT_PORT = 6379


def try_address(address: str) -> None:
    """Raise, soon, if nobody answers there, or not to us."""
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":") if ":" in place else (place, "", str(DEFAULT_PORT))
    try:
        socket.create_connection((host.strip("[]"), int(port)), TCP_SECONDS).close()
    except ValueError as error:
        raise HostError(f"address={address!r}: expected host:port, or 'auto'", host=address, phase="connect") from error
    except socket.gaierror as error:
        raise HostError(f"{address}: there is no host {host!r}: {error}", host=host, phase="dns") from error
    except OSError as error:
        raise HostError(
            f"{address}: no Ray cluster answers there ({error}). Does it run, and is this the port of its head "
            f"(usually {DEFAULT_PORT})?",
            host=host,
            phase="connect",
        ) from error
    if not address.startswith("ray://"):
        _try_control_store(address)


def try_what_is_found() -> None:
    """The same for the cluster that Ray finds on this machine; it uses a token for that by itself, if it has one."""
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # other names: then ray.init has to find out
        return
    try:
        address = canonicalize_bootstrap_address("auto")
    except ConnectionError as error:
        raise cannot_connect("auto", error) from error
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if address is not None:
        _try_control_store(address)


def _try_control_store(address: str) -> None:
    try:
        from ray._raylet import GcsClient
        from ray.exceptions import AuthenticationError
    except ImportError:  # a Ray without tokens, or with other names: then ray.init has to say it
        return
    try:
        GcsClient(address=address)
    except AuthenticationError as error:
        raise wants_token(address, str(error)) from error
    except Exception:
        return  # whatever it is, ray.init says it better
