"""Running small programs as users would, and finding the processes that they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROC = Path("/proc")


def run(*arguments: str, cwd: Path | None = None, seconds: float = 30) -> str:
    """Run Python with these arguments; return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(program: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that prints a line when it is where the test wants it."""
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def marked(mark: str) -> list[int]:
    """The processes that were started with this mark in their environment, and live."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"MARK={mark}".encode() in environment.split(b"\0") and state != "Z":
                found.append(int(entry.name))
    return found


def wait_until_none(mark: str, seconds: float) -> list[int]:
    """Wait until no process has the mark; return those that still do after so long."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
