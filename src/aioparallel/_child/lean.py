"""What the agent and the workers import from the standard library, as lean as it gets.

A pool is ready when its agent has started, so the agent's imports are what opening a pool
costs. The public faces of these modules pull in ``enum``, ``re``, ``typing`` and
``threading``, which takes three times as long as everything else that happens here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    import signal
    import socket
    from importlib.machinery import ModuleSpec, PathFinder
    from queue import SimpleQueue
else:
    try:
        import _pickle as pickle
        import _signal as signal
        import _socket as socket
        from _frozen_importlib import ModuleSpec
        from _frozen_importlib_external import PathFinder
        from _queue import SimpleQueue
    except ImportError:  # an interpreter that does not have those names
        import pickle
        import signal
        import socket
        from importlib.machinery import ModuleSpec, PathFinder
        from queue import SimpleQueue

__all__ = ["ModuleSpec", "PathFinder", "SimpleQueue", "pickle", "signal", "socket"]
