"""What a single thread waits for: descriptors, each with what is to be done when something happens to it."""

from __future__ import annotations

import os
import select
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IN = select.POLLIN
OUT = select.POLLOUT
BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL
WRITE_PARTS = 16


class Poll:
    """Descriptors and their handlers."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._ignored: set[int] = set()
        """Since the last wait: what has happened to these may have happened to others of the same number."""

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """From now on, call ``handler(event)`` for these events, and whenever the descriptor breaks."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, events)

    def ignore(self, descriptor: int) -> None:
        """From now on, pay no heed to a descriptor; nothing happens if none was paid."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            self._ignored.add(descriptor)

    def wait(self, milliseconds: float | None) -> None:
        """Wait, once, and handle what has happened."""
        self._ignored.clear()
        for descriptor, event in self._poll.poll(milliseconds):
            handler = self._handlers.get(descriptor)
            if handler is not None and descriptor not in self._ignored:
                handler(event)


class Outlet:
    """Bytes on their way out of a descriptor that must not block.

    Args:
        poll: Waits until there is room.
        descriptor: Where they go.
        on_broken: Called when nobody will ever read them.
    """

    def __init__(self, poll: Poll, descriptor: int, on_broken: Callable[[], None]) -> None:
        self.waiting = 0
        """How many bytes wait for room."""
        self.sent = 0
        """How many bytes have gone."""
        self.on_room: Callable[[], None] | None = None
        """Called when some that waited have gone."""
        self._poll = poll
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._parts: deque[memoryview] = deque()
        os.set_blocking(descriptor, False)

    def write(self, *parts: bytes | memoryview) -> None:
        """Send these, in order; at once, as far as there is room."""
        sent = 0
        if not self._parts:
            try:
                sent = os.writev(self._descriptor, parts)
            except BlockingIOError:
                pass
            except OSError:
                self._break()
                return
            if sent == sum(map(len, parts)):  # nearly always
                self.sent += sent
                return
            self._poll.watch(self._descriptor, OUT, self._on_event)
        for part in parts:
            if part:
                self._parts.append(memoryview(part))
                self.waiting += len(part)
        self._drop(sent)

    def clear(self) -> None:
        """Forget what has not been sent."""
        self._parts.clear()
        self.waiting = 0
        self._poll.ignore(self._descriptor)

    def _on_event(self, event: int) -> None:
        if event & BROKEN and not event & OUT:
            self._break()
            return
        self._flush()
        if not self._parts:
            self._poll.ignore(self._descriptor)
        if self.on_room is not None:
            self.on_room()

    def _flush(self) -> None:
        parts = self._parts
        try:
            while parts:
                self._drop(os.writev(self._descriptor, [*parts] if len(parts) <= WRITE_PARTS else self._first()))
        except BlockingIOError:
            pass
        except OSError:
            self._break()

    def _drop(self, sent: int) -> None:
        """So much of what waited has gone."""
        parts = self._parts
        self.waiting -= sent
        self.sent += sent
        while sent:
            if sent < len(parts[0]):
                parts[0] = parts[0][sent:]
                return
            sent -= len(parts.popleft())

    def _first(self) -> list[memoryview]:
        return [self._parts[index] for index in range(WRITE_PARTS)]

    def _break(self) -> None:
        self.clear()
        self._on_broken()
