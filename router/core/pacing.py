"""How fast a survivor takes over: what fits into its free places at once, the rest spread over a while.

When a replica dies, all that it was doing would otherwise arrive at the others in the same millisecond.
"""

from __future__ import annotations

from typing import Final

# The rest is admitted at this many times the replica's capacity a second: a full replica's work within half a second.
_CAPACITIES_PER_S: Final = 2.0


class Pacer:
    """Spaces out the attempts that a replica inherits. Seconds, monotonic."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def wait(self, now: float, capacity: int, outstanding: int) -> float:
        """Reserve a place; how long to wait before taking it."""
        if outstanding < capacity:
            return 0.0
        interval = 1.0 / (_CAPACITIES_PER_S * max(1, capacity))
        start = max(now, self._next)
        self._next = start + interval
        return start - now
