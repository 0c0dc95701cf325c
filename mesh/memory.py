"""Giving memory back to the system after something large: allocators keep what was freed, for the next time."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

# Large things seldom come alone.
_AFTER_S: Final = 1.0


class GiveBack:
    """Gives back what is free a moment after the last large thing was done with. Used on one event loop.

    Collecting and trimming take milliseconds, and happen once for all that asked for it within a second.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        # Not glibc, or an old one: nothing is given back then.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def soon(self) -> None:
        """Something large was done with."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AFTER_S, self._now)

    def _now(self) -> None:
        self._timer = None
        gc.collect()
        if self._trim is not None:
            self._trim(0)
