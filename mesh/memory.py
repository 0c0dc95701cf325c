"""Giving memory back to the system after something large: allocators keep what was freed, for the next time."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

# Large things seldom come alone.
_AFTER_S: Final = 1.0
# glibc's names: larger blocks are mapped one by one; heaps besides the first, one a thread.
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 128 * 1024


class GiveBack:
    """Gives back what is free a moment after the last large thing was done with. Used on one event loop.

    Collecting and trimming take milliseconds, and happen once for all that asked for it within a second.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        # Not glibc, or an old one: nothing is given back then.
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        limit = getattr(library, "mallopt", None)
        if limit is not None:
            # Or the first large block that is freed makes the next ones share the heap with small ones, between which
            # nothing can be given back.
            limit(_M_MMAP_THRESHOLD, _LARGE_BYTES)
            limit(_M_ARENA_MAX, 1)

    def soon(self) -> None:
        """Something large was done with."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AFTER_S, self._now)

    def _now(self) -> None:
        self._timer = None
        gc.collect()
        if self._trim is not None:
            self._trim(0)
