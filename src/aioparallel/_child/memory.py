"""Memory for what is too large for a receive buffer: fresh, writable, and quick to fill.

Filling fresh memory costs a page fault every 4 KiB, which is most of what a large array's
journey takes; where the kernel offers huge pages, it is one every 2 MiB. And a
``bytearray`` would be written twice, first with zeros.
"""

from __future__ import annotations

import mmap

LARGE = 1 << 20


def room(length: int) -> memoryview:
    """Writable memory that lives as long as anything that was made of it."""
    if length < LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return memoryview(bytearray(length))
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without them
    return memoryview(memory)


def mapped(path: str, places: list[tuple[int, int]]) -> list[memoryview]:
    """Buffers in a file that others map as well; what is written to them here stays here."""
    with open(path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return [memory[start : start + length] for start, length in places]
