"""The link to Ray: a connection that executors share.

A process can be connected to one Ray. The first executor that needs it connects, the last one that leaves disconnects,
in a thread of its own; its life::

    (none) --first enters--> CONNECTING --ray.init returned--> UP --last leaves--> LEAVING --ray.shutdown--> (none)
                                  `--it failed: whoever waits gets the error--> (none)

* The thread lives as long as the connection: the processes of a local Ray die with the thread that has started them
  (Linux tells children of the death of a *thread*), ``ray.init`` takes seconds in which the loop must go on, and
  outside of the main thread Ray leaves signals alone.
* Who enters while the last connection is LEAVING gets a new one, which waits for the end of that.
* If everybody leaves while it is CONNECTING, it is closed as soon as ``ray.init`` has returned.
* If the program was connected already by itself, that connection is used, and is left alone.
* Before Ray is asked to connect to an address, the address is tried (:mod:`.raytrying`).
* Ray is left as it was found: environment variables that it sets are taken back. A local Ray gets a token that only
  this process and its children know, so nothing is written to the home folder, which need not exist.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .rayerrors import cannot_connect, cannot_start, is_elsewhere
from .raytrying import try_address, try_what_is_found

__all__ = ["Link", "enter"]

_log = logging.getLogger("aioparallel")


class Link:
    """A connection to Ray. :func:`enter` makes it.

    Args:
        address: As for ``ray.init``.
        options: Further arguments of ``ray.init``.
        before: The connection that must have ended first.
    """

    def __init__(self, address: str | None, options: Mapping[str, Any], before: Link | None) -> None:
        self.address = address
        self.users = 1
        self.resources: dict[str, float] = {}
        """What the cluster had when it was entered."""
        self._options = dict(options)
        self._before = before
        self._up: Future[None] = Future()
        self._left = threading.Event()
        self._ended: Future[None] = Future()
        threading.Thread(target=self._keep, name="aioparallel ray", daemon=True).start()

    async def until_up(self) -> None:
        """Wait until calls can be submitted.

        Raises:
            HostError: The cluster cannot be used.
            WorkerStartError: Ray cannot be started here.
        """
        await asyncio.shield(asyncio.wrap_future(self._up))

    async def leave(self) -> None:
        """Say that one executor needs it no more; wait for the end if that was the last one."""
        with _lock:
            if self.users:  # else it has failed, and is forgotten already
                self.users -= 1
                if self.users:
                    return
                self._left.set()
                _forget(self)
        await asyncio.shield(asyncio.wrap_future(self._ended))

    # On its thread

    def _keep(self) -> None:
        try:
            if self._before is not None:
                self._before._ended.result()
            self._before = None
            with _environment_kept(), _connected(self.address, self._options):
                import ray

                self.resources = ray.cluster_resources()
                self._up.set_result(None)
                self._left.wait()
        except BaseException as error:
            with _lock:  # before anybody hears of it and tries again
                _forget(self)
            if self._up.done():
                _log.exception("the connection to Ray did not end well")
            else:
                self._up.set_exception(error)
        finally:
            self._ended.set_result(None)


_lock = threading.Lock()
_current: list[Link] = []
"""The connection of this process, if there is one, and the one before it if that is still ending."""


def enter(address: str | None, options: Mapping[str, Any]) -> Link:
    """The connection of this process to Ray, being made if need be.

    Raises:
        HostError: It is connected to another cluster.
    """
    with _lock:
        link = _current[-1] if _current else None
        if link is None or not link.users:
            _current.append(Link(address, options, link))
            return _current[-1]
        if address not in {None, "auto", link.address}:
            raise is_elsewhere(link.address or "a place of its own", str(address))
        link.users += 1
        return link


def _forget(link: Link) -> None:
    """Under the lock: nobody may enter this one any more."""
    link.users = 0
    if link in _current:
        del _current[: _current.index(link)]


@contextmanager
def _connected(address: str | None, options: dict[str, Any]) -> Generator[None, None, None]:
    """Be connected; as somebody else is, if this process is already."""
    import ray

    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in {None, "auto", "local", here}:
            raise is_elsewhere(here, str(address))
        yield
        return
    _connect(address, options)
    try:
        yield
    finally:
        ray.shutdown()
        with suppress(ImportError, AttributeError):  # it would show our token to other clusters
            from ray._raylet import AuthenticationTokenLoader

            AuthenticationTokenLoader.instance().reset_cache()


def _connect(address: str | None, options: dict[str, Any]) -> None:
    import ray

    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted == "local":
        _give_token()
        options = {"include_dashboard": False, **options}
    elif wanted == "auto":
        try_what_is_found()
    else:
        try_address(wanted)
    try:
        with _quiet_logger():
            ray.init(address=address, **{"configure_logging": False, "log_to_driver": True, **options})
    except Exception as error:
        raise (cannot_start(error) if wanted == "local" else cannot_connect(wanted, error)) from error


def _give_token() -> None:
    """A local Ray is to ask for a token: give it one, unless there is one, or the user wants none."""
    with suppress(RuntimeError, OSError):  # there may be no home folder
        if (Path.home() / ".ray" / "auth_token").exists():
            return
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ["RAY_AUTH_TOKEN"] = _token


_token = secrets.token_hex(32)


@contextmanager
def _environment_kept() -> Generator[None, None, None]:
    """Take back the environment variables that Ray, or we for it, have set."""
    before = _ray_variables()
    try:
        yield
    finally:
        for name in _ray_variables().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _ray_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


@contextmanager
def _quiet_logger() -> Generator[None, None, None]:
    """Ray has a few things to say at its start that concern nobody."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
