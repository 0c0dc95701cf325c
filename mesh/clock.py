"""Time, as something that can be handed in: production uses the system's, tests move theirs by hand."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. Seconds throughout."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling ends the wait."""
        ...


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall(self) -> float:
        """See Clock."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)


SYSTEM = SystemClock()


class Deadline:
    """A point in time by which everything must be over. Passed down whole, never restarted."""

    __slots__ = ("_at", "_clock")

    def __init__(self, seconds: float, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._at = clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; 0.0 when it has passed."""
        return max(0.0, self._at - self._clock.monotonic())

    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left() <= 0.0

    def cap(self, seconds: float) -> float:
        """The shorter of `seconds` and what is left."""
        return min(seconds, self.left())

    def within(self, seconds: float) -> Deadline:
        """One that passes after `seconds`, or with this one if that is sooner."""
        return Deadline(self.cap(seconds), self._clock)
