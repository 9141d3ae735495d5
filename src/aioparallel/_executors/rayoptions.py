"""What a call on Ray may be told beside the options of every call: what it takes, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._model.options import CallOptions

__all__ = ["RayOptions"]


@dataclass(frozen=True)
class RayOptions(CallOptions):
    """The options of one call on Ray.

    Attributes:
        num_cpus: How many CPUs it takes; Ray's default is 1.
        num_gpus: How many GPUs it takes.
        resources: What else it takes: names and numbers.
        runtime_env: The environment that it runs in.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Mapping[str, float] | None = None
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
                raise ValueError(f"{name}={value!r}: expected a number, 0 or more, or None")
        for name in ("resources", "runtime_env"):
            if not isinstance(getattr(self, name), (Mapping, type(None))):
                raise TypeError(f"{name}={getattr(self, name)!r}: expected a dict, or None")

    def with_all_of(self, options: CallOptions) -> RayOptions:
        """Plain options, with these beside them."""
        return options if isinstance(options, RayOptions) else RayOptions(**{**vars(self), **vars(options)})

    def demands(self) -> dict[str, Any]:
        """What Ray is told of the call."""
        told = {name: getattr(self, name) for name in ("num_cpus", "num_gpus", "resources", "runtime_env")}
        return {name: value for name, value in told.items() if value is not None}
