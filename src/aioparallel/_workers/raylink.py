"""The link to Ray: a connection that executors share, and what runs in Ray's workers.

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
* Before Ray is asked to connect to an address, the address is tried: by a plain connection, since ``ray.init`` hangs
  for minutes on a port that refuses, and by a client of the control store, since a cluster that wants a token answers
  ``ray.init`` after 20 seconds, and does not say so.
* Ray is left as it was found: environment variables that it sets are taken back. A local Ray gets a token that only
  this process and its children know, so nothing is written to the home folder, which need not exist.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import _child
from .._model.errors import HostError, WorkerStartError

__all__ = ["Link", "enter", "later_path", "remote_functions"]

TCP_SECONDS = 3.0
"""So long an address may take to accept a connection."""
DEFAULT_PORT = 6379
PACKAGE = "_aioparallel_child"
"""The name that the child travels under."""


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
            if self._up.done():
                _log.exception("the connection to Ray did not end well")
            else:
                self._up.set_exception(error)
            with _lock:
                _forget(self)
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
            raise _is_elsewhere(link.address or "a place of its own", str(address))
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
            raise _is_elsewhere(here, str(address))
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
        _try_what_is_found()
    else:
        _try(wanted)
    try:
        with _quiet_logger():
            ray.init(address=address, **{"configure_logging": False, "log_to_driver": True, **options})
    except Exception as error:
        raise (_cannot_start(error) if wanted == "local" else _cannot_connect(wanted, error)) from error


def _is_elsewhere(here: str, there: str) -> HostError:
    return HostError(
        f"this process is connected to Ray at {here}, and cannot be connected to {there} as well: close what uses the "
        "other one first",
        host=there,
        phase="connect",
    )


def _cannot_start(error: Exception) -> Exception:
    return WorkerStartError(f"Ray cannot be started on this machine: {type(error).__name__}: {error}")


def _cannot_connect(address: str, error: Exception) -> HostError:
    text = f"{type(error).__name__}: {error}"
    if "ersion mismatch" in text:
        return HostError(
            f"{address}: this process and the cluster do not fit together: {text}", host=address, phase="python"
        )
    if "uthenticat" in text or "oken" in text:
        return _wants_token(address, text)
    if address == "auto":
        return HostError(
            "no Ray cluster is found on this machine: start one with `ray start --head`, name its address, or leave "
            f"the address out to have one of your own ({text})",
            host=address,
            phase="connect",
        )
    return HostError(f"{address}: Ray does not connect: {text}", host=address, phase="connect")


def _wants_token(address: str, text: str) -> HostError:
    return HostError(
        f"{address}: the cluster wants a token that this process does not have. Before the program starts, set "
        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, or put it into ~/.ray/auth_token): on the "
        f"cluster's head `ray get-auth-token` shows it ({text})",
        host=address,
        phase="auth",
    )


def _try(address: str) -> None:
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


def _try_what_is_found() -> None:
    """The same for the cluster that Ray finds on this machine; it uses a token for that by itself, if it has one."""
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # other names: then ray.init has to find out
        return
    try:
        address = canonicalize_bootstrap_address("auto")
    except ConnectionError as error:
        raise _cannot_connect("auto", error) from error
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
        raise _wants_token(address, str(error)) from error
    except Exception:
        return  # whatever it is, ray.init says it better


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


# What runs in Ray's workers


def _texts() -> dict[str, str]:
    """The modules of the child, by the names that they travel under."""
    folder = Path(_child.__file__).parent
    names = {file: PACKAGE if file.stem == "__init__" else f"{PACKAGE}.{file.stem}" for file in folder.glob("*.py")}
    return {name: file.read_text(encoding="utf-8") for file, name in names.items()}


def _functions(texts: dict[str, str], path: list[str]) -> tuple[Any, Any, Any]:
    """What Ray is to run: a function, the same that tells when it begins, and an actor.

    They travel by value and need nothing of ours over there: the child's modules travel inside them, as text.
    """

    def guest() -> Any:
        import sys

        name = "_aioparallel_child.guest"
        if name in sys.modules:
            return sys.modules[name]
        from importlib import import_module
        from importlib.util import find_spec, spec_from_loader

        class Texts:
            def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
                package = name == "_aioparallel_child"
                return spec_from_loader(name, self, is_package=package) if name in texts else None  # type: ignore[arg-type]

            def create_module(self, spec: Any) -> None:
                return None

            def exec_module(self, module: Any) -> None:
                exec(compile(texts[module.__name__], f"<{module.__name__}>", "exec"), module.__dict__)

            def get_source(self, name: str) -> str:
                return texts[name]

        sys.meta_path.append(Texts())
        if find_spec("cloudpickle") is None:  # Ray has one of its own
            import ray.cloudpickle

            sys.modules["cloudpickle"] = ray.cloudpickle
            sys.modules["cloudpickle.cloudpickle"] = ray.cloudpickle.cloudpickle
        import_module(name).follow(path)
        return sys.modules[name]

    def answer(envelope: bytes, *buffers: Any) -> Any:
        return guest().answer(envelope, *buffers)

    def tell_and_answer(envelope: bytes, *buffers: Any) -> Iterator[Any]:
        yield None
        yield guest().answer(envelope, *buffers)

    class Resident:
        def answer(self, envelope: bytes, *buffers: Any) -> Any:
            return guest().answer(envelope, *buffers)

        def leave(self) -> None:
            guest().leave()

    for each in (guest, answer, tell_and_answer, Resident):
        each.__module__ = "__main__"  # what is defined there goes by value
    return answer, tell_and_answer, Resident


_made: dict[str, Any] = {}
_path: list[str] = []
"""Where modules were found when these were made."""


def later_path() -> list[str]:
    """Where else modules are found by now."""
    return [entry for entry in _absolute_path() if entry not in _path]


def _absolute_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path]


def remote_functions() -> tuple[Any, Any, Any]:
    """Ray's own objects for these: made once, for Ray exports each of them once to each cluster."""
    import ray

    if not _made:
        _path.extend(_absolute_path())
        answer, telling, resident = _functions(_texts(), _path)
        _made["answer"] = ray.remote(max_retries=0)(answer)
        _made["telling"] = ray.remote(max_retries=0, num_returns="streaming")(telling)
        _made["resident"] = ray.remote(max_restarts=0, max_task_retries=0)(resident)
    return _made["answer"], _made["telling"], _made["resident"]
