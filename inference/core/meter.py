"""A rate over the last seconds."""

from __future__ import annotations

from collections import deque


class RateMeter:
    """Events per second over a sliding window of `window_s` seconds; written by one thread, read by any."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._counts: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, count: int, now: float) -> None:
        """Count `count` events at time `now`, in seconds of a clock that does not go back."""
        self._counts.append((now, count))
        self._total += count
        while self._counts[0][0] < now - self._window_s:
            self._total -= self._counts.popleft()[1]

    def rate(self, now: float) -> float:
        """Events per second; 0 once the window has passed without any."""
        counts = list(self._counts)
        recent = [(at, count) for at, count in counts if at >= now - self._window_s]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(now - recent[0][0], 0.1)
