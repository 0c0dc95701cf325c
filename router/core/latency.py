"""How long a target takes to its first token: a moving average, and the 95th percentile of the last answers."""

from __future__ import annotations

from typing import Final

# The weight of the newest value in the average: about the last ten count.
_ALPHA: Final = 0.2
_WINDOW: Final = 128


class Latency:
    """Seconds, over the last answers of one target."""

    __slots__ = ("_at", "_p95", "_values", "mean")

    def __init__(self) -> None:
        # 0.0 while nothing is known.
        self.mean = 0.0
        self._values: list[float] = []
        self._at = 0
        self._p95: float | None = 0.0

    def add(self, seconds: float) -> None:
        """Take in one answer."""
        self.mean = seconds if not self._values else self.mean + _ALPHA * (seconds - self.mean)
        if len(self._values) < _WINDOW:
            self._values.append(seconds)
        else:
            self._values[self._at] = seconds
            self._at = (self._at + 1) % _WINDOW
        self._p95 = None

    @property
    def p95(self) -> float:
        """The 95th percentile of the last 128 answers; 0.0 while nothing is known."""
        if self._p95 is None:
            ordered = sorted(self._values)
            self._p95 = ordered[int(0.95 * (len(ordered) - 1))]
        return self._p95
