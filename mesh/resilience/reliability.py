"""How reliable a target has been of late: what a breaker, which looks for failures in a row, does not see."""

from __future__ import annotations

from typing import Final

# What one outcome weighs against those before it, and how long it takes until half of what was learned is forgotten:
# whoever is asked less because of it has to be found well again.
_WEIGHT: Final = 0.1
_HALF_LIFE_S: Final = 30.0
# A success counts as proof for this long, as long as failures are rare.
_PROOF_S: Final = 10.0
_RARE: Final = 0.1


class Reliability:
    """An exponentially weighted share of failures, which fades with time. Seconds of a monotonic clock."""

    __slots__ = ("_at", "_rate", "answered_at")

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = 0.0
        # When it last began to answer; 0.0 if it never has.
        self.answered_at = 0.0

    def failing(self, now: float) -> float:
        """The share of calls that failed of late, 0 to 1."""
        return self._rate * 0.5 ** ((now - self._at) / _HALF_LIFE_S) if self._rate else 0.0

    def proven(self, now: float) -> bool:
        """Whether it has answered just now, and fails rarely."""
        return self.answered_at > 0.0 and now - self.answered_at <= _PROOF_S and self.failing(now) < _RARE

    def add(self, failed: bool, now: float) -> None:
        """Take in how a call ended."""
        rate = self.failing(now)
        self._rate = rate + _WEIGHT * (failed - rate)
        self._at = now

    def answered(self, now: float) -> None:
        """It has begun to answer a call."""
        self.answered_at = now
