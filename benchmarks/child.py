"""The smallest worker there can be, for the floors: a child with a blocking loop on a Unix socket.

``python -m benchmarks.child echo FD`` sends back what it reads. ``... frames FD`` reads frames that hold a
pickled function and a list of items, and sends back a frame with the list of results. A frame is its
length (8 bytes, native order) and its bytes.
"""

from __future__ import annotations

import pickle
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LENGTH", "child", "pack", "unpack"]

LENGTH = struct.Struct("=Q")


@contextmanager
def child(mode: str) -> Iterator[socket.socket]:
    """A running child, as our end of the socket pair; it ends when that is closed."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "benchmarks.child", mode, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]):
        theirs.close()
        with ours:
            yield ours


def pack(payload: Any) -> bytes:
    """A frame that holds ``payload``."""
    data = pickle.dumps(payload, protocol=5)
    return LENGTH.pack(len(data)) + data


def unpack(connection: socket.socket) -> Any:
    """What the next frame from a child holds; blocking."""
    (length,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
    return pickle.loads(connection.recv(length, socket.MSG_WAITALL))


def echo(connection: socket.socket) -> None:
    """Send everything back."""
    while data := connection.recv(65536):
        connection.sendall(data)


def frames(connection: socket.socket) -> None:
    """Call what each frame asks for."""
    with connection.makefile("rb") as stream:
        while head := stream.read(LENGTH.size):
            fn, items = pickle.loads(stream.read(*LENGTH.unpack(head)))
            connection.sendall(pack([fn(item) for item in items]))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[2])) as end:
        {"echo": echo, "frames": frames}[sys.argv[1]](end)
