"""What runs on hosts: functions that travel there with this module, and need nothing that is not there."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from aioparallel import Method, current_call, distribute, parallelize
from tests.tools import Gate, Log, hold


@parallelize(method=Method.REMOTE)
def factorial(n: int) -> int:
    return n * factorial.local(n - 1) if n else 1


@distribute(job="ssh")
def score(x: int, y: int, scale: int = 1) -> int:
    return scale * (x + y)


def own_folders() -> list[str]:
    """The folders of ours that this worker has files of in memory."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return sorted(set(re.findall(r"/\S*/aioparallel-[0-9a-f]+(?=/)", maps.read())))


def square(x: int) -> int:
    return x * x


def slow_square(x: int) -> int:
    time.sleep(0.05)
    return x * x


def nap_there(_: int) -> str | None:
    """Say where one has slept."""
    time.sleep(0.01)
    return current_call().host


def where(_: Any = None) -> tuple[str | None, int]:
    """The host and the process that it runs in."""
    return current_call().host, os.getpid()


def hold_at(gate: Gate, value: Any = None) -> Any:
    """Wait at the gate; returns the host besides the value."""
    return current_call().host, hold(gate, value)


def busy_in_c(gate: Gate) -> int:
    """Come to the gate, then do something in C that holds the interpreter for minutes."""
    gate.enter()
    return len(str(math.factorial(5_000_000))) + sum(range(10**12))


def with_child(gate: Gate) -> int:
    """Start a process that leaves its group, and is nobody's business any more; then wait."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, stdin=subprocess.DEVNULL
    )
    Log(f"{gate.path}-entered").write(child.pid)
    hold(gate)
    return child.wait()


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_once(log: Log) -> int:
    """Die the first time, and return how often it was begun the next."""
    log.write(os.getpid())
    if len(log.lines) == 1:
        die()
    return len(log.lines)


def fail_once(log: Log) -> str | None:
    """Fail the first time; then return the host."""
    log.write(current_call().host)
    if len(log.lines) == 1:
        raise OSError("the licence server does not answer")
    return current_call().host


class Counter:
    """Counts its calls, from some number on."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise ValueError(f"{start}: cannot begin below nothing")
        self.count = start

    def __call__(self, _: Any = None) -> int:
        self.count += 1
        return self.count


def tell(text: str) -> None:
    print(text)


def leave(code: int) -> None:
    sys.exit(code)


def make_lock() -> Any:
    return threading.Lock()
