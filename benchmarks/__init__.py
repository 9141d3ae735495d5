"""Benchmarks: aioparallel beside its rivals and the floors, measured in one run. See ``docs/performance.md``."""

from __future__ import annotations
