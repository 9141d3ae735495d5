"""What Ray says, in our words: instead of the answer of a call, and when it does not start or connect."""

from __future__ import annotations

import time

from .._model.call import Call
from .._model.errors import (
    CallCancelledError,
    HostError,
    StoreFullError,
    WorkerLostError,
    WorkerStartError,
)

__all__ = ["age", "cannot_connect", "cannot_start", "is_elsewhere", "translated", "wants_token"]


def translated(call: Call, error: BaseException) -> Exception:
    """What Ray says instead of an answer, in our words: a :exc:`WorkerLostError` if nobody knows how far it came."""
    from ray import exceptions as said

    text = str(error).strip().partition("\n")[0] or type(error).__name__
    problem: Exception
    if isinstance(error, (said.ObjectStoreFullError, said.OutOfDiskError)):
        problem = StoreFullError(
            f"{call.name}: the object store of the Ray cluster is full, and so is its disk. Make fewer or smaller "
            f"arguments and results at a time, or give the cluster more of both ({text})",
            call=call.name,
        )
    elif isinstance(error, said.TaskCancelledError) and call.stop is None:
        problem = CallCancelledError(f"{call.name} was cancelled by somebody who has asked Ray for it")
    elif isinstance(error, (said.RuntimeEnvSetupError, said.RayTaskError)):
        problem = WorkerStartError(f"{call.name}: Ray has no worker that can run it: {error}")
    else:
        problem = WorkerLostError(
            f"{call.name}: the Ray worker that ran it is gone, {age(call):.1f} s in ({text})",
            call=call.name,
            worker=str(call.worker),
            running_for=age(call),
            crashed=_is_a_crash(error),
            out_of_memory=text if isinstance(error, said.OutOfMemoryError) else None,
        )
    problem.__cause__ = error
    return problem


def _is_a_crash(error: BaseException) -> bool:
    """Whether the worker process has ended, and not the node with it."""
    from ray import exceptions as said

    if isinstance(error, said.ActorDiedError):
        return "node has died" not in str(error)
    return isinstance(error, (said.WorkerCrashedError, said.OutOfMemoryError))


def age(call: Call) -> float:
    """How long ago a call began, as far as that is known."""
    now = time.time()
    return now - (call.begun_at or now)


def is_elsewhere(here: str, there: str) -> HostError:
    return HostError(
        f"this process is connected to Ray at {here}, and cannot be connected to {there} as well: close what uses the "
        "other one first",
        host=there,
        phase="connect",
    )


def cannot_start(error: Exception) -> Exception:
    return WorkerStartError(f"Ray cannot be started on this machine: {type(error).__name__}: {error}")


def cannot_connect(address: str, error: Exception) -> HostError:
    text = f"{type(error).__name__}: {error}"
    if "ersion mismatch" in text:
        return HostError(
            f"{address}: this process and the cluster do not fit together: {text}", host=address, phase="python"
        )
    if "uthenticat" in text or "oken" in text:
        return wants_token(address, text)
    if address == "auto":
        return HostError(
            "no Ray cluster is found on this machine: start one with `ray start --head`, name its address, or leave "
            f"the address out to have one of your own ({text})",
            host=address,
            phase="connect",
        )
    return HostError(f"{address}: Ray does not connect: {text}", host=address, phase="connect")


def wants_token(address: str, text: str) -> HostError:
    return HostError(
        f"{address}: the cluster wants a token that this process does not have. Before the program starts, set "
        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, or put it into ~/.ray/auth_token): on the "
        f"cluster's head `ray get-auth-token` shows it ({text})",
        host=address,
        phase="auth",
    )
