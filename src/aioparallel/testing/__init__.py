"""What tests need, ours and yours: so far, ssh hosts that run in the test itself, and can be broken."""

from __future__ import annotations

from .hosts import SshHost, ssh_host, ssh_hosts
from .relay import Relay

__all__ = ["Relay", "SshHost", "ssh_host", "ssh_hosts"]
