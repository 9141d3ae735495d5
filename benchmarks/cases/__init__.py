"""One module for each case. A module that is put here is found by itself."""

from __future__ import annotations
