"""Several machines on one: network namespaces, joined by a bridge, each with a real ssh server and a real network.

So they can be cut off as machines are: packets vanish, links go down, power fails. It needs root, and programs from
Debian's packages ``iproute2`` and ``iptables``.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.remote.openssh import IS_ROOT, Sshd, World, run, send

__all__ = ["Machine", "Netlab", "netlab"]


def why_not() -> str | None:
    """Why there can be none here."""
    if not IS_ROOT:
        return "network namespaces need root"
    missing = [program for program in ("ip", "iptables", "nsenter") if not shutil.which(program)]
    return f"{', '.join(missing)} is missing (Debian: apt-get install iproute2 iptables)" if missing else None


class Machine:
    """One of them.

    Attributes:
        sshd: Its server.
    """

    def __init__(self, lab: Netlab, number: int) -> None:
        self.name = f"{lab.name}n{number}"
        self.address = f"{lab.net}.{10 + number}"
        self._link = f"{lab.name}v{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", self._link, "master", lab.name, "up")
        run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run("ip", "-n", self.name, "link", "set", device, "up")
        self.sshd = Sshd(lab.world, lab.lines, address=self.address, net=self.name, port=22)

    def partition(self) -> None:
        """Let all packets from and to it vanish."""
        for chain in ("INPUT", "OUTPUT"):
            self._iptables("-A", chain, "-j", "DROP")

    def reject(self) -> None:
        """Answer everything with a reset, as a machine does that has been started again."""
        self._iptables("-A", "INPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")

    def lose(self, share: float) -> None:
        """Lose this share of the packets that it gets."""
        self._iptables("-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP")

    def unplug(self) -> None:
        """Pull the cable."""
        run("ip", "link", "set", self._link, "down")

    def power_off(self) -> None:
        """Be gone from one moment to the next: nothing is closed, and nobody is told."""
        run("ip", "link", "del", self._link)
        self.sshd.stop()

    def freeze(self) -> None:
        """Stop everything that runs there; the kernel lives."""
        send(signal.SIGSTOP, *self.sshd.processes, self.sshd.process.pid)

    def heal(self) -> None:
        """Undo all but the loss of power."""
        self._iptables("-F")
        run("ip", "link", "set", self._link, "up")
        send(signal.SIGCONT, *self.sshd.processes, self.sshd.process.pid)

    def close(self) -> None:
        self.sshd.stop()
        for command in (["ip", "netns", "del", self.name], ["ip", "link", "del", self._link]):
            with contextlib.suppress(AssertionError):
                run(*command)

    def _iptables(self, *arguments: str) -> None:
        run("ip", "netns", "exec", self.name, "iptables", "-w", *arguments)


class Netlab:
    """The machines, and the bridge that joins them."""

    def __init__(self, world: World, lines: tuple[str, ...] = ()) -> None:
        self.world = world
        self.lines = lines
        self.machines: list[Machine] = []
        self.name = f"aio{os.urandom(2).hex()}"
        self.net = self._free_net()
        run("ip", "link", "add", self.name, "type", "bridge")
        run("ip", "addr", "add", f"{self.net}.1/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")

    def add(self, count: int) -> None:
        """Switch on some machines."""
        for _ in range(count):
            self.machines.append(Machine(self, len(self.machines)))

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        with contextlib.suppress(AssertionError):
            run("ip", "link", "del", self.name)

    @staticmethod
    def _free_net() -> str:
        routes = run("ip", "route")
        while True:
            net = f"10.{random.randrange(100, 250)}.{random.randrange(1, 250)}"
            if f"{net}." not in routes:
                return net


@contextlib.contextmanager
def netlab(world: World, count: int, *lines: str) -> Iterator[list[Machine]]:
    """Some machines, or a skip where there cannot be any.

    Args:
        world: What their servers run in.
        count: How many.
        *lines: Of the configuration of their servers.
    """
    if reason := why_not():
        pytest.skip(reason)
    try:
        lab = Netlab(world, lines)
    except AssertionError as error:
        pytest.skip(f"no network can be made here: {error}")
    try:
        lab.add(count)
        yield lab.machines
    finally:
        lab.close()
