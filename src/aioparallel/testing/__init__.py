"""What tests need, ours and yours.

* A :class:`FakeExecutor`, whose calls the test ends; :class:`aioparallel.SerialExecutor` runs them at once.
* A :class:`ManualClock`, which can be put forward.
* Faults: :class:`Faulty` functions, :func:`kill_worker`, :func:`drop_host`.
* Hosts: :func:`ssh_host` and :func:`ssh_hosts` run ssh servers in the test itself, which can be broken.
* The same as fixtures of pytest: :mod:`aioparallel.testing.fixtures`.
"""

from __future__ import annotations

from .clock import ManualClock
from .fakes import FakeCall, FakeExecutor
from .faults import Die, Exit, Fault, Faulty, Once, Raise, Slow, Unpicklable, drop_host, kill_worker
from .hosts import SshHost, ssh_host, ssh_hosts
from .relay import Relay

__all__ = [
    "Die",
    "Exit",
    "FakeCall",
    "FakeExecutor",
    "Fault",
    "Faulty",
    "ManualClock",
    "Once",
    "Raise",
    "Relay",
    "Slow",
    "SshHost",
    "Unpicklable",
    "drop_host",
    "kill_worker",
    "ssh_host",
    "ssh_hosts",
]
